//! Drivers: each waits, steps one state machine, and carries out its effects in order.
//!
//! No decision of the domain is made here.

pub mod anchor;
pub mod archive;
pub mod beat;
#[cfg(test)]
pub(crate) mod bed;
pub mod book;
pub mod desk;
pub mod detect;
pub mod duty;
pub mod escalate;
pub mod follow;
mod gauge;
pub mod known;
mod late;
pub mod outbox;
pub mod proposer;
pub mod pull;
pub mod record;
pub mod rejoin;
pub mod route;
pub mod serve;
pub mod silence;
pub(crate) mod status;
pub mod streams;
pub(crate) mod trial;

#[cfg(test)]
mod tests;
