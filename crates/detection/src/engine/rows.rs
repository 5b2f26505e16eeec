//! The detector's state as rows, for whoever stores it together with what was read and what followed from it.
//!
//! Only what cannot be derived is a row: streams, remembered events, and of each correlation its keys and their
//! entries. Restoring reads those again; it tells nothing a second time.

use super::blind::Blind;
use super::streams::Stream;
use super::{Detector, Options};
use crate::correlation::Correlator;
use crate::correlation::rows::{Name, ROW_KIND, Stored};
use crate::id::EventId;
use crate::rules::RuleSet;
use model::codec::{CodecError, decode, encode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A row's key and its bytes; nothing where the row is gone.
pub type Row = (Vec<u8>, Option<Vec<u8>>);

const CLOCK: u8 = 0;
const STREAM: u8 = 1;
const REMEMBERED: u8 = 2;
const QUOTA: u8 = 4;

/// What restoring found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Correlations that go on with their state.
    pub carried: usize,
    /// Keys of correlations that go on.
    pub keys: usize,
    /// Rows of rules that are gone or mean something else now; the next [`Detector::take_rows`] removes them.
    pub dropped: usize,
}

/// Why state cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A row of a kind this program does not write.
    #[error("a row of detection's state is of an unknown kind")]
    UnknownKind,
    /// A row is not what it should be.
    #[error("a row of detection's state is unreadable: {0}")]
    Unreadable(#[from] CodecError),
    /// A row that belongs to another that is not there.
    #[error("a row of detection's state belongs to one that is missing")]
    Orphan,
}

/// What is of no stream and no correlation.
#[derive(Debug, Serialize, Deserialize)]
struct Clock {
    swept_ms: u64,
    blind: BTreeMap<Arc<str>, Blind>,
    next_number: u32,
}

impl Detector {
    /// Rows that changed since this was last called, by key; nothing where a row is gone. Stored over those before,
    /// they are the whole state. Who fails to store them must drop the detector and restore another.
    pub fn take_rows(&mut self) -> Vec<Row> {
        let mut rows: BTreeMap<Vec<u8>, Option<Vec<u8>>> =
            std::mem::take(&mut self.foreign_rows).into_iter().map(|key| (key, None)).collect();
        let clock = encode(&Clock {
            swept_ms: self.swept_ms,
            blind: self.blind.clone(),
            next_number: self.streams.next_number,
        });
        if clock != self.stored_clock {
            self.stored_clock.clone_from(&clock);
            rows.insert(vec![CLOCK], Some(clock));
        }
        let mut memory = Vec::new();
        self.streams.take(
            |number, stream| {
                rows.insert([&[STREAM][..], &number.to_be_bytes()].concat(), stream.map(encode));
            },
            |(number, time_ms, id), is_there| {
                let place = [&number.to_be_bytes()[..], &time_ms.to_be_bytes(), id.as_bytes()].concat();
                memory.push(([&[REMEMBERED][..], &place].concat(), is_there.then(|| encode(&()))));
            },
        );
        rows.extend(memory);
        for (name, used) in self.quotas.take() {
            rows.insert([&[QUOTA][..], &name].concat(), used.as_ref().map(encode));
        }
        for correlator in &mut self.correlators {
            correlator.take_rows(&mut rows);
        }
        rows.into_iter().collect()
    }

    /// A detector that goes on from stored rows, in any order.
    pub fn restore(
        rules: impl Into<Arc<RuleSet>>,
        options: Options,
        rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<(Self, Restored), RestoreError> {
        let mut detector = Self::new(rules, options);
        let places: BTreeMap<Name, usize> =
            detector.correlators.iter().enumerate().map(|(place, correlator)| (correlator.name(), place)).collect();
        let mut restored = Restored::default();
        let mut memory = Vec::new();
        let mut keys: BTreeMap<(usize, Name), Stored> = BTreeMap::new();
        for (key, bytes) in rows {
            let (kind, place) = key.split_first().ok_or(RestoreError::UnknownKind)?;
            match *kind {
                CLOCK => {
                    let clock: Clock = decode(&bytes)?;
                    detector.swept_ms = clock.swept_ms;
                    detector.blind = clock.blind;
                    detector.streams.next_number = clock.next_number;
                    detector.stored_clock = bytes;
                }
                STREAM => {
                    let number = place.try_into().map_err(|_| RestoreError::UnknownKind)?;
                    detector.streams.restore(u32::from_be_bytes(number), decode::<Stream>(&bytes)?);
                }
                REMEMBERED => {
                    decode::<()>(&bytes)?;
                    memory.push(remembered(place).ok_or(RestoreError::UnknownKind)?);
                }
                QUOTA => detector.quotas.restore(decode(&bytes)?),
                ROW_KIND => {
                    let names = place.split_first_chunk().and_then(|(correlation, rest)| {
                        let (group, rest) = rest.split_first_chunk()?;
                        Some((correlation, *group, rest))
                    });
                    let (correlation, group, rest) = names.ok_or(RestoreError::UnknownKind)?;
                    match places.get(correlation) {
                        Some(place) => keys.entry((*place, group)).or_default().read(rest, &bytes)?,
                        None => {
                            restored.dropped += 1;
                            detector.foreign_rows.push(key);
                        }
                    }
                }
                _ => return Err(RestoreError::UnknownKind),
            }
        }
        if !memory.into_iter().all(|event| detector.streams.remember(event)) {
            return Err(RestoreError::Orphan);
        }
        restored.keys = keys.len();
        let mut last = None;
        for ((place, _), stored) in keys {
            restored.carried += usize::from(last.replace(place) != Some(place));
            detector.correlators[place].restore(stored).map_err(|_| RestoreError::Orphan)?;
        }
        detector.entries = detector.correlators.iter().map(Correlator::entry_count).sum();
        detector.streams.tick(detector.swept_ms);
        Ok((detector, restored))
    }

    /// The rules it works with, to be shared with another.
    pub fn shared_rules(&self) -> Arc<RuleSet> {
        Arc::clone(&self.rules)
    }
}

fn remembered(place: &[u8]) -> Option<(u32, u64, EventId)> {
    let (number, rest) = place.split_first_chunk()?;
    let (time, rest) = rest.split_first_chunk()?;
    let id: [u8; 16] = rest.try_into().ok()?;
    Some((u32::from_be_bytes(*number), u64::from_be_bytes(*time), EventId::from_bytes(id)))
}
