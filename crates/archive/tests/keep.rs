//! What is kept and what leaves: nothing twice, nothing lost by a crash, nothing silently.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use archive::layout::HOUR_MS;
use archive::retain::{Hold, Policy, Why};
use archive::search::{Ask, Limits, Progress, Question, run};
use archive::{Archive, ArchiveError, Span, Tenants};
use common::{NOW_MS, event, filled};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const DAY_MS: u64 = 24 * HOUR_MS;

fn sequences(archive: &Archive) -> Vec<i64> {
    let ask = Ask::Sql("SELECT sequence FROM events ORDER BY sequence".into());
    let question = Question { tenants: Tenants::All, audit: Tenants::All, span: Span::ALL, ask, rows_max: 10_000 };
    let answer = run(archive, &question, Limits::default(), &Arc::new(Progress::default())).unwrap();
    answer.rows.iter().map(|row| row["sequence"].as_i64().unwrap()).collect()
}

/// As the driver does: from where the archive says on.
fn feed(archive: &Archive, to: u64) {
    for sequence in archive.next("events/eu")..to {
        archive.take("events/eu", sequence, Some(event("acme", sequence)), NOW_MS);
    }
}

/// A copy of a folder, as a crash would leave it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            let _ = std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn after_any_crash_every_event_is_there_once(
        steps in proptest::collection::vec((1..40_u64, 0..4_u8), 1..10)
    ) {
        let root = tempfile::tempdir().unwrap();
        let mut folder = root.path().join("0");
        let mut archive = Archive::open(&folder).unwrap();
        let mut end = 0;
        for (number, (count, act)) in steps.into_iter().enumerate() {
            end += count;
            feed(&archive, end);
            match act {
                0 => drop(archive.roll(NOW_MS).unwrap()),
                1 => drop(archive.compact(u64::MAX / 2, || true).unwrap()),
                2 => {
                    archive.roll(NOW_MS).unwrap();
                    let next = root.path().join(format!("{}", number + 1));
                    copy(&folder, &next);
                    folder = next;
                    archive = Archive::open(&folder).unwrap();
                }
                _ => archive = Archive::open(&folder).unwrap(),
            }
            feed(&archive, end);
            prop_assert_eq!(sequences(&archive), (0..end.cast_signed()).collect::<Vec<_>>());
        }
    }
}

#[test]
fn files_of_a_commit_that_never_was_do_not_count() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("archive");
    let archive = filled(&folder, 30);
    let commit = std::fs::read(folder.join("commit.json")).unwrap();
    feed(&archive, 60);
    archive.roll(NOW_MS).unwrap();
    assert_eq!(archive.files().len(), 2);
    drop(archive);
    std::fs::write(folder.join("commit.json"), commit).unwrap();
    std::fs::write(folder.join("tenant=acme/day=2026-11-23/hour=21/half.parquet.tmp"), b"half").ok();
    let archive = Archive::open(&folder).unwrap();
    assert_eq!((archive.next("events/eu"), archive.files().len()), (30, 1));
    feed(&archive, 60);
    archive.roll(NOW_MS).unwrap();
    assert_eq!(sequences(&archive), (0..60).collect::<Vec<_>>());
}

#[test]
fn files_that_were_put_together_do_not_come_back() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("archive");
    let archive = filled(&folder, 30);
    feed(&archive, 60);
    archive.roll(NOW_MS).unwrap();
    let before = root.path().join("before");
    copy(&folder, &before);
    // A reader holds the old files while they are put together, and reads them to the end.
    let held = archive.snapshot(&Tenants::All, Span::ALL);
    assert_eq!(archive.compact(NOW_MS + DAY_MS, || true).unwrap().rows, 60);
    assert!(held.files.iter().all(|file| file.path.exists()));
    // The crash comes while both are there.
    let crashed = root.path().join("crashed");
    copy(&folder, &crashed);
    assert_eq!(sequences(&Archive::open(&crashed).unwrap()), (0..60).collect::<Vec<_>>());
    // Later commits do not forget that the old files do not count.
    feed(&archive, 70);
    archive.roll(NOW_MS).unwrap();
    let crashed = root.path().join("crashed later");
    copy(&folder, &crashed);
    assert_eq!(sequences(&Archive::open(&crashed).unwrap()), (0..70).collect::<Vec<_>>());
    drop(held);
    assert_eq!(archive.files().len(), 2);
    assert_eq!(archive::check::check(&folder, |_| true).rows, 70);
    assert_eq!(archive::check::check(&before, |_| true).rows, 60);
}

