//! Source streams: the watermark of each, and the memory by which duplicates are recognised.
//!
//! An event with a place in a stream is not remembered: whoever reads a stream goes on where it stopped, and a
//! correlation holds each place once. Remembered are the matching events that carry an identity of their own, for
//! those may come again under another place.

use super::Options;
use crate::correlation::{Delta, Lost, Watermark};
use crate::event::Event;
use crate::id::{Digest, EventId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most streams known at a time; the one silent for longest is forgotten beyond it.
const STREAMS_MAX: usize = 4_096;

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
    seen_ms: u64,
}

#[derive(Clone, Debug)]
struct Known {
    stream: Stream,
    is_awake: bool,
    quiet_ms: u64,
    is_stored: bool,
    remembered: BTreeSet<(u64, EventId)>,
}

/// A row of the memory: the number of the stream, and an event's time and identity.
pub(super) type Remembered = (u32, u64, EventId);

/// All streams.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    lateness_ms: u64,
    idle_after_ms: u64,
    remembered_for_ms: u64,
    remembered_max: usize,
    remembered: usize,
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
            remembered_for_ms: options.remembered_for_ms,
            remembered_max: options.remembered_max.max(1),
            remembered: 0,
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
        let known = self.known.get(&number)?;
        Some(Watermark { time_ms: known.stream.watermark_ms, is_awake: known.is_awake, quiet_ms: known.quiet_ms })
    }

    /// Takes an event in: the number of its stream, and whether it comes behind the stream's watermark.
    pub(super) fn arrive(&mut self, now_ms: u64, name: &str, host: &str, time_ms: u64) -> (u32, bool) {
        let number = match self.numbers.get(name).and_then(|hosts| hosts.get(host)) {
            Some(number) => *number,
            None => self.begin(name.into(), host.into()),
        };
        let Some(known) = self.known.get_mut(&number) else { return (number, true) };
        self.changed.insert(number);
        known.is_awake = true;
        let stream = &mut known.stream;
        stream.seen_ms = now_ms;
        let is_late = time_ms < stream.watermark_ms;
        stream.newest_ms = stream.newest_ms.max(time_ms);
        let watermark_ms = stream.newest_ms.saturating_sub(self.lateness_ms);
        self.move_on(number, watermark_ms);
        (number, is_late)
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
        if self.remembered > self.remembered_max {
            self.forget_late();
        }
        // Beyond the bound the allowed lateness shrinks: an event is never counted twice, rather called late.
        while self.remembered > self.remembered_max {
            let oldest = self.known.get_mut(&number).and_then(|known| known.remembered.pop_first());
            let Some((time_ms, id)) = oldest else { break };
            self.memory.drop((number, time_ms, id));
            self.remembered -= 1;
            self.lost.remembered += 1;
            self.move_on(number, time_ms + 1);
        }
        false
    }

    /// What was forgotten because of a budget since this was last called.
    pub(super) fn take_lost(&mut self) -> Lost {
        std::mem::take(&mut self.lost)
    }

    /// Makes room: of every stream goes what is remembered only for what comes again late.
    fn forget_late(&mut self) {
        let numbers: Vec<u32> = self.known.keys().copied().collect();
        let before = self.remembered;
        numbers.into_iter().for_each(|number| self.forget_behind(number, 0));
        self.lost.remembered += (before - self.remembered) as u64;
    }

    /// Moves a stream's watermark on and forgets what lies long behind it: what comes again may come late.
    fn move_on(&mut self, number: u32, watermark_ms: u64) {
        let Some(known) = self.known.get_mut(&number) else { return };
        known.stream.watermark_ms = known.stream.watermark_ms.max(watermark_ms);
        self.forget_behind(number, self.remembered_for_ms);
    }

    /// Forgets what lies so far behind a stream's watermark.
    fn forget_behind(&mut self, number: u32, by_ms: u64) {
        let Some(known) = self.known.get_mut(&number) else { return };
        let until_ms = known.stream.watermark_ms.saturating_sub(by_ms);
        while let Some(&(time_ms, id)) = known.remembered.first() {
            if time_ms >= until_ms {
                break;
            }
            known.remembered.pop_first();
            self.memory.drop((number, time_ms, id));
            self.remembered -= 1;
        }
    }

    /// Time passed: streams that are silent stop holding windows open.
    pub(super) fn tick(&mut self, now_ms: u64) {
        for known in self.known.values_mut() {
            let stream = &known.stream;
            known.is_awake = now_ms <= stream.seen_ms.saturating_add(self.idle_after_ms);
            let on_ms = stream.newest_ms.saturating_add(now_ms.saturating_sub(stream.seen_ms));
            known.quiet_ms = on_ms.saturating_sub(self.lateness_ms).max(stream.watermark_ms);
        }
    }

    fn begin(&mut self, name: Arc<str>, host: Arc<str>) -> u32 {
        if self.known.len() >= STREAMS_MAX {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.stream.seen_ms).map(|(number, _)| *number);
            oldest.into_iter().for_each(|number| self.forget(number));
            self.lost.streams += 1;
        }
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        self.put(number, Stream { name, host, newest_ms: 0, watermark_ms: 0, seen_ms: 0 }, false);
        number
    }

    fn put(&mut self, number: u32, stream: Stream, is_stored: bool) {
        self.numbers.entry(stream.name.clone()).or_default().insert(stream.host.clone(), number);
        let known = Known { stream, is_awake: true, quiet_ms: 0, is_stored, remembered: BTreeSet::new() };
        self.known.insert(number, known);
    }

    fn forget(&mut self, number: u32) {
        let Some(known) = self.known.remove(&number) else { return };
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
        self.put(number, stream, true);
    }

    /// Puts back a remembered event that was stored; whether its stream is known.
    pub(super) fn remember(&mut self, (number, time_ms, id): Remembered) -> bool {
        let Some(known) = self.known.get_mut(&number) else { return false };
        self.remembered += usize::from(known.remembered.insert((time_ms, id)));
        true
    }
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
