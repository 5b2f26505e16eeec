//! The records that the fake holds, of one table.

use super::views::etag;
use api::types::*;
use api::{Answer, Problem};
use std::collections::BTreeMap;

/// By key: version and fields.
#[derive(Default)]
pub struct Records(BTreeMap<String, (u64, Fields)>);

fn view(key: &str, version: u64, fields: Fields) -> RecordView {
    RecordView { key: key.to_owned(), etag: etag(version), updated_ms: 5, fields }
}

impl Records {
    /// One of them, with the fields that are wanted.
    pub fn get(&self, key: &str, wanted: Option<&Vec<String>>) -> Answer<RecordView> {
        let (version, fields) = self.0.get(key).ok_or(Problem::not_found("record"))?;
        let mut fields = fields.clone();
        fields.retain(|name, _| wanted.is_none_or(|wanted| wanted.contains(name)));
        Ok(view(key, *version, fields))
    }

    /// Changes one, where the precondition holds; whether it was not there before, and the tag that it has now.
    pub fn write(
        &mut self,
        key: &str,
        change: Change,
        precondition: &Precondition,
        version: u64,
    ) -> Answer<(bool, Option<Etag>)> {
        let now = self.0.get(key).map(|(version, _)| etag(*version));
        let holds = match (precondition, &now) {
            (Precondition::Unstated, Some(_)) => return Err(Problem::PreconditionRequired),
            (Precondition::Unstated, None) | (Precondition::Exists, Some(_)) | (Precondition::Absent, None) => true,
            (Precondition::Matches(tags), Some(now)) => tags.contains(now),
            (Precondition::Differs(tags), now) => now.as_ref().is_none_or(|now| !tags.contains(now)),
            _ => false,
        };
        if now.is_none() && !matches!(change, Change::Put(_)) {
            return Err(Problem::not_found("record"));
        }
        if !holds {
            return Err(Problem::PreconditionFailed { operation: None });
        }
        match change {
            Change::Put(fields) => drop(self.0.insert(key.to_owned(), (version, fields))),
            Change::Patch(patch) => {
                let (held, fields) = self.0.get_mut(key).unwrap();
                *held = version;
                fields.extend(patch.set);
                for (name, by) in patch.increment {
                    let sum = fields.get(&name).and_then(serde_json::Value::as_i64).unwrap_or(0).wrapping_add(by);
                    fields.insert(name, sum.into());
                }
            }
            Change::Delete => {
                self.0.remove(key);
                return Ok((false, None));
            }
        }
        Ok((now.is_none(), Some(etag(version))))
    }

    /// Those of a range.
    pub fn page(&self, range: &KeyRange) -> RecordPage {
        let wanted = |key: &str| {
            range.after.as_deref().is_none_or(|after| key > after)
                && range.from.as_deref().is_none_or(|from| key >= from)
                && range.to.as_deref().is_none_or(|to| key < to)
                && range.prefix.as_deref().is_none_or(|prefix| key.starts_with(prefix))
        };
        let found = self.0.iter().filter(|(key, _)| wanted(key));
        let mut found: Vec<RecordView> =
            found.map(|(key, (version, fields))| view(key, *version, fields.clone())).take(range.limit + 1).collect();
        let has_more = found.len() > range.limit;
        found.truncate(range.limit);
        let more = found.last().filter(|_| has_more).map(|last| last.key.clone());
        RecordPage { records: found, more }
    }
}
