//! The Core API over HTTP: parses, limits, maps types and problems.
//!
//! It decides nothing and stores nothing: every decision is behind [`Core`], which the node implements.
//! It must never reach a tenant's data without a verified [`identity::Session`].

pub mod core;
pub mod problem;
pub mod types;

pub use crate::core::Core;
pub use problem::{Missing, Problem, Unauthenticated, Unavailable, Violation};
