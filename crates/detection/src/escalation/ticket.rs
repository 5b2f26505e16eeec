//! Tickets: the work on an incident as other systems are to know it, and whether they do.
//!
//! Event-sourced like incidents: a ticket is a fold over what was done to it, in order of clock and region. What
//! others are told of is a revision; each sink says which it took, or why it never will. Pure: it sends nothing.

use crate::id::{Digest, IncidentId, TicketId};
use model::{Hlc, RegionId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The version of the stored form that is written.
pub const VERSION: u32 = 1;
/// Most things done to one ticket by people.
pub const CHANGES_MAX: usize = 1_024;
/// Most bytes of a description, a comment or a field's value.
pub const TEXT_SIZE_BYTES_MAX: usize = 8 * 1024;
/// Most bytes of a title, a queue, a link, a field's name or a sink's reason.
pub const NAME_SIZE_BYTES_MAX: usize = 512;
/// Most fields, and most links, of a ticket.
pub const ITEMS_MAX: usize = 64;
/// Who the program is in changes.
pub const OUTBOX: &str = "outbox";

/// Where the work on a ticket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TicketState {
    /// To be done.
    Open,
    /// Somebody does it.
    InProgress,
    /// It waits for somebody else.
    Waiting,
    /// Done.
    Done,
}

/// What was done to a ticket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum TicketAct {
    /// It was opened.
    Opened {
        /// About what.
        incident: IncidentId,
        /// In which queue of the other system.
        queue: String,
        /// In one line.
        title: String,
        /// At length.
        description: String,
    },
    /// It has another title.
    Titled {
        /// The title.
        title: String,
    },
    /// The work stands elsewhere.
    StateSet {
        /// Where.
        to: TicketState,
    },
    /// A field of the other system has a value.
    FieldSet {
        /// Its name.
        name: String,
        /// The value; `None` for none.
        value: Option<String>,
    },
    /// Somebody remarked.
    Commented {
        /// What.
        text: String,
    },
    /// It has to do with something else.
    Linked {
        /// An address, or the id of another ticket or incident.
        to: String,
    },
    /// It has not.
    Unlinked {
        /// What it was linked to.
        to: String,
    },
    /// A person wants it told again to those that refused it, or have not answered.
    Retried,
    /// A sink took a revision.
    Sent {
        /// Which sink.
        sink: String,
        /// Which revision.
        revision: u64,
    },
    /// A sink refused a revision for good.
    Failed {
        /// Which sink.
        sink: String,
        /// Which revision.
        revision: u64,
        /// Why.
        reason: String,
    },
}

impl TicketAct {
    /// Whether others are to know of it.
    const fn is_content(&self) -> bool {
        !matches!(self, Self::Sent { .. } | Self::Failed { .. })
    }

    /// Whether its texts are there and short enough.
    pub fn check(&self) -> Result<(), NotDone> {
        let long = |text: &str| text.len() <= TEXT_SIZE_BYTES_MAX;
        let name = |text: &str| !text.trim().is_empty() && text.len() <= NAME_SIZE_BYTES_MAX;
        let fits = match self {
            Self::Opened { queue, title, description, .. } => name(queue) && name(title) && long(description),
            Self::Titled { title } => name(title),
            Self::FieldSet { name: field, value } => name(field) && value.as_deref().is_none_or(long),
            Self::Commented { text } => !text.trim().is_empty() && long(text),
            Self::Linked { to } | Self::Unlinked { to } => name(to),
            Self::StateSet { .. } | Self::Retried | Self::Sent { .. } | Self::Failed { .. } => true,
        };
        if fits { Ok(()) } else { Err(NotDone::BadText) }
    }
}

/// Why something is not done to a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// A text that is empty or too long.
    #[error("a text is empty or too long")]
    BadText,
    /// It is so already.
    #[error("nothing would change")]
    NoEffect,
    /// There are as many fields, links or changes as there may be.
    #[error("the ticket is full")]
    Full,
}

/// One thing done to a ticket: immutable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TicketChange {
    /// When.
    pub hlc: Hlc,
    /// Where.
    pub region: RegionId,
    /// The version of the stored form.
    pub version: u32,
    /// Who: a login, or [`OUTBOX`].
    pub by: String,
    /// What.
    pub act: TicketAct,
}

impl TicketChange {
    /// A key under which it can be stored: those of one ticket lie together, in order.
    pub fn key(&self, ticket: TicketId) -> String {
        let mut hash = Digest::new("holdfast ticket change 1");
        hash.part(&serde_json::to_vec(self).expect("a change has text keys only and its numbers are finite"));
        format!("{ticket}/{:016x}-{:05}-{}", self.hlc.bits(), self.region.get(), TicketId::of(hash))
    }
}

/// What a sink knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum SyncState {
    /// It took a revision.
    Sent {
        /// Which.
        revision: u64,
        /// When.
        at_ms: u64,
    },
    /// It refused a revision for good.
    Failed {
        /// Which.
        revision: u64,
        /// When.
        at_ms: u64,
        /// Why.
        reason: String,
    },
}

/// Whether the others know the newest revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sync {
    /// A sink has neither taken nor refused it yet.
    Pending,
    /// Every sink that is to know has taken it.
    Sent,
    /// One has refused it.
    Failed,
}

/// A remark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comment {
    /// When.
    pub at_ms: u64,
    /// Who.
    pub by: String,
    /// What.
    pub text: String,
}

