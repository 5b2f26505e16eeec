//! Both engines, given the same operations, show the same: also after crashes.

use model::GroupId;
use proptest::prelude::*;
use std::fs;
use std::ops::Bound;
use std::path::Path;
use std::sync::mpsc;
use storage::rocks::Options;
use storage::suite::ship;
use storage::{Batch, Engine, Keyspace, LogWrite, MemoryEngine, RocksEngine, Space};
use tempfile::TempDir;

const GROUPS: [GroupId; 2] = [GroupId::new(0), GroupId::CONTROL];
const SPACES: [&str; 2] = ["a", "b"];
const KEYSPACES: [&str; 2] = ["data", "meta"];
const METAS: [&str; 2] = ["vote", "committed"];

#[derive(Clone, Debug)]
enum Operation {
    Append { group: usize, count: u64, size: usize },
    Truncate { group: usize, keep: u64 },
    Purge { group: usize, count: u64 },
    Meta { group: usize, key: usize, value: u8 },
    Write { space: usize, writes: Vec<(u8, u8, Option<u8>)> },
    Flush { space: usize },
    Copy { from: usize, to: usize },
    Crash,
}

fn operation() -> impl Strategy<Value = Operation> {
    let group = 0..GROUPS.len();
    let space = 0..SPACES.len();
    let write = (0..KEYSPACES.len() as u8, 0_u8..20, prop::option::weighted(0.7, any::<u8>()));
    prop_oneof![
        6 => (group.clone(), 1_u64..6, 0_usize..3000).prop_map(|(group, count, size)| Operation::Append { group, count, size }),
        2 => (group.clone(), 0_u64..8).prop_map(|(group, keep)| Operation::Truncate { group, keep }),
        2 => (group.clone(), 0_u64..8).prop_map(|(group, count)| Operation::Purge { group, count }),
        2 => (group, 0..METAS.len(), any::<u8>()).prop_map(|(group, key, value)| Operation::Meta { group, key, value }),
        6 => (space.clone(), prop::collection::vec(write, 0..12)).prop_map(|(space, writes)| Operation::Write { space, writes }),
        2 => space.clone().prop_map(|space| Operation::Flush { space }),
        1 => (space.clone(), space).prop_map(|(from, to)| Operation::Copy { from, to }),
        2 => Just(Operation::Crash),
    ]
}

fn commit(engine: &dyn Engine, write: LogWrite) {
    let (tell, told) = mpsc::channel();
    engine.log().submit(vec![write], true, Box::new(move |result| tell.send(result).expect("the test waits")));
    told.recv().expect("the engine lives").expect("the disk takes writes");
}

fn space(engine: &dyn Engine, number: usize) -> std::sync::Arc<dyn Space> {
    engine.space(SPACES[number], &KEYSPACES).expect("the space opens")
}

fn apply(engine: &dyn Engine, operation: &Operation) {
    match operation {
        Operation::Append { group, count, size } => {
            let group = GROUPS[*group];
            let next = engine.log().bounds(group).expect("readable").map_or(1, |(_, last)| last + 1);
            let entries = (next..next + count).map(|index| (index, vec![index as u8; *size])).collect();
            commit(engine, LogWrite::Append { group, entries });
        }
        Operation::Truncate { group, keep } => {
            let group = GROUPS[*group];
            let after = engine.log().bounds(group).expect("readable").map(|(first, _)| first + keep);
            commit(engine, LogWrite::TruncateAfter { group, after });
        }
        Operation::Purge { group, count } => {
            let group = GROUPS[*group];
            let first = engine.log().bounds(group).expect("readable").map_or(1, |(first, _)| first);
            commit(engine, LogWrite::PurgeUpto { group, upto: first + count });
        }
        Operation::Meta { group, key, value } => {
            let write = LogWrite::Meta { group: GROUPS[*group], key: METAS[*key], value: vec![*value] };
            commit(engine, write);
        }
        Operation::Write { space: number, writes } => {
            let mut batch = Batch::default();
            for (keyspace, key, value) in writes {
                batch.writes.push((Keyspace(*keyspace), vec![*key], value.map(|value| vec![value])));
            }
            space(engine, *number).write(batch).expect("the space takes writes");
        }
        Operation::Flush { space: number } => space(engine, *number).flush().expect("a flush"),
        Operation::Copy { from, to } => {
            let checkpoint = space(engine, *from).checkpoint().expect("a checkpoint");
            let install = space(engine, *to).install().expect("an install");
            ship(&*checkpoint, install).expect("the checkpoint arrives");
        }
        Operation::Crash => unreachable!("the test crashes the engines itself"),
    }
}

/// Everything that can be seen.
fn view(engine: &dyn Engine) -> String {
    let log = engine.log();
    let mut seen = String::new();
    for group in GROUPS {
        let entries = log.entries(group, 0, u64::MAX, usize::MAX).expect("readable");
        let metas = METAS.map(|key| log.meta(group, key).expect("readable"));
        seen += &format!("{:?} {entries:?} {metas:?}\n", log.bounds(group).expect("readable"));
    }
    for number in 0..SPACES.len() {
        for keyspace in 0..KEYSPACES.len() as u8 {
            let space = space(engine, number);
            let rows = space.scan(Keyspace(keyspace), Bound::Unbounded, Bound::Unbounded, false, usize::MAX);
            seen += &format!("{:?}\n", rows.expect("readable"));
        }
    }
    seen
}

/// What a killed process leaves: the files as they are, without closing anything.
fn image_of(directory: &Path) -> TempDir {
    let image = tempfile::tempdir().expect("a directory");
    copy(directory, image.path());
    image
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("readable").is_dir() {
            fs::create_dir(&target).expect("writable");
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("writable");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn both_engines_show_the_same_also_after_a_crash(operations in prop::collection::vec(operation(), 1..40)) {
        let mut directory = tempfile::tempdir().expect("a directory");
        let mut rocks = RocksEngine::open(directory.path(), Options::default()).expect("it opens");
        let mut memory = MemoryEngine::auto_sync();
        for operation in &operations {
            if let Operation::Crash = operation {
                // Spaces that were never opened are no part of either engine.
                for number in 0..SPACES.len() {
                    space(&rocks, number);
                    space(&memory, number);
                }
                let image = image_of(directory.path());
                drop(rocks);
                rocks = RocksEngine::open(image.path(), Options::default()).expect("it opens");
                directory = image;
                memory = memory.crash();
                prop_assert_eq!(view(&rocks), view(&memory));
            } else {
                apply(&rocks, operation);
                apply(&memory, operation);
            }
        }
        prop_assert_eq!(view(&rocks), view(&memory));
    }
}
