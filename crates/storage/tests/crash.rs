//! A process that writes is killed, or runs out of disk: nothing it acknowledged is lost.
//!
//! The writing process is this test binary again, running [`writer_process`] alone.

use model::GroupId;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::ops::Bound;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use storage::rocks::Options;
use storage::{Batch, Engine, Keyspace, LogWrite, RocksEngine};

const DIRECTORY: &str = "HOLDFAST_STORAGE_TEST_DIRECTORY";
const GROUPS: [GroupId; 3] = [GroupId::new(0), GroupId::new(7), GroupId::CONTROL];
const KEYSPACES: [&str; 2] = ["rows", "meta"];
const ROWS: Keyspace = Keyspace(0);
const META: Keyspace = Keyspace(1);
/// So small that RocksDB also flushes by itself, at moments that nobody chose.
const MEMTABLE_BYTES: usize = 64 << 10;
const ROW_BYTES: usize = 1000;
const IN_FLIGHT: usize = 16;
const SIGABRT: i32 = 6;

fn entry(group: GroupId, index: u64) -> Vec<u8> {
    // Some entries span several blocks of the write-ahead log.
    let size = if index.is_multiple_of(7) { 100_000 } else { 50 + index as usize % 400 };
    (0..size).map(|at| (at as u64 ^ index ^ u64::from(group.get())) as u8).collect()
}

/// Does nothing unless it was started by another test here.
#[test]
fn writer_process() {
    #[expect(clippy::disallowed_methods, reason = "how a test talks to its own second process")]
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let engine = RocksEngine::open(&directory, Options { memtable_bytes: MEMTABLE_BYTES, ..Options::default() });
    let engine = engine.expect("it opens");
    let space = engine.space("state", &KEYSPACES).expect("the space opens");
    let log = engine.log();
    let (tell, told) = mpsc::sync_channel(IN_FLIGHT);
    let mut next: BTreeMap<GroupId, u64> = BTreeMap::new();
    for group in GROUPS {
        next.insert(group, log.bounds(group).expect("readable").map_or(1, |(_, last)| last + 1));
    }
    let mut applied = space.get(META, b"applied").expect("readable").map_or(0, |bytes| number(&bytes));
    for round in 0_usize.. {
        let group = GROUPS[round % GROUPS.len()];
        let index = next[&group];
        next.insert(group, index + 1);
        let tell = tell.clone();
        let done = move |result: std::io::Result<()>| {
            println!("{} {} {index}", if result.is_ok() { "ack" } else { "refused" }, group.get());
            let _ = tell.try_send(());
        };
        let append = LogWrite::Append { group, entries: vec![(index, entry(group, index))] };
        let vote = LogWrite::Meta { group, key: "vote", value: index.to_be_bytes().to_vec() };
        log.submit(vec![append, vote], true, Box::new(done));
        if round >= IN_FLIGHT {
            told.recv().expect("callbacks come");
        }
        applied += 1;
        let mut batch = Batch::default();
        batch.put(ROWS, applied.to_be_bytes(), vec![applied as u8; ROW_BYTES]);
        batch.put(META, "applied", applied.to_be_bytes());
        space.write(batch).expect("the space takes writes");
        if applied.is_multiple_of(150) {
            space.flush().expect("a flush");
            println!("flushed 0 {applied}");
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("eight bytes"))
}

/// What the writing process said.
#[derive(Default)]
struct Said {
    acknowledged: BTreeMap<u16, u64>,
    flushed: u64,
    refused: usize,
    lines: usize,
}

impl Said {
    /// Takes one line; a line that the kill cut off says nothing.
    fn hear(&mut self, line: &str) {
        let Some(line) = line.strip_suffix('\n') else { return };
        let words: Vec<&str> = line.split(' ').collect();
        let [kind, group, index] = words[..] else { return };
        let (Ok(group), Ok(index)) = (group.parse::<u16>(), index.parse::<u64>()) else { return };
        match kind {
            "ack" => drop(self.acknowledged.insert(group, index)),
            "flushed" => self.flushed = index,
            "refused" => self.refused += 1,
            _ => return,
        }
        self.lines += 1;
    }
}

fn start(directory: &Path, mut command: Command) -> Child {
    command.env(DIRECTORY, directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the writer starts")
}

fn this_binary() -> std::path::PathBuf {
    std::env::current_exe().expect("a test has a binary")
}

const ARGUMENTS: [&str; 3] = ["writer_process", "--exact", "--nocapture"];

/// Opens what is left and compares it with what was said.
fn check(directory: &Path, said: &Said) {
    let engine = RocksEngine::open(directory, Options::default()).expect("a killed node opens again");
    let log = engine.log();
    for group in GROUPS {
        let Some(acknowledged) = said.acknowledged.get(&group.get()) else { continue };
        let (first, last) = log.bounds(group).expect("readable").expect("there are entries");
        assert!(first == 1 && last >= *acknowledged, "{group}: {acknowledged} was acknowledged, {last} is there");
        let entries = log.entries(group, 0, u64::MAX, usize::MAX).expect("readable");
        assert!(entries.iter().map(|(index, _)| *index).eq(1..=last), "{group} has no hole");
        assert!(entries.iter().all(|(index, bytes)| *bytes == entry(group, *index)));
        let vote = log.meta(group, "vote").expect("readable").expect("there is a vote");
        assert_eq!(number(&vote), last, "what is written together is there together");
    }
    let space = engine.space("state", &KEYSPACES).expect("the space opens");
    let applied = space.get(META, b"applied").expect("readable").map_or(0, |bytes| number(&bytes));
    assert!(applied >= said.flushed, "{} was flushed, {applied} is there", said.flushed);
    let rows = space.scan(ROWS, Bound::Unbounded, Bound::Unbounded, false, usize::MAX).expect("readable");
    assert!(rows.iter().map(|(key, _)| number(key)).eq(1..=applied), "keyspaces were flushed together");
}

#[test]
fn a_killed_writer_loses_nothing_that_it_acknowledged() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut said = Said::default();
    for kill_after in [3, 40, 111, 160, 200, 333] {
        let mut command = Command::new(this_binary());
        command.args(ARGUMENTS);
        let mut child = start(directory.path(), command);
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let enough = said.lines + kill_after;
        let mut line = String::new();
        while said.lines < enough {
            line.clear();
            assert!(output.read_line(&mut line).expect("readable") > 0, "the writer ended by itself");
            said.hear(&line);
        }
        child.kill().expect("a SIGKILL");
        loop {
            line.clear();
            if output.read_line(&mut line).expect("readable") == 0 {
                break;
            }
            said.hear(&line);
        }
        child.wait().expect("it ended");
        check(directory.path(), &said);
    }
}

#[test]
fn a_full_disk_stops_the_process_and_nothing_acknowledged_is_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("sh");
    // A file that may not grow further refuses writes as a full disk does.
    command.args(["-c", "trap '' XFSZ; ulimit -f 2000; ulimit -c 0; exec \"$0\" \"$@\""]);
    command.arg(this_binary()).args(ARGUMENTS);
    let mut child = start(directory.path(), command);
    let mut said = Said::default();
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    while output.read_line(&mut line).expect("readable") > 0 {
        said.hear(&line);
        line.clear();
    }
    let mut errors = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut errors).expect("readable");
    let status = child.wait().expect("it ended");
    assert_eq!(status.signal(), Some(SIGABRT), "{errors}");
    assert!(errors.contains("this node stops"), "{errors}");
    assert!(said.lines > 0 && said.refused == 0, "nothing is reported after the error");
    check(directory.path(), &said);
}
