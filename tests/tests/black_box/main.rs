//! What a stranger sees of the built program: real processes on loopback, asked over HTTPS and the command line.
//!
//! The program is `HOLDFAST_BINARY`, or `holdfast` beside the folder of this test; without either, tests say that
//! they were skipped. Every test makes a cluster of its own in a folder of its own, on ports that were free.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod alerts;
mod audit;
mod bed;
mod client;
mod config;
mod contract;
mod detection;
mod escalation;
mod events;
mod hostile;
mod incidents;
mod isolation;
mod people;
mod pipeline;
mod process;
mod records;
mod regions;
mod sessions;
