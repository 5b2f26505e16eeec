//! The API over a core in memory.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod alerts;
mod client;
mod fake;
mod hostile;
mod openapi;
mod pages;
mod problems;
mod records;
mod server;
mod ui;
