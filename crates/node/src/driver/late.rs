//! The late lane: spans of stored events that are read again, because something came after its correlation's state
//! had moved on. One at a time, in a task of its own and in small steps: nobody waits for it.
//!
//! How far back it reads, how much, and how many spans wait is bounded; what is beyond a bound is refused, and whoever
//! asked must tell. A span is never judged in part: what was not read would look as if it had not happened.

use crate::driver::duty::Post;
use crate::driver::streams;
use crate::machine::command::Row;
use crate::node::Node;
use detection::Event;
use detection::engine::{Effect, LateLane, Options, judge_again};
use detection::normalise::normalise_for;
use detection::rules::RuleSet;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinHandle};

/// What rows of spans begin with.
const LANE: &[u8] = b"l";
/// Most spans that wait.
const WAITING_MAX: usize = 1_024;
/// Spans that ended longer ago are refused: a clock that stands still must not have all of the past read again.
const ENDED_BEFORE_MS: u64 = 7 * 24 * 3_600_000;
/// Most stored events that are read for one span…
const READ_MAX: usize = 2_000_000;
/// …and most of them that rules match: they are judged in one go.
const EVENTS_MAX: usize = 20_000;
/// A stream is nearly in order of receipt: what was held back, such as dead letters or a disk buffer, keeps its old time
/// and lies among what is new. So many turns in a row that came before the span are taken for its begin.
const TURNS_BEFORE: usize = 64;
/// A clock may be so far ahead of the time of receipt: what was received earlier happened earlier.
const AHEAD_MS: u64 = 60_000;
/// Before a stream is read again that could not be read.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Late events of a rule that are not judged.
pub(super) type Unseen = (Arc<str>, u64);

/// Spans that wait, what of them is not stored yet, and the one being read.
#[derive(Default)]
pub(super) struct Late {
    waiting: BTreeMap<Vec<u8>, LateLane>,
    changed: BTreeSet<Vec<u8>>,
    judging: Option<Judging>,
}

struct Judging {
    lane: LateLane,
    task: JoinHandle<Option<Vec<Effect>>>,
    /// What came of it.
    judged: Option<Result<Option<Vec<Effect>>, JoinError>>,
}

impl Drop for Judging {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Late {
    /// What an earlier holder left, and how many rows of it cannot be read.
    pub(super) async fn restore(post: &Post) -> (Self, usize) {
        let rows = post.stored(LANE).await;
        let count = rows.len();
        let lane = |(key, row): (Vec<u8>, Vec<u8>)| Some((key, serde_json::from_slice(&row).ok()?));
        let waiting: BTreeMap<Vec<u8>, LateLane> = rows.into_iter().filter_map(lane).collect();
        let unreadable = count - waiting.len();
        (Self { waiting, ..Self::default() }, unreadable)
    }

    /// How many spans wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes spans in; those that are refused are returned.
    pub(super) fn add(&mut self, now_ms: u64, lanes: Vec<LateLane>) -> Vec<Unseen> {
        let mut refused = Vec::new();
        for lane in lanes {
            let key = key_of(&lane);
            let has_room = self.waiting.len() < WAITING_MAX || self.waiting.contains_key(&key);
            if !has_room || lane.to_ms.saturating_add(ENDED_BEFORE_MS) < now_ms {
                refused.push((lane.rule.clone(), lane.events.len() as u64));
                continue;
            }
            self.changed.insert(key.clone());
            let known = self.waiting.entry(key).or_insert_with(|| lane.clone());
            known.to_ms = known.to_ms.max(lane.to_ms);
            known.events.extend(lane.events);
            known.apart &= lane.apart;
        }
        refused
    }

    /// Reads the next span where none is being read.
    pub(super) fn go_on(&mut self, node: &Arc<Node>, rules: &Arc<RuleSet>) {
        if self.judging.is_some() {
            return;
        }
        let Some(lane) = self.waiting.first_key_value().map(|(_, lane)| lane.clone()) else { return };
        let task = tokio::spawn(judge(Arc::clone(node), Arc::clone(rules), lane.clone()));
        self.judging = Some(Judging { lane, task, judged: None });
    }

    /// Waits until a span has been read; for ever where none is.
    pub(super) async fn is_done(&mut self) {
        match &mut self.judging {
            Some(judging) if judging.judged.is_none() => judging.judged = Some((&mut judging.task).await),
            Some(_) => {}
            None => std::future::pending().await,
        }
    }

