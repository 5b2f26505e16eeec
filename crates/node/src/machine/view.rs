//! A space seen through the writes of a batch that is still being put together.
//!
//! Commands of one batch see each other's effects; the space sees all of them at once, or none.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use storage::{Batch, Keyspace, Space};

/// The overlay of pending writes over a space.
pub struct View {
    space: Arc<dyn Space>,
    pending: BTreeMap<(Keyspace, Vec<u8>), Option<Vec<u8>>>,
}

impl View {
    /// A view with nothing pending.
    pub fn new(space: Arc<dyn Space>) -> Self {
        Self { space, pending: BTreeMap::new() }
    }

    /// The value of a key, pending writes first.
    pub fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        if !self.pending.is_empty()
            && let Some(pending) = self.pending.get(&(keyspace, key.to_vec()))
        {
            return Ok(pending.clone());
        }
        self.space.get(keyspace, key)
    }

    /// Puts a value, pending.
    pub fn put(&mut self, keyspace: Keyspace, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.pending.insert((keyspace, key.into()), Some(value.into()));
    }

    /// Deletes a key, pending.
    pub fn delete(&mut self, keyspace: Keyspace, key: impl Into<Vec<u8>>) {
        self.pending.insert((keyspace, key.into()), None);
    }

    /// Keys of `from..to` in order, at most `limit`, pending writes included.
    pub fn scan(
        &self,
        keyspace: Keyspace,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let owned = |bound: Bound<&[u8]>, open: Bound<(Keyspace, Vec<u8>)>| match bound {
            Bound::Included(key) => Bound::Included((keyspace, key.to_vec())),
            Bound::Excluded(key) => Bound::Excluded((keyspace, key.to_vec())),
            Bound::Unbounded => open,
        };
        let start = owned(from, Bound::Included((keyspace, Vec::new())));
        let end = owned(to, Bound::Excluded((Keyspace(keyspace.0 + 1), Vec::new())));
        let overlay: BTreeMap<&Vec<u8>, &Option<Vec<u8>>> =
            self.pending.range((start, end)).map(|((_, key), value)| (key, value)).collect();
        // Each pending deletion can hide one stored row: ask for that many more.
        let hidden = overlay.values().filter(|value| value.is_none()).count();
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
        Batch { writes: self.pending.into_iter().map(|((keyspace, key), value)| (keyspace, key, value)).collect() }
    }
}
