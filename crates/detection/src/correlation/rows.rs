//! A correlation's state as rows: one for each key, and one for each entry it keeps.
//!
//! A key's row and its entries' begin alike, the key's first; an entry is written once and never changed.

use super::key::{KeyRow, KeyState};
use super::reading::Of;
use super::{Amount, Correlator, Delta, Entry, GroupKey, Held, Occurrence, OrderKey, alert_maker};
use crate::alert::{EventSummary, RuleReference};
use crate::id::{Digest, EventId};
use model::codec::{CodecError, decode, encode};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes of the name of a correlation or of a key.
pub(crate) const NAME_BYTES: usize = 16;
/// Bytes of an entry's place within its key.
const ORDER_BYTES: usize = 8 + 8 + 16 + 4;

/// The name of a correlation, or of one of its keys.
pub(crate) type Name = [u8; NAME_BYTES];

/// An entry besides its place.
#[derive(Debug, Serialize, Deserialize)]
struct EntryRow {
    value: Option<Amount>,
    is_clamped: bool,
    events: Vec<Arc<EventSummary>>,
}

/// The name of a rule: of its id and its meaning.
pub(crate) fn name(rule: &RuleReference) -> Name {
    let mut hash = Digest::new("holdfast correlation state 1");
    hash.part(rule.id.as_bytes()).part(rule.semantic_hash.as_bytes());
    *EventId::of(hash).as_bytes()
}

fn name_of(group: &GroupKey) -> Name {
    let mut hash = Digest::new("holdfast correlation key 1");
    for part in group {
        hash.part(part.as_bytes());
    }
    *EventId::of(hash).as_bytes()
}

impl OrderKey {
    fn to_bytes(self) -> [u8; ORDER_BYTES] {
        let mut bytes = [0; ORDER_BYTES];
        bytes[..8].copy_from_slice(&self.time_ms.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..32].copy_from_slice(self.id.as_bytes());
        bytes[32..].copy_from_slice(&self.slot.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (time, rest) = bytes.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (id, slot) = rest.split_first_chunk()?;
        Some(Self {
            time_ms: u64::from_be_bytes(*time),
            sequence: u64::from_be_bytes(*sequence),
            id: EventId::from_bytes(*id),
            slot: u32::from_be_bytes(slot.try_into().ok()?),
        })
    }
}

/// A key's stored rows: its own, and its entries by their place.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    key: Option<KeyRow>,
    entries: BTreeMap<OrderKey, Entry>,
}

impl Stored {
    /// Reads a row whose place is what follows the names of correlation and key.
    pub(crate) fn read(&mut self, place: &[u8], bytes: &[u8]) -> Result<(), CodecError> {
        if place.is_empty() {
            self.key = Some(decode(bytes)?);
            return Ok(());
        }
        let key = OrderKey::from_bytes(place).ok_or(CodecError::Malformed)?;
        let EntryRow { value, is_clamped, events } = decode(bytes)?;
        let of = Occurrence { key, is_clamped, events: events.into() };
        self.entries.insert(key, Entry::new(key, value, of));
        Ok(())
    }

    /// The highest number of a stream that it names.
    pub(crate) fn highest_stream(&self) -> Option<u32> {
        self.key.as_ref()?.streams.last().copied()
    }
}

impl Correlator {
    /// Its name among the rows.
    pub(crate) fn name(&self) -> Name {
        self.name
    }

    /// Puts back a key that was stored.
    pub(crate) fn restore(&mut self, stored: Stored) -> Result<(), CodecError> {
        // A key's row goes with its last entry: entries without it are damage.
        let row = stored.key.ok_or(CodecError::Malformed)?;
        let group = row.group.clone();
        let state = {
            let make = alert_maker(&self.plan, &self.tenant, &group);
            KeyState::restore(Of { plan: &self.plan, make: &make }, row, stored.entries.into_values())
        };
        self.held.change(Held::default(), state.held());
        self.keys.insert(group, state);
        Ok(())
    }

    /// The keys of all its rows that are stored: it is no more.
    pub(crate) fn into_stored_rows(mut self) -> BTreeSet<Vec<u8>> {
        let groups: Vec<GroupKey> = self.keys.keys().cloned().collect();
        groups.iter().for_each(|group| self.forget(group));
        self.gone
    }

    /// Nothing of it is stored where it goes on from here: all of it is to be stored.
    pub(crate) fn begin_storing(&mut self) {
        self.gone.clear();
        for (group, state) in &mut self.keys {
            let mut entries = Delta::default();
            state.entries().for_each(|entry| entries.put(entry.key));
            state.changed.entries = entries;
            (state.changed.is_stored, state.changed.is_listed) = (false, true);
            self.changed.insert(group.clone());
        }
    }

