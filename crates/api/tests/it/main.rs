//! The API over a core in memory.

mod client;
mod fake;
mod hostile;
mod openapi;
mod pages;
mod problems;
mod records;
mod server;
mod ui;
