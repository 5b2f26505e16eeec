//! Drives one shard of the detector: reads what happened in this region, in order, and stores what follows from it.
//!
//! Its duty's rows are the place in each stream and the state of the correlations. They are stored together with the
//! alerts that follow, in one report: whoever takes the shard over goes on where the last report ended, and what was
//! read but not reported is read again. So each event counts once, whoever dies when.

use crate::driver::duty::{Lost, Post, Work};
use crate::driver::late::Late;
use crate::driver::streams;
use crate::driver::trial::Trial;
use crate::machine::command::{Act, ActChange, Must, Row, Transact};
use crate::machine::control::platform;
use crate::machine::note::Note;
use crate::node::Node;
use async_trait::async_trait;
use detection::engine::{Detector, Effect, Input, Options};
use detection::rollout::Care;
use detection::rules::RuleSet;
use detection::{Alert, RawEvent};
use model::codec::{decode, encode};
use model::{FieldId, Merge, TableId, TenantId, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The JSON of an alert, or of an incident's change.
pub const ONLY: FieldId = FieldId::new(1);
/// The alert that covers the events of one that no longer stands.
pub const SUPERSEDED_BY: FieldId = FieldId::new(2);
/// Satisfying events of a burst that goes on, and when the last of them happened.
pub const COUNT: FieldId = FieldId::new(3);
/// See [`COUNT`].
pub const LAST_MS: FieldId = FieldId::new(4);

/// How long what was read may wait for its report, where no alert follows from it.
const REPORT_EVERY_MS: u64 = 1_000;
/// Time passes for the detector at least this often.
const TICK: Duration = Duration::from_secs(1);
/// Bytes of an alert's JSON: what a field can hold, with room to spare.
const ALERT_BYTES_MAX: usize = model::limit::VALUE_BYTES_MAX - 1024;
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

/// One shard.
pub struct Shard {
    /// Its number.
    pub number: u16,
    /// Of so many.
    pub of: u16,
    /// The rules of all shards, as this node knows them now.
    pub rules: watch::Receiver<Arc<RuleSet>>,
    /// How new rules come into charge.
    pub care: Care,
}

#[async_trait]
impl Work for Shard {
    fn duty(&self) -> String {
        format!("detect/{}", self.number)
    }

    async fn work(&self, post: Post) -> Lost {
        let Err(lost) = Watch::take_over(post, self).await;
        lost
    }
}

impl Shard {
    /// Its rules, of a set.
    fn own(&self, rules: &RuleSet) -> Arc<RuleSet> {
        Arc::new(rules.shard(u32::from(self.number), u32::from(self.of)))
    }
}

struct Watch {
    post: Post,
    detector: Detector,
    cursor: Cursor,
    trial: Trial,
    late: Late,
    reported_ms: u64,
    is_dirty: bool,
}

impl Watch {
    /// Goes on where the last report ended, until the lease is lost.
    async fn take_over(mut post: Post, shard: &Shard) -> Result<std::convert::Infallible, Lost> {
        let mut rules = shard.rules.clone();
        let known = shard.own(&rules.borrow_and_update());
        let trial = Trial::restore(&post, known, shard.care.clone());
        let detector = restore(&mut post, trial.in_charge()).await?;
        let cursor = post.row(CURSOR).ok().flatten().and_then(|row| decode(&row).ok()).unwrap_or_default();
        let late = Late::restore(&post);
        let mut watch = Self { post, detector, cursor, trial, late, reported_ms: 0, is_dirty: false };
        let mut ticked_ms = 0;
        let mut effects = Vec::new();
        loop {
            let taken = watch.read(&mut effects);
            let now_ms = watch.post.node.world.clock.wall_ms();
            if now_ms >= ticked_ms + TICK.as_millis() as u64 {
                ticked_ms = now_ms;
                watch.detector.step(now_ms, Input::Tick, &mut effects);
                watch.trial.tick(now_ms);
                watch.count();
            }
            watch.trial.saw(now_ms, taken, &effects);
            let is_due = watch.is_dirty && now_ms >= watch.reported_ms + REPORT_EVERY_MS;
            if !effects.is_empty() || is_due {
                watch.report(now_ms, &mut effects).await?;
            }
            if rules.has_changed().unwrap_or(false) {
                let new = shard.own(&rules.borrow_and_update());
                watch.trial.propose(now_ms, new);
            }
            watch.change_rules(now_ms, &mut effects).await?;
            if taken > 0 {
                continue;
            }
            if let Some(lane) = watch.late.next() {
                let alerts = watch.late.judge(&watch.post.node, watch.trial.in_charge(), &lane).await;
                effects.extend(alerts.into_iter().map(Effect::Alert));
                watch.late.done(&lane);
                watch.report(now_ms, &mut effects).await?;
                continue;
            }
            watch.wait().await;
        }
    }

    /// Does what the rollout of new rules asks for. State is carried over where a rule means the same.
    async fn change_rules(&mut self, now_ms: u64, effects: &mut Vec<Effect>) -> Result<(), Lost> {
        for change in self.trial.changes() {
            tracing::info!(duty = self.post.duty(), %change, "rules");
            effects.extend(change.alert(now_ms).map(Effect::Alert));
            // Stored before anything is read under other rules: the same rows are what the new detector begins with.
            self.is_dirty = true;
            self.report(now_ms, effects).await?;
            if change.is_in_charge() {
                self.detector = restore(&mut self.post, self.trial.in_charge()).await?;
            }
            let note = note(&self.post.node, "config.update", format!("rules/{}", self.post.duty()));
            let note = Note { refused: change.refusal(), ..note };
            let command = crate::machine::command::Command::Note(note);
            let _ = self.post.node.propose(self.post.node.cluster.home(), &command).await;
        }
        Ok(())
    }

    /// Waits until something happens in this region.
    async fn wait(&self) {
        let node = &self.post.node;
        let mut changes: Vec<_> = node.data.values().map(|data| data.machine.changes()).collect();
        changes.push(node.control.machine.changes());
        // What came between reading and subscribing is found by the tick at the latest.
        let any = futures::future::select_all(changes.iter_mut().map(|changes| Box::pin(changes.changed())));
        let _ = tokio::time::timeout(TICK, any).await;
    }

    /// Reads a turn of every stream.
    fn read(&mut self, effects: &mut Vec<Effect>) -> usize {
        let mut taken = 0;
        for stream in streams::names(&self.post.node) {
            let from = self.cursor.next.get(&stream).copied().unwrap_or(0);
            for (sequence, event) in streams::turn(&self.post.node, &stream, from) {
                taken += 1;
                self.cursor.next.insert(stream.clone(), sequence + 1);
                if let Some(event) = event {
                    self.take(&event.raw, effects);
                }
            }
        }
        self.is_dirty |= taken > 0;
        taken
    }

    fn take(&mut self, raw: &RawEvent, effects: &mut Vec<Effect>) {
        let node = &self.post.node;
        let now_ms = node.world.clock.wall_ms();
        if let Err(reject) = self.detector.raw(now_ms, raw, effects) {
            node.metrics.detection.with_label_values(&[reject.reason.label()]).inc();
            tracing::debug!(position = ?raw.position, reason = %reject.reason, "an event was rejected");
        }
        self.trial.take(now_ms, raw);
    }

    /// Stores what was found, and up to where.
    async fn report(&mut self, now_ms: u64, effects: &mut Vec<Effect>) -> Result<(), Lost> {
        let node = Arc::clone(&self.post.node);
        let writes = effects.drain(..).filter_map(|effect| written(&node, effect)).collect();
        let rows = self.detector.take_rows().into_iter().map(|(key, value)| ([STATE, &key].concat(), value));
        self.late.add(self.detector.take_late());
        let rows = rows.chain([(CURSOR.to_vec(), Some(encode(&self.cursor)))]);
        let rows = rows.chain(self.late.take_rows()).chain(self.trial.take_row()).collect();
        self.post.report(rows, writes).await?;
        (self.reported_ms, self.is_dirty) = (now_ms, false);
        Ok(())
    }

    fn count(&self) {
        let counts = self.detector.counts();
        let metric = &self.post.node.metrics.detection;
        let pairs = [
            ("events", counts.events),
            ("duplicates", counts.duplicates),
            ("late", counts.late),
            ("ahead", counts.ahead),
            ("matches", counts.matches),
            ("alerts", counts.alerts),
            ("keys_evicted", counts.keys_evicted),
        ];
        for (name, count) in pairs {
            let counter = metric.with_label_values(&[name]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }
}

/// A detector that goes on with what is stored.
async fn restore(post: &mut Post, rules: &RuleSet) -> Result<Detector, Lost> {
    let rows = post.rows(STATE).unwrap_or_else(|error| {
        tracing::error!(%error, "the state of a shard cannot be read");
        Vec::new()
    });
    let gone: Vec<Row> = rows.iter().map(|(key, _)| (key.clone(), None)).collect();
    let own = rows.into_iter().map(|(key, value)| (key[STATE.len()..].to_vec(), value));
    match Detector::restore(rules.clone(), Options::default(), own) {
        Ok((detector, restored)) => {
            tracing::info!(
                duty = post.duty(),
                carried = restored.carried,
                keys = restored.keys,
                dropped = restored.dropped,
                "restored"
            );
            Ok(detector)
        }
        Err(error) => {
            // Better to begin again than not to detect: and never without a word.
            tracing::error!(%error, "the state of a shard was lost");
            let note = note(&post.node, "detection.state_lost", "detection".into());
            let command = crate::machine::command::Command::Note(note);
            let _ = post.node.propose(post.node.cluster.home(), &command).await;
            post.report(gone, Vec::new()).await?;
            Ok(Detector::new(rules.clone(), Options::default()))
        }
    }
}

/// The record that an effect becomes.
fn written(node: &Node, effect: Effect) -> Option<Transact> {
    let (alert, must, set, action) = match effect {
        Effect::Alert(alert) => {
            let json = fitting_alert(&alert)?;
            (alert.id, Must::BeAbsent, vec![(ONLY, Merge::Lww, Value::Text(json))], "alert.raised")
        }
        Effect::Superseded { old, by } => {
            let by = Value::Text(by.to_string());
            (old, Must::Exist, vec![(SUPERSEDED_BY, Merge::Lww, by)], "alert.superseded")
        }
        Effect::Extended { alert, count, last_ms } => {
            let number = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
            let set = vec![(COUNT, Merge::Max, number(count)), (LAST_MS, Merge::Max, number(last_ms))];
            (alert, Must::Exist, set, "alert.extended")
        }
    };
    Some(record(platform::ALERTS, alert.to_string(), must, set, note(node, action, format!("alerts/{alert}"))))
}

/// A transaction on one record of the platform.
pub(crate) fn record(
    table: TableId,
    key: String,
    must: Must,
    set: Vec<(FieldId, Merge, Value)>,
    note: Note,
) -> Transact {
    let resource = note.resource.clone().unwrap_or_else(|| format!("platform/{}/{key}", table.get()));
    let change = ActChange::Upsert { set, increment: Vec::new() };
    let act = Act { table, key, must, seen: None, change, resource, names: BTreeMap::new() };
    Transact { tenant: TenantId::PLATFORM, schema_version: 1, acts: vec![act], idempotency: None, note, trace: None }
}

pub(super) fn note(node: &Node, action: &str, resource: String) -> Note {
    Note {
        action: action.into(),
        tenant: Some("platform".into()),
        user: Some("detector".into()),
        resource: Some(resource),
        node: node.place.id,
        ..Note::default()
    }
}

/// The JSON of an alert; where it would be too long, the events in its middle go: what began it and what completed it stay.
fn fitting_alert(alert: &Alert) -> Option<String> {
    let mut alert = alert.clone();
    loop {
        let json = match serde_json::to_string(&alert) {
            Ok(json) => json,
            Err(error) => {
                tracing::error!(%error, alert = %alert.id, "an alert has no JSON");
                return None;
            }
        };
        if json.len() <= ALERT_BYTES_MAX || alert.events.len() < 3 {
            return Some(json);
        }
        let (keep, count) = (alert.events.len() / 4, alert.events.len());
        alert.events.drain(keep.max(1)..count - keep.max(1));
    }
}