#[test]
fn an_event_that_is_read_twice_is_kept_once() {
    let folder = tempfile::tempdir().unwrap();
    let archive = Archive::open(folder.path()).unwrap();
    for sequence in [0, 1, 1, 0, 2, 1] {
        archive.take("events/eu", sequence, Some(event("acme", sequence)), NOW_MS);
    }
    assert_eq!(archive.open_rows(), 3);
    assert_eq!(sequences(&archive), [0, 1, 2]);
}

#[test]
fn the_same_events_give_the_same_bytes() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let names =
        |folder: &Path| -> Vec<_> { filled(folder, 500).files().iter().map(|file| file.name.clone()).collect() };
    assert_eq!(names(one.path()), names(other.path()));
}

fn policy(days: u32, size_bytes_max: u64, holds: Vec<Hold>) -> Policy {
    Policy { days, tenants: BTreeMap::from([("short".into(), 1)]), holds, size_bytes_max }
}

/// One event a day for ten days, of two tenants.
fn ten_days(folder: &Path) -> Archive {
    let archive = Archive::open(folder).unwrap();
    for day in 0..10 {
        for (place, tenant) in ["acme", "short"].into_iter().enumerate() {
            let mut entry = event(tenant, day);
            entry.event.time_ms = NOW_MS + day * DAY_MS;
            entry.event.received_ms = entry.event.time_ms;
            archive.take(&format!("events/{place}"), day, Some(entry), NOW_MS);
        }
    }
    archive.roll(NOW_MS).unwrap();
    archive
}

#[test]
fn days_leave_when_their_time_is_over_but_not_under_legal_hold() {
    let folder = tempfile::tempdir().unwrap();
    let archive = ten_days(folder.path());
    let now_ms = NOW_MS + 9 * DAY_MS;
    let held = Hold { tenant: "short".into(), span: Span { from_ms: NOW_MS + 2 * DAY_MS, to_ms: NOW_MS + 4 * DAY_MS } };
    let policy = policy(5, u64::MAX, vec![held]);
    let leaving = archive.leaving(&policy, now_ms);
    assert!(leaving.iter().all(|removed| removed.why == Why::Expired && removed.rows == 1));
    archive.retain(&policy, now_ms);
    assert!(archive.leaving(&policy, now_ms).is_empty());
    let days = |tenant: &str| archive.files().iter().filter(|file| file.partition.tenant.as_ref() == tenant).count();
    // Days four to nine of acme; the two that are held and the last two of short.
    assert_eq!((days("acme"), days("short")), (6, 4));
    let there = std::fs::read_dir(folder.path().join("tenant=short")).unwrap().count();
    assert_eq!(there, days("short"), "empty folders go too");
}

#[test]
fn a_full_disk_loses_the_oldest_first_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let archive = ten_days(folder.path());
    let size_bytes = archive.size_bytes();
    let policy = policy(1000, size_bytes / 2, vec![Hold { tenant: "acme".into(), span: Span::ALL }]);
    let without_short = Policy { tenants: BTreeMap::new(), ..policy.clone() };
    let leaving = archive.leaving(&without_short, NOW_MS);
    assert!(!leaving.is_empty() && leaving.iter().all(|removed| removed.why == Why::Full));
    assert!(leaving.iter().all(|removed| removed.tenant.as_ref() == "short"));
    assert!(leaving.windows(2).all(|pair| pair[0].day < pair[1].day));
    archive.retain(&without_short, NOW_MS);
    assert!(archive.size_bytes() <= size_bytes / 2 || archive.is_stuck(&without_short, NOW_MS));
    let all_held = Policy {
        holds: vec![Hold { tenant: "acme".into(), span: Span::ALL }, Hold { tenant: "short".into(), span: Span::ALL }],
        size_bytes_max: 0,
        ..without_short
    };
    assert!(archive.leaving(&all_held, u64::MAX / 2).is_empty() && archive.is_stuck(&all_held, u64::MAX / 2));
}

