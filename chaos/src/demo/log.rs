//! The log of another machine: the one that was given, or one made here, sent as syslog over TCP.

use super::Tour;
use crate::report::date;
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Lines of the log that is made here.
const LINES: u64 = 600;
/// Every so many lines an attacker fails.
const ATTACK_EVERY: u64 = 3;
const SEND_WITHIN: Duration = Duration::from_secs(20);

/// Sends the log; answers where it is and how many lines it has.
pub(super) async fn replay(tour: &Tour) -> Result<(PathBuf, usize)> {
    let path = match &tour.log {
        Some(path) => path.clone(),
        None => {
            let path = tour.lab.directory().join("auth.log");
            let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
            std::fs::write(&path, made(now_s)).with_context(|| format!("{}: cannot be written", path.display()))?;
            path
        }
    };
    let bytes = std::fs::read(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).collect();
    let send = async {
        let mut stream = TcpStream::connect(tour.syslog).await.context("eu-1 takes no syslog")?;
        for line in &lines {
            stream.write_all(line.trim_ascii_end()).await?;
            stream.write_all(b"\n").await?;
        }
        stream.shutdown().await.context("the log was not taken to its end")
    };
    tokio::time::timeout(SEND_WITHIN, send).await.context("the log was not taken in time")??;
    Ok((path, lines.len()))
}

/// A log as sshd writes it: people at work, and one address that guesses passwords until it succeeds.
fn made(now_s: u64) -> String {
    let mut text = String::new();
    let begin_s = now_s.saturating_sub(LINES * 2 + 60);
    for line in 0..LINES {
        let at_s = begin_s + line * 2;
        let (hour, minute, second) = (at_s / 3_600 % 24, at_s / 60 % 60, at_s % 60);
        let stamp = format!("{}T{hour:02}:{minute:02}:{second:02}Z", date(at_s));
        let id = 4_000 + line;
        let message = match (line % ATTACK_EVERY, line + ATTACK_EVERY >= LINES) {
            (0, false) => format!("Failed password for root from 203.0.113.7 port {} ssh2", 40_000 + line),
            (0, true) => format!("Accepted password for root from 203.0.113.7 port {} ssh2", 40_000 + line),
            _ => format!("Accepted publickey for deploy from 192.0.2.{} port {} ssh2", 10 + line % 5, 50_000 + line),
        };
        let _ = writeln!(text, "<38>1 {stamp} bastion sshd {id} - - {message}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_made_log_has_an_attack_that_succeeds() {
        let text = made(1_795_478_400);
        assert_eq!(text.lines().count() as u64, LINES);
        assert!(text.starts_with("<38>1 2026-11-23T"));
        assert!(text.lines().last().is_some_and(|line| line.contains("sshd")));
        assert_eq!(text.matches("Accepted password for root from 203.0.113.7").count(), 1);
    }
}
