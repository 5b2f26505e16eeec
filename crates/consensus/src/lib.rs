//! One order of commands inside a region: openraft over our log, links and snapshots.
//!
//! Commands and results are bytes: this crate never knows what they mean.
//! It never touches a disk or a socket itself, only [`storage`] and [`transport`] do.

mod error;
mod gate;
mod group;
mod load;
mod log;
mod machine;
mod network;
mod options;
mod runtime;
mod serve;
mod shipment;
mod state;
mod status;
mod types;
mod wire;

pub use error::{ChangeError, ProposeError, StartError};
pub use group::{Applied, Group};
pub use machine::Machine;
pub use options::{COMMAND_BYTES_MAX, GroupOptions, Timing};
pub use runtime::seed;
pub use status::{GroupStatus, Pulse, Role};
pub use wire::{asks_for_vote, group_of};

#[cfg(test)]
extern crate self as consensus;
#[cfg(test)]
mod suite;
#[cfg(test)]
#[path = "../tests/support/machine.rs"]
mod test_machine;
