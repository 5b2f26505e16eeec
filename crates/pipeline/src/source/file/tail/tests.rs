//! Files under rotation, truncation, crashes and refusals, in any order.

use super::*;
use proptest::prelude::*;
use std::io::Write;

const QUIET: Duration = Duration::from_secs(10);

/// A folder with a log, who writes it, and who reads it.
struct World {
    folder: tempfile::TempDir,
    cut: Cut,
    pattern: &'static str,
    tail: Option<Tail>,
    now: Duration,
    rotations: u64,
    /// Lines that were written.
    written: u64,
    /// What was made durable: by position.
    taken: BTreeMap<(Arc<str>, u64), String>,
    /// What was handed out, but is not durable.
    pending: Vec<Chunk>,
}

impl World {
    fn new(pattern: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (taken, pending) = (BTreeMap::new(), Vec::new());
        let now = Duration::ZERO;
        Self { folder, cut: Cut::Lines, pattern, tail: None, now, rotations: 0, written: 0, taken, pending }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn tail(&mut self) -> &mut Tail {
        let settings = Settings {
            name: "t".into(),
            patterns: vec![self.path(self.pattern).to_str().unwrap().to_owned()],
            cut: self.cut,
            from_end: false,
            quiet: QUIET,
            checkpoint: self.path("checkpoint"),
        };
        self.tail.get_or_insert_with(|| Tail::open(settings, 1).unwrap())
    }
    fn append(&mut self, bytes: &[u8]) {
        let path = self.path("log");
        File::options().append(true).create(true).open(path).unwrap().write_all(bytes).unwrap();
    }
    fn line(&mut self) {
        self.written += 1;
        // All first lines of files are alike, so that bytes alone do not tell files apart.
        let line = format!("header\nline {}\n", self.written);
        self.append(line.as_bytes());
    }
    /// Whether the file at the path was ever looked at.
    fn is_known(&self) -> bool {
        let Ok(metadata) = std::fs::metadata(self.path("log")) else { return true };
        let stored = || Checkpoint::load(&self.path("checkpoint"), 1).unwrap().0;
        let book = self.tail.as_ref().map_or_else(stored, |tail| tail.book.clone());
        book.files.values().any(|mark| mark.inode == metadata.ino())
    }
    fn rename(&mut self) {
        if !self.is_known() {
            // Who renames a file that is new leaves the reader the time of a look.
            self.read(0);
            self.store();
        }
        self.rotations += 1;
        let _ = std::fs::rename(self.path("log"), self.path(&format!("old.{}", self.rotations)));
    }
    fn truncate(&mut self) {
        if let Ok(file) = File::options().write(true).open(self.path("log")) {
            file.set_len(0).unwrap();
        }
    }
    fn read(&mut self, chunks: usize) {
        let now = self.now;
        self.tail().look(now);
        for _ in 0..chunks {
            match self.tail().next().unwrap() {
                Some(chunk) => self.pending.push(chunk),
                None => break,
            }
        }
    }
    fn take(&mut self) {
        for chunk in std::mem::take(&mut self.pending) {
            for record in chunk.records {
                let text = String::from_utf8(record.bytes.unwrap().to_vec()).unwrap();
                let position = (chunk.stream.clone(), record.offset);
                let before = self.taken.insert(position.clone(), text.clone());
                assert!(before.is_none_or(|before| before == text), "{position:?} was another line");
            }
            self.tail().acknowledge(chunk.file, chunk.end);
        }
    }
    fn store(&mut self) {
        self.tail().store().unwrap();
    }
    /// What was handed out reached its end, but nobody was told.
    fn crash(&mut self, reached: bool) {
        if reached {
            self.take();
        }
        self.pending.clear();
        self.tail = None;
    }
    fn refuse(&mut self) {
        let files: BTreeSet<u64> = self.pending.drain(..).map(|chunk| chunk.file).collect();
        files.into_iter().for_each(|file| self.tail().rewind(file));
    }
    /// Reads until nothing new comes.
    fn drain(&mut self) {
        // A truncated file has a new number first, and is read at the next look.
        for _ in 0..3 {
            self.read(usize::MAX);
            self.take();
        }
        self.store();
    }
    /// Every numbered line, as often as it was taken.
    fn lines(&self) -> Vec<u64> {
        let mut lines: Vec<u64> =
            self.taken.values().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
        lines.sort_unstable();
        lines
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(u8),
    Partial,
    Rename,
    Truncate,
    Read(usize),
    Take,
    Store,
    Refuse,
    Crash { reached: bool },
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..40_u8).prop_map(Step::Write),
        1 => Just(Step::Partial),
        2 => Just(Step::Rename),
        2 => Just(Step::Truncate),
        4 => (1..4_usize).prop_map(Step::Read),
        3 => Just(Step::Take),
        2 => Just(Step::Store),
        1 => Just(Step::Refuse),
        2 => any::<bool>().prop_map(|reached| Step::Crash { reached }),
        1 => Just(Step::Wait),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn every_line_is_taken_at_one_position_whatever_happens_to_files_and_readers(steps in steps()) {
        let mut world = World::new("log");
        for step in steps {
            match step {
                Step::Write(count) => (0..count).for_each(|_| world.line()),
                // The end of a line comes later, or in another file.
                Step::Partial => {
                    world.append(b"half ");
                    world.read(1);
                    world.append(b"whole\n");
                }
                Step::Rename => world.rename(),
                Step::Truncate => {
                    // Who copies and truncates loses what the reader has not read: it is given the time here.
                    world.drain();
                    world.truncate();
                    if world.written.is_multiple_of(2) {
                        // As long as before at once, so that no length tells.
                        world.line();
                    }
                }
                Step::Read(chunks) => world.read(chunks),
                Step::Take => world.take(),
                Step::Store => world.store(),
                Step::Refuse => world.refuse(),
                Step::Crash { reached } => {
                    // A file that rotation renamed twice while nobody ran is found by its inode.
                    world.crash(reached);
                }
                Step::Wait => world.now += QUIET / 3,
            }
        }
        world.drain();
        let lines = world.lines();
        prop_assert_eq!(lines, (1..=world.written).collect::<Vec<_>>());
    }
}

#[test]
fn a_file_written_over_to_the_same_length_is_another_file() {
    let mut world = World::new("log");
    world.append(b"header\nfirst\n");
    world.drain();
    world.truncate();
    world.append(b"header\nother\n");
    world.drain();
    let texts: Vec<&str> = world.taken.values().map(String::as_str).collect();
    assert_eq!(texts, ["header", "first", "header", "other"]);
}

#[test]
fn the_last_line_of_a_renamed_file_needs_no_newline_once_nobody_writes() {
    let mut world = World::new("log");
    world.append(b"a\nb");
    world.drain();
    world.rename();
    world.drain();
    assert_eq!(world.taken.len(), 1);
    world.now += QUIET;
    world.drain();
    let texts: Vec<&str> = world.taken.values().map(String::as_str).collect();
    assert_eq!(texts, ["a", "b"]);
    assert_eq!(world.tail().count(), 0, "a file that is done is left");
}

#[test]
fn a_line_too_long_is_rejected_alone_and_over_a_restart() {
    let mut world = World::new("log");
    world.append(b"a\n");
    world.append(&vec![b'x'; 5 * RECORD_SIZE_BYTES_MAX]);
    world.read(9);
    let reasons: Vec<bool> = world.pending.iter().flat_map(|c| &c.records).map(|r| r.bytes.is_ok()).collect();
    assert_eq!(reasons, [true, false]);
    let ends: Vec<(u64, Place)> = world.pending.drain(..).map(|chunk| (chunk.file, chunk.end)).collect();
    ends.into_iter().for_each(|(file, end)| world.tail().acknowledge(file, end));
    world.store();
    world.crash(false);
    world.append(b"still x\nb\n");
    world.drain();
    let texts: Vec<&str> = world.taken.values().map(String::as_str).collect();
    assert_eq!(texts, ["b"]);
    assert_eq!(world.taken.keys().next().unwrap().1, (5 * RECORD_SIZE_BYTES_MAX + 10) as u64);
}

#[test]
fn a_quote_that_is_never_closed_costs_one_line() {
    let mut world = World::new("log");
    world.cut = Cut::Csv { delimiter: b',' };
    world.append(b"time,badge\n1,\"open\n");
    let row = b"2,b\n";
    (0..=RECORD_SIZE_BYTES_MAX / row.len()).for_each(|_| world.append(row));
    world.read(usize::MAX);
    let records: Vec<&Record> = world.pending.iter().flat_map(|chunk| &chunk.records).collect();
    assert_eq!((records[0].line, records[1].line, records[2].line), (1, 2, 3));
    assert!(records[1].bytes.is_err() && records[2].bytes.is_ok());
    assert_eq!(world.pending[0].header.as_deref(), Some(b"time,badge".as_slice()));
}

#[test]
fn reading_from_the_end_begins_with_the_next_whole_line() {
    let mut world = World::new("log");
    world.append(b"old\nhal");
    let settings = world.tail().settings.patterns.clone();
    world.tail = None;
    let settings = Settings {
        name: "t".into(),
        patterns: settings,
        cut: Cut::Lines,
        from_end: true,
        quiet: QUIET,
        checkpoint: world.path("other"),
    };
    world.tail = Some(Tail::open(settings, 1).unwrap());
    world.read(9);
    world.append(b"f\nnew\n");
    world.drain();
    let texts: Vec<&str> = world.taken.values().map(String::as_str).collect();
    assert_eq!(texts, ["new"]);
}

#[test]
fn two_patterns_and_a_link_to_one_file_read_it_once() {
    let mut world = World::new("*");
    world.append(b"a\n");
    std::os::unix::fs::symlink(world.path("log"), world.path("link")).unwrap();
    world.read(9);
    assert_eq!(world.pending.iter().flat_map(|chunk| &chunk.records).count(), 1);
}
