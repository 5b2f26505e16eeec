//! The incidents as this node knows them: folded from their stored changes once, and kept up to date.
//!
//! What is acted on here is in memory before it is stored; where storing fails, memory is thrown away and read again.

use crate::core::wait::{failed, internal};
use crate::driver::duty::{Lost, Post};
use crate::driver::record::{COUNT, LAST_MS, ONLY, SUPERSEDED_BY};
use crate::machine::command::{Act, ActChange, Command, Must, Outcome, Refusal, Row, Select, Transact};
use crate::machine::control::platform;
use crate::machine::note::Note;
use crate::node::Node;
use api::problem::Problem;
use detection::incident::{self, Board, Change, Deed, Desk, Effect, Incident, Input};
use detection::{Alert, AlertId, IncidentId};
use model::{FieldState, Merge, Record, TableId, TenantId, Value, VersionVector};
use std::collections::{BTreeMap, BTreeSet};

/// Incidents in memory, and which stored changes are in them.
#[derive(Default)]
pub struct Book {
    desk: Option<Desk>,
    known: BTreeSet<String>,
    read_at: Option<VersionVector>,
    /// The revision of the policy document that says what joins alerts.
    policy: Option<u64>,
    /// How many settled incidents are kept, where a test says so.
    settled_max: Option<usize>,
}

/// What follows from inputs.
pub(super) struct Decided {
    /// One transaction for each input that changes something.
    pub(super) writes: Vec<Transact>,
    /// What the desk said.
    pub(super) effects: Vec<Effect>,
    /// Alerts that no incident can hold.
    pub(super) unfiled: Vec<AlertId>,
}

impl Book {
    /// Takes up what was stored since, here or in another region.
    pub(super) fn refresh(&mut self, node: &Node) -> Result<&mut Desk, Problem> {
        let machine = &node.home().machine;
        // Before the records: what is read is at least as new.
        let now = machine.vector(node.cluster.partition(TenantId::PLATFORM));
        let options = self.options(node);
        let desk = self.desk.get_or_insert_with(|| Desk::new(options));
        if self.read_at.as_ref() != Some(&now) {
            let unknown = changes(node, |key| !self.known.contains(key))?;
            let (keys, changes): (Vec<String>, Vec<Change>) = unknown.into_iter().unzip();
            let goes_on = changes.iter().flat_map(concerns).filter(|id| desk.get(*id).is_none());
            // What memory has forgotten and somebody went on with elsewhere is nothing without what was before.
            let is_forgotten = goes_on.into_iter().any(|id| has_known(&self.known, id));
            desk.restore(changes);
            self.known.extend(keys);
            self.read_at = Some(now);
            if is_forgotten {
                self.recall(node)?;
            }
        }
        self.desk.as_mut().ok_or(Problem::Internal)
    }

    fn options(&self, node: &Node) -> incident::Options {
        let usual = incident::Options::default();
        let closed_max = self.settled_max.unwrap_or(usual.closed_max);
        incident::Options { region: node.region.id, closed_max, ..usual }
    }

    /// An empty book that soon forgets what is settled.
    #[cfg(test)]
    pub(crate) fn forgetful(settled_max: usize) -> Self {
        Self { settled_max: Some(settled_max), ..Self::default() }
    }

    /// What joins alerts is as the policy document says now.
    fn follow_policy(&mut self, node: &Node) -> Result<(), Problem> {
        let Some(document) = node.policy_document()? else { return Ok(()) };
        if self.policy != Some(document.revision) {
            self.policy = Some(document.revision);
            if let Ok(book) = document.book() {
                let window_ms = book.join_window_ms.unwrap_or(incident::JOIN_WINDOW_MS);
                self.refresh(node)?.join_by(book.join_never, window_ms);
            }
        }
        Ok(())
    }

    /// Reads everything again, what was settled long ago too.
    fn recall(&mut self, node: &Node) -> Result<&mut Desk, Problem> {
        let options = self.options(node);
        let (keys, changes): (Vec<String>, Vec<Change>) = changes(node, |_| true)?.into_iter().unzip();
        self.policy = None;
        let desk = self.desk.insert(Desk::new(options));
        desk.restore(changes);
        self.known.extend(keys);
        Ok(desk)
    }

