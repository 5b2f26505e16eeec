//! The platform's own records that are one field of JSON: read with their versions, written with what must hold.

use super::wait::internal;
use crate::machine::command::{Must, Select};
use crate::machine::note::Note;
use crate::node::Node;
use api::core::Answer;
use model::{FieldId, FieldState, Merge, Record, Stamp, TableId, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The one field.
const ONLY: FieldId = FieldId::new(1);

impl Node {
    /// A record and its version, as this node knows it.
    pub(crate) fn json_record<T: DeserializeOwned>(&self, table: TableId, key: &str) -> Answer<Option<(Stamp, T)>> {
        let found = self.platform_records(table, &Select::Key(key.to_owned()))?;
        Ok(found.records.first().and_then(|(key, record)| value_of(key, record)))
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
        let json = serde_json::to_string(value).map_err(|error| internal("a record has no JSON", &error))?;
        self.keep(table, key, must, vec![(ONLY, Merge::Lww, Value::Text(json))], Vec::new(), note).await
    }
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
