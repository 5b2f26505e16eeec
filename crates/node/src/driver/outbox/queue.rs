//! What one lane of a sink has still to tell: what is new in order, what was put off by turns, nothing for ever.
//!
//! Pure. One receiver that says "later" keeps nobody else waiting: its notice is put aside and the next one is told.

use model::TableId;
use pipeline::sink::Notice;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Notices that wait because they were put off. Of calls the oldest is given up for a further one; of all else no
/// more is read.
pub(super) const WAITING_MAX: usize = 256;
/// Notices that are not calls and are told at once.
const BATCH_MAX: usize = 64;
/// A notice that nobody took for so long is given up.
const KEPT_MS: u64 = 24 * 3_600_000;
/// The pause after a sink could not take a notice: doubled each time, up to the longest.
const PAUSE_MS_MIN: u64 = 500;
/// The longest pause of a notice, and of a sink that takes nothing.
const PAUSE_MS_MAX: u64 = 60_000;
/// The longest pause of a sink that calls people and takes nothing.
const CALL_PAUSE_MS_MAX: u64 = 10_000;

/// What a lane tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Calls to people.
    Calls,
    /// All else.
    Rest,
}

/// A notice that is to be told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    /// Where what it tells is stored.
    pub(super) source: Source,
    pub(super) notice: Notice,
    /// Since when it is to be told.
    pub(super) since_ms: u64,
    /// What the sink said last.
    pub(super) reason: String,
    attempts: u32,
    again_ms: u64,
}

/// A record of the platform from which a notice is made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) table: TableId,
    pub(crate) key: String,
}

impl Item {
    pub(super) fn new(source: Source, notice: Notice, since_ms: u64) -> Self {
        Self { source, notice, since_ms, reason: String::new(), attempts: 0, again_ms: since_ms }
    }

    /// With what the sink said.
    pub(super) fn because(self, reason: String) -> Self {
        Self { reason, ..self }
    }
}

/// What a lane has still to tell.
pub(super) struct Queue {
    lane: Lane,
    fresh: VecDeque<Item>,
    /// By the keys of their notices.
    waiting: BTreeMap<String, Item>,
    /// Attempts since the sink last took something.
    failed: u32,
    again_ms: u64,
}

impl Queue {
    pub(super) const fn new(lane: Lane) -> Self {
        Self { lane, fresh: VecDeque::new(), waiting: BTreeMap::new(), failed: 0, again_ms: 0 }
    }

    /// Takes up a notice; one that is there is left alone.
    pub(super) fn push(&mut self, item: Item) {
        if !self.has(&item.notice.key) {
            self.fresh.push_back(item);
        }
    }

    /// Takes up a notice that was put off before.
    pub(super) fn restore(&mut self, item: Item) {
        self.waiting.insert(item.notice.key.clone(), item);
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.waiting.contains_key(key) || self.fresh.iter().any(|item| item.notice.key == key)
    }

    /// Everything that is to be told.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.fresh.iter().chain(self.waiting.values())
    }

    /// Whether all that is new was told or put off: then the place may be stored.
    pub(super) fn is_read(&self) -> bool {
        self.fresh.is_empty()
    }

    /// Whether more may be read.
    pub(super) fn has_room(&self) -> bool {
        self.is_read() && (self.lane == Lane::Calls || self.waiting.len() < WAITING_MAX)
    }

    /// What is to be told now: what is new before what was put off, calls one by one.
    pub(super) fn next(&mut self, now_ms: u64) -> Vec<Item> {
        if now_ms < self.again_ms {
            return Vec::new();
        }
        let most = if self.lane == Lane::Calls { 1 } else { BATCH_MAX };
        if !self.fresh.is_empty() {
            return self.fresh.drain(..most.min(self.fresh.len())).collect();
        }
        let mut due: Vec<(u64, String)> = self
            .waiting
            .iter()
            .filter(|(_, item)| item.again_ms <= now_ms)
            .map(|(key, item)| (item.again_ms, key.clone()))
            .collect();
        due.sort_unstable();
        due.into_iter().take(most).filter_map(|(_, key)| self.waiting.remove(&key)).collect()
    }

    /// When there is something to be told at the latest.
    pub(super) fn next_ms(&self) -> Option<u64> {
        let first = if self.fresh.is_empty() { self.waiting.values().map(|item| item.again_ms).min()? } else { 0 };
        Some(first.max(self.again_ms))
    }

    /// Puts back what was not tried.
    pub(super) fn put_back(&mut self, items: Vec<Item>) {
        for item in items.into_iter().rev() {
            self.fresh.push_front(item);
        }
    }

    /// The sink took something.
    pub(super) const fn took(&mut self) {
        (self.failed, self.again_ms) = (0, 0);
    }

    /// Puts a notice off that the sink has answered, but whose answer could not be kept.
    pub(super) fn hold(&mut self, mut item: Item, now_ms: u64) {
        item.again_ms = now_ms.saturating_add(PAUSE_MS_MAX);
        self.restore(item);
    }

    /// Puts a notice off; returns what is given up, this or another.
    pub(super) fn later(&mut self, mut item: Item, reason: String, now_ms: u64) -> Option<Item> {
        let most_ms = if self.lane == Lane::Calls { CALL_PAUSE_MS_MAX } else { PAUSE_MS_MAX };
        self.again_ms = now_ms.saturating_add(pause_ms(self.failed, most_ms));
        self.failed = self.failed.saturating_add(1);
        item.again_ms = now_ms.saturating_add(pause_ms(item.attempts, PAUSE_MS_MAX));
        item.attempts = item.attempts.saturating_add(1);
        item.reason = reason;
        if now_ms.saturating_sub(item.since_ms) >= KEPT_MS {
            return Some(item);
        }
        self.waiting.insert(item.notice.key.clone(), item);
        if self.lane == Lane::Calls && self.waiting.len() > WAITING_MAX {
            let (_, oldest) = self.waiting.iter().map(|(key, item)| (item.since_ms, key.clone())).min()?;
            return self.waiting.remove(&oldest);
        }
        None
    }
}