    /// As [`Book::refresh`], and with an incident that memory has forgotten.
    pub(super) fn refresh_with(&mut self, node: &Node, id: IncidentId) -> Result<&mut Desk, Problem> {
        let is_missing = self.refresh(node)?.get(id).is_none();
        if is_missing && has_known(&self.known, id) {
            return self.recall(node);
        }
        self.refresh(node)
    }

    /// Takes inputs to the incidents. What follows counts here as if it were stored: whoever cannot store it throws
    /// this book away.
    pub(super) fn decide(&mut self, node: &Node, inputs: &[Input], note: &Note) -> Result<Decided, Problem> {
        let now_ms = node.now_ms();
        let mut decided = Decided { writes: Vec::new(), effects: Vec::new(), unfiled: Vec::new() };
        if inputs.iter().any(|input| matches!(input, Input::Alert(_))) {
            self.follow_policy(node)?;
        }
        for input in inputs {
            let mut effects = Vec::new();
            let desk = match input {
                Input::Act { incident, act: incident::Act::Merge { from }, .. } => {
                    self.refresh_with(node, *incident)?;
                    self.refresh_with(node, *from)?
                }
                Input::Act { incident, .. } => self.refresh_with(node, *incident)?,
                _ => self.refresh(node)?,
            };
            desk.step(now_ms, input.clone(), &mut effects);
            if let (Input::Alert(alert), [Effect::Refused { .. }]) = (input, effects.as_slice()) {
                decided.unfiled.push(alert.id);
            }
            let mut acts = Vec::new();
            for effect in &effects {
                let Effect::Changed { incident, change } = effect else { continue };
                let json = change
                    .change
                    .encode()
                    .map_err(|error| internal("a change of an incident cannot be stored", &error))?;
                let key = change.change.key();
                let resource = format!("incidents/{}/{}", incident.id, change.revision);
                acts.push(Act {
                    table: platform::INCIDENTS,
                    key: key.clone(),
                    must: Must::BeAbsent,
                    seen: None,
                    change: ActChange::Upsert {
                        set: vec![(ONLY, Merge::Lww, Value::Text(json))],
                        increment: Vec::new(),
                    },
                    resource,
                    names: BTreeMap::new(),
                });
                self.known.insert(key);
            }
            if !acts.is_empty() {
                decided.writes.push(Transact {
                    tenant: TenantId::PLATFORM,
                    schema_version: 1,
                    acts,
                    idempotency: None,
                    note: note.clone(),
                    trace: None,
                });
            }
            decided.effects.extend(effects);
        }
        Ok(decided)
    }
}

/// The incidents that a change is about.
fn concerns(change: &Change) -> Vec<IncidentId> {
    match &change.deed {
        Deed::Merged { from } => vec![change.incident, *from],
        _ => vec![change.incident],
    }
}

/// Whether any change of an incident is known.
fn has_known(known: &BTreeSet<String>, id: IncidentId) -> bool {
    let prefix = format!("{id}/");
    known.range(prefix.clone()..).next().is_some_and(|key| key.starts_with(&prefix))
}

/// Stores records of a duty, and with them, as one, what follows for incidents; nothing where the incidents cannot be
/// read, or are not such as `holds` says. Whether it was stored.
pub(super) async fn report(
    post: &mut Post,
    rows: Vec<Row>,
    mut writes: Vec<Transact>,
    inputs: &[Input],
    note: &Note,
    holds: impl FnOnce(&Desk) -> bool,
) -> Result<bool, Lost> {
    let node = std::sync::Arc::clone(&post.node);
    let mut shelf = node.incidents.lock().await;
    // Whoever is interrupted or fails from here on leaves an empty book, which is read again.
    let mut book = std::mem::take(&mut *shelf);
    match book.refresh(&node) {
        Ok(desk) if !holds(desk) => {
            *shelf = book;
            return Ok(false);
        }
        Ok(_) => {}
        Err(problem) => {
            tracing::error!(%problem, "the incidents cannot be read");
            return Ok(false);
        }
    }
    let unfiled = match book.decide(&node, inputs, note) {
        Ok(decided) => {
            writes.extend(decided.writes);
            decided.unfiled
        }
        Err(problem) => {
            tracing::error!(%problem, "the incidents cannot be read");
            return Ok(false);
        }
    };
    post.report(rows, writes).await?;
    *shelf = book;
    drop(shelf);
    // One alert must not keep those after it from their incidents; that it has none is told.
    for alert in unfiled {
        tracing::error!(%alert, "an alert is too large for any incident");
        post.degraded(format!("alert {alert} is too large for any incident")).await;
    }
    Ok(true)
}

