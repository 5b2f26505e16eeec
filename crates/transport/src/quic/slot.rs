//! What is known of one other node: where it is, its connection, and when to try again.

use super::{Code, PeerStatus};
use model::NodeId;
use quinn::Connection;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// After the first failure; doubled with each, up to [`BACKOFF_MAX`], and less by up to a half at random.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest time in which a node is not dialled.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A connection after the hello.
#[derive(Clone)]
pub(super) struct Established {
    pub connection: Connection,
    /// Which life of the other process.
    pub boot: u64,
    /// Which of the two nodes dialled.
    pub dialler: NodeId,
}

enum Path {
    /// Not dialled before `retry_at`.
    Down {
        retry_at: Option<Instant>,
    },
    Dialling,
    Up(Established),
}

/// What a caller finds.
pub(super) enum Way {
    Up(Connection),
    /// Wait for a change.
    Dialling,
    /// The caller is to dial: the slot is now `Dialling`.
    Dial(SocketAddr),
    /// Too early, or no one knows where.
    Closed,
}

pub(super) struct Slot {
    node: NodeId,
    state: Mutex<State>,
    /// Told after each change of the path.
    pub changed: Notify,
    connects: AtomicU64,
    failures: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    malformed: AtomicU64,
}

struct State {
    address: Option<SocketAddr>,
    path: Path,
    /// Failures in a row.
    failed: u32,
    error: Option<String>,
}

impl Slot {
    pub(super) fn new(node: NodeId, address: Option<SocketAddr>) -> Arc<Self> {
        Arc::new(Self {
            node,
            state: Mutex::new(State { address, path: Path::Down { retry_at: None }, failed: 0, error: None }),
            changed: Notify::new(),
            connects: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
        })
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn set_address(&self, address: Option<SocketAddr>) {
        let mut state = self.state.lock().expect("no holder panics");
        if state.address != address {
            state.address = address;
            state.failed = 0;
            if let Path::Down { retry_at } = &mut state.path {
                *retry_at = None;
            }
        }
    }

    /// The way to the node, now.
    pub(super) fn way(&self, may_dial: bool) -> Way {
        let mut state = self.state.lock().expect("no holder panics");
        if let Path::Up(established) = &state.path {
            if established.connection.close_reason().is_none() {
                return Way::Up(established.connection.clone());
            }
            state.path = Path::Down { retry_at: None };
        }
        match (&state.path, state.address) {
            (Path::Dialling, _) => Way::Dialling,
            (Path::Down { retry_at }, Some(address))
                if may_dial && retry_at.is_none_or(|retry_at| retry_at <= Instant::now()) =>
            {
                state.path = Path::Dialling;
                Way::Dial(address)
            }
            _ => Way::Closed,
        }
    }

    /// A connection has been made. Both sides choose the same of two: see the module `quic`.
    pub(super) fn adopt(&self, new: Established) {
        let mut state = self.state.lock().expect("no holder panics");
        self.connects.fetch_add(1, Ordering::Relaxed);
        state.failed = 0;
        state.error = None;
        let keeps_old = match &state.path {
            Path::Up(old) if old.connection.close_reason().is_none() => {
                let same_life = old.boot == new.boot;
                if !same_life || old.dialler == new.dialler {
                    // The other side has restarted or given the old one up: who waits there waits in vain.
                    old.connection.close(Code::Replaced.into(), b"replaced");
                }
                same_life && old.dialler < new.dialler
            }
            _ => false,
        };
        if !keeps_old {
            state.path = Path::Up(new);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Dialling has failed; `random` decides the jitter.
    pub(super) fn failed(&self, error: String, random: u64) {
        let mut state = self.state.lock().expect("no holder panics");
        self.failures.fetch_add(1, Ordering::Relaxed);
        if matches!(state.path, Path::Dialling) {
            tracing::debug!(node = %self.node, %error, "a node cannot be reached");
            let wait = backoff(state.failed, random);
            state.path = Path::Down { retry_at: Some(Instant::now() + wait) };
            state.failed = state.failed.saturating_add(1);
            state.error = Some(error);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// A connection has ended.
    pub(super) fn lost(&self, connection: &Connection, error: String) {
        let mut state = self.state.lock().expect("no holder panics");
        if matches!(&state.path, Path::Up(current) if current.connection.stable_id() == connection.stable_id()) {
            tracing::info!(node = %self.node, %error, "a connection was lost");
            state.path = Path::Down { retry_at: None };
            state.error = Some(error);
        }
    }

    pub(super) fn close(&self, code: Code, reason: &str) {
        let mut state = self.state.lock().expect("no holder panics");
        state.address = None;
        if let Path::Up(established) = &state.path {
            established.connection.close(code.into(), reason.as_bytes());
        }
    }

    pub(super) fn count_sent(&self, size_bytes: usize) {
        self.sent_bytes.fetch_add(size_bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_received(&self, size_bytes: usize) {
        self.received_bytes.fetch_add(size_bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_malformed(&self) {
        self.malformed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn status(&self) -> PeerStatus {
        let state = self.state.lock().expect("no holder panics");
        let rtt = match &state.path {
            Path::Up(established) if established.connection.close_reason().is_none() => {
                Some(established.connection.rtt())
            }
            _ => None,
        };
        PeerStatus {
            address: state.address,
            rtt,
            connects: self.connects.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            error: state.error.clone(),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            malformed: self.malformed.load(Ordering::Relaxed),
        }
    }
}

fn backoff(failed: u32, random: u64) -> Duration {
    let longest = BACKOFF_MIN.saturating_mul(1 << failed.min(16)).min(BACKOFF_MAX);
    let half_ms = (longest.as_millis() / 2) as u64;
    longest - Duration::from_millis(random % (half_ms + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_bound_and_varies() {
        assert_eq!(backoff(0, 0), BACKOFF_MIN);
        assert_eq!(backoff(0, 25), BACKOFF_MIN / 2);
        assert_eq!(backoff(3, 0), BACKOFF_MIN * 8);
        assert_eq!(backoff(u32::MAX, 0), BACKOFF_MAX);
        assert!((0..5_000).all(|random| backoff(40, random) >= BACKOFF_MAX / 2));
    }
}
