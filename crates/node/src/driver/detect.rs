//! Drives one shard of the detector: reads what happened in this region, in order, and stores what follows from it.
//!
//! Its duty's rows are the place in each stream and the state of the correlations. They are stored together with the
//! alerts that follow, in one report: whoever takes the shard over goes on where the last report ended, and what was
//! read but not reported is read again. So each event counts once, whoever dies when.

use crate::core::ingest::Taken;
use crate::driver::duty::{Lost, Post, Work, certainly};
use crate::driver::gauge::Gauges;
use crate::driver::known::Known;
use crate::driver::late::Late;
use crate::driver::record::{note, raised, sent, written};
use crate::driver::status::{STATUS, Status, Teller};
use crate::driver::streams;
use crate::driver::trial::{Change, Trial};
use crate::machine::command::{Command, Row};
use crate::machine::note::Note;
use crate::node::Node;
use async_trait::async_trait;
use detection::SemanticHash;
use detection::engine::{Detector, Effect, Input, Options, coverage_degraded};
use detection::rollout::Care;
use detection::rules::RuleSet;
use model::codec::{decode, encode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long what was read may wait for its report, where no alert follows from it.
const REPORT_EVERY_MS: u64 = 1_000;
/// Time passes for the detector at least this often.
const TICK: Duration = Duration::from_secs(1);
/// Of rules that are in charge no more, so many are put on record one by one.
const DISABLED_TOLD_MAX: usize = 256;
/// The row with the place in the streams.
const CURSOR: &[u8] = b"c";
/// What rows of the detector's state begin with.
const STATE: &[u8] = b"s";

/// What has been read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Cursor {
    /// The next sequence of each stream.
    next: BTreeMap<String, u64>,
}

/// The duty of a shard.
pub(crate) fn duty_of(shard: u16) -> String {
    format!("detect/{shard}")
}

/// How far a shard has read each stream.
pub(crate) fn places_of(node: &Node, shard: u16) -> io::Result<BTreeMap<String, u64>> {
    let row = node.home().machine.duty_rows(&duty_of(shard), CURSOR)?.pop();
    Ok(row.and_then(|(_, row)| decode::<Cursor>(&row).ok()).unwrap_or_default().next)
}

/// What was said of a shard last.
pub(crate) fn status_of(node: &Node, shard: u16) -> io::Result<Option<Status>> {
    let row = node.home().machine.duty_rows(&duty_of(shard), STATUS)?.pop();
    Ok(row.and_then(|(_, row)| Status::read(&row)))
}

/// One shard.
pub struct Shard {
    /// Its number.
    pub number: u16,
    /// Of so many.
    pub of: u16,
    /// The rules of all shards, as this node knows them now.
    pub rules: watch::Receiver<Known>,
    /// How new rules come into charge.
    pub care: Care,
}

#[async_trait]
impl Work for Shard {
    fn duty(&self) -> String {
        duty_of(self.number)
    }

    async fn work(&self, post: Post) -> Lost {
        let Err(lost) = Watch::take_over(post, self).await;
        lost
    }
}

impl Shard {
    /// Its rules, of a set.
    fn own(&self, node: &Node, rules: &RuleSet) -> Arc<RuleSet> {
        let own = rules.shard(u32::from(self.number), u32::from(self.of));
        Arc::new(if node.cluster.regions.len() > 1 { own.across_regions() } else { own })
    }
}

/// What a turn of every stream came to.
#[derive(Default)]
struct Looked {
    /// Events that were read.
    taken: usize,
    /// More may wait.
    has_more: bool,
    /// Of audit logs, entries that are not there, though later ones are: the log, the first and the last.
    gaps: Vec<(String, u64, u64)>,
}

struct Watch {
    post: Post,
    detector: Detector,
    cursor: Cursor,
    trial: Trial,
    late: Late,
    gauges: Gauges,
    teller: Teller,
    /// What the node knows, of which this shard has a part.
    known: SemanticHash,
    /// Up to which time of receipt everything has been read.
    read_ms: u64,
    reported_ms: u64,
    is_dirty: bool,
}

