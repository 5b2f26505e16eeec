//! Source streams: the watermark of each, and the memory by which duplicates are recognised.
//!
//! An event with a place in a stream is not remembered: whoever reads a stream goes on where it stopped, and a
//! correlation holds each place once. Remembered are the matching events that carry an identity of their own, for
//! those may come again under another place.
//!
//! Besides those of events, all times are times of receipt: how a stream gets on never depends on when it is read.

use super::Options;
use crate::correlation::{Delta, Lost, Pace, Watermark};
use crate::event::Event;
use crate::id::{Digest, EventId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most streams known at a time; beyond it those silent for longest are forgotten.
pub(super) const STREAMS_MAX: usize = 16_384;
/// How many are forgotten at once, so that the search for them is seldom.
const FORGOTTEN_AT_ONCE: usize = 64;
/// So many events in a row whose clock does not move are told of.
const STILL_MIN: u32 = 8;

/// The field in which a source says which of its events this is.
const IDENTITY_FIELD: &str = "metadata.uid";

/// What is stored of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stream {
    /// The source partition.
    pub(super) name: Arc<str>,
    /// The host that wrote the events: hosts have clocks and delays of their own, and a log replayed from one
    /// must not be late because others are live.
    pub(super) host: Arc<str>,
    newest_ms: u64,
    /// Only grows.
    watermark_ms: u64,
    /// When the last event was received.
    seen_ms: u64,
    /// When the newest event was received.
    moved_ms: u64,
    /// Events since then.
    still: u32,
    /// It was told that its clock stands.
    is_told: bool,
    /// Keys that it fed were forgotten because none of its events came; those up to here may have belonged to them.
    gap_ms: u64,
}

#[cfg(test)]
impl Stream {
    pub(super) fn example() -> Self {
        let (name, host) = ("events/eu".into(), "h".into());
        let (newest_ms, watermark_ms, seen_ms, moved_ms) = (400, 300, 500, 499);
        Self { name, host, newest_ms, watermark_ms, seen_ms, moved_ms, still: 2, is_told: true, gap_ms: 9 }
    }
}

#[derive(Clone, Debug)]
struct Known {
    stream: Stream,
    is_stored: bool,
    remembered: BTreeSet<(u64, EventId)>,
}

/// How an event comes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Coming {
    /// It lies behind its stream's watermark.
    pub(super) is_late: bool,
    /// All of its stream comes long after it happened.
    pub(super) is_behind: bool,
}

/// A row of the memory: the number of the stream, and an event's time and identity.
pub(super) type Remembered = (u32, u64, EventId);

/// All streams.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    lateness_ms: u64,
    idle_after_ms: u64,
    behind_max_ms: u64,
    remembered_max: usize,
    remembered_for_ms: u64,
    remembered: usize,
    /// All that was received before was read.
    read_ms: u64,
    /// The earliest watermark of the steady streams and whose it is, unless that must be looked for.
    floor: Option<(u64, u32)>,
    pub(super) next_number: u32,
    /// By source partition and host.
    numbers: BTreeMap<Arc<str>, BTreeMap<Arc<str>, u32>>,
    known: BTreeMap<u32, Known>,
    changed: BTreeSet<u32>,
    forgotten: BTreeSet<u32>,
    memory: Delta<Remembered>,
    lost: Lost,
}

