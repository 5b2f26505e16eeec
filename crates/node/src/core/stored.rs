//! The platform's own records that are one field of JSON: read with their versions, written with what must hold.

use super::wait::{failed, internal};
use crate::machine::command::{Act, ActChange, Command, Must, Outcome, Refusal, Select, Transact};
use crate::machine::note::Note;
use crate::node::Node;
use api::core::Answer;
use api::problem::Problem;
use model::{FieldId, FieldState, Merge, Record, Stamp, TableId, TenantId, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// The one field.
const ONLY: FieldId = FieldId::new(1);

impl Node {
    /// A record and its version, as this node knows it.
    pub(crate) fn json_record<T: DeserializeOwned>(&self, table: TableId, key: &str) -> Answer<Option<(Stamp, T)>> {
        let found = self.platform_records(table, &Select::Key(key.to_owned()))?;
        Ok(found.records.first().and_then(|(key, record)| value_of(key, record)))
    }

    /// The first record with a key of a beginning.
    pub(crate) fn first_json_record<T: DeserializeOwned>(&self, table: TableId, prefix: &str) -> Answer<Option<T>> {
        let select = Select::Range { from: prefix.to_owned(), to: None, after: None, limit: 1 };
        let found = self.platform_records(table, &select)?;
        let first = found.records.first().filter(|(key, _)| key.starts_with(prefix));
        Ok(first.and_then(|(key, record)| value_of(key, record)).map(|(_, value)| value))
    }

    /// All records with keys of a beginning, in order of their keys.
    pub(crate) fn json_records<T: DeserializeOwned>(
        &self,
        table: TableId,
        prefix: &str,
    ) -> Answer<Vec<(String, Stamp, T)>> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let limit = model::limit::PAGE_RECORDS_MAX as u32;
            let select = Select::Range { from: prefix.to_owned(), to: None, after, limit };
            let found = self.platform_records(table, &select)?;
            for (key, record) in &found.records {
                if !key.starts_with(prefix) {
                    return Ok(all);
                }
                all.extend(value_of(key, record).map(|(version, value)| (key.clone(), version, value)));
            }
            match found.more {
                Some(more) => after = Some(more),
                None => return Ok(all),
            }
        }
    }

    /// Writes a record; a conflict where what must hold does not.
    pub(crate) async fn keep_json(
        &self,
        table: TableId,
        key: String,
        must: Must,
        value: &impl Serialize,
        note: Note,
    ) -> Answer<()> {
        let resource = note.resource.clone().unwrap_or_else(|| format!("platform/{}/{key}", table.get()));
        self.keep_all(vec![put(table, key, must, value, resource)?], note).await
    }

    /// Writes records, all of them or none, and waits until this node has them.
    pub(crate) async fn keep_all(&self, acts: Vec<Act>, note: Note) -> Answer<()> {
        let command = Command::Transact(transact(acts, note));
        match self.propose_and_see(self.cluster.home(), &command).await.map_err(failed)? {
            Outcome::Written(_) => Ok(()),
            Outcome::Refused(Refusal::PreconditionFailed(_)) => {
                Err(Problem::conflict("it has changed in the meantime: look again, then decide"))
            }
            other => Err(internal("records of the platform were refused", &format!("{other:?}"))),
        }
    }
}

/// The writing of a record, for a transaction.
pub(crate) fn put(table: TableId, key: String, must: Must, value: &impl Serialize, resource: String) -> Answer<Act> {
    let json = serde_json::to_string(value).map_err(|error| internal("a record has no JSON", &error))?;
    let change = ActChange::Upsert { set: vec![(ONLY, Merge::Lww, Value::Text(json))], increment: Vec::new() };
    Ok(Act { table, key, must, seen: None, change, resource, names: BTreeMap::new() })
}

/// A transaction of the platform's own.
pub(crate) fn transact(acts: Vec<Act>, note: Note) -> Transact {
    Transact { tenant: TenantId::PLATFORM, schema_version: 1, acts, idempotency: None, note, trace: None }
}

/// What cannot be read is told and left out: one bad record must not hide the others.
fn value_of<T: DeserializeOwned>(key: &str, record: &Record) -> Option<(Stamp, T)> {
    let Some(Value::Text(json)) = record.fields.get(&ONLY).map(FieldState::value) else { return None };
    match serde_json::from_str(&json) {
        Ok(value) => Some((record.version(), value)),
        Err(error) => {
            tracing::error!(%error, key, "a record of the platform cannot be read");
            None
        }
    }
}