impl Watch {
    /// Goes on where the last report ended, until the lease is lost.
    async fn take_over(mut post: Post, shard: &Shard) -> Result<std::convert::Infallible, Lost> {
        let mut rules = shard.rules.clone();
        let mut all = Arc::clone(&rules.borrow_and_update().rules);
        let known = all.identity();
        let mut own = shard.own(&post.node, &all);
        let trial = Trial::restore(&post, Arc::clone(&own), shard.care.clone()).await;
        let (detector, cursor) = restore(&mut post, trial.in_charge()).await?;
        let (late, unreadable) = Late::restore(&post).await;
        if unreadable > 0 {
            post.degraded(format!("{unreadable} spans of late events cannot be read")).await;
        }
        let gauges = Gauges::new(Arc::clone(&post.node), shard.number);
        let mut watch = Self {
            post,
            detector,
            cursor,
            trial,
            late,
            gauges,
            teller: Teller::default(),
            known,
            read_ms: 0,
            reported_ms: 0,
            is_dirty: false,
        };
        let mut ticked_ms = 0;
        let mut effects = Vec::new();
        loop {
            let Looked { taken, has_more, gaps } = watch.read(&mut effects);
            // One shard tells, for all read the same logs.
            if shard.number == 0 {
                watch.record_gaps(gaps).await;
            }
            let now_ms = watch.post.node.world.clock.wall_ms();
            if now_ms >= ticked_ms + TICK.as_millis() as u64 {
                ticked_ms = now_ms;
                watch.detector.step(watch.read_ms, Input::Tick, &mut effects);
                watch.trial.tick(now_ms, watch.read_ms);
                watch.gauges.count(watch.detector.counts(), watch.late.waiting(), watch.trial.phase());
                watch.tell(now_ms);
            }
            watch.trial.saw(now_ms, taken, &effects);
            watch.judged(now_ms, &mut effects).await;
            let is_due = watch.is_dirty && now_ms >= watch.reported_ms + REPORT_EVERY_MS;
            if !effects.is_empty() || is_due {
                watch.report(now_ms, &mut effects).await?;
            }
            if rules.has_changed().unwrap_or(false) {
                let known = rules.borrow_and_update().clone();
                // With a forecast come the rules that came before it.
                if !Arc::ptr_eq(&known.rules, &all) {
                    watch.known = known.rules.identity();
                    own = shard.own(&watch.post.node, &known.rules);
                    all = known.rules;
                }
                watch.trial.propose(now_ms, Arc::clone(&own), known.forecast.as_deref());
            }
            watch.change_rules(now_ms, &mut effects).await?;
            watch.late.go_on(&watch.post.node, watch.trial.in_charge());
            if taken > 0 || has_more {
                tokio::task::yield_now().await;
            } else {
                watch.wait().await;
            }
        }
    }

    /// Says how the shard does, where that is not what was said last.
    fn tell(&mut self, now_ms: u64) {
        if self.teller.is_due(now_ms) {
            let (known, late_spans) = (Some(self.known), self.late.waiting() as u64);
            let status = Status { known, late_spans, ..self.trial.status(now_ms) };
            self.is_dirty |= self.teller.tell(now_ms, status.counting(&self.detector));
        }
    }

    /// What came of a span that was read again.
    async fn judged(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(judged) = self.late.take_judged().await else { return };
        match judged {
            Ok(judged) => effects.extend(judged),
            Err((rule, events)) => self.detector.unseen(now_ms, &rule, events, effects),
        }
        self.is_dirty = true;
    }

