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

use crate::suite::{append, commit};
use crate::{Batch, Keyspace, LogWrite};
use model::GroupId;
use std::sync::mpsc;

const GROUP: GroupId = GroupId::new(1);
const DATA: Keyspace = Keyspace(0);

fn open(directory: &Path) -> Result<RocksEngine, OpenError> {
    RocksEngine::open(directory, Options::default())
}

fn put(space: &dyn Space, rows: u32) {
    let mut batch = Batch::default();
    for row in 0..rows {
        batch.put(DATA, row.to_be_bytes(), format!("value {row}"));
    }
    space.write(batch).unwrap();
}

/// The youngest file with this ending.
fn last_file(directory: &Path, ending: &str) -> PathBuf {
    let names = disk::names(directory).unwrap();
    directory.join(names.iter().rfind(|name| name.ends_with(ending)).expect("there is such a file"))
}

fn flip(path: &Path, at: impl FnOnce(usize) -> usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// A closed data directory whose log has the entries 1 to 100, each in a batch of its own.
fn closed_log() -> RocksBed {
    let mut bed = RocksBed::new();
    for index in 1..=100 {
        commit(&bed, vec![append(GROUP, index..=index)]).unwrap();
    }
    bed.engine = None;
    bed
}

fn bounds(engine: &RocksEngine) -> Option<(u64, u64)> {
    engine.log().bounds(GROUP).unwrap()
}

#[test]
fn a_write_that_never_finished_is_cut_off_and_the_log_goes_on() {
    let mut bed = closed_log();
    for (cut, last) in [(3, 99), (1, 98)] {
        let wal = last_file(&bed.directory.path().join("log"), ".log");
        let file = File::options().write(true).open(&wal).unwrap();
        file.set_len(file.metadata().unwrap().len() - cut).unwrap();
        bed.restart();
        assert_eq!(bounds(bed.engine()), Some((1, last)));
        // The next write goes to a new file; the next round tears that one.
        commit(&bed, vec![append(GROUP, last + 1..=last + 1)]).unwrap();
        commit(&bed, vec![LogWrite::TruncateAfter { group: GROUP, after: Some(last - 1) }]).unwrap();
        commit(&bed, vec![append(GROUP, last..=last)]).unwrap();
        bed.engine = None;
    }
}

#[test]
fn a_flipped_bit_in_the_log_is_damage_and_not_the_end_of_the_log() {
    let places: [fn(usize) -> usize; 5] =
        [|_| 0, |_| 4, |length| length / 2, |length| length - 1, |length| length - 40];
    for at in places {
        let bed = closed_log();
        flip(&last_file(&bed.directory.path().join("log"), ".log"), at);
        for _ in 0..2 {
            let error = open(bed.directory.path()).err().expect("the damage is noticed");
            assert!(matches!(error, OpenError::Damaged { part: Part::Log, .. }), "{error}");
        }
    }
}

#[test]
fn a_log_that_is_set_aside_makes_room_for_a_new_one() {
    let bed = closed_log();
    let log = bed.directory.path().join("log");
    flip(&last_file(&log, ".log"), |length| length / 3);
    let Err(OpenError::Damaged { part, .. }) = open(bed.directory.path()) else { panic!("the damage is noticed") };
    let aside = set_aside(bed.directory.path(), &part).unwrap();
    assert!(aside.join("CURRENT").exists() && !log.exists());
    assert_eq!(bounds(&open(bed.directory.path()).unwrap()), None);
}

#[test]
fn a_flipped_bit_in_a_table_of_the_log_is_reported_and_never_read() {
    let bed = RocksBed::new();
    commit(&bed, vec![append(GROUP, 1..=2000)]).unwrap();
    let directory = bed.directory.path().to_owned();
    let RocksBed { engine, directory: _kept } = bed;
    drop(engine);
    // Opening moves the write-ahead log into a table.
    drop(open(&directory).unwrap());
    flip(&last_file(&directory.join("log"), ".sst"), |length| length / 4);
    match open(&directory) {
        Ok(engine) => {
            let error = engine.log().entries(GROUP, 1, 2001, usize::MAX).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        Err(error) => assert!(matches!(error, OpenError::Damaged { part: Part::Log, .. }), "{error}"),
    }
}

#[test]
fn a_lost_log_is_damage_and_not_a_new_node() {
    let bed = closed_log();
    let log = bed.directory.path().join("log");
    fs::rename(log.join("CURRENT"), log.join("gone")).unwrap();
    assert!(matches!(open(bed.directory.path()), Err(OpenError::Damaged { part: Part::Log, .. })));
    fs::remove_dir_all(log).unwrap();
    assert!(matches!(open(bed.directory.path()), Err(OpenError::Damaged { part: Part::Log, .. })));
}

#[test]
fn a_damaged_space_is_named_and_the_others_open() {
    type Harm = fn(&Path);
    let harms: [Harm; 4] = [
        |space| fs::remove_file(space.join("CURRENT")).unwrap(),
        |space| fs::write(space.join("CURRENT"), "7\n").unwrap(),
        |space| fs::remove_file(last_file(&space.join("generation-00000001"), ".sst")).unwrap(),
        |space| fs::write(space.join("generation-00000001/CURRENT"), "MANIFEST-999999\n").unwrap(),
    ];
    for (number, harm) in harms.into_iter().enumerate() {
        let mut bed = RocksBed::new();
        for name in ["g0", "g1"] {
            let space = bed.engine().space(name, &["data"]).unwrap();
            put(&*space, 100);
            space.flush().unwrap();
        }
        bed.engine = None;
        harm(&space::directory_of(bed.directory.path(), "g0"));
        bed.restart();
        let error = bed.engine().open_space("g0", &["data"]).err().expect("the damage is noticed");
        let OpenError::Damaged { part, .. } = &error else { panic!("harm {number}: {error}") };
        assert_eq!(*part, Part::Space("g0".into()));
        let space = bed.engine().space("g1", &["data"]).unwrap();
        assert_eq!(suite::all(&*space, DATA).len(), 100);
        drop(space);
        bed.engine = None;
        set_aside(bed.directory.path(), part).unwrap();
        bed.restart();
        assert!(suite::all(&*bed.engine().space("g0", &["data"]).unwrap(), DATA).is_empty());
    }
}

#[test]
fn a_flipped_bit_in_a_space_is_reported_and_never_read() {
    let mut bed = RocksBed::new();
    let space = bed.engine().space("g0", &["data"]).unwrap();
    put(&*space, 5000);
    space.flush().unwrap();
    drop(space);
    bed.engine = None;
    let generation = space::directory_of(bed.directory.path(), "g0").join("generation-00000001");
    flip(&last_file(&generation, ".sst"), |length| length / 4);
    bed.restart();
    let space = bed.engine().space("g0", &["data"]).unwrap();
    let rows = space.scan(DATA, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded, false, usize::MAX);
    assert_eq!(rows.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_directory_belongs_to_one_engine_at_a_time() {
    let bed = RocksBed::new();
    assert!(matches!(open(bed.directory.path()), Err(OpenError::InUse)));
    assert!(matches!(set_aside(bed.directory.path(), &Part::Log), Err(OpenError::InUse)));
    let space = bed.engine().space("g0", &["data"]).unwrap();
    put(&*space, 1);
    let same = bed.engine().space("g0", &["data"]).unwrap();
    assert_eq!(suite::all(&*same, DATA).len(), 1);
    assert!(bed.engine().space("g0", &["data", "more"]).is_err());
}

#[test]
fn a_directory_of_another_format_is_left_alone() {
    let mut bed = RocksBed::new();
    bed.engine = None;
    fs::write(bed.directory.path().join("FORMAT"), "holdfast-storage 9\n").unwrap();
    assert!(matches!(open(bed.directory.path()), Err(OpenError::Format { .. })));
}

#[test]
fn checkpoints_and_old_generations_leave_nothing_behind() {
    let bed = RocksBed::new();
    let space = bed.engine().space("g0", &["data"]).unwrap();
    put(&*space, 100);
    let checkpoint = space.checkpoint().unwrap();
    drop(space.install().unwrap());
    suite::ship(&*checkpoint, space.install().unwrap()).unwrap();
    drop(checkpoint);
    let left = disk::names(&space::directory_of(bed.directory.path(), "g0")).unwrap();
    assert_eq!(left, ["CURRENT", "generation-00000004"]);
    assert_eq!(suite::all(&*space, DATA).len(), 100);
}

#[test]
fn what_a_crash_left_of_an_install_is_removed() {
    let mut bed = RocksBed::new();
    let space = bed.engine().space("g0", &["data"]).unwrap();
    put(&*space, 10);
    space.flush().unwrap();
    drop(space);
    bed.engine = None;
    let directory = space::directory_of(bed.directory.path(), "g0");
    for left in ["generation-00000009", "checkpoint-00000003"] {
        fs::create_dir(directory.join(left)).unwrap();
        fs::write(directory.join(left).join("000007.sst"), "half a file").unwrap();
    }
    bed.restart();
    let space = bed.engine().space("g0", &["data"]).unwrap();
    assert_eq!(suite::all(&*space, DATA).len(), 10);
    assert_eq!(disk::names(&directory).unwrap(), ["CURRENT", "generation-00000001"]);
}

#[test]
fn after_an_error_nothing_is_reported_as_done() {
    let directory = tempfile::tempdir().unwrap();
    let (struck, strikes) = mpsc::channel();
    let on_fatal: OnFatal = Box::new(move |reason| {
        let _ = struck.send(reason);
    });
    let engine = RocksEngine::open(directory.path(), Options { on_fatal, ..Options::default() }).unwrap();
    let space = engine.space("g0", &["data"]).unwrap();
    let bed = RocksBed { engine: Some(engine), directory };
    commit(&bed, vec![append(GROUP, 1..=1)]).unwrap();
    bed.engine().shared.strike("a test".into());
    assert!(commit(&bed, vec![append(GROUP, 2..=2)]).is_err());
    assert!(space.flush().is_err() && space.write(Batch::default()).is_err() && space.checkpoint().is_err());
    assert_eq!(strikes.try_iter().count(), 1, "the hook is told once");
    assert_eq!(bounds(bed.engine()), Some((1, 1)));
}

#[test]
fn many_submitters_share_a_sync() {
    let bed = RocksBed::new();
    let (tell, told) = mpsc::channel();
    for index in 1..=2000 {
        let tell = tell.clone();
        let done = move |result: io::Result<()>| {
            let _ = tell.send(result.is_ok());
        };
        bed.engine().log().submit(vec![append(GROUP, index..=index)], true, Box::new(done));
    }
    assert!((0..2000).all(|_| told.recv().unwrap()));
    let counters = bed.engine().log().counters();
    assert!(counters.entries == 2000 && counters.syncs < 1000, "{counters:?}");
}

#[test]
fn purged_entries_give_their_space_back() {
    const BATCH: u64 = 100;
    let directory = tempfile::tempdir().unwrap();
    // So small that nearly all entries leave the first level of tables.
    let options = Options { log_memtable_bytes: 256 << 10, ..Options::default() };
    let engine = RocksEngine::open(directory.path(), options).unwrap();
    let bed = RocksBed { engine: Some(engine), directory };
    let log = bed.directory.path().join("log");
    let size = || -> u64 {
        let files = disk::names(&log).unwrap();
        files.iter().filter_map(|name| fs::metadata(log.join(name)).ok()).map(|found| found.len()).sum()
    };
    let content = |index: u64| -> Vec<u8> { blake3::hash(&index.to_be_bytes()).as_bytes().repeat(64) };
    let mut last = 0;
    while last < 20_000 {
        let entries: Vec<_> = (last + 1..=last + BATCH).map(|index| (index, content(index))).collect();
        last += BATCH;
        commit(&bed, vec![LogWrite::Append { group: GROUP, entries }]).unwrap();
    }
    let before = size();
    // A table that is being compacted at this moment stays until the next purge.
    let is_freed = (0..20_000).any(|_| {
        commit(&bed, vec![LogWrite::PurgeUpto { group: GROUP, upto: last - 10 }]).unwrap();
        size() < before / 2
    });
    assert!(is_freed, "{} of {before} bytes are still there", size());
    assert_eq!(bounds(bed.engine()), Some((last - 9, last)));
}

#[test]
fn a_handle_that_someone_kept_keeps_the_directory() {
    let mut bed = RocksBed::new();
    let log = bed.engine().log();
    let space = bed.engine().space("g0", &["data"]).unwrap();
    bed.engine = None;
    assert!(matches!(open(bed.directory.path()), Err(OpenError::InUse)));
    drop(log);
    assert!(matches!(open(bed.directory.path()), Err(OpenError::InUse)));
    drop(space);
    assert!(open(bed.directory.path()).is_ok());
}

#[test]
fn a_callback_may_submit_and_may_hold_the_last_handle() {
    let bed = RocksBed::new();
    let (tell, told) = mpsc::channel();
    let log = bed.engine().log();
    let again = log.clone();
    let done = move |result: io::Result<()>| {
        result.unwrap();
        // More than the queue holds: from here nothing may wait for the writer.
        for index in 2..=QUEUE_LENGTH_MAX as u64 + 100 {
            again.submit(vec![append(GROUP, index..=index)], true, Box::new(|result| result.unwrap()));
        }
        let last = again.clone();
        again.submit(
            Vec::new(),
            true,
            Box::new(move |result| {
                drop(last);
                tell.send(result.is_ok()).unwrap();
            }),
        );
    };
    log.submit(vec![append(GROUP, 1..=1)], true, Box::new(done));
    drop(log);
    let directory = bed.directory.path().to_owned();
    let RocksBed { engine, directory: _kept } = bed;
    drop(engine);
    assert!(told.recv().unwrap());
    // The writer gives the directory up when it has ended: nobody can wait for that but by trying.
    let engine = std::iter::repeat_with(|| open(&directory)).find_map(|engine| {
        std::thread::yield_now();
        engine.ok()
    });
    assert_eq!(bounds(&engine.expect("it is found, or this never ends")).unwrap().0, 1);
}
