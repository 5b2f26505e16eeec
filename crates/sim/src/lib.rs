//! The whole cluster on one thread from one seed: the shipped node, over disks, links and clocks of our own.
//!
//! Nothing here is a model of the node: it is the node, started as the program starts it. A run must never depend on
//! the machine, its clock or its randomness; the same seed gives the same trace.

#[cfg(not(tokio_unstable))]
compile_error!("the simulator needs seeded scheduling: build with --cfg tokio_unstable (.cargo/config.toml sets it)");

pub mod check;
pub mod client;
pub mod clock;
pub mod door;
pub mod history;
pub mod nemesis;
pub mod plant;
pub mod plot;
pub mod random;
pub mod run;
pub mod setup;
pub mod sink;
pub mod trace;
pub mod workload;
pub mod world;

pub use plant::Plant;
pub use run::{Options, Report, run};