/// A ticket as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ticket {
    /// Of incident and queue: two regions that open it at once open the same.
    pub id: TicketId,
    /// About what.
    pub incident: IncidentId,
    /// The queue of the other system.
    pub queue: String,
    /// In one line.
    pub title: String,
    /// At length.
    pub description: String,
    /// Where the work stands.
    pub state: TicketState,
    /// Fields of the other system.
    pub fields: BTreeMap<String, String>,
    /// Remarks, oldest first.
    pub comments: Vec<Comment>,
    /// What it has to do with.
    pub links: BTreeSet<String>,
    /// When it was opened.
    pub opened_ms: u64,
    /// When somebody last did something.
    pub updated_ms: u64,
    /// How many things were done that others are to know of.
    pub revision: u64,
    /// What each sink knows.
    pub sync: BTreeMap<String, SyncState>,
}

/// The id of the ticket about an incident in a queue.
pub fn ticket_id(incident: IncidentId, queue: &str) -> TicketId {
    let mut hash = Digest::new("holdfast ticket 1");
    hash.part(incident.as_bytes()).part(queue.as_bytes());
    TicketId::of(hash)
}

impl Ticket {
    /// The ticket after all that was done to it, in whatever order it is told; `None` where it was never opened.
    /// What is impossible where it stands has no effect.
    pub fn fold(changes: impl IntoIterator<Item = TicketChange>) -> Option<Self> {
        let sorted: BTreeSet<TicketChange> = changes.into_iter().collect();
        let mut ticket: Option<Self> = None;
        for change in &sorted {
            match (&mut ticket, &change.act) {
                (Some(ticket), _) => drop(ticket.apply(change)),
                (None, TicketAct::Opened { incident, queue, title, description }) => {
                    let at_ms = change.hlc.wall_ms();
                    ticket = Some(Self {
                        id: ticket_id(*incident, queue),
                        incident: *incident,
                        queue: queue.clone(),
                        title: title.clone(),
                        description: description.clone(),
                        state: TicketState::Open,
                        fields: BTreeMap::new(),
                        comments: Vec::new(),
                        links: BTreeSet::new(),
                        opened_ms: at_ms,
                        updated_ms: at_ms,
                        revision: 1,
                        sync: BTreeMap::new(),
                    });
                }
                (None, _) => {}
            }
        }
        ticket
    }

    /// Whether the others know the newest revision: those that are expected to, and those that have answered.
    pub fn sync(&self, expected: &BTreeSet<String>) -> Sync {
        let newest = |state: &SyncState| match state {
            SyncState::Sent { revision, .. } | SyncState::Failed { revision, .. } => *revision >= self.revision,
        };
        let known: BTreeMap<&String, &SyncState> = self.sync.iter().filter(|(_, state)| newest(state)).collect();
        if known.values().any(|state| matches!(state, SyncState::Failed { .. })) {
            return Sync::Failed;
        }
        let is_complete = !known.is_empty() && expected.iter().all(|sink| known.contains_key(sink));
        if is_complete { Sync::Sent } else { Sync::Pending }
    }

    /// Does one more thing, or says why it has no effect.
    pub fn apply(&mut self, change: &TicketChange) -> Result<(), NotDone> {
        if change.act.is_content() && self.revision >= CHANGES_MAX as u64 {
            return Err(NotDone::Full);
        }
        let at_ms = change.hlc.wall_ms();
        let changed = |is_changed: bool| if is_changed { Ok(()) } else { Err(NotDone::NoEffect) };
        match &change.act {
            TicketAct::Opened { .. } => return Err(NotDone::NoEffect),
            TicketAct::Titled { title } => changed(std::mem::replace(&mut self.title, title.clone()) != *title)?,
            TicketAct::StateSet { to } => changed(std::mem::replace(&mut self.state, *to) != *to)?,
            TicketAct::FieldSet { name, value: Some(value) } => {
                if self.fields.len() >= ITEMS_MAX && !self.fields.contains_key(name) {
                    return Err(NotDone::Full);
                }
                changed(self.fields.insert(name.clone(), value.clone()).as_ref() != Some(value))?;
            }
            TicketAct::FieldSet { name, value: None } => changed(self.fields.remove(name).is_some())?,
            TicketAct::Commented { text } => {
                self.comments.push(Comment { at_ms, by: change.by.clone(), text: text.clone() });
            }
            TicketAct::Linked { .. } if self.links.len() >= ITEMS_MAX => return Err(NotDone::Full),
            TicketAct::Linked { to } => changed(self.links.insert(to.clone()))?,
            TicketAct::Unlinked { to } => changed(self.links.remove(to))?,
            TicketAct::Retried => {}
            TicketAct::Sent { sink, revision } => {
                return self.heard(sink, SyncState::Sent { revision: *revision, at_ms });
            }
            TicketAct::Failed { sink, revision, reason } => {
                let reason = reason.chars().take(NAME_SIZE_BYTES_MAX / 4).collect();
                return self.heard(sink, SyncState::Failed { revision: *revision, at_ms, reason });
            }
        }
        self.updated_ms = at_ms;
        self.revision += 1;
        Ok(())
    }

    /// A sink said something: the newest revision it spoke of counts, and of one that it was told twice that it took it.
    fn heard(&mut self, sink: &str, state: SyncState) -> Result<(), NotDone> {
        let of = |state: &SyncState| match state {
            SyncState::Sent { revision, .. } | SyncState::Failed { revision, .. } => *revision,
        };
        if self.sync.len() >= ITEMS_MAX && !self.sync.contains_key(sink) {
            return Err(NotDone::Full);
        }
        let is_heard = |known: &SyncState| {
            let took_after_all = matches!((known, &state), (SyncState::Failed { .. }, SyncState::Sent { .. }));
            of(known) > of(&state) || of(known) == of(&state) && !took_after_all
        };
        if self.sync.get(sink).is_some_and(is_heard) {
            return Err(NotDone::NoEffect);
        }
        self.sync.insert(sink.to_owned(), state);
        Ok(())
    }
}
