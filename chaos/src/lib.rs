//! Drills against real processes: faults injected under a running load, and what came of it.
//!
//! A drill starts a cluster of its own from the shipped program, loads it from every region, injects one fault,
//! heals it, and judges the recorded history. It must never touch a cluster whose environment is production,
//! leave a process, a firewall rule or a directory behind unasked, or count a fault that did not bite.

pub mod access;
pub mod check;
pub mod client;
pub mod cluster;
pub mod demo;
pub mod drill;
pub mod fault;
pub mod history;
pub mod lock;
pub mod measure;
pub mod network;
pub mod place;
pub mod probe;
pub mod process;
pub mod report;
pub mod run;
pub mod scenario;
pub mod takeover;
pub mod tenancy;
pub mod verdict;
pub mod workload;