    /// Does what the rollout of new rules asks for. State is carried over where a rule means the same.
    async fn change_rules(&mut self, now_ms: u64, effects: &mut Vec<Effect>) -> Result<(), Lost> {
        for change in self.trial.changes() {
            tracing::info!(duty = self.post.duty(), %change, "rules");
            effects.extend(change.alert(now_ms).map(|alert| Effect::Alert(Arc::new(alert))));
            // Stored before anything is read under other rules, so that a successor begins with those.
            self.is_dirty = true;
            self.report(now_ms, effects).await?;
            let note = note(&self.post.node, "config.update", format!("rules/{}", self.post.duty()));
            let values = serde_json::to_string(&change.to_string()).ok();
            let note = Note { refused: change.refusal(), values: Some((None, values)), ..note };
            certainly(&self.post.node, &Command::Note(note)).await;
            if matches!(change, Change::InCharge(_) | Change::Same(_)) {
                self.record_disabled().await;
            }
        }
        self.trial.settle(&mut self.detector);
        Ok(())
    }

    /// Puts on record which rules detected until now and will not any more.
    async fn record_disabled(&self) {
        let before = self.detector.rules().detecting();
        for rule in before.difference(&self.trial.in_charge().detecting()).take(DISABLED_TOLD_MAX) {
            let note = note(&self.post.node, "rule.disable", format!("rules/{rule}"));
            certainly(&self.post.node, &Command::Note(note)).await;
        }
    }

    /// Waits until something happens in this region, or a span has been read.
    async fn wait(&mut self) {
        let node = Arc::clone(&self.post.node);
        let mut changes: Vec<_> = node.data.values().map(|data| data.machine.changes()).collect();
        changes.push(node.control.machine.changes());
        // What came between reading and subscribing is found by the tick at the latest.
        let any = futures::future::select_all(changes.iter_mut().map(|changes| Box::pin(changes.changed())));
        tokio::select! {
            biased;
            _ = tokio::time::timeout(TICK, any) => {}
            () = self.late.is_done() => {}
        }
    }

    /// Reads a turn of every stream.
    fn read(&mut self, effects: &mut Vec<Effect>) -> Looked {
        let now_ms = self.post.node.world.clock.wall_ms();
        let (mut looked, mut read_ms) = (Looked::default(), now_ms);
        for stream in streams::detected(&self.post.node) {
            let from = self.cursor.next.get(&stream).copied().unwrap_or(0);
            let turn = match streams::try_turn(&self.post.node, &stream, from) {
                Ok(turn) => turn,
                Err(error) => {
                    tracing::error!(%error, stream, "a stream cannot be read; it is tried again");
                    read_ms = read_ms.min(self.read_ms);
                    continue;
                }
            };
            // More of it waits, as after an outage: time has come no further than to what was read.
            let mut behind_ms = 0;
            if turn.is_full {
                looked.has_more = true;
                let last = turn.events.iter().rev().find_map(|(_, event)| Some(event.as_ref()?.raw.received_ms));
                read_ms = read_ms.min(last.unwrap_or(0));
                behind_ms = now_ms.saturating_sub(last.unwrap_or(now_ms));
            }
            self.gauges.lag(&stream, behind_ms);
            if let Some(last) = turn.last {
                self.cursor.next.insert(stream.clone(), last + 1);
                self.is_dirty = true;
            }
            let mut next = from;
            for (sequence, event) in turn.events {
                if sequence > next && streams::is_audit(&stream) {
                    looked.gaps.push((stream.clone(), next, sequence - 1));
                }
                next = sequence + 1;
                looked.taken += 1;
                match event {
                    Some(event) => self.take(&event, effects),
                    None => self.gauges.rejected("unreadable"),
                }
            }
        }
        self.read_ms = self.read_ms.max(read_ms);
        looked
    }

    /// Puts on record that entries are missing.
    async fn record_gaps(&self, gaps: Vec<(String, u64, u64)>) {
        for (log, first, last) in gaps {
            tracing::error!(log, first, last, "entries of an audit log are missing");
            let values = serde_json::to_string(&format!("entries {first} to {last} are not there")).ok();
            let note = Note { values: Some((None, values)), ..note(&self.post.node, "audit.gap", log) };
            certainly(&self.post.node, &Command::Note(note)).await;
        }
    }

