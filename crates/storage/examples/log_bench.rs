//! Measures the shared log: synced batches per second and entries per sync for some numbers of
//! submitters, then the cost of flushing a space and the memory of an idle engine.
//!
//! `cargo run --release -p storage --example log_bench [DIRECTORY]`

use model::GroupId;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use storage::rocks::Options;
use storage::{Batch, Engine, Keyspace, LogWrite, RocksEngine};

const GROUPS: u16 = 5;
const ENTRY_BYTES: usize = 256;
const MEASURE: Duration = Duration::from_secs(3);
const KEYSPACES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
const ROWS: u64 = 20_000;

fn main() {
    let scratch = tempfile::tempdir().expect("a directory");
    let directory = std::env::args().nth(1).map_or_else(|| scratch.path().to_owned(), Into::into);
    let engine = RocksEngine::open(directory.join("bench"), Options::default()).expect("it opens");
    for group in 0..GROUPS {
        engine.space(&format!("g{group}"), &KEYSPACES).expect("the space opens");
    }
    println!("idle with {GROUPS} groups: {} MB resident", resident_mb());
    for submitters in [1, 64, 256] {
        log(&engine, submitters);
    }
    space(&engine);
    println!("afterwards: {} MB resident", resident_mb());
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn log(engine: &RocksEngine, submitters: u16) {
    let log = engine.log();
    let before = log.counters();
    let started = now();
    let mut latencies: Vec<Duration> = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..submitters).map(|number| scope.spawn(move || submit(engine, number))).collect();
        for thread in threads {
            latencies.extend(thread.join().expect("a submitter ends"));
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    let after = log.counters();
    let (syncs, entries) = (after.syncs - before.syncs, after.entries - before.entries);
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{submitters:>3} submitters: {:>6.0} syncs/s, {:>7.0} entries/s, {:>5.1} entries per sync, p50 {:.2} ms, p99 {:.2} ms",
        syncs as f64 / seconds,
        entries as f64 / seconds,
        entries as f64 / syncs as f64,
        at(0.5),
        at(0.99),
    );
}

fn submit(engine: &RocksEngine, number: u16) -> Vec<Duration> {
    let log = engine.log();
    let group = GroupId::new(number % GROUPS);
    let mut latencies = Vec::new();
    let started = now();
    // Each its own range of indices: this measures the log, not a Raft group.
    let mut index = (u64::from(number) + 1) << 32;
    while started.elapsed() < MEASURE {
        let (tell, told) = mpsc::sync_channel(1);
        let entries = vec![(index, vec![7; ENTRY_BYTES])];
        let asked = now();
        let done = move |result| tell.send(result).expect("the submitter waits");
        log.submit(vec![LogWrite::Append { group, entries }], true, Box::new(done));
        told.recv().expect("a callback").expect("the disk takes writes");
        latencies.push(asked.elapsed());
        index += 1;
    }
    latencies
}

fn space(engine: &RocksEngine) {
    let space = engine.space("g0", &KEYSPACES).expect("the space opens");
    let started = now();
    for row in 0..ROWS {
        let mut batch = Batch::default();
        for keyspace in 0..8 {
            batch.put(Keyspace(keyspace), row.to_be_bytes(), vec![keyspace; 100]);
        }
        space.write(batch).expect("the space takes writes");
    }
    println!("space: {:.0} batches of 8 rows per second", ROWS as f64 / started.elapsed().as_secs_f64());
    let started = now();
    space.flush().expect("a flush");
    println!("space: flush of 8 keyspaces in {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    let started = now();
    let checkpoint = space.checkpoint().expect("a checkpoint");
    let files = checkpoint.files().expect("its files").len();
    println!("space: checkpoint of {files} files in {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    let started = now();
    for row in 0..ROWS {
        assert!(space.get(Keyspace(3), &row.to_be_bytes()).expect("readable").is_some());
    }
    println!("space: {:.0} gets per second", ROWS as f64 / started.elapsed().as_secs_f64());
}

/// Memory of this process, as the kernel counts it.
fn resident_mb() -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}
