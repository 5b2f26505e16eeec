//! The links as their users see them.

mod conformance;
mod memory;
