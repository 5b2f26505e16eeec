//! Drivers at work: a whole node in memory, whose time is virtual, and sinks that answer as a test says.

mod bed;
mod calls;
mod incidents;
mod tickets;
