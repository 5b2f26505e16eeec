//! What every engine must do, as tests that run against any of them.
//!
//! Used by the tests of each engine and of the crates that bring their own; never by a node.

use crate::engine::{Batch, Checkpoint, Engine, FileMeta, Install, Keyspace, Log, LogWrite, Space};
use model::GroupId;
use std::io;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::{Arc, mpsc};

/// An engine under test, and the power over it that its own tests have.
pub trait Bed {
    /// What is tested.
    type Engine: Engine;
    /// The engine of this life.
    fn engine(&self) -> &Self::Engine;
    /// Lets everything that was submitted become durable.
    fn settle(&self);
    /// Ends this life of the engine and begins the next on the same disk. Everything that the
    /// engine handed out has been dropped before.
    fn restart(&mut self);
}

const GROUPS: [GroupId; 3] = [GroupId::new(0), GroupId::new(1), GroupId::CONTROL];
const KEYSPACES: [&str; 3] = ["data", "meta", "index"];
const DATA: Keyspace = Keyspace(0);
const META: Keyspace = Keyspace(1);
const CHUNK_BYTES: usize = 1000;

/// Runs every check, each on a fresh bed.
pub fn check_all<B: Bed>(mut fresh: impl FnMut() -> B) {
    entries_come_back_in_order_and_within_the_bounds(&mut fresh());
    truncated_and_purged_entries_are_gone_in_their_group_only(&mut fresh());
    a_truncated_index_can_be_written_again(&mut fresh());
    the_log_survives_a_restart(&mut fresh());
    callbacks_come_in_the_order_of_submission(&mut fresh());
    keys_are_scanned_in_order_between_bounds(&mut fresh());
    a_batch_takes_effect_in_order_and_as_a_whole(&mut fresh());
    flushed_state_survives_a_restart(&mut fresh());
    a_checkpoint_is_frozen_and_can_be_installed(&mut fresh());
    a_broken_checkpoint_changes_nothing(&mut fresh());
    files_that_are_here_already_need_not_be_sent(&mut fresh());
    names_that_are_paths_are_refused(&mut fresh());
}

/// Submits writes and waits until they are durable.
pub fn commit<B: Bed>(bed: &B, writes: Vec<LogWrite>) -> io::Result<()> {
    let (tell, told) = mpsc::channel();
    bed.engine().log().submit(writes, true, Box::new(move |result| drop(tell.send(result))));
    bed.settle();
    told.recv().expect("an engine that lives calls back")
}

/// An `Append` whose entries say which they are.
pub fn append(group: GroupId, indices: std::ops::RangeInclusive<u64>) -> LogWrite {
    LogWrite::Append { group, entries: indices.map(|index| (index, entry(group, index))).collect() }
}

/// The content that [`append`] gives an entry.
pub fn entry(group: GroupId, index: u64) -> Vec<u8> {
    format!("{group}:{index}").into_bytes()
}

/// Copies a checkpoint into an install, the way a peer would, and returns how many bytes were sent.
pub fn ship(checkpoint: &dyn Checkpoint, mut install: Box<dyn Install>) -> io::Result<u64> {
    let files = checkpoint.files()?;
    let mut sent = 0;
    for file in &files {
        if !install.has(file)? {
            sent += file.size_bytes;
            send(checkpoint, &mut *install, file)?;
        }
    }
    install.finish(&files)?;
    Ok(sent)
}

/// Everything in a keyspace.
pub fn all(space: &dyn Space, keyspace: Keyspace) -> Vec<(Vec<u8>, Vec<u8>)> {
    space.scan(keyspace, Unbounded, Unbounded, false, usize::MAX).expect("the keyspace is readable")
}

fn send(checkpoint: &dyn Checkpoint, install: &mut dyn Install, file: &FileMeta) -> io::Result<()> {
    install.append(&file.name, &[])?;
    let mut offset = 0;
    while offset < file.size_bytes {
        let bytes = checkpoint.read(&file.name, offset, CHUNK_BYTES)?;
        assert!(!bytes.is_empty() && bytes.len() <= CHUNK_BYTES, "a checkpoint gives what it has, and no more");
        install.append(&file.name, &bytes)?;
        offset += bytes.len() as u64;
    }
    Ok(())
}

