//! Field masks: a field that is not granted behaves exactly as one that does not exist.
//!
//! The way to hold that is to resolve names in the projected table and to build every answer, filter and entity tag
//! from the projected record: code behind the projection has nothing left to leak.

use model::{FieldId, Record, Stamp, Table};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// The fields of one table that a session reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldMask(Option<BTreeSet<FieldId>>);

impl FieldMask {
    /// Every field, also those added later.
    pub const fn whole() -> Self {
        Self(None)
    }
    /// These fields and no others.
    pub const fn only(fields: BTreeSet<FieldId>) -> Self {
        Self(Some(fields))
    }
    /// Whether every field is granted.
    pub const fn is_whole(&self) -> bool {
        self.0.is_none()
    }
    /// Whether this field is granted.
    pub fn allows(&self, field: FieldId) -> bool {
        self.0.as_ref().is_none_or(|fields| fields.contains(&field))
    }
    /// What this or the other grants.
    pub fn union(self, other: Self) -> Self {
        Self(self.0.zip(other.0).map(|(mut fields, more)| {
            fields.extend(more);
            fields
        }))
    }
    /// The table as the session knows it: other fields are not there.
    pub fn table<'a>(&self, table: &'a Table) -> Cow<'a, Table> {
        if table.fields.iter().all(|field| self.allows(field.id)) {
            return Cow::Borrowed(table);
        }
        let mut seen = table.clone();
        seen.fields.retain(|field| self.allows(field.id));
        Cow::Owned(seen)
    }
    /// The record as the session knows it: other fields were never written.
    pub fn record<'a>(&self, record: &'a Record) -> Cow<'a, Record> {
        if record.fields.keys().all(|field| self.allows(*field)) {
            return Cow::Borrowed(record);
        }
        let mut seen = record.clone();
        seen.fields.retain(|field, _| self.allows(*field));
        Cow::Owned(seen)
    }
    /// The version of the record as the session knows it: what its entity tag is made from.
    pub fn version(&self, record: &Record) -> Stamp {
        self.record(record).version()
    }
}
