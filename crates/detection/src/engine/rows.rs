//! The detector's state as rows, for whoever stores it together with what was read and what followed from it.
//!
//! Only what cannot be derived is a row: streams, remembered events, and of each correlation its keys and their
//! entries. Restoring reads those again; it tells nothing a second time.

use super::blind::Blind;
use super::streams::{Remembered, Stream};
use super::{Detector, Options};
use crate::correlation::Correlator;
use crate::correlation::rows::{NAME_BYTES, Name, ROW_KIND, Stored};
use crate::id::EventId;
use crate::rules::RuleSet;
use model::codec::{CodecError, decode, encode};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A row's key and its bytes; nothing where the row is gone.
pub type Row = (Vec<u8>, Option<Vec<u8>>);

// What a row holds and how; a number is never used again for anything else.
const CLOCK: u8 = 5;
const STREAM: u8 = 6;
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
    /// Rows that cannot be read or that lack another, with all of their keys; they are removed the same way, and the
    /// next tick tells of what was lost.
    pub damaged: usize,
}

/// Why state cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Not one row is what it should be.
    #[error("none of the {rows} rows of detection's state can be read")]
    Unreadable {
        /// How many there are.
        rows: usize,
    },
}

/// Why a row is not restored.
enum Refused {
    /// No rule is behind it.
    Foreign,
    /// It cannot be read.
    Damaged,
}

impl From<CodecError> for Refused {
    fn from(_: CodecError) -> Self {
        Self::Damaged
    }
}

/// A correlation's key.
type KeyPlace = (usize, Name);

/// What is read before it can be put in its place.
#[derive(Default)]
struct Reading {
    places: BTreeMap<Name, usize>,
    memory: Vec<Remembered>,
    keys: BTreeMap<KeyPlace, Stored>,
}