    /// What the late events of the span made true that was read, or that it could not be judged.
    pub(super) async fn take_judged(&mut self) -> Option<Result<Vec<Effect>, Unseen>> {
        if self.judging.as_ref().is_some_and(|judging| judging.task.is_finished()) {
            self.is_done().await;
        }
        let mut judging = self.judging.take_if(|judging| judging.judged.is_some())?;
        let judged = judging.judged.take()?;
        let judged = judged.inspect_err(|error| tracing::error!(%error, "a span was not judged"));
        let lane = &judging.lane;
        let key = key_of(lane);
        // What came for it meanwhile is judged with it once more: the same alerts are stored once.
        if self.waiting.get(&key) == Some(lane) {
            self.waiting.remove(&key);
            self.changed.insert(key);
        }
        Some(judged.ok().flatten().ok_or_else(|| (lane.rule.clone(), lane.events.len() as u64)))
    }

    pub(super) fn take_rows(&mut self) -> Vec<Row> {
        let changed = std::mem::take(&mut self.changed);
        let row = |key: Vec<u8>| {
            let value = self.waiting.get(&key).and_then(|lane| serde_json::to_vec(lane).ok());
            (key, value)
        };
        changed.into_iter().map(row).collect()
    }
}

/// Reads a span again, and what the late events make of it; nothing where it is too large.
async fn judge(node: Arc<Node>, rules: Arc<RuleSet>, lane: LateLane) -> Option<Vec<Effect>> {
    let mut worker = rules.program().worker();
    let options = Options::default();
    let (mut events, mut read) = (Vec::new(), 0);
    for stream in streams::detected(&node) {
        let (mut before, mut turns_before) = (u64::MAX, 0);
        loop {
            let turn = match streams::turn_back(&node, &stream, before) {
                Ok(turn) => turn,
                Err(error) => {
                    tracing::error!(%error, stream, "a stream cannot be read; it is tried again");
                    tokio::time::sleep(RETRY_AFTER).await;
                    continue;
                }
            };
            let Some(last) = turn.last else { break };
            before = last;
            read += if turn.is_full { streams::TURN } else { turn.events.len() };
            let all = || turn.events.iter().filter_map(|(_, taken)| taken.as_ref());
            for taken in all() {
                let (raw, owner) = (&taken.raw, taken.owner());
                let is_matched =
                    rules.program().run_raw_for(&mut worker, raw, owner).is_ok() && worker.hits().len() > 0;
                let event = is_matched.then(|| normalise_for(raw, owner).ok()).flatten();
                // As live detection has it: a clock that was ahead is not believed.
                let happened_ms = |event: &Event| options.believed_ms(event.time_ms, raw.received_ms);
                events.extend(event.filter(|event| (lane.from_ms..=lane.to_ms).contains(&happened_ms(event))));
            }
            let mut received = all().map(|taken| taken.raw.received_ms).chain(turn.last_ms);
            let is_before = received.all(|received_ms| received_ms.saturating_add(AHEAD_MS) < lane.from_ms);
            turns_before = if is_before { turns_before + 1 } else { 0 };
            if turns_before >= TURNS_BEFORE {
                break;
            }
            if events.len() > EVENTS_MAX || read > READ_MAX {
                tracing::warn!(rule = %lane.rule, read, events = events.len(), "a span is too large to be read again");
                return None;
            }
            tokio::task::yield_now().await;
        }
    }
    events.sort_by_key(|event| (event.time_ms, event.id));
    Some(judge_again(&rules, &options, &lane, &events))
}

fn key_of(lane: &LateLane) -> Vec<u8> {
    let mut hash = blake3::Hasher::new();
    for part in lane.group.iter().flat_map(|(field, value)| [field, value]).map(String::as_bytes) {
        hash.update(&(part.len() as u64).to_be_bytes()).update(part);
    }
    [LANE, lane.rule.as_bytes(), b"\0", &lane.from_ms.to_be_bytes(), &hash.finalize().as_bytes()[..16]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(from_ms: u64, number: u8) -> LateLane {
        let events = BTreeSet::from([detection::EventId::from_bytes([number; 16])]);
        LateLane { rule: "r".into(), group: BTreeMap::new(), from_ms, to_ms: from_ms + 60_000, events, apart: false }
    }

    #[test]
    fn what_ended_long_ago_and_what_is_too_much_is_refused_and_counted() {
        let (mut late, now_ms) = (Late::default(), 100 * ENDED_BEFORE_MS);
        assert_eq!(late.add(now_ms, vec![lane(0, 1), lane(now_ms - 3_600_000, 2)]), [("r".into(), 1)]);
        let many = (0..2 * WAITING_MAX as u64).map(|n| lane(now_ms - n, 3)).collect();
        assert_eq!(late.add(now_ms, many).len(), WAITING_MAX + 1);
        assert_eq!(late.waiting(), WAITING_MAX);
        assert_eq!(late.add(now_ms, vec![lane(now_ms - 1, 4)]), [], "what waits already may grow");
        assert_eq!(late.take_rows().len(), WAITING_MAX);
    }
}