fn indices(log: &dyn Log, group: GroupId, from: u64, to: u64, bytes_max: usize) -> Vec<u64> {
    let found = log.entries(group, from, to, bytes_max).expect("the log is readable");
    for (index, bytes) in &found {
        assert_eq!(*bytes, entry(group, *index), "an entry is what was appended");
    }
    found.into_iter().map(|(index, _)| index).collect()
}

fn bounds<B: Bed>(bed: &B, group: GroupId) -> Option<(u64, u64)> {
    bed.engine().log().bounds(group).expect("the log is readable")
}

fn open<B: Bed>(bed: &B, name: &str) -> Arc<dyn Space> {
    bed.engine().space(name, &KEYSPACES).expect("the space opens")
}

fn put(space: &dyn Space, keyspace: Keyspace, rows: impl IntoIterator<Item = (u32, &'static str)>) {
    let mut batch = Batch::default();
    for (key, value) in rows {
        batch.put(keyspace, key.to_be_bytes(), value);
    }
    space.write(batch).expect("the space takes writes");
}

fn entries_come_back_in_order_and_within_the_bounds<B: Bed>(bed: &mut B) {
    let log = bed.engine().log();
    assert_eq!(bounds(bed, GROUPS[0]), None);
    assert!(indices(&*log, GROUPS[0], 0, u64::MAX, usize::MAX).is_empty());
    commit(bed, GROUPS.map(|group| append(group, 1..=300)).to_vec()).expect("a commit");
    commit(bed, vec![append(GROUPS[1], 301..=302)]).expect("a commit");
    assert_eq!(bounds(bed, GROUPS[0]), Some((1, 300)));
    assert_eq!(bounds(bed, GROUPS[1]), Some((1, 302)));
    assert_eq!(bounds(bed, GROUPS[2]), Some((1, 300)));
    for group in GROUPS {
        assert_eq!(indices(&*log, group, 5, 9, usize::MAX), [5, 6, 7, 8]);
        assert_eq!(indices(&*log, group, 0, 3, usize::MAX), [1, 2]);
        assert_eq!(indices(&*log, group, 299, 301, usize::MAX)[..2], [299, 300]);
        assert!(indices(&*log, group, 9, 9, usize::MAX).is_empty());
        assert!(indices(&*log, group, 9, 5, usize::MAX).is_empty());
        let each = entry(group, 10).len();
        assert_eq!(indices(&*log, group, 10, 20, 0), [10], "at least one");
        assert_eq!(indices(&*log, group, 10, 20, 3 * each), [10, 11, 12]);
        assert_eq!(indices(&*log, group, 10, 20, 4 * each - 1), [10, 11, 12]);
    }
    let counters = log.counters();
    assert!(counters.entries == 902 && counters.syncs >= 1 && counters.bytes > 902, "{counters:?}");
}

fn truncated_and_purged_entries_are_gone_in_their_group_only<B: Bed>(bed: &mut B) {
    commit(bed, GROUPS.map(|group| append(group, 1..=20)).to_vec()).expect("a commit");
    commit(bed, vec![LogWrite::TruncateAfter { group: GROUPS[1], after: Some(15) }]).expect("a commit");
    commit(bed, vec![LogWrite::PurgeUpto { group: GROUPS[1], upto: 5 }]).expect("a commit");
    commit(bed, vec![LogWrite::TruncateAfter { group: GROUPS[2], after: None }]).expect("a commit");
    for life in 0..2 {
        assert_eq!(bounds(bed, GROUPS[0]), Some((1, 20)), "life {life}");
        assert_eq!(bounds(bed, GROUPS[1]), Some((6, 15)), "life {life}");
        assert_eq!(bounds(bed, GROUPS[2]), None, "life {life}");
        assert_eq!(indices(&*bed.engine().log(), GROUPS[1], 0, u64::MAX, usize::MAX), (6..=15).collect::<Vec<_>>());
        assert!(indices(&*bed.engine().log(), GROUPS[2], 0, u64::MAX, usize::MAX).is_empty());
        bed.restart();
    }
    // A purge beyond the end, as after an installed snapshot: the log goes on behind it.
    commit(bed, vec![LogWrite::PurgeUpto { group: GROUPS[1], upto: 100 }]).expect("a commit");
    assert_eq!(bounds(bed, GROUPS[1]), None);
    commit(bed, vec![append(GROUPS[1], 101..=102)]).expect("a commit");
    assert_eq!(bounds(bed, GROUPS[1]), Some((101, 102)));
    commit(bed, vec![LogWrite::PurgeUpto { group: GROUPS[0], upto: u64::MAX }]).expect("a commit");
    assert_eq!(bounds(bed, GROUPS[0]), None);
}

fn a_truncated_index_can_be_written_again<B: Bed>(bed: &mut B) {
    let group = GROUPS[0];
    let again = LogWrite::Append { group, entries: vec![(3, b"again".to_vec())] };
    commit(bed, vec![append(group, 1..=9)]).expect("a commit");
    commit(bed, vec![LogWrite::TruncateAfter { group, after: Some(2) }, again]).expect("a commit");
    for _ in 0..2 {
        assert_eq!(bounds(bed, group), Some((1, 3)));
        let found = bed.engine().log().entries(group, 2, 99, usize::MAX).expect("the log is readable");
        assert_eq!(found, [(2, entry(group, 2)), (3, b"again".to_vec())]);
        bed.restart();
    }
}

fn the_log_survives_a_restart<B: Bed>(bed: &mut B) {
    for (number, group) in GROUPS.into_iter().enumerate() {
        let vote = LogWrite::Meta { group, key: "vote", value: vec![number as u8; 9] };
        let committed = LogWrite::Meta { group, key: "committed", value: Vec::new() };
        commit(bed, vec![vote, append(group, 7..=11), committed]).expect("a commit");
    }
    for _ in 0..2 {
        for (number, group) in GROUPS.into_iter().enumerate() {
            let log = bed.engine().log();
            assert_eq!(log.meta(group, "vote").expect("readable"), Some(vec![number as u8; 9]));
            assert_eq!(log.meta(group, "committed").expect("readable"), Some(Vec::new()));
            assert_eq!(log.meta(group, "vot").expect("readable"), None);
            assert_eq!(indices(&*log, group, 0, 99, usize::MAX), [7, 8, 9, 10, 11]);
        }
        bed.restart();
    }
}

fn callbacks_come_in_the_order_of_submission<B: Bed>(bed: &mut B) {
    let (tell, told) = mpsc::channel();
    let log = bed.engine().log();
    for number in 0..200_u64 {
        let tell = tell.clone();
        let group = GROUPS[number as usize % GROUPS.len()];
        let done = move |result: io::Result<()>| {
            let _ = tell.send((number, result.is_ok()));
        };
        log.submit(vec![append(group, number + 1..=number + 1)], number % 5 != 0, Box::new(done));
    }
    bed.settle();
    let order: Vec<_> = (0..200).map(|_| told.recv().expect("an engine that lives calls back")).collect();
    assert_eq!(order, (0..200).map(|number| (number, true)).collect::<Vec<_>>());
}

fn keys_are_scanned_in_order_between_bounds<B: Bed>(bed: &mut B) {
    let space = open(bed, "g0");
    put(&*space, DATA, (0..10).map(|key| (key * 2, "v")));
    put(&*space, META, [(3, "other")]);
    let key = |number: u32| number.to_be_bytes();
    let scan = |from, to, reverse, limit| -> Vec<u32> {
        let rows = space.scan(DATA, from, to, reverse, limit).expect("the keyspace is readable");
        rows.into_iter().map(|(key, _)| u32::from_be_bytes(key.try_into().expect("four bytes"))).collect()
    };
    let (four, five, eight) = (key(4), key(5), key(8));
    assert_eq!(scan(Unbounded, Unbounded, false, 3), [0, 2, 4]);
    assert_eq!(scan(Unbounded, Unbounded, true, 3), [18, 16, 14]);
    assert_eq!(scan(Included(&four), Included(&eight), false, 99), [4, 6, 8]);
    assert_eq!(scan(Excluded(&four), Excluded(&eight), false, 99), [6]);
    assert_eq!(scan(Included(&four), Included(&eight), true, 99), [8, 6, 4]);
    assert_eq!(scan(Excluded(&four), Excluded(&eight), true, 99), [6]);
    assert_eq!(scan(Included(&four), Included(&eight), true, 1), [8]);
    assert_eq!(scan(Included(&five), Unbounded, false, 1), [6]);
    assert_eq!(scan(Unbounded, Excluded(&five), true, 1), [4]);
    assert!(scan(Unbounded, Unbounded, false, 0).is_empty());
    for (from, to) in [(Included(&eight), Included(&four)), (Excluded(&four), Excluded(&four))] {
        let rows = space.scan(DATA, from.map(|k| &k[..]), to.map(|k| &k[..]), false, 9);
        assert!(rows.expect("an empty range is no error").is_empty());
    }
    assert_eq!(space.get(DATA, &key(4)).expect("readable"), Some(b"v".to_vec()));
    assert_eq!(space.get(DATA, &key(3)).expect("readable"), None);
    assert_eq!(space.get(META, &key(3)).expect("readable"), Some(b"other".to_vec()));
    assert!(all(&*open(bed, "g1"), DATA).is_empty(), "spaces are separate");
    assert!(space.get(Keyspace(3), b"").is_err() && space.scan(Keyspace(3), Unbounded, Unbounded, false, 1).is_err());
}

fn a_batch_takes_effect_in_order_and_as_a_whole<B: Bed>(bed: &mut B) {
    let space = open(bed, "g0");
    let mut batch = Batch::default();
    batch.put(DATA, "a", "1");
    batch.put(META, "a", "2");
    batch.put(DATA, "b", "");
    batch.delete(DATA, "a");
    batch.put(DATA, "c", "first");
    batch.put(DATA, "c", "last");
    space.write(batch).expect("the space takes writes");
    assert_eq!(all(&*space, DATA), [(b"b".to_vec(), Vec::new()), (b"c".to_vec(), b"last".to_vec())]);
    assert_eq!(all(&*space, META), [(b"a".to_vec(), b"2".to_vec())]);
    let mut wrong = Batch::default();
    wrong.put(DATA, "d", "1");
    wrong.put(Keyspace(200), "d", "1");
    assert!(space.write(wrong).is_err());
    assert_eq!(space.get(DATA, b"d").expect("readable"), None, "a refused batch leaves nothing");
}

fn flushed_state_survives_a_restart<B: Bed>(bed: &mut B) {
    let space = open(bed, "g0");
    put(&*space, DATA, (0..1000).map(|key| (key, "value")));
    put(&*space, META, [(0, "applied 1000")]);
    space.flush().expect("a flush");
    let (data, meta) = (all(&*space, DATA), all(&*space, META));
    drop(space);
    bed.restart();
    let space = open(bed, "g0");
    assert_eq!((all(&*space, DATA), all(&*space, META)), (data, meta));
    assert!(space.size_bytes() > 0);
}

fn a_checkpoint_is_frozen_and_can_be_installed<B: Bed>(bed: &mut B) {
    let (source, target) = (open(bed, "g0"), open(bed, "g1"));
    put(&*source, DATA, (0..500).map(|key| (key, "from the source")));
    put(&*source, META, [(1, "m")]);
    put(&*target, DATA, (400..600).map(|key| (key, "old")));
    put(&*target, Keyspace(2), [(1, "old")]);
    let checkpoint = source.checkpoint().expect("a checkpoint");
    let frozen = [DATA, META, Keyspace(2)].map(|keyspace| all(&*source, keyspace));
    put(&*source, DATA, (0..600).map(|key| (key, "later")));
    source.flush().expect("a flush");
    let sent = ship(&*checkpoint, target.install().expect("an install")).expect("the checkpoint arrives");
    assert!(sent > 0);
    assert_eq!([DATA, META, Keyspace(2)].map(|keyspace| all(&*target, keyspace)), frozen);
    put(&*target, META, [(2, "the space takes writes again")]);
    target.flush().expect("a flush");
    drop((checkpoint, source, target));
    bed.restart();
    let target = open(bed, "g1");
    assert_eq!(all(&*target, DATA), frozen[0], "an installed checkpoint is durable");
    assert_eq!(all(&*target, META).len(), 2);
}

fn a_broken_checkpoint_changes_nothing<B: Bed>(bed: &mut B) {
    let (source, target) = (open(bed, "g0"), open(bed, "g1"));
    put(&*source, DATA, (0..500).map(|key| (key, "new")));
    put(&*target, DATA, [(1, "old")]);
    let old = all(&*target, DATA);
    let checkpoint = source.checkpoint().expect("a checkpoint");
    let files = checkpoint.files().expect("its files");
    let largest = (0..files.len()).max_by_key(|at| files[*at].size_bytes).expect("it has files");
    let attempt = |spoil: &dyn Fn(&mut dyn Install), files: &[FileMeta]| {
        let mut install = target.install().expect("an install");
        for file in files {
            let _ = send(&*checkpoint, &mut *install, file);
        }
        spoil(&mut *install);
        assert!(install.finish(files).is_err(), "a broken checkpoint is refused");
        assert_eq!(all(&*target, DATA), old, "and the old content stays");
    };
    attempt(&|install| drop(install.append(&files[largest].name, b"x")), &files);
    attempt(&|install| drop(install.append("stray.sst", b"x")), &files);
    let mut wrong = files.clone();
    wrong[largest].digest[0] ^= 1;
    attempt(&|_| (), &wrong);
    let mut wrong = files.clone();
    wrong[largest].size_bytes -= 1;
    attempt(&|_| (), &wrong);
    let missing = FileMeta { name: "missing.sst".into(), size_bytes: 0, digest: *blake3::hash(b"").as_bytes() };
    let mut wrong = files.clone();
    wrong.push(FileMeta { size_bytes: 9, ..missing });
    attempt(&|_| (), &wrong);
    drop(target.install().expect("an install that is given up"));
    ship(&*checkpoint, target.install().expect("an install")).expect("a whole one still arrives");
    assert_eq!(all(&*target, DATA), all(&*source, DATA));
}

fn files_that_are_here_already_need_not_be_sent<B: Bed>(bed: &mut B) {
    let space = open(bed, "g0");
    put(&*space, DATA, (0..5000).map(|key| (key, "a value of some length, so that it has weight")));
    let checkpoint = space.checkpoint().expect("a checkpoint");
    let size: u64 = checkpoint.files().expect("its files").iter().map(|file| file.size_bytes).sum();
    put(&*space, META, [(9, "later")]);
    let sent = ship(&*checkpoint, space.install().expect("an install")).expect("the checkpoint arrives");
    assert!(sent < size / 2, "{sent} of {size} bytes sent");
    assert_eq!((all(&*space, DATA).len(), all(&*space, META).len()), (5000, 0));
}

fn names_that_are_paths_are_refused<B: Bed>(bed: &mut B) {
    for name in ["", "..", "../g0", "/tmp/g0", "a/b", ".g0"] {
        assert!(bed.engine().space(name, &KEYSPACES).is_err(), "{name:?}");
        let mut install = open(bed, "g0").install().expect("an install");
        let file = FileMeta { name: name.into(), size_bytes: 0, digest: [0; 32] };
        assert!(install.append(name, b"x").is_err() && install.has(&file).is_err(), "{name:?}");
    }
}
