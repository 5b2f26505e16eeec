//! The Core API over HTTP: parses, limits, maps types and problems.
//!
//! It decides nothing and stores nothing: every decision is behind [`Core`], which the node implements.
//! It must never reach a tenant's data without a verified [`identity::Session`].

pub mod core;
mod extract;
mod guard;
mod headers;
pub mod limit;
pub mod openapi;
mod page;
pub mod problem;
mod render;
mod routes;
mod server;
pub mod types;

pub use crate::core::{Answer, Core};
pub use guard::Peer;
pub use openapi::{document, router};
pub use problem::{Missing, Problem, Unauthenticated, Unavailable, Violation};
pub use render::TYPE_BASE;
pub use server::serve;
