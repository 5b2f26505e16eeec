//! Tickets: what other systems are to know of an incident, and whether they do.
//!
//! Event-sourced like incidents: a ticket is a fold over what was done to it, in order of clock and region.
//! Sending is retried with growing pauses, so often and no more; then a person says "again". Pure: it sends nothing.

use crate::id::{Digest, IncidentId, TicketId};
use model::{Hlc, RegionId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Attempts to send one revision before it counts as failed.
pub const ATTEMPTS_MAX: u32 = 12;
/// The first pause after a failure.
pub const PAUSE_MIN_MS: u64 = 15_000;
/// The longest pause between attempts, before a quarter at most is added to spread them.
pub const PAUSE_MAX_MS: u64 = 3_600_000;
/// Most bytes of a reference or a reason that are kept.
pub const TEXT_SIZE_BYTES_MAX: usize = 1_024;

/// What was done to a ticket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum TicketAct {
    /// The incident changed: the other side is to know.
    Revised {
        /// The incident's revision.
        revision: u64,
    },
    /// The other side knows.
    Sent {
        /// Which revision.
        revision: u64,
        /// What the other side calls the ticket.
        reference: String,
    },
    /// It could not be told.
    Failed {
        /// Which revision.
        revision: u64,
        /// Why.
        reason: String,
        /// Whether trying again is of no use.
        is_final: bool,
    },
    /// A person wants it tried again.
    Retried,
}

/// One thing done to a ticket: immutable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TicketChange {
    /// When.
    pub hlc: Hlc,
    /// Where.
    pub region: RegionId,
    /// Who: a login, or `sync`.
    pub by: String,
    /// What.
    pub act: TicketAct,
}

/// Whether the other side knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum SyncState {
    /// It is to be told.
    Pending {
        /// Attempts that failed.
        attempts: u32,
        /// Not before then.
        next_ms: u64,
    },
    /// It knows all there is.
    Sent {
        /// Since when.
        at_ms: u64,
    },
    /// It was not told, and will not be unless a person says so or the incident changes.
    Failed {
        /// Attempts that failed.
        attempts: u32,
        /// Since when.
        at_ms: u64,
        /// Why the last of them failed.
        reason: String,
    },
}

/// A ticket as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ticket {
    /// Of incident and queue: two regions that open it at once open the same.
    pub id: TicketId,
    /// About what.
    pub incident: IncidentId,
    /// The queue of the other system.
    pub queue: Arc<str>,
    /// The incident's revision that the other side is to know.
    pub revision: u64,
    /// The one it knows; 0 for none.
    pub sent_revision: u64,
    /// What the other side calls it.
    pub reference: Option<String>,
    /// Whether it knows.
    pub sync: SyncState,
}

/// One attempt to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    /// The same for every attempt at this revision: the other side tells repetitions by it.
    pub idempotency_key: String,
    /// The incident's revision to tell.
    pub revision: u64,
    /// Which attempt, from 1.
    pub attempt: u32,
}

impl Ticket {
    /// The ticket of an incident in a queue, after all that was done to it, in whatever order it is told.
    pub fn fold(incident: IncidentId, queue: &str, changes: impl IntoIterator<Item = TicketChange>) -> Self {
        let mut hash = Digest::new("holdfast ticket 1");
        hash.part(incident.as_bytes()).part(queue.as_bytes());
        let id = TicketId::of(hash);
        let sync = SyncState::Pending { attempts: 0, next_ms: 0 };
        let mut ticket =
            Self { id, incident, queue: queue.into(), revision: 1, sent_revision: 0, reference: None, sync };
        let sorted: BTreeSet<TicketChange> = changes.into_iter().collect();
        for change in sorted {
            ticket.apply(change.hlc.wall_ms(), change.act);
        }
        ticket
    }

    /// The attempt to make now, if one is due.
    pub fn due(&self, now_ms: u64) -> Option<Sending> {
        match &self.sync {
            SyncState::Pending { attempts, next_ms } if *next_ms <= now_ms => Some(Sending {
                idempotency_key: format!("{}-{}", self.id, self.revision),
                revision: self.revision,
                attempt: attempts + 1,
            }),
            _ => None,
        }
    }

    /// When to ask again.
    pub fn next_ms(&self) -> Option<u64> {
        match &self.sync {
            SyncState::Pending { next_ms, .. } => Some(*next_ms),
            _ => None,
        }
    }

    fn apply(&mut self, at_ms: u64, act: TicketAct) {
        match act {
            TicketAct::Revised { revision } if revision > self.revision => {
                self.revision = revision;
                self.sync = SyncState::Pending { attempts: 0, next_ms: at_ms };
            }
            TicketAct::Sent { revision, reference } => {
                self.sent_revision = self.sent_revision.max(revision);
                self.reference = Some(short(reference));
                if self.sent_revision >= self.revision {
                    self.sync = SyncState::Sent { at_ms };
                }
            }
            TicketAct::Failed { revision, reason, is_final } if revision == self.revision => {
                let SyncState::Pending { attempts, .. } = self.sync else { return };
                let attempts = attempts.saturating_add(1);
                self.sync = if is_final || attempts >= ATTEMPTS_MAX {
                    SyncState::Failed { attempts, at_ms, reason: short(reason) }
                } else {
                    SyncState::Pending {
                        attempts,
                        next_ms: at_ms.saturating_add(backoff_ms(self.id.as_bytes(), attempts)),
                    }
                };
            }
            TicketAct::Retried if matches!(self.sync, SyncState::Failed { .. }) => {
                self.sync = SyncState::Pending { attempts: 0, next_ms: at_ms };
            }
            // Of an older revision, or of no effect where it stands.
            TicketAct::Revised { .. } | TicketAct::Failed { .. } | TicketAct::Retried => {}
        }
    }
}

/// The pause after so many failed attempts: doubles up to [`PAUSE_MAX_MS`], and up to a quarter more, which
/// depends on what is sent, so that what failed together does not come back together.
pub fn backoff_ms(what: &[u8], attempts: u32) -> u64 {
    let doubled = 1u64.checked_shl(attempts.saturating_sub(1)).and_then(|by| PAUSE_MIN_MS.checked_mul(by));
    let pause_ms = doubled.map_or(PAUSE_MAX_MS, |pause_ms| pause_ms.min(PAUSE_MAX_MS));
    let mut hash = Digest::new("holdfast backoff 1");
    hash.part(what).part(&attempts.to_le_bytes());
    let spread = TicketId::of(hash).as_bytes()[0];
    pause_ms + pause_ms / 4 * u64::from(spread) / 255
}

fn short(mut text: String) -> String {
    let mut end = text.len().min(TEXT_SIZE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
