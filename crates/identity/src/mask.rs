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

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Field, FieldKind, FieldState, Hlc, Merge, Origin, TableId, Value};

    fn field(id: u16, name: &str) -> Field {
        Field { id: FieldId::new(id), name: name.into(), kind: FieldKind::Text, merge: Merge::Lww }
    }
    fn written(at: u64) -> FieldState {
        let stamp = Stamp { hlc: Hlc::new(at, 0), origin: Origin::default(), sequence: at };
        FieldState::Register { value: Value::Int(1), stamp }
    }

    #[test]
    fn a_masked_field_is_one_that_does_not_exist() {
        let mask = FieldMask::only([FieldId::new(1)].into());
        let name = field(1, "name");
        let table = |fields: Vec<Field>| Table { id: TableId::new(1), name: "guests".into(), fields, version: 3 };
        let with = table(vec![name.clone(), field(2, "card")]);
        assert_eq!(*mask.table(&with), table(vec![name]));

        let record = |fields: &[(u16, u64)]| Record {
            fields: fields.iter().map(|(id, at)| (FieldId::new(*id), written(*at))).collect(),
            tombstone: None,
        };
        let seen = record(&[(1, 10)]);
        assert_eq!(*mask.record(&record(&[(1, 10), (2, 20)])), seen);
        assert_eq!(mask.version(&record(&[(1, 10), (2, 20)])), seen.version(), "the entity tag does not tell");
        assert!(!mask.record(&record(&[(2, 20)])).exists(), "a record of masked fields only is not there");
    }

    #[test]
    fn the_whole_mask_copies_nothing_and_wins_every_union() {
        let only = |id| FieldMask::only([FieldId::new(id)].into());
        assert!(matches!(FieldMask::whole().record(&Record::default()), Cow::Borrowed(_)));
        assert!(FieldMask::whole().union(only(1)).is_whole() && only(1).union(FieldMask::whole()).is_whole());
        let both = only(1).union(only(2));
        assert!(both.allows(FieldId::new(1)) && both.allows(FieldId::new(2)) && !both.allows(FieldId::new(3)));
    }
}
