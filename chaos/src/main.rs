//! The program `chaos`: drills and the demonstration.

use clap::Parser as _;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let line = chaos::run::Line::parse();
    // Several libraries bring a provider; one must be chosen. Already chosen is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let outcome = tokio::select! {
        biased;
        outcome = interrupted() => outcome,
        outcome = chaos::run::run(line) => outcome,
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("chaos: {error:#}");
        ExitCode::FAILURE
    })
}

/// Ends when somebody interrupts; what was running is dropped, and with it processes and firewall rules.
async fn interrupted() -> anyhow::Result<ExitCode> {
    let (mut interrupt, mut end) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        biased;
        _ = interrupt.recv() => {}
        _ = end.recv() => {}
    }
    eprintln!("interrupted: everything is cleaned up");
    Ok(ExitCode::from(130))
}
