use super::*;
use crate::suite::{self, Bed, append, commit};
use crate::{Batch, Keyspace};
use std::sync::mpsc;

const GROUP: GroupId = GroupId::new(3);
const DATA: Keyspace = Keyspace(0);

struct MemoryBed(MemoryEngine);

impl Bed for MemoryBed {
    type Engine = MemoryEngine;
    fn engine(&self) -> &MemoryEngine {
        &self.0
    }
    fn settle(&self) {
        self.0.sync();
    }
    fn restart(&mut self) {
        self.0 = self.0.crash();
    }
}

fn bounds(engine: &MemoryEngine) -> Option<(u64, u64)> {
    engine.log().bounds(GROUP).unwrap()
}

fn submit(engine: &MemoryEngine, index: u64, sync: bool) -> mpsc::Receiver<io::Result<()>> {
    let (tell, told) = mpsc::channel();
    engine.log().submit(vec![append(GROUP, index..=index)], sync, Box::new(move |result| drop(tell.send(result))));
    told
}

fn put(space: &dyn Space, key: &str, value: &str) {
    let mut batch = Batch::default();
    batch.put(DATA, key, value);
    space.write(batch).unwrap();
}

#[test]
fn does_what_every_engine_does() {
    suite::check_all(|| MemoryBed(MemoryEngine::new()));
    suite::check_all(|| MemoryBed(MemoryEngine::auto_sync()));
}

#[test]
fn a_crash_drops_what_no_sync_covered_and_calls_nobody() {
    let engine = MemoryEngine::new();
    let first = submit(&engine, 1, true);
    assert_eq!(engine.sync_some(1), 1);
    let (unsynced, queued) = (submit(&engine, 2, false), submit(&engine, 3, true));
    assert_eq!((engine.sync_some(1), engine.pending()), (1, 1));
    assert!(first.recv().unwrap().is_ok() && unsynced.recv().unwrap().is_ok());
    assert_eq!(bounds(&engine), Some((1, 2)), "written, not yet durable");
    let next = engine.crash();
    assert!(queued.recv().is_err(), "dropped without a call");
    assert_eq!(bounds(&next), Some((1, 1)));
    let dead = submit(&engine, 4, true);
    assert!(dead.recv().is_err() && engine.log().bounds(GROUP).is_err() && engine.sync() == 0);
    assert_eq!(bounds(&next), Some((1, 1)), "the dead do not write");
}

#[test]
fn a_crash_may_keep_what_was_queued_but_never_acknowledged() {
    let engine = MemoryEngine::new();
    let told: Vec<_> = (1..=3).map(|index| submit(&engine, index, true)).collect();
    let next = engine.crash_keeping(2);
    assert_eq!(bounds(&next), Some((1, 2)));
    assert!(told.iter().all(|told| told.recv().is_err()));
}

#[test]
fn a_space_goes_back_to_its_last_flush_as_a_whole() {
    let engine = MemoryEngine::new();
    let space = engine.space("g3", &["data"]).unwrap();
    put(&*space, "a", "flushed");
    space.flush().unwrap();
    put(&*space, "a", "lost");
    put(&*space, "b", "lost");
    let next = engine.crash();
    assert!(space.get(DATA, b"a").is_err(), "a dead handle");
    let space = next.space("g3", &["data", "added-later"]).unwrap();
    assert_eq!(suite::all(&*space, DATA), [(b"a".to_vec(), b"flushed".to_vec())]);
    assert!(next.space("g3", &["other"]).is_err());
}

#[test]
fn a_lying_disk_acknowledges_what_a_crash_then_loses() {
    let engine = MemoryEngine::new();
    let space = engine.space("g3", &["data"]).unwrap();
    engine.lie(true);
    let bed = MemoryBed(engine.clone());
    commit(&bed, vec![append(GROUP, 1..=2)]).unwrap();
    put(&*space, "a", "1");
    space.flush().unwrap();
    let next = engine.crash();
    assert_eq!(bounds(&next), None);
    assert!(suite::all(&*next.space("g3", &["data"]).unwrap(), DATA).is_empty());
}

#[test]
fn an_honest_sync_makes_up_for_the_lies_before_it() {
    let engine = MemoryEngine::new();
    engine.lie(true);
    commit(&MemoryBed(engine.clone()), vec![append(GROUP, 1..=2)]).unwrap();
    engine.lie(false);
    commit(&MemoryBed(engine.clone()), vec![append(GROUP, 3..=3)]).unwrap();
    assert_eq!(bounds(&engine.crash()), Some((1, 3)));
}

#[test]
fn a_full_disk_fails_everything_until_the_node_restarts() {
    let engine = MemoryEngine::new();
    let space = engine.space("g3", &["data"]).unwrap();
    commit(&MemoryBed(engine.clone()), vec![append(GROUP, 1..=1)]).unwrap();
    engine.full(true);
    let told: Vec<_> = (2..=4).map(|index| submit(&engine, index, true)).collect();
    engine.sync_some(1);
    assert!(told.iter().all(|told| told.recv().unwrap().is_err()), "nothing behind the error succeeds");
    assert!(engine.failed().is_some() && space.flush().is_err() && space.checkpoint().is_err());
    engine.full(false);
    assert!(submit(&engine, 5, true).recv().unwrap().is_err(), "a failed disk is not trusted again");
    let next = engine.crash();
    assert_eq!(bounds(&next), Some((1, 1)));
    commit(&MemoryBed(next.clone()), vec![append(GROUP, 2..=2)]).unwrap();
}

#[test]
fn a_flipped_bit_is_reported_and_never_read() {
    let engine = MemoryEngine::auto_sync();
    let space = engine.space("g3", &["data"]).unwrap();
    put(&*space, "a", "1");
    space.flush().unwrap();
    let bed = MemoryBed(engine.clone());
    commit(&bed, vec![append(GROUP, 1..=3)]).unwrap();
    assert!(engine.flip_log(GROUP, 2, 77) && !engine.flip_log(GROUP, 9, 0));
    assert!(engine.flip_space("g3", DATA, b"a", 5) && !engine.flip_space("g4", DATA, b"a", 5));
    let next = engine.crash();
    let error = next.log().entries(GROUP, 1, 4, usize::MAX).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(next.log().entries(GROUP, 3, 4, usize::MAX).unwrap().len(), 1);
    let space = next.space("g3", &["data"]).unwrap();
    assert_eq!(space.get(DATA, b"a").unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(space.checkpoint().is_err(), "damage is not shipped");
}
