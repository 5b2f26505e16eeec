//! Measures the archive: events written a second, bytes of an event, and how long searches take.
//!
//! `cargo run --release -p archive --example measure -- [EVENTS]`; events are made, one a millisecond, of 1,000 users
//! and 10,000 addresses, about 400 bytes each.

use archive::search::{Ask, Limits, Progress, Question, run};
use archive::{Archive, Entry, Span, Tenants};
use detection::normalise::normalise;
use detection::{Position, RawEvent, SourceKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const START_MS: u64 = 1_795_467_600_000;

fn raw(sequence: u64) -> RawEvent {
    let time_ms = START_MS + sequence;
    // Scattered, but the same in every run.
    let mixed = sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    let action = ["login", "record.view", "record.put", "login.failed"][usize::try_from(mixed % 4).unwrap_or(0)];
    let line = format!(
        r#"{{"v":1,"time_ms":{time_ms},"region":"eu","node":"eu-{}","group":{},"action":"{action}","outcome":"success","tenant":"acme","user":"user-{}","session":"{mixed:016x}","address":"10.{}.{}.{}","resource":"tenants/acme/tables/orders/records/o-{}","fields":["state","total"],"request_id":"{:032x}"}}"#,
        mixed % 3 + 1,
        mixed % 4,
        mixed % 1000,
        mixed % 10_000 / 2500,
        mixed % 10_000 / 50 % 50,
        mixed % 50,
        mixed % 100_000,
        u128::from(mixed) << 40 | u128::from(sequence),
    );
    let position = Some(Position { stream: "audit/eu-0".into(), sequence });
    RawEvent { source: SourceKind::Audit, received_ms: time_ms, position, bytes: line.into() }
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads a clock")]
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> (T, f64) {
    let begun = std::time::Instant::now();
    let value = work();
    let seconds = begun.elapsed().as_secs_f64();
    println!("{what:<60} {seconds:9.3} s");
    (value, seconds)
}

fn main() {
    let count: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let folder = std::env::temp_dir().join(format!("archive-measure-{}", std::process::id()));
    let archive = Archive::open(&folder).expect("a folder can be made");
    let (raw_bytes, seconds) = timed(&format!("{count} events: normalise, sort, compress, sync"), || {
        let mut raw_bytes = 0;
        for sequence in 0..count {
            let raw = raw(sequence);
            raw_bytes += raw.bytes.len() as u64;
            let event = normalise(&raw).expect("made to be parsed");
            archive.take(
                "audit/eu-0",
                sequence,
                Some(Entry { tenant: "acme".into(), source: raw.source, event }),
                START_MS,
            );
            if archive.is_full(START_MS) {
                archive.roll(START_MS).expect("the disk works");
            }
        }
        archive.roll(START_MS).expect("the disk works");
        raw_bytes
    });
    println!("{:<60} {:9.0} events/s", "", count as f64 / seconds);
    let size = |archive: &Archive| archive.size_bytes() as f64 / count as f64;
    println!(
        "raw {:.0} bytes an event, in {} files {:.0}",
        raw_bytes as f64 / count as f64,
        archive.files().len(),
        size(&archive)
    );
    timed("put together", || archive.compact(u64::MAX / 4, || true).expect("the disk works"));
    println!("in {} files {:.0} bytes an event", archive.files().len(), size(&archive));
    for ask in [
        Ask::Text("address:10.3.7.1".into()),
        Ask::Text("address:192.0.2.1".into()),
        Ask::Text("user:user-77 operation:login.failed".into()),
        Ask::Text("unmapped.node:eu-2 user:user-77".into()),
        Ask::Text("\"o-4711\"".into()),
        Ask::Sql("SELECT user_name, count(*) AS n FROM events GROUP BY 1 ORDER BY 2 DESC LIMIT 10".into()),
    ] {
        let progress = Arc::new(Progress::default());
        let question = Question {
            tenants: Tenants::one("acme"),
            audit: Tenants::All,
            span: Span::ALL,
            ask: ask.clone(),
            rows_max: 1000,
        };
        let (answer, _) = timed(&format!("{ask:?}").chars().take(58).collect::<String>(), || {
            run(&archive, &question, Limits::default(), &progress).expect("a good question")
        });
        println!("    {} rows, {} read", answer.rows.len(), progress.rows_read.load(Ordering::Relaxed));
    }
    drop(archive);
    std::fs::remove_dir_all(&folder).expect("our own folder");
}
