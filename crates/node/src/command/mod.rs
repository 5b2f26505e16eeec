//! The commands of `holdfast`.

pub mod audit;
pub mod init;
pub mod remote;
pub mod rules;