    /// Forgets a key.
    pub(super) fn forget(&mut self, group: &GroupKey) {
        let Some(state) = self.keys.remove(group) else { return };
        self.held.change(state.held(), Held::default());
        self.changed.remove(group);
        if !state.changed.is_stored {
            return;
        }
        let prefix = self.prefix(group);
        let stored = state.entries().filter(|entry| !state.changed.entries.is_fresh(&entry.key));
        self.gone.extend(stored.map(|entry| [&prefix[..], &entry.key.to_bytes()].concat()));
        let mut changed = state.changed.entries;
        changed.take(|key, is_there| {
            if !is_there {
                self.gone.insert([&prefix[..], &key.to_bytes()].concat());
            }
        });
        self.gone.insert(prefix);
    }

    /// Rows that changed since this was last called.
    pub(crate) fn take_rows(&mut self, rows: &mut BTreeMap<Vec<u8>, Option<Vec<u8>>>) {
        rows.extend(std::mem::take(&mut self.gone).into_iter().map(|key| (key, None)));
        for group in std::mem::take(&mut self.changed) {
            let prefix = self.prefix(&group);
            let Some(state) = self.keys.get_mut(&group) else { continue };
            let mut entries = std::mem::take(&mut state.changed.entries);
            entries.take(|key, is_there| {
                let entry = state.entry(&key).filter(|_| is_there);
                let row = entry.map(|entry| {
                    let (value, is_clamped) = (entry.value.clone(), entry.is_clamped);
                    encode(&EntryRow { value, is_clamped, events: entry.events.to_vec() })
                });
                rows.insert([&prefix[..], &key.to_bytes()].concat(), row);
            });
            rows.insert(prefix, Some(encode(&state.row(&group))));
            state.changed.is_listed = false;
            state.changed.is_stored = true;
        }
    }

    fn prefix(&self, group: &GroupKey) -> Vec<u8> {
        [&[ROW_KIND][..], &self.name, &name_of(group)].concat()
    }
}

/// The first byte of every row of a correlation.
pub(crate) const ROW_KIND: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Entity, EntityKind};
    use crate::id::AlertId;
    use std::fmt::Debug;

    /// An entry but for its value.
    const ENTRY: &str =
        "0101203037303730373037303730373037303730373037303730373037303730373037ac02ba170102696e010003616e6e";
    /// A key up to what was judged last.
    const KEY: &str = "010203616e6e016201ac0202010288270190030301403039303930393039303930393039303930393039\
                       30393039303930393039303930393039303930393039303930393039303930393039303930393039303930390201";

    /// What is written as it was, and what was written is read as what it was.
    #[track_caller]
    fn check<T: Serialize + for<'a> Deserialize<'a> + Debug>(row: &T, golden: &str) {
        let hex: String = encode(row).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden, "a row that is written otherwise needs a name of its own, and its old form a reader");
        let read: T = decode(&encode(row)).expect("what is written can be read");
        assert_eq!(format!("{read:?}"), format!("{row:?}"));
    }

    fn entry(value: Option<Amount>) -> EntryRow {
        let entities = BTreeSet::from([Entity { kind: EntityKind::User, name: "ann".into() }]);
        let id = EventId::from_bytes([7; 16]);
        let event = EventSummary { id, time_ms: 300, class_uid: 3002, activity_id: 1, text: "in".into(), entities };
        EntryRow { value, is_clamped: true, events: vec![Arc::new(event)] }
    }

    #[test]
    fn entries_are_written_as_they_were() {
        check(&entry(None), &format!("0100{ENTRY}"));
        check(&entry(Some(Amount::Text("x".into()))), &format!("0101000178{ENTRY}"));
        check(&entry(Some(Amount::Number(-3))), &format!("01010105{ENTRY}"));
        let key = OrderKey { time_ms: 1, sequence: 2, id: EventId::from_bytes([3; 16]), slot: 4 };
        assert_eq!(OrderKey::from_bytes(&key.to_bytes()), Some(key));
        assert_eq!(key.to_bytes()[..17], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 3]);
        assert_eq!(key.to_bytes()[32..], [0, 0, 0, 4]);
    }

    #[test]
    fn keys_are_written_as_they_were() {
        check(&KeyRow::example(AlertId::from_bytes([9; 32]), None), &format!("{KEY}00"));
        let judged = OrderKey { time_ms: 1, sequence: 2, id: EventId::from_bytes([3; 16]), slot: 4 };
        let id = "3033".repeat(16);
        check(&KeyRow::example(AlertId::from_bytes([9; 32]), Some(judged)), &format!("{KEY}01010220{id}04"));
    }
}