impl Reading {
    /// The key of a correlation that a row is of, and the row's place within it.
    fn place<'a>(&self, place: &'a [u8]) -> Result<(KeyPlace, &'a [u8]), Refused> {
        let (correlation, rest) = place.split_first_chunk().ok_or(Refused::Damaged)?;
        let (group, rest) = rest.split_first_chunk().ok_or(Refused::Damaged)?;
        let correlation = self.places.get(correlation).ok_or(Refused::Foreign)?;
        Ok(((*correlation, *group), rest))
    }
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
                memory.push((remembered_key((number, time_ms, id)), is_there.then(|| encode(&()))));
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

    /// A detector that goes on from stored rows, in any order. What is damaged costs no more than what it belongs to.
    ///
    /// # Errors
    /// Where there are rows and all of them are damaged.
    pub fn restore(
        rules: impl Into<Arc<RuleSet>>,
        options: Options,
        rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<(Self, Restored), RestoreError> {
        let rows: Vec<(Vec<u8>, Vec<u8>)> = rows.into_iter().collect();
        let mut detector = Self::new(rules, options);
        let places = detector.correlators.iter().enumerate().map(|(place, correlator)| (correlator.name(), place));
        let mut reading = Reading { places: places.collect(), ..Reading::default() };
        let mut restored = Restored::default();
        let mut damaged: BTreeSet<KeyPlace> = BTreeSet::new();
        for (key, bytes) in &rows {
            match detector.read_row(&mut reading, key, bytes) {
                Ok(()) => {}
                Err(Refused::Foreign) => {
                    restored.dropped += 1;
                    detector.foreign_rows.push(key.clone());
                }
                Err(Refused::Damaged) => match reading.place(key.get(1..).unwrap_or_default()) {
                    Ok((place, _)) if key[0] == ROW_KIND => drop(damaged.insert(place)),
                    _ => detector.damaged(key, &mut restored),
                },
            }
        }
        let number = reading.keys.values().filter_map(Stored::highest_stream).max();
        let number = number.map_or(0, |number| number.saturating_add(1));
        detector.streams.next_number = detector.streams.next_number.max(number);
        for event in reading.memory.split_off(0) {
            if !detector.streams.remember(event) {
                detector.damaged(&remembered_key(event), &mut restored);
            }
        }
        let mut last = None;
        for (place, stored) in std::mem::take(&mut reading.keys) {
            if damaged.contains(&place) || detector.correlators[place.0].restore(stored).is_err() {
                damaged.insert(place);
                continue;
            }
            restored.keys += 1;
            restored.carried += usize::from(last.replace(place.0) != Some(place.0));
        }
        if !damaged.is_empty() {
            let of_damaged = |key: &&(Vec<u8>, Vec<u8>)| {
                let (kind, place) = key.0.split_first().unwrap_or((&0, &[]));
                *kind == ROW_KIND && reading.place(place).is_ok_and(|(place, _)| damaged.contains(&place))
            };
            for (key, _) in rows.iter().filter(of_damaged) {
                detector.damaged(key, &mut restored);
            }
        }
        detector.held = detector.correlators.iter().map(Correlator::held).sum();
        detector.streams.tick(detector.swept_ms);
        if restored.damaged == rows.len() && !rows.is_empty() {
            return Err(RestoreError::Unreadable { rows: rows.len() });
        }
        Ok((detector, restored))
    }

    fn read_row(&mut self, reading: &mut Reading, key: &[u8], bytes: &[u8]) -> Result<(), Refused> {
        let (kind, place) = key.split_first().ok_or(Refused::Damaged)?;
        match *kind {
            CLOCK => {
                let clock: Clock = decode(bytes)?;
                self.swept_ms = clock.swept_ms;
                self.blind = clock.blind;
                self.streams.next_number = self.streams.next_number.max(clock.next_number);
                self.stored_clock = bytes.to_vec();
            }
            STREAM => {
                let number = place.try_into().map_err(|_| Refused::Damaged)?;
                self.streams.restore(u32::from_be_bytes(number), decode::<Stream>(bytes)?);
            }
            REMEMBERED => {
                decode::<()>(bytes)?;
                reading.memory.push(remembered(place).ok_or(Refused::Damaged)?);
            }
            QUOTA => self.quotas.restore(decode(bytes)?),
            ROW_KIND => {
                let (key, rest) = reading.place(place)?;
                reading.keys.entry(key).or_default().read(rest, bytes)?;
            }
            _ => return Err(Refused::Damaged),
        }
        Ok(())
    }

    /// A row is of no use: it goes, and that is told.
    fn damaged(&mut self, key: &[u8], restored: &mut Restored) {
        restored.damaged += 1;
        let name = key.get(1..).and_then(|place| place.split_first_chunk::<NAME_BYTES>());
        let name = name.filter(|_| key[0] == ROW_KIND).map(|(name, _)| *name);
        let of = self.correlators.iter().find(|correlator| Some(correlator.name()) == name);
        let reference = of.map(|correlator| &correlator.plan.header.reference);
        let rule = reference.map_or_else(
            || ("state".into(), "State of the detector".into()),
            |reference| (reference.id.clone(), reference.title.clone()),
        );
        self.unread.entry(rule).or_default().rows += 1;
        self.foreign_rows.push(key.to_vec());
    }

    /// The rules it works with, to be shared with another.
    pub fn shared_rules(&self) -> Arc<RuleSet> {
        Arc::clone(&self.rules)
    }
}

fn remembered_key((number, time_ms, id): Remembered) -> Vec<u8> {
    [&[REMEMBERED][..], &number.to_be_bytes(), &time_ms.to_be_bytes(), id.as_bytes()].concat()
}

fn remembered(place: &[u8]) -> Option<(u32, u64, EventId)> {
    let (number, rest) = place.split_first_chunk()?;
    let (time, rest) = rest.split_first_chunk()?;
    let id: [u8; 16] = rest.try_into().ok()?;
    Some((u32::from_be_bytes(*number), u64::from_be_bytes(*time), EventId::from_bytes(id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlation::Lost;
    use std::fmt::Debug;

    /// What is written as it was, and what was written is read as what it was.
    #[track_caller]
    fn check<T: Serialize + for<'a> Deserialize<'a> + Debug>(row: &T, golden: &str) {
        let hex: String = encode(row).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden, "a row that is written otherwise needs a number of its own, and its old form a reader");
        let read: T = decode(&encode(row)).expect("what is written can be read");
        assert_eq!(format!("{read:?}"), format!("{row:?}"));
    }

    #[test]
    fn rows_are_written_as_they_were() {
        let lost = Lost { keys: 1, entries: 2, early: 3, remembered: 4, streams: 5, late: 6, standing: 7, rows: 8 };
        let blind = BTreeMap::from([("x".into(), Blind::example(lost))]);
        check(&Clock { swept_ms: 300, blind, next_number: 3 }, "01ac02010178015801010203040506070803");
        check(&Stream::example(), "01096576656e74732f657501689003ac02f403f303020109");
        assert_eq!((CLOCK, STREAM, REMEMBERED, ROW_KIND, QUOTA), (5, 6, 2, 3, 4));
    }
}