    fn take(&mut self, event: &Taken, effects: &mut Vec<Effect>) {
        let (raw, owner) = (&event.raw, event.owner());
        let now_ms = self.post.node.world.clock.wall_ms();
        if let Err(reject) = self.detector.raw_for(now_ms, raw, owner, effects) {
            self.gauges.rejected(reject.reason.label());
            tracing::debug!(position = ?raw.position, reason = %reject.reason, "an event was rejected");
        }
        self.trial.take(now_ms, raw, owner);
    }

    /// Stores what was found, and up to where.
    async fn report(&mut self, now_ms: u64, effects: &mut Vec<Effect>) -> Result<(), Lost> {
        let node = Arc::clone(&self.post.node);
        for (rule, events) in self.late.add(now_ms, self.detector.take_late()) {
            self.detector.unseen(now_ms, &rule, events, effects);
        }
        let tuples = self.detector.take_tuples();
        let writes = effects.drain(..).filter_map(|effect| written(&node, effect));
        let writes = writes.chain(tuples.iter().filter_map(|tuple| sent(&node, tuple))).collect();
        let rows = self.detector.take_rows().into_iter().map(|(key, value)| ([STATE, &key].concat(), value));
        let rows = rows.chain([(CURSOR.to_vec(), Some(encode(&self.cursor)))]);
        let rows =
            rows.chain(self.late.take_rows()).chain(self.trial.take_row()).chain(self.teller.take_row()).collect();
        self.post.report(rows, writes).await?;
        (self.reported_ms, self.is_dirty) = (now_ms, false);
        Ok(())
    }
}

/// A detector that goes on with what is stored, and the place in the streams that belongs to it.
async fn restore(post: &mut Post, rules: &Arc<RuleSet>) -> Result<(Detector, Cursor), Lost> {
    let rows = post.stored(STATE).await;
    let cursor = post.stored(CURSOR).await.pop().map(|(_, row)| decode::<Cursor>(&row)).transpose();
    let gone: Vec<Row> = rows.iter().map(|(key, _)| (key.clone(), None)).collect();
    let own = rows.into_iter().map(|(key, value)| (key[STATE.len()..].to_vec(), value));
    let why = match (Detector::restore(Arc::clone(rules), Options::default(), own), cursor) {
        (Ok((detector, restored)), Ok(cursor)) => {
            tracing::info!(
                duty = post.duty(),
                carried = restored.carried,
                keys = restored.keys,
                dropped = restored.dropped,
                "restored"
            );
            return Ok((detector, cursor.unwrap_or_default()));
        }
        (Err(error), Ok(cursor)) => {
            lost(post, gone, error.to_string()).await?;
            return Ok((Detector::new(Arc::clone(rules), Options::default()), cursor.unwrap_or_default()));
        }
        (_, Err(error)) => error.to_string(),
    };
    // Without its place the state is worth nothing: what it has counted would be counted again. From the first event
    // on, with nothing counted, the same alerts are found, and stored once.
    lost(post, gone, why).await?;
    Ok((Detector::new(Arc::clone(rules), Options::default()), Cursor::default()))
}

/// The state of a shard cannot be read: better to begin again than not to detect, and never without a word.
async fn lost(post: &mut Post, gone: Vec<Row>, why: String) -> Result<(), Lost> {
    tracing::error!(duty = post.duty(), why, "the state of a shard was lost");
    let duty = post.duty().to_owned();
    let note = Note { refused: Some(why.clone()), ..note(&post.node, "detection.state_lost", duty.clone()) };
    certainly(&post.node, &Command::Note(note)).await;
    let now_ms = post.node.world.clock.wall_ms();
    let text = format!("the state of {duty} was lost: {why}");
    let alert = coverage_degraded("platform".into(), now_ms, &duty, text);
    post.report(gone, raised(&post.node, &alert).into_iter().collect()).await
}

#[cfg(test)]
mod tests;