#[test]
fn a_flood_costs_nobody_elses_days() {
    let folder = tempfile::tempdir().unwrap();
    let archive = ten_days(folder.path());
    let before = archive.size_bytes();
    for number in 100..3_100 {
        let mut entry = event("flood", number);
        // Nothing that compression could make small.
        let words = (number * 16..number * 16 + 16).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        entry.event.raw = words.map(|word| format!("{word:016x}")).collect::<String>().into();
        (entry.event.time_ms, entry.event.received_ms) = (NOW_MS + 9 * DAY_MS, NOW_MS + 9 * DAY_MS);
        archive.take("events/eu", number, Some(entry), NOW_MS);
    }
    archive.roll(NOW_MS).unwrap();
    assert!(archive.size_bytes() > 2 * before);
    let policy = policy(1000, archive.size_bytes() - 1, Vec::new());
    let leaving = archive.leaving(&Policy { tenants: BTreeMap::new(), ..policy }, NOW_MS);
    // Its day is the newest of all, and goes all the same.
    let left: Vec<_> = leaving.iter().map(|removed| (&*removed.tenant, removed.rows, removed.why)).collect();
    assert_eq!(left, [("flood", 3_000, Why::Full)]);
}

#[test]
fn a_hold_covers_events_that_came_long_after_they_happened() {
    let folder = tempfile::tempdir().unwrap();
    let archive = Archive::open(folder.path()).unwrap();
    let received_ms = NOW_MS + 60 * DAY_MS;
    for (number, time_ms) in [NOW_MS, received_ms].into_iter().enumerate() {
        let mut entry = event(["acme", "globex"][number], number as u64);
        (entry.event.time_ms, entry.event.received_ms) = (time_ms, received_ms);
        archive.take("events/eu", number as u64, Some(entry), NOW_MS);
    }
    archive.roll(NOW_MS).unwrap();
    let rows = |from_ms: u64, to_ms: u64| {
        let hold = |tenant: &str| Hold { tenant: tenant.into(), span: Span { from_ms, to_ms } };
        let policy = policy(5, u64::MAX, vec![hold("acme"), hold("globex")]);
        let leaving = archive.leaving(&policy, received_ms + 10 * DAY_MS);
        leaving.iter().map(|removed| removed.tenant.to_string()).collect::<Vec<_>>()
    };
    // The stray of acme happened sixty days before the hour it lies in; the event of globex in that hour.
    assert_eq!(rows(NOW_MS, NOW_MS + DAY_MS), ["globex"]);
    assert_eq!(rows(received_ms, received_ms + 1), [] as [&str; 0]);
    assert_eq!(rows(received_ms + 2 * DAY_MS, u64::MAX), ["acme", "globex"]);
}

#[test]
fn a_disk_that_fails_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let archive = filled(folder.path(), 10);
    feed(&archive, 20);
    // Where the folder of the tenant was, there is a file now.
    let tenant = folder.path().join("tenant=acme");
    let aside = folder.path().join("aside");
    std::fs::rename(&tenant, &aside).unwrap();
    std::fs::write(&tenant, b"").unwrap();
    assert!(matches!(archive.roll(NOW_MS), Err(ArchiveError::Disk { .. })));
    assert_eq!(archive.open_rows(), 10);
    std::fs::remove_file(&tenant).unwrap();
    std::fs::rename(&aside, &tenant).unwrap();
    archive.roll(NOW_MS).unwrap();
    assert_eq!(sequences(&archive), (0..20).collect::<Vec<_>>());
    assert_eq!(sequences(&Archive::open(folder.path()).unwrap()), (0..20).collect::<Vec<_>>());
}
