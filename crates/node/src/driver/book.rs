//! The incidents as this node knows them: folded from their stored changes once, and kept up to date.
//!
//! What is acted on here is in memory before it is stored; where storing fails, memory is thrown away and read again.

use crate::driver::detect::{ONLY, note, write};
use crate::machine::command::{Must, Select};
use crate::machine::control::platform;
use crate::machine::note::Note;
use crate::node::Node;
use api::problem::Problem;
use detection::incident::{self, Change, Desk, Incident};
use model::{FieldState, TenantId, Value, VersionVector};
use std::collections::BTreeSet;

/// Incidents in memory, and which stored changes are in them.
#[derive(Default)]
pub struct Book {
    desk: Option<Desk>,
    known: BTreeSet<String>,
    read_at: Option<VersionVector>,
}

impl Book {
    /// Takes up what was stored since, here or in another region.
    fn refresh(&mut self, node: &Node) -> Result<&mut Desk, Problem> {
        let machine = &node.data_of(TenantId::PLATFORM).machine;
        // Before the records: what is read is at least as new.
        let now = machine.vector(node.cluster.partition(TenantId::PLATFORM));
        let options = incident::Options { region: node.region.id, ..incident::Options::default() };
        let desk = self.desk.get_or_insert_with(|| Desk::new(options));
        if self.read_at.as_ref() != Some(&now) {
            let unknown = changes(node, |key| !self.known.contains(key))?;
            let (keys, changes): (Vec<String>, Vec<Change>) = unknown.into_iter().unzip();
            desk.restore(changes);
            self.known.extend(keys);
            self.read_at = Some(now);
        }
        Ok(desk)
    }
}

/// Changes of incidents whose keys are wanted: one record each, none is ever written again.
pub(crate) fn changes(node: &Node, wanted: impl Fn(&str) -> bool) -> Result<Vec<(String, Change)>, Problem> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let limit = model::limit::PAGE_RECORDS_MAX as u32;
        let select = Select::Range { from: String::new(), to: None, after, limit };
        let found = node.platform_records(platform::INCIDENTS, &select)?;
        for (key, record) in found.records.into_iter().filter(|(key, _)| wanted(key)) {
            let Some(Value::Text(json)) = record.fields.get(&ONLY).map(FieldState::value) else { continue };
            match Change::decode(json.as_bytes()) {
                Ok(change) => all.push((key, change)),
                Err(error) => tracing::error!(%error, key, "a change of an incident cannot be read"),
            }
        }
        match found.more {
            Some(more) => after = Some(more),
            None => return Ok(all),
        }
    }
}

/// Reads the incidents as they stand.
pub(crate) async fn look<T>(node: &Node, read: impl FnOnce(&Desk) -> T) -> Result<T, Problem> {
    Ok(read(node.incidents.lock().await.refresh(node)?))
}

/// The incidents that may still change.
pub(super) async fn current(node: &Node) -> Result<Vec<Incident>, Problem> {
    Ok(node.incidents.lock().await.refresh(node)?.iter().cloned().collect())
}

/// Takes an input to the incidents, and stores the changes that follow: what others do at the same time is merged
/// when it is read.
pub(crate) async fn act(
    node: &Node,
    input: &incident::Input,
    who: impl Fn(Note) -> Note,
) -> Result<Vec<incident::Effect>, Problem> {
    let mut shelf = node.incidents.lock().await;
    // Whoever is interrupted or fails from here on leaves an empty book, which is read again.
    let mut book = std::mem::take(&mut *shelf);
    let mut effects = Vec::new();
    book.refresh(node)?.step(node.world.clock.wall_ms(), input.clone(), &mut effects);
    for effect in &effects {
        let incident::Effect::Changed { incident, change } = effect else { continue };
        let json = change
            .change
            .encode()
            .map_err(|error| crate::core::wait::internal("a change of an incident cannot be stored", &error))?;
        let key = change.change.key();
        let note = who(note(node, "incident.update", format!("incidents/{}/{}", incident.id, change.revision)));
        write(node, platform::INCIDENTS, key.clone(), Must::BeAbsent, json, note).await?;
        book.known.insert(key);
    }
    *shelf = book;
    Ok(effects)
}