/// Changes of incidents whose keys are wanted: one record each, none is ever written again.
pub(crate) fn changes(node: &Node, wanted: impl Fn(&str) -> bool) -> Result<Vec<(String, Change)>, Problem> {
    let mut all = Vec::new();
    each(node, platform::INCIDENTS, |key, record| {
        if !wanted(&key) {
            return;
        }
        let Some(Value::Text(json)) = record.fields.get(&ONLY).map(FieldState::value) else { return };
        match Change::decode(json.as_bytes()) {
            Ok(change) => all.push((key, change.committed(record.version().hlc))),
            Err(error) => tracing::error!(%error, key, "a change of an incident cannot be read"),
        }
    })?;
    Ok(all)
}

/// Reads the incidents as they stand: those that may still change, and those that ended last.
pub(crate) async fn look<T>(node: &Node, read: impl FnOnce(&Desk) -> T) -> Result<T, Problem> {
    Ok(read(node.incidents.lock().await.refresh(node)?))
}

/// Takes somebody's act to the incidents, and stores what follows, all of it or nothing: what others do at the same
/// time is merged when it is read.
pub(crate) async fn act(node: &Node, input: &Input, note: &Note) -> Result<Vec<Effect>, Problem> {
    let mut shelf = node.incidents.lock().await;
    // Whoever is interrupted or fails from here on leaves an empty book, which is read again.
    let mut book = std::mem::take(&mut *shelf);
    let decided = book.decide(node, std::slice::from_ref(input), note)?;
    for transact in decided.writes {
        let command = Command::Transact(transact);
        match node.propose_and_see(node.cluster.home(), &command).await.map_err(failed)? {
            Outcome::Written(_) => {}
            Outcome::Refused(Refusal::PreconditionFailed(_)) => {
                return Err(Problem::conflict("the incident has changed in the meantime; look again, then decide"));
            }
            other => return Err(internal("a change of an incident was refused", &format!("{other:?}"))),
        }
    }
    *shelf = book;
    Ok(decided.effects)
}

/// All incidents as their changes say, whichever region made them.
pub fn incidents(node: &Node) -> Result<Vec<Incident>, Problem> {
    let mut board = Board::new();
    board.extend(changes(node, |_| true)?.into_iter().map(|(_, change)| change));
    Ok(board.iter().cloned().collect())
}

/// An alert as it is stored, with what was said of it later.
pub(crate) struct Stored {
    pub alert: Alert,
    /// The alert that covers its events, where it no longer stands.
    pub superseded_by: Option<String>,
    /// Satisfying events of a burst that went on.
    pub count: Option<u64>,
    /// When the last of them happened.
    pub last_ms: Option<u64>,
}

impl Stored {
    /// What a record says; nothing where it cannot be read.
    pub fn of(record: &Record) -> Option<Self> {
        let value = |field| record.fields.get(field).map(FieldState::value);
        let number = |field| match value(field) {
            Some(Value::Int(number)) => u64::try_from(number).ok(),
            _ => None,
        };
        let Some(Value::Text(json)) = value(&ONLY) else { return None };
        let superseded_by = match value(&SUPERSEDED_BY) {
            Some(Value::Text(by)) => Some(by),
            _ => None,
        };
        let alert = serde_json::from_str(&json).ok()?;
        Some(Self { alert, superseded_by, count: number(&COUNT), last_ms: number(&LAST_MS) })
    }
}

/// The alerts that are wanted, whether they stand or not.
pub(crate) fn stored_alerts(node: &Node, is_wanted: impl Fn(&Stored) -> bool) -> Result<Vec<Stored>, Problem> {
    let mut all = Vec::new();
    each(node, platform::ALERTS, |_, record| all.extend(Stored::of(&record).filter(|stored| is_wanted(stored))))?;
    Ok(all)
}

/// Shows every record of one of the platform's tables.
fn each(node: &Node, table: TableId, mut show: impl FnMut(String, Record)) -> Result<(), Problem> {
    let mut after = None;
    loop {
        let limit = model::limit::PAGE_RECORDS_MAX as u32;
        let select = Select::Range { from: String::new(), to: None, after, limit };
        let found = node.platform_records(table, &select)?;
        for (key, record) in found.records {
            show(key, record);
        }
        match found.more {
            Some(more) => after = Some(more),
            None => return Ok(()),
        }
    }
}