impl Streams {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            lateness_ms: options.allowed_lateness_ms,
            idle_after_ms: options.idle_after_ms,
            behind_max_ms: options.behind_max_ms,
            remembered_max: options.remembered_max.max(1),
            remembered_for_ms: options.remembered_for_ms,
            remembered: 0,
            read_ms: 0,
            floor: None,
            next_number: 0,
            numbers: BTreeMap::new(),
            known: BTreeMap::new(),
            changed: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            memory: Delta::default(),
            lost: Lost::default(),
        }
    }

    /// Whether it calls streams by the same numbers as another.
    pub(super) fn numbers_as(&self, other: &Self) -> bool {
        self.numbers == other.numbers
    }

    pub(super) fn remembered(&self) -> usize {
        self.remembered
    }

    /// The watermark of a stream, unless it is forgotten.
    pub(super) fn watermark(&self, number: u32) -> Option<Watermark> {
        let stream = &self.known.get(&number)?.stream;
        let on_ms = stream.newest_ms.saturating_add(self.read_ms.saturating_sub(stream.moved_ms));
        Some(Watermark {
            time_ms: stream.watermark_ms,
            pace: self.pace(stream),
            quiet_ms: on_ms.saturating_sub(self.lateness_ms).max(stream.watermark_ms),
            gap_ms: stream.gap_ms,
        })
    }

    /// The earliest watermark of the streams that are steady: nothing of them is to come from before it.
    pub(super) fn floor_ms(&mut self) -> u64 {
        let floor = self.floor.unwrap_or_else(|| {
            let steady = self.known.iter().filter(|(_, known)| self.pace(&known.stream) == Pace::Steady);
            steady.map(|(number, known)| (known.stream.watermark_ms, *number)).min().unwrap_or((u64::MAX, u32::MAX))
        });
        self.floor = Some(floor);
        floor.0
    }

    /// The earliest watermark of the streams that are not behind; those that are silent go on with the clock.
    pub(super) fn slowest_ms(&self) -> u64 {
        let all = self.known.iter().filter(|(_, known)| !is_behind(&known.stream, self.behind_max_ms));
        let marks = all.filter_map(|(number, _)| self.watermark(*number));
        marks.map(|mark| if mark.pace == Pace::Steady { mark.time_ms } else { mark.quiet_ms }).min().unwrap_or(u64::MAX)
    }

    fn pace(&self, stream: &Stream) -> Pace {
        let is_asleep = self.read_ms > stream.seen_ms.saturating_add(self.idle_after_ms);
        if is_asleep || self.is_standing(stream) {
            Pace::Silent
        } else if is_behind(stream, self.behind_max_ms) {
            Pace::Behind
        } else {
            Pace::Steady
        }
    }

    /// Whether its events' time stands still while the clock does not.
    fn is_standing(&self, stream: &Stream) -> bool {
        let after_ms = self.idle_after_ms.saturating_add(self.lateness_ms);
        self.read_ms > stream.moved_ms.saturating_add(after_ms)
    }

    /// Takes an event in: the number of its stream, and how it comes.
    pub(super) fn arrive(&mut self, received_ms: u64, name: &str, host: &str, time_ms: u64) -> (u32, Coming) {
        let number = match self.numbers.get(name).and_then(|hosts| hosts.get(host)) {
            Some(number) => *number,
            None => self.begin(received_ms, name.into(), host.into()),
        };
        let mut coming = Coming::default();
        let Some(known) = self.known.get_mut(&number) else { return (number, coming) };
        self.changed.insert(number);
        let stream = &mut known.stream;
        stream.seen_ms = stream.seen_ms.max(received_ms);
        coming.is_late = time_ms < stream.watermark_ms;
        if time_ms > stream.newest_ms {
            (stream.newest_ms, stream.moved_ms) = (time_ms, stream.seen_ms);
            (stream.still, stream.is_told) = (0, false);
        } else {
            stream.still = stream.still.saturating_add(1);
        }
        coming.is_behind = is_behind(stream, self.behind_max_ms);
        let watermark_ms = stream.newest_ms.saturating_sub(self.lateness_ms).max(stream.watermark_ms);
        self.floor = self.floor.filter(|(floor_ms, by)| *by != number && watermark_ms >= *floor_ms);
        self.move_on(number, watermark_ms);
        (number, coming)
    }

    /// Remembers a matching event by its own identity, if it has one; whether it has come before.
    pub(super) fn is_again(&mut self, number: u32, event: &Event) -> bool {
        let (Some(known), Some(identity)) = (self.known.get_mut(&number), identity(event)) else { return false };
        if event.time_ms < known.stream.watermark_ms.saturating_sub(self.remembered_for_ms) {
            return false;
        }
        if !known.remembered.insert((event.time_ms, identity)) {
            return true;
        }
        self.memory.put((number, event.time_ms, identity));
        self.remembered += 1;
        // Beyond the bound the allowed lateness shrinks: an event is never counted twice, rather called late.
        while self.remembered > self.remembered_max {
            let Some(known) = self.known.get_mut(&number) else { break };
            let Some((time_ms, identity)) = known.remembered.pop_first() else { break };
            let is_early = time_ms >= known.stream.watermark_ms;
            self.memory.drop((number, time_ms, identity));
            self.remembered -= 1;
            if is_early {
                self.lost.remembered += 1;
                self.move_on(number, time_ms + 1);
            }
        }
        false
    }

    /// What was forgotten because of a budget since this was last called.
    pub(super) fn take_lost(&mut self) -> Lost {
        std::mem::take(&mut self.lost)
    }

    /// Moves a stream's watermark on and forgets what lies far enough behind it.
    fn move_on(&mut self, number: u32, watermark_ms: u64) {
        let Some(known) = self.known.get_mut(&number) else { return };
        known.stream.watermark_ms = known.stream.watermark_ms.max(watermark_ms);
        let kept_ms = known.stream.watermark_ms.saturating_sub(self.remembered_for_ms);
        while let Some(&(time_ms, id)) = known.remembered.first() {
            if time_ms >= kept_ms {
                break;
            }
            known.remembered.pop_first();
            self.memory.drop((number, time_ms, id));
            self.remembered -= 1;
        }
    }

    /// All that was received before that time was read: streams that are silent or stand still stop holding windows
    /// open.
    pub(super) fn tick(&mut self, read_ms: u64) {
        self.read_ms = self.read_ms.max(read_ms);
        self.floor = None;
        // It went on to come long after its clock had moved for the last time.
        let stands_ms = self.idle_after_ms.saturating_add(self.lateness_ms);
        let is_new = |stream: &Stream| {
            !stream.is_told
                && stream.still >= STILL_MIN
                && stream.seen_ms > stream.moved_ms.saturating_add(stands_ms)
                && is_behind(stream, self.behind_max_ms)
        };
        let told: Vec<u32> =
            self.known.iter().filter(|(_, known)| is_new(&known.stream)).map(|(number, _)| *number).collect();
        for number in told {
            if let Some(known) = self.known.get_mut(&number) {
                known.stream.is_told = true;
                self.changed.insert(number);
                self.lost.standing += 1;
            }
        }
    }

    /// A key was forgotten because nothing came that could still belong to it: what comes up to that time after all
    /// may have.
    pub(super) fn leave_gap(&mut self, number: u32, until_ms: u64) {
        if let Some(known) = self.known.get_mut(&number).filter(|known| known.stream.gap_ms < until_ms) {
            known.stream.gap_ms = until_ms;
            self.changed.insert(number);
        }
    }

    fn begin(&mut self, received_ms: u64, name: Arc<str>, host: Arc<str>) -> u32 {
        if self.known.len() >= STREAMS_MAX {
            let mut seen: Vec<(u64, u32)> =
                self.known.iter().map(|(number, known)| (known.stream.seen_ms, *number)).collect();
            seen.select_nth_unstable(FORGOTTEN_AT_ONCE);
            for (_, number) in &seen[..FORGOTTEN_AT_ONCE] {
                self.forget(*number);
            }
            self.lost.streams += FORGOTTEN_AT_ONCE as u64;
        }
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        let stream = Stream {
            name,
            host,
            newest_ms: 0,
            watermark_ms: 0,
            seen_ms: received_ms,
            moved_ms: received_ms,
            still: 0,
            is_told: false,
            gap_ms: 0,
        };
        self.put(number, stream, false);
        number
    }

    fn put(&mut self, number: u32, stream: Stream, is_stored: bool) {
        self.numbers.entry(stream.name.clone()).or_default().insert(stream.host.clone(), number);
        self.known.insert(number, Known { stream, is_stored, remembered: BTreeSet::new() });
        self.floor = None;
    }

    fn forget(&mut self, number: u32) {
        let Some(known) = self.known.remove(&number) else { return };
        self.floor = None;
        if let Some(hosts) = self.numbers.get_mut(&known.stream.name) {
            hosts.remove(&known.stream.host);
            if hosts.is_empty() {
                self.numbers.remove(&known.stream.name);
            }
        }
        for (time_ms, id) in &known.remembered {
            self.memory.drop((number, *time_ms, *id));
        }
        self.remembered -= known.remembered.len();
        self.changed.remove(&number);
        if known.is_stored {
            self.forgotten.insert(number);
        }
    }

    /// Streams that changed or are forgotten, and what of the memory did, since this was last called.
    pub(super) fn take(
        &mut self,
        mut stream: impl FnMut(u32, Option<&Stream>),
        mut remembered: impl FnMut(Remembered, bool),
    ) {
        for number in std::mem::take(&mut self.forgotten) {
            stream(number, None);
        }
        for number in std::mem::take(&mut self.changed) {
            if let Some(known) = self.known.get_mut(&number) {
                known.is_stored = true;
                stream(number, Some(&known.stream));
            }
        }
        self.memory.take(&mut remembered);
    }

    /// Puts back a stream that was stored.
    pub(super) fn restore(&mut self, number: u32, stream: Stream) {
        self.next_number = self.next_number.max(number.saturating_add(1));
        self.put(number, stream, true);
    }

    /// Puts back a remembered event that was stored; whether its stream is known.
    pub(super) fn remember(&mut self, (number, time_ms, id): Remembered) -> bool {
        let Some(known) = self.known.get_mut(&number) else { return false };
        self.remembered += usize::from(known.remembered.insert((time_ms, id)));
        true
    }
}

/// Whether its events come longer after they happened than others may be made to wait for.
fn is_behind(stream: &Stream, behind_max_ms: u64) -> bool {
    stream.seen_ms.saturating_sub(stream.newest_ms) > behind_max_ms
}

/// The identity an event carries itself: one its source gave it, or its content where it has no place in a stream.
fn identity(event: &Event) -> Option<EventId> {
    let uid = event.text(IDENTITY_FIELD).filter(|uid| !uid.is_empty());
    match uid {
        Some(uid) => {
            let mut hash = Digest::new("holdfast event by its source 1");
            hash.part(uid.as_bytes());
            Some(EventId::of(hash))
        }
        None if event.position.is_none() => Some(event.id),
        None => None,
    }
}
