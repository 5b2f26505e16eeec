//! The door of the region's log of events: what is delivered again is kept once.
//!
//! Whoever does not know whether its events were taken sends them again. Sources that are read again tell by places;
//! others by identities, of which the last are remembered: a bounded number, for a bounded time. The time is that of
//! the entry, so that all replicas forget alike.

use crate::machine::Defect;
use crate::machine::command::{Door, Idempotency, Identity, Ingest, Outcome, Refusal};
use crate::machine::data::{Step, stored};
use crate::machine::keys;
use crate::machine::note::Note;
use crate::machine::view::View;
use model::codec::encode;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::ops::Bound;
use storage::Space;

/// How long an identity is remembered.
pub const REMEMBERED_MS: u64 = 3600 * 1000;
/// Identities remembered; the oldest are forgotten beyond it, however young.
pub const REMEMBERED_MAX: usize = 500_000;

/// Identities of what one command kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    wall_ms: u64,
    identities: Vec<Identity>,
}

/// The identities that are remembered; the image of the rows they were read from.
#[derive(Debug, Default)]
pub struct Recent {
    /// The oldest first, each with the number of its row.
    kept: VecDeque<(u64, Kept)>,
    all: BTreeSet<Identity>,
}

impl Recent {
    /// Reads the rows of a space.
    pub(super) fn read(space: &dyn Space) -> io::Result<Self> {
        let (from, to) = (keys::identities(0), keys::identities(u64::MAX));
        let rows = space.scan(keys::DUTY, Bound::Included(&from), Bound::Included(&to), false, usize::MAX)?;
        let mut recent = Self::default();
        for (key, row) in rows {
            let number = key[1..].try_into().map(u64::from_be_bytes);
            let number = number.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a row without a number"))?;
            recent.push(number, stored(&row)?);
        }
        Ok(recent)
    }

    fn knows(&self, identity: &Identity) -> bool {
        self.all.contains(identity)
    }

    /// Remembers identities that it does not know.
    fn remember(&mut self, view: &mut View, number: u64, wall_ms: u64, identities: Vec<Identity>) {
        let kept = Kept { wall_ms, identities };
        view.put(keys::DUTY, keys::identities(number), encode(&kept));
        self.push(number, kept);
        while self.all.len() > REMEMBERED_MAX
            || self.kept.front().is_some_and(|(_, kept)| kept.wall_ms.saturating_add(REMEMBERED_MS) < wall_ms)
        {
            let Some((number, kept)) = self.kept.pop_front() else { break };
            view.delete(keys::DUTY, keys::identities(number));
            for identity in &kept.identities {
                self.all.remove(identity);
            }
        }
    }

    fn push(&mut self, number: u64, kept: Kept) {
        self.all.extend(&kept.identities);
        self.kept.push_back((number, kept));
    }
}

impl Step<'_> {
    /// Keeps events of others; those that were delivered before are left out.
    pub(super) fn ingest(&mut self, ingest: Ingest) -> io::Result<Outcome> {
        let Ingest { events, door, note } = ingest;
        let first = self.next_event();
        match door {
            Door::Open => events.into_iter().for_each(|event| self.keep_event(event)),
            Door::Places(stream, sequences) => self.by_place(&stream, sequences, events)?,
            Door::Identities(identities) => self.by_identity(identities, events),
            Door::Request(request) => {
                if !self.by_request(&request, events) {
                    self.record(&Note { refused: Some(Refusal::IdempotencyReuse.reason().into()), ..note });
                    return Ok(Outcome::Refused(Refusal::IdempotencyReuse));
                }
            }
        }
        self.record(&note);
        let applied = u32::try_from(self.next_event() - first).unwrap_or(u32::MAX);
        Ok(Outcome::Taken { applied, refused: None })
    }

    fn knows(&self, identity: &Identity) -> bool {
        !self.machine.has(Defect::DeliveryForgotten) && self.state.recent.knows(identity)
    }

    /// A stream comes in its order: what lies before its end was there.
    fn by_place(&mut self, stream: &str, sequences: Vec<u64>, events: Vec<Vec<u8>>) -> io::Result<()> {
        let known = self.view.get(keys::DUTY, &keys::door(stream))?;
        let mut next: Option<u64> = known.as_deref().map(stored).transpose()?;
        for (event, sequence) in events.into_iter().zip(sequences) {
            if next.is_none_or(|next| sequence >= next) {
                next = Some(sequence.saturating_add(1));
                self.keep_event(event);
            }
        }
        if let Some(next) = next {
            self.view.put(keys::DUTY, keys::door(stream), encode(&next));
        }
        Ok(())
    }

    fn by_identity(&mut self, identities: Vec<Option<Identity>>, events: Vec<Vec<u8>>) {
        let number = self.next_event();
        let mut new = BTreeSet::new();
        for (event, identity) in events.into_iter().zip(identities) {
            if identity.is_none_or(|identity| !self.knows(&identity) && new.insert(identity)) {
                self.keep_event(event);
            }
        }
        if !new.is_empty() {
            self.state.recent.remember(self.view, number, self.wall_ms, new.into_iter().collect());
        }
    }

    /// Whether the key is not another request's.
    fn by_request(&mut self, request: &Idempotency, events: Vec<Vec<u8>>) -> bool {
        let key = Identity::of("holdfast idempotency key of events 1", &[request.key.as_bytes()]);
        let whole = Identity::of("holdfast request of events 1", &[request.key.as_bytes(), &request.digest]);
        if self.knows(&key) {
            return self.knows(&whole);
        }
        let number = self.next_event();
        events.into_iter().for_each(|event| self.keep_event(event));
        // Rows are numbered by events: a request without any has nothing to be known by.
        if self.next_event() > number {
            self.state.recent.remember(self.view, number, self.wall_ms, vec![key, whole]);
        }
        true
    }
}