fn pause_ms(attempts: u32, most_ms: u64) -> u64 {
    PAUSE_MS_MIN.saturating_mul(1 << attempts.min(16)).min(most_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use detection::Severity;
    use pipeline::sink::Topic;
    use proptest::prelude::*;

    fn item(key: &str, since_ms: u64) -> Item {
        let notice = Notice {
            key: key.into(),
            topic: Topic::Page,
            tenant: "acme".into(),
            at_ms: since_ms,
            severity: Severity::High,
            subject: String::new(),
            to: Vec::new(),
            body: "{}".into(),
        };
        Item::new(Source { table: TableId::new(6), key: key.into() }, notice, since_ms)
    }

    fn keys(items: &[Item]) -> Vec<&str> {
        items.iter().map(|item| item.notice.key.as_str()).collect()
    }

    #[test]
    fn one_receiver_that_says_later_keeps_nobody_else_waiting() {
        let mut queue = Queue::new(Lane::Calls);
        ["ann", "bob"].into_iter().for_each(|key| queue.push(item(key, 0)));
        let ann = queue.next(0).pop().unwrap();
        assert_eq!(queue.later(ann, "mailbox full".into(), 0), None);
        assert!(queue.next(499).is_empty(), "the sink rests for a moment");
        assert_eq!(keys(&queue.next(500)), ["bob"]);
        queue.took();
        assert!(queue.is_read() && queue.has_room());
        assert_eq!((queue.next_ms(), keys(&queue.next(500))), (Some(500), vec!["ann"]));
    }

    #[test]
    fn what_nobody_takes_for_a_day_is_given_up_with_the_reason() {
        let mut queue = Queue::new(Lane::Rest);
        queue.push(item("a", 0));
        let mut now_ms = 0;
        let given_up = loop {
            let item = queue.next(now_ms).pop().unwrap();
            if let Some(given_up) = queue.later(item, "answer 500".into(), now_ms) {
                break given_up;
            }
            now_ms = queue.next_ms().unwrap();
        };
        assert_eq!((given_up.reason.as_str(), queue.next_ms()), ("answer 500", None));
        assert!((KEPT_MS..KEPT_MS + PAUSE_MS_MAX).contains(&now_ms), "{now_ms}");
    }

    #[test]
    fn a_call_finds_room_and_all_else_is_not_read_while_too_much_waits() {
        for (lane, gives_up) in [(Lane::Calls, true), (Lane::Rest, false)] {
            let mut queue = Queue::new(lane);
            for number in 0..=WAITING_MAX as u64 {
                let put_off = item(&number.to_string(), number);
                let gone = queue.later(put_off, String::new(), number);
                let expected = (gives_up && number == WAITING_MAX as u64).then_some("0");
                assert_eq!(gone.as_ref().map(|item| item.notice.key.as_str()), expected);
            }
            assert_eq!(queue.has_room(), gives_up);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_is_told_twice(answers in proptest::collection::vec(any::<bool>(), 0..60)) {
            let mut queue = Queue::new(Lane::Calls);
            (0..20).for_each(|number| queue.push(item(&number.to_string(), 0)));
            let (mut told, mut now_ms) = (Vec::new(), 0);
            let mut answers = answers.into_iter();
            while let Some(next_ms) = queue.next_ms() {
                now_ms = next_ms.max(now_ms);
                let item = queue.next(now_ms).pop().unwrap();
                if answers.next().unwrap_or(true) {
                    queue.took();
                    told.push(item.notice.key.parse::<u32>().unwrap());
                } else {
                    prop_assert!(queue.later(item, String::new(), now_ms).is_none());
                }
            }
            told.sort_unstable();
            prop_assert_eq!(told, (0..20).collect::<Vec<u32>>());
        }
    }
}
