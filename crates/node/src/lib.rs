//! The node: the state machines behind the Raft groups, the drivers that wait, and what requests come to.
//!
//! The only crate that knows all others. It waits and wires; what is computed is computed elsewhere.

pub mod command;
pub mod config;
pub mod core;
pub mod driver;
pub mod host;
mod host_certificates;
mod host_rules;
mod host_tasks;
pub mod intake;
pub mod machine;
pub mod node;
pub mod start;
pub mod telemetry;
pub mod world;

pub use node::Node;
pub use start::{Running, Start, StartFailed};
pub use world::World;
