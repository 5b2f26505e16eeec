//! A space seen through the writes of a batch that is still being put together.
//!
//! Commands of one batch see each other's effects; the space sees all of them at once, or none.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use storage::{Batch, Keyspace, Space};

/// Values to put, or none to delete, of one keyspace.
type Pending = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The overlay of pending writes over a space.
pub struct View {
    space: Arc<dyn Space>,
    pending: BTreeMap<Keyspace, Pending>,
}

impl View {
    /// A view with nothing pending.
    pub fn new(space: Arc<dyn Space>) -> Self {
        Self { space, pending: BTreeMap::new() }
    }

    /// The value of a key, pending writes first.
    pub fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        match self.pending.get(&keyspace).and_then(|pending| pending.get(key)) {
            Some(pending) => Ok(pending.clone()),
            None => self.space.get(keyspace, key),
        }
    }

    /// Puts a value, pending.
    pub fn put(&mut self, keyspace: Keyspace, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.pending.entry(keyspace).or_default().insert(key.into(), Some(value.into()));
    }

    /// Deletes a key, pending.
    pub fn delete(&mut self, keyspace: Keyspace, key: impl Into<Vec<u8>>) {
        self.pending.entry(keyspace).or_default().insert(key.into(), None);
    }

    /// Keys of `from..to` in order, at most `limit`, pending writes included.
    pub fn scan(
        &self,
        keyspace: Keyspace,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let overlay: Vec<(&Vec<u8>, &Option<Vec<u8>>)> =
            self.pending.get(&keyspace).into_iter().flat_map(|pending| pending.range::<[u8], _>((from, to))).collect();
        // Each pending deletion can hide one stored row: ask for that many more.
        let hidden = overlay.iter().filter(|(_, value)| value.is_none()).count();
        let stored = self.space.scan(keyspace, from, to, false, limit.saturating_add(hidden))?;
        if overlay.is_empty() {
            return Ok(stored);
        }
        let mut merged: BTreeMap<Vec<u8>, Vec<u8>> = stored.into_iter().collect();
        for (key, value) in overlay {
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        Ok(merged.into_iter().take(limit).collect())
    }

    /// All pending writes as one atomic batch.
    pub fn into_batch(self) -> Batch {
        let writes = self
            .pending
            .into_iter()
            .flat_map(|(keyspace, pending)| pending.into_iter().map(move |(key, value)| (keyspace, key, value)));
        Batch { writes: writes.collect() }
    }
}
