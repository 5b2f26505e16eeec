//! Drives the detector: reads what happened in this region, in order, and stores what follows from it.
//!
//! Runs where group 0 is led. Its state is rebuilt by reading again from a checkpoint that is older
//! than any rule looks back; alert and incident ids are functions of the events, so what was stored
//! before is found and left alone.

use crate::core::wait::failed;
use crate::driver::book;
use crate::machine::command::{Command, Must, Select};
use crate::machine::control::platform;
use crate::machine::keys;
use crate::machine::note::Note;
use crate::node::Node;
use api::problem::Problem;
use async_trait::async_trait;
use bytes::Bytes;
use detection::engine::{Detector, Effect, Input, Options};
use detection::incident::{self, Board, Incident};
use detection::rules::RuleSet;
use detection::{Alert, Position, RawEvent, SourceKind};
use model::codec::{decode, encode};
use model::{FieldId, GroupId, Merge, TableId, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;
use storage::Space;

/// Where the detector's input, cursor and ingested events live.
pub const HOME: GroupId = GroupId::new(0);
/// The one field of alerts and of incidents: their JSON.
pub(super) const ONLY: FieldId = FieldId::new(1);
/// Events taken from one stream before the next has its turn.
const TURN: usize = 512;
/// How often the place in the streams is remembered.
const CHECKPOINT_EVERY_MS: u64 = 30_000;
/// How far back a takeover reads: longer than any rule's time span and the allowed lateness.
const LOOK_BACK_MS: u64 = 2 * 3_600_000;
/// Checkpoints kept: enough for [`LOOK_BACK_MS`].
const CHECKPOINTS_MAX: usize = 256;
/// Time passes for the detector at least this often.
const TICK: Duration = Duration::from_secs(1);
/// Bytes of an alert's JSON: what a field can hold, with room to spare.
const ALERT_BYTES_MAX: usize = model::limit::VALUE_BYTES_MAX - 1024;
/// Incidents announced and remembered as such.
const ANNOUNCED_MAX: usize = 10_000;

/// Tells people outside about an incident.
#[async_trait]
pub trait Announce: Send + Sync + 'static {
    /// Sends a revision; `false` to be asked again. The key is the same for the same revision.
    async fn announce(&self, key: &str, body: Bytes) -> bool;
}

/// What detection has read, and told outside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Cursor {
    /// When, and the next sequence of each stream then; oldest first.
    checkpoints: Vec<(u64, BTreeMap<String, u64>)>,
    /// The last announced revision of each incident.
    announced: BTreeMap<String, u64>,
}

/// Runs until the node stops.
pub async fn run(node: Arc<Node>, rules: RuleSet, announce: Option<Arc<dyn Announce>>) {
    let mut pulse = node.data[&HOME].group.changes();
    loop {
        if node.data[&HOME].group.is_leader() {
            let watch = Watch::new(Arc::clone(&node), rules.clone(), announce.clone());
            watch.lead().await;
        }
        if pulse.changed().await.is_err() {
            return;
        }
    }
}

struct Watch {
    node: Arc<Node>,
    detector: Detector,
    announce: Option<Arc<dyn Announce>>,
    cursor: Cursor,
    next: BTreeMap<String, u64>,
}

impl Watch {
    fn new(node: Arc<Node>, rules: RuleSet, announce: Option<Arc<dyn Announce>>) -> Self {
        let stored = node.data[&HOME].machine.detection_cursor().ok().flatten();
        let cursor: Cursor = stored.and_then(|bytes| decode(&bytes).ok()).unwrap_or_default();
        let horizon = node.world.clock.wall_ms().saturating_sub(LOOK_BACK_MS);
        let old_enough = cursor.checkpoints.iter().rev().find(|(at_ms, _)| *at_ms <= horizon);
        let next = old_enough.map(|(_, next)| next.clone()).unwrap_or_default();
        Self { node, detector: Detector::new(rules, Options::default()), announce, cursor, next }
    }

    /// Detects until this node no longer leads.
    async fn lead(mut self) {
        let mut ticked_ms = 0;
        while self.node.data[&HOME].group.is_leader() {
            let (taken, effects) = self.read();
            for effect in effects {
                if self.keep(effect).await.is_err() {
                    // The group lost its leader or its quorum: whoever leads next reads it all again.
                    return;
                }
            }
            let now_ms = self.node.world.clock.wall_ms();
            if now_ms >= ticked_ms + 1_000 {
                ticked_ms = now_ms;
                self.detector.step(now_ms, Input::Tick, &mut Vec::new());
                self.count();
                if self.tell().await.is_err() || self.checkpoint(now_ms).await.is_err() {
                    return;
                }
            }
            if taken == 0 {
                self.wait().await;
            }
        }
    }

