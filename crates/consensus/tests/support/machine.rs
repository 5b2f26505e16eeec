//! A machine for tests: a list of commands, one key each.

#![allow(dead_code, reason = "each test binary uses a part")]

use bytes::Bytes;
use consensus::Machine;
use parking_lot::Mutex;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use storage::{Batch, Engine, Keyspace, Space};

const META: Keyspace = Keyspace(0);
const DATA: Keyspace = Keyspace(1);

/// Stores every command under its index and answers with how many there are.
pub struct Journal {
    space: Arc<dyn Space>,
    count: Mutex<u64>,
}

impl Journal {
    pub fn open(engine: &dyn Engine) -> Arc<Self> {
        let space = engine.space("journal", &["meta", "data"]).expect("a living engine opens");
        let journal = Self { space, count: Mutex::new(0) };
        journal.reloaded().expect("a living engine reads");
        Arc::new(journal)
    }

    /// All commands in order.
    pub fn commands(&self) -> Vec<(u64, Vec<u8>)> {
        let rows = self.space.scan(DATA, Bound::Unbounded, Bound::Unbounded, false, usize::MAX).unwrap();
        rows.into_iter().map(|(key, value)| (u64::from_be_bytes(key.try_into().unwrap()), value)).collect()
    }
}

impl Machine for Journal {
    fn apply(&self, entries: &[(u64, &[u8])], position: &[u8]) -> io::Result<Vec<Bytes>> {
        let mut count = self.count.lock();
        let mut batch = Batch::default();
        let mut results = Vec::new();
        for (index, command) in entries {
            assert_eq!(self.space.get(DATA, &index.to_be_bytes())?, None, "an entry was applied twice");
            batch.put(DATA, index.to_be_bytes(), *command);
            *count += 1;
            results.push(Bytes::copy_from_slice(&count.to_be_bytes()));
        }
        batch.put(META, *b"position", position);
        self.space.write(batch)?;
        Ok(results)
    }

    fn position(&self) -> io::Result<Option<Vec<u8>>> {
        self.space.get(META, b"position")
    }

    fn space(&self) -> Arc<dyn Space> {
        Arc::clone(&self.space)
    }

    fn reloaded(&self) -> io::Result<()> {
        let rows = self.space.scan(DATA, Bound::Unbounded, Bound::Unbounded, false, usize::MAX)?;
        *self.count.lock() = rows.len() as u64;
        Ok(())
    }
}
