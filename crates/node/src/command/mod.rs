//! The commands of `holdfast`.

pub mod alerts;
pub mod audit;
pub mod detection;
pub mod escalation;
pub mod events;
pub mod incidents;
pub mod init;
pub mod notices;
pub mod pipeline;
pub mod remote;
pub mod rules;
pub mod show;
pub mod soc;
pub mod tickets;