    /// Waits until something happens in this region.
    async fn wait(&self) {
        let mut changes: Vec<_> = self.node.data.values().map(|data| data.machine.changes()).collect();
        changes.push(self.node.control.machine.changes());
        // What came between reading and subscribing is found by the tick at the latest.
        let any = futures::future::select_all(changes.iter_mut().map(|changes| Box::pin(changes.changed())));
        let _ = tokio::time::timeout(TICK, any).await;
    }

    /// Reads a turn of every stream.
    fn read(&mut self) -> (usize, Vec<Effect>) {
        let node = Arc::clone(&self.node);
        let mut taken = 0;
        let mut effects = Vec::new();
        for (group, data) in &node.data {
            let stream = format!("audit/{}-{}", node.region.name, group.get());
            taken += self.read_audit(&stream, &*data.machine.read_space(), &mut effects);
        }
        taken += self.read_audit("audit/control", &*node.control.machine.read_space(), &mut effects);
        taken += self.read_events(&mut effects);
        (taken, effects)
    }

    fn read_audit(&mut self, stream: &str, space: &dyn Space, effects: &mut Vec<Effect>) -> usize {
        let from = keys::number(self.next.get(stream).copied().unwrap_or(0));
        let rows = match space.scan(keys::AUDIT_LEAF, Bound::Included(&from), Bound::Unbounded, false, TURN) {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(%error, stream, "the audit log cannot be read");
                return 0;
            }
        };
        let taken = rows.len();
        for (key, leaf) in rows {
            let Ok(index) = key.try_into().map(u64::from_be_bytes) else { continue };
            self.take(stream, index, SourceKind::Audit, None, leaf.into(), effects);
        }
        taken
    }

    fn read_events(&mut self, effects: &mut Vec<Effect>) -> usize {
        let stream = format!("events/{}", self.node.region.name);
        let from = self.next.get(&stream).copied().unwrap_or(0);
        let rows = match self.node.data[&HOME].machine.events(from, TURN) {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(%error, "ingested events cannot be read");
                return 0;
            }
        };
        let taken = rows.len();
        for (sequence, bytes) in rows {
            match decode::<RawEvent>(&bytes) {
                Ok(raw) => self.take(&stream, sequence, raw.source, Some(raw.received_ms), raw.bytes, effects),
                Err(error) => tracing::error!(%error, sequence, "an ingested event cannot be read"),
            }
        }
        taken
    }

    fn take(
        &mut self,
        stream: &str,
        sequence: u64,
        source: SourceKind,
        received_ms: Option<u64>,
        bytes: Bytes,
        effects: &mut Vec<Effect>,
    ) {
        let now_ms = self.node.world.clock.wall_ms();
        self.next.insert(stream.to_owned(), sequence + 1);
        let position = Some(Position { stream: stream.into(), sequence });
        let raw = RawEvent { source, received_ms: received_ms.unwrap_or(now_ms), position, bytes };
        match detection::normalise::normalise(&raw) {
            Ok(event) => self.detector.step(now_ms, Input::Event(event), effects),
            Err(reject) => {
                self.node.metrics.detection.with_label_values(&[reject.reason.label()]).inc();
                tracing::debug!(stream, sequence, reason = %reject.reason, "an event was rejected");
            }
        }
    }

    /// Stores what the detector found.
    async fn keep(&mut self, effect: Effect) -> Result<(), Problem> {
        let input = match effect {
            Effect::Alert(alert) => {
                // An alert that an earlier leader stored may not have found its incident: the desk ignores repetitions.
                if !self.is_known(&alert)? {
                    self.keep_alert(&alert).await?;
                }
                incident::Input::Alert(alert)
            }
            Effect::Superseded { old, by } => incident::Input::Superseded { old, by },
            Effect::Extended { alert, count, last_ms } => incident::Input::Extended { alert, count, last_ms },
        };
        book::act(&self.node, &input, |note| note).await.map(|_| ())
    }

    /// Stored by an earlier leader, or by another region that saw the same events.
    fn is_known(&self, alert: &Alert) -> Result<bool, Problem> {
        let found = self.node.platform_records(platform::ALERTS, &Select::Key(alert.id.to_string()))?;
        Ok(!found.records.is_empty())
    }

    async fn keep_alert(&self, alert: &Alert) -> Result<(), Problem> {
        let json = fitting_alert(alert)?;
        let note = note(&self.node, "alert.raised", format!("alerts/{}", alert.id));
        write(&self.node, platform::ALERTS, alert.id.to_string(), Must::BeAbsent, json, note).await
    }

    /// Announces revisions that have not been, at least once each.
    async fn tell(&mut self) -> Result<(), Problem> {
        let Some(announce) = self.announce.clone() else { return Ok(()) };
        for incident in book::current(&self.node).await? {
            let (id, revision) = (incident.id.to_string(), incident.revision());
            if self.cursor.announced.get(&id).is_some_and(|told| *told >= revision) {
                continue;
            }
            let Ok(body) = serde_json::to_vec(&incident) else { continue };
            if !announce.announce(&format!("{id}/{revision}"), body.into()).await {
                continue;
            }
            while self.cursor.announced.len() >= ANNOUNCED_MAX {
                self.cursor.announced.pop_first();
            }
            self.cursor.announced.insert(id, revision);
            self.save().await?;
        }
        Ok(())
    }

    async fn checkpoint(&mut self, now_ms: u64) -> Result<(), Problem> {
        let last_ms = self.cursor.checkpoints.last().map_or(0, |(at_ms, _)| *at_ms);
        if now_ms < last_ms.saturating_add(CHECKPOINT_EVERY_MS) {
            return Ok(());
        }
        if self.cursor.checkpoints.len() >= CHECKPOINTS_MAX {
            self.cursor.checkpoints.remove(0);
        }
        self.cursor.checkpoints.push((now_ms, self.next.clone()));
        self.save().await
    }

    async fn save(&self) -> Result<(), Problem> {
        let command = Command::Detected { cursor: encode(&self.cursor) };
        self.node.propose(HOME, &command).await.map(|_| ()).map_err(failed)
    }

    fn count(&self) {
        let counts = self.detector.counts();
        let metric = &self.node.metrics.detection;
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

pub(super) async fn write(
    node: &Node,
    table: TableId,
    key: String,
    must: Must,
    json: String,
    note: Note,
) -> Result<(), Problem> {
    let set = vec![(ONLY, Merge::Lww, Value::Text(json))];
    match node.keep(table, key, must, set, Vec::new(), note).await {
        // Someone else stored the very same thing: keys of both are functions of what is stored.
        Err(Problem::Conflict { .. }) => Ok(()),
        other => other,
    }
}

/// All incidents as their changes say, whichever region made them.
pub(crate) fn incidents(node: &Node) -> Result<Vec<Incident>, Problem> {
    let mut board = Board::new();
    board.extend(book::changes(node, |_| true)?.into_iter().map(|(_, change)| change));
    Ok(board.iter().cloned().collect())
}

/// Every alert.
pub(crate) fn alerts(node: &Node) -> Result<Vec<Alert>, Problem> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let limit = model::limit::PAGE_RECORDS_MAX as u32;
        let select = Select::Range { from: String::new(), to: None, after, limit };
        let found = node.platform_records(platform::ALERTS, &select)?;
        let values = found.records.iter().filter_map(|(_, record)| record.fields.get(&ONLY));
        for value in values {
            if let Value::Text(json) = value.value()
                && let Ok(alert) = serde_json::from_str(&json)
            {
                all.push(alert);
            }
        }
        match found.more {
            Some(more) => after = Some(more),
            None => return Ok(all),
        }
    }
}

/// The JSON of an alert; where it would be too long, the events in its middle go: what began it and what completed it stay.
fn fitting_alert(alert: &Alert) -> Result<String, Problem> {
    let mut alert = alert.clone();
    loop {
        let json = serde_json::to_string(&alert)
            .map_err(|error| crate::core::wait::internal("an alert has no JSON", &error))?;
        if json.len() <= ALERT_BYTES_MAX || alert.events.len() < 3 {
            return Ok(json);
        }
        let (keep, count) = (alert.events.len() / 4, alert.events.len());
        alert.events.drain(keep.max(1)..count - keep.max(1));
    }
}
