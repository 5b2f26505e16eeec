use super::*;
use crate::suite::{self, Bed};
use tempfile::TempDir;

struct RocksBed {
    engine: Option<RocksEngine>,
    directory: TempDir,
}

impl RocksBed {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let engine = RocksEngine::open(directory.path(), Options::default()).unwrap();
        Self { engine: Some(engine), directory }
    }
}

impl Bed for RocksBed {
    type Engine = RocksEngine;
    fn engine(&self) -> &RocksEngine {
        self.engine.as_ref().unwrap()
    }
    fn settle(&self) {}
    fn restart(&mut self) {
        self.engine = None;
        self.engine = Some(RocksEngine::open(self.directory.path(), Options::default()).unwrap());
    }
}

#[test]
fn does_what_every_engine_does() {
    suite::check_all(RocksBed::new);
}
