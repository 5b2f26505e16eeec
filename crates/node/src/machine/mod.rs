//! The state machines behind the Raft groups: what commands mean.
//!
//! Deterministic: no clock, no randomness, nothing outside the entry and the group's own space.

pub mod command;
pub mod control;
pub mod data;
mod defect;
pub mod door;
mod duty;
mod grant;
pub mod keys;
pub mod ledger;
pub mod look;
pub mod note;
pub mod transact;
mod view;

pub use defect::Defect;

#[cfg(test)]
mod door_tests;
#[cfg(test)]
mod duty_tests;
#[cfg(test)]
mod tests;
