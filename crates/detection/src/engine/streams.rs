//! Source partitions: the watermark of each, and the memory by which duplicates are dropped.

use super::Options;
use crate::correlation::Watermark;
use crate::event::Event;
use crate::id::EventId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most streams known at a time; the one silent for longest is forgotten beyond it.
const STREAMS_MAX: usize = 4_096;

/// How an event arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// For the first time, and in time.
    New,
    /// Behind its stream's watermark; whether it came before is not known.
    Late,
    /// Not for the first time.
    Duplicate,
}

#[derive(Debug)]
struct Stream {
    number: u32,
    newest_ms: u64,
    /// Only grows.
    watermark_ms: u64,
    seen_ms: u64,
    remembered: BTreeSet<(u64, EventId)>,
}

/// All streams.
#[derive(Debug)]
pub(super) struct Streams {
    lateness_ms: u64,
    idle_after_ms: u64,
    remembered_max: usize,
    remembered: usize,
    next_number: u32,
    /// By stream and the host that wrote the event.
    by_name: BTreeMap<(Arc<str>, Arc<str>), Stream>,
    /// By number; with whether the stream is awake.
    watermarks: BTreeMap<u32, Watermark>,
}

impl Streams {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            lateness_ms: options.allowed_lateness_ms,
            idle_after_ms: options.idle_after_ms,
            remembered_max: options.remembered_max.max(1),
            remembered: 0,
            next_number: 0,
            by_name: BTreeMap::new(),
            watermarks: BTreeMap::new(),
        }
    }

    pub(super) fn remembered(&self) -> usize {
        self.remembered
    }

    /// The watermark of a stream.
    pub(super) fn watermark(&self, number: u32) -> Watermark {
        self.watermarks.get(&number).copied().unwrap_or_default()
    }

    /// Takes an event in: the number of its stream, and how it arrived.
    pub(super) fn arrive(&mut self, now_ms: u64, event: &Event) -> (u32, Arrival) {
        let stream: Arc<str> = match &event.position {
            Some(position) => position.stream.clone(),
            None => event.logsource.product.clone().unwrap_or_else(|| "".into()),
        };
        // Hosts have clocks and delays of their own: a log replayed from one must not be late because others are live.
        let name = (stream, Arc::from(event.text("device.hostname").unwrap_or_default()));
        if !self.by_name.contains_key(&name) {
            self.make_room();
            let number = self.next_number;
            self.next_number = self.next_number.wrapping_add(1);
            let stream = Stream { number, newest_ms: 0, watermark_ms: 0, seen_ms: now_ms, remembered: BTreeSet::new() };
            self.by_name.insert(name.clone(), stream);
        }
        let Some(stream) = self.by_name.get_mut(&name) else { return (0, Arrival::Late) };
        stream.seen_ms = now_ms;
        let arrival = if event.time_ms < stream.watermark_ms {
            Arrival::Late
        } else if stream.remembered.insert((event.time_ms, event.id)) {
            self.remembered += 1;
            Arrival::New
        } else {
            Arrival::Duplicate
        };
        stream.newest_ms = stream.newest_ms.max(event.time_ms);
        stream.watermark_ms = stream.watermark_ms.max(stream.newest_ms.saturating_sub(self.lateness_ms));
        // Beyond the bound the allowed lateness shrinks: an event is never counted twice, rather called late.
        while self.remembered > self.remembered_max {
            let Some((time_ms, _)) = stream.remembered.pop_first() else { break };
            self.remembered -= 1;
            stream.watermark_ms = stream.watermark_ms.max(time_ms + 1);
        }
        while stream.remembered.first().is_some_and(|(time_ms, _)| *time_ms < stream.watermark_ms) {
            stream.remembered.pop_first();
            self.remembered -= 1;
        }
        self.watermarks.insert(stream.number, Watermark { time_ms: stream.watermark_ms, is_awake: true });
        (stream.number, arrival)
    }

    /// Time passed: streams that are silent stop holding windows open.
    pub(super) fn tick(&mut self, now_ms: u64) {
        for stream in self.by_name.values() {
            if let Some(watermark) = self.watermarks.get_mut(&stream.number) {
                watermark.is_awake = now_ms <= stream.seen_ms.saturating_add(self.idle_after_ms);
            }
        }
    }

    fn make_room(&mut self) {
        if self.by_name.len() < STREAMS_MAX {
            return;
        }
        let oldest = self.by_name.iter().min_by_key(|(_, stream)| stream.seen_ms).map(|(name, _)| name.clone());
        if let Some(stream) = oldest.and_then(|name| self.by_name.remove(&name)) {
            self.remembered -= stream.remembered.len();
            self.watermarks.remove(&stream.number);
        }
    }
}
