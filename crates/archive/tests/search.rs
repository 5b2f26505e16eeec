//! Searches: what is found, what can never be found, and what a broken file or heavy question does.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use archive::search::{Ask, Limits, Progress, Question, run};
use archive::{Archive, ArchiveError, Span, Tenants};
use common::{NOW_MS, event, filled, leaf};
use std::sync::Arc;
use std::time::Duration;

fn ask(archive: &Archive, tenants: Tenants, ask: Ask) -> Result<archive::search::Answer, ArchiveError> {
    let question = Question { tenants, audit: Tenants::All, span: Span::ALL, ask, rows_max: 1000 };
    run(archive, &question, Limits::default(), &Arc::new(Progress::default()))
}

fn text(archive: &Archive, query: &str) -> Vec<u64> {
    let answer = ask(archive, Tenants::one("acme"), Ask::Text(query.into())).unwrap();
    answer.rows.iter().map(|row| row["sequence"].as_u64().unwrap()).collect()
}

fn sql(archive: &Archive, tenant: &str, query: &str) -> Result<archive::search::Answer, ArchiveError> {
    ask(archive, Tenants::one(tenant), Ask::Sql(query.into()))
}

#[test]
fn terms_find_the_newest_events_in_files_and_open_ones() {
    let folder = tempfile::tempdir().unwrap();
    let archive = filled(folder.path(), 300);
    // The last fifty are in no file yet.
    for sequence in 300..350 {
        archive.take("events/eu", sequence, Some(event("acme", sequence)), NOW_MS);
    }
    let found = text(&archive, "user:U7");
    let expected: Vec<u64> = (0..350).rev().filter(|n| n % 10 == 7).collect();
    assert_eq!(found, expected);
    assert_eq!(
        text(&archive, "user:u7 severity_id>=3"),
        expected.iter().copied().filter(|n| n % 5 >= 3).collect::<Vec<_>>()
    );
    assert_eq!(text(&archive, "address:10.0.0.3"), text(&archive, "src_endpoint.ip:10.0.0.3"));
    assert_eq!(
        text(&archive, "address:10.0.0.0/30").len(),
        text(&archive, "address:10.0.0.? severity_id:* unmapped.n:*").len() * 4 / 10
    );
    assert_eq!(text(&archive, "\"number 123 \""), [123]);
    assert_eq!(text(&archive, "unmapped.n>345"), [349, 348, 347, 346]);
    assert_eq!(text(&archive, "not user:u?"), [] as [u64; 0]);
    assert_eq!(text(&archive, "").len(), 350);
}

#[test]
fn sql_counts_groups_and_compares() {
    let folder = tempfile::tempdir().unwrap();
    let archive = filled(folder.path(), 300);
    let answer = sql(
        &archive,
        "acme",
        "SELECT user_name, count(*) AS n FROM events WHERE time > '2026-01-01' GROUP BY user_name ORDER BY 1",
    )
    .unwrap();
    assert_eq!(answer.columns, ["user_name", "n"]);
    assert_eq!(answer.rows.len(), 10);
    assert_eq!(answer.rows[0], serde_json::json!({"user_name": "u0", "n": 30}));
    let inner =
        "SELECT count(*) AS n FROM events WHERE user_name IN (SELECT user_name FROM events WHERE severity_id = 4)";
    assert_eq!(sql(&archive, "acme", inner).unwrap().rows[0]["n"], 60);
    let field = "SELECT field(fields, 'unmapped.n') AS n FROM events WHERE matches(fields, 'user.name', 'U3') ORDER BY time LIMIT 1";
    assert_eq!(sql(&archive, "acme", field).unwrap().rows[0]["n"], "3");
}

#[test]
fn no_trick_of_sql_reaches_another_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let archive = filled(folder.path(), 50);
    for sequence in 50..60 {
        archive.take("events/eu", sequence, Some(event("globex", sequence)), NOW_MS);
    }
    archive.roll(NOW_MS).unwrap();
    for sequence in 60..70 {
        archive.take("events/eu", sequence, Some(event("globex", sequence)), NOW_MS);
    }
    let path = archive.files().iter().find(|file| file.partition.tenant.as_ref() == "globex").unwrap().path.clone();
    let path = path.display();
    for query in [
        "SELECT * FROM events WHERE tenant = 'globex'",
        "SELECT * FROM events WHERE tenant = 'acme' AND false OR tenant = 'globex'",
        "SELECT tenant FROM events UNION ALL SELECT tenant FROM events WHERE 1 = 1",
        "SELECT tenant FROM (SELECT * FROM events) AS x WHERE x.tenant <> 'acme'",
        "WITH other AS (SELECT * FROM events) SELECT tenant FROM other WHERE tenant LIKE 'glo%'",
        "SELECT (SELECT max(tenant) FROM events) AS tenant FROM events",
        "SELECT tenant FROM events WHERE EXISTS (SELECT 1 FROM events AS e WHERE e.tenant = 'globex')",
        "SELECT min(tenant) AS tenant FROM events",
        "SELECT max(tenant) AS tenant FROM datafusion.public.events",
    ] {
        // Either it is answered from the tenant's own events, or it is refused.
        if let Ok(answer) = sql(&archive, "acme", query) {
            assert!(answer.rows.iter().all(|row| row["tenant"] == "acme"), "{query}: {:?}", answer.rows);
        }
    }
    for query in [
        format!("SELECT * FROM '{path}'"),
        format!("SELECT * FROM \"{path}\""),
        format!("SELECT * FROM read_parquet('{path}')"),
        format!("SELECT * FROM parquet_metadata('{path}')"),
        format!("CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION '{path}'"),
        format!("COPY events TO '{path}'"),
        format!("COPY (SELECT 1) TO '{path}'"),
        "SELECT * FROM information_schema.tables".into(),
        "SELECT * FROM information_schema.df_settings".into(),
        "SHOW TABLES".into(),
        "SHOW ALL".into(),
        "DESCRIBE events".into(),
        "EXPLAIN SELECT * FROM events".into(),
        "EXPLAIN ANALYZE SELECT * FROM events".into(),
        "INSERT INTO events SELECT * FROM events".into(),
        "DELETE FROM events".into(),
        "UPDATE events SET tenant = 'x'".into(),
        "DROP TABLE events".into(),
        "CREATE VIEW v AS SELECT * FROM events".into(),
        "CREATE TABLE t AS SELECT * FROM events".into(),
        "SELECT * INTO t FROM events".into(),
        "SET datafusion.catalog.information_schema = true".into(),
        "PREPARE p AS SELECT * FROM events".into(),
        "SELECT 1; SELECT 2".into(),
        "SELECT * FROM generate_series(1, 1000000000)".into(),
        "SELECT * FROM range(1, 10)".into(),
        "SELECT repeat('x', 1000000000) FROM events".into(),
        "SELECT message || message FROM events".into(),
        "SELECT concat(raw, raw) FROM events".into(),
        "SELECT lpad('x', 2000000000) FROM events".into(),
        "SELECT array_agg(raw) FROM events".into(),
        "SELECT row_number() OVER () FROM events".into(),
        "SELECT * FROM events AS a, events AS b".into(),
        "SELECT * FROM events AS a JOIN events AS b ON a.class_uid = b.class_uid".into(),
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT * FROM r".into(),
        "SELECT * FROM events, LATERAL (SELECT 1)".into(),
        "".into(),
        "nonsense".into(),
    ] {
        let answer = sql(&archive, "acme", &query);
        assert!(matches!(answer, Err(ArchiveError::Question(_))), "{query}: {answer:?}");
    }
    assert_eq!(
        ask(&archive, Tenants::All, Ask::Sql("SELECT count(*) AS n FROM events".into())).unwrap().rows[0]["n"],
        70
    );
}

#[test]
fn the_audit_log_is_found_by_those_only_who_may_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let archive = filled(folder.path(), 10);
    archive.take("audit/eu-0", 0, Some(leaf("acme", 0)), NOW_MS);
    archive.take("audit/eu-0", 1, Some(leaf("globex", 1)), NOW_MS);
    let found = |audit: &Tenants, ask: Ask| {
        let question = Question { tenants: Tenants::All, audit: audit.clone(), span: Span::ALL, ask, rows_max: 100 };
        let answer = run(&archive, &question, Limits::default(), &Arc::new(Progress::default())).unwrap();
        let audit = answer.rows.iter().filter(|row| row["source"] == "audit");
        (answer.rows.len(), audit.map(|row| row["tenant"].as_str().unwrap().to_owned()).collect::<Vec<_>>())
    };
    let asks = ["SELECT * FROM events", "SELECT * FROM events WHERE source = 'audit' OR 1 = 1 ORDER BY tenant"];
    let asks = asks.map(|sql| Ask::Sql(sql.into())).into_iter().chain([Ask::Text(String::new())]);
    for ask in asks.collect::<Vec<_>>() {
        for _ in ["open", "in files"] {
            assert_eq!(found(&Tenants::Only([].into()), ask.clone()), (10, Vec::new()));
            assert_eq!(found(&Tenants::one("globex"), ask.clone()), (11, vec!["globex".into()]));
            assert_eq!(found(&Tenants::All, ask.clone()).0, 12);
            archive.roll(NOW_MS).unwrap();
        }
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_told_but_is_not_called_broken() {
    let folder = tempfile::tempdir().unwrap();
    let archive = filled(folder.path(), 20);
    // As when the system is out of descriptors: what is wrong is not in the file.
    let path = archive.files().remove(0).path.clone();
    let aside = folder.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let progress = Arc::new(Progress::default());
    let ask = Ask::Text(String::new());
    let question = Question { tenants: Tenants::All, audit: Tenants::All, span: Span::ALL, ask, rows_max: 100 };
    assert!(run(&archive, &question, Limits::default(), &progress).unwrap().rows.is_empty());
    assert_eq!(progress.skipped().len(), 1, "{:?}", progress.skipped());
    assert!(archive.broken().is_empty());
    std::fs::remove_file(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(text(&archive, "").len(), 20);
}

#[test]
fn an_answer_is_bounded_in_bytes_over_all_the_hours_it_is_found_in() {
    let folder = tempfile::tempdir().unwrap();
    let archive = Archive::open(folder.path()).unwrap();
    let line = format!(r#"{{"message":"{}"}}"#, "x".repeat(50_000));
    for sequence in 0..300 {
        let mut entry = event("acme", sequence);
        let raw = detection::RawEvent {
            source: entry.source,
            received_ms: NOW_MS,
            position: entry.event.position.clone(),
            bytes: line.clone().into(),
        };
        entry.event = detection::normalise::normalise(&raw).unwrap();
        entry.event.time_ms = NOW_MS + sequence % 20 * 3_600_000;
        entry.event.received_ms = entry.event.time_ms;
        archive.take("events/eu", sequence, Some(entry), NOW_MS);
    }
    archive.roll(NOW_MS).unwrap();
    let answer = ask(&archive, Tenants::one("acme"), Ask::Text(String::new())).unwrap();
    let size_bytes = serde_json::to_string(&answer.rows).unwrap().len();
    assert!(answer.truncated && answer.rows.len() < 300);
    assert!(size_bytes < archive::search::ANSWER_BYTES_MAX + 500_000, "{size_bytes}");
}

#[test]
fn a_file_of_another_tenants_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let archive = filled(folder.path(), 20);
    let file = archive.files().remove(0);
    let moved =
        folder.path().join("tenant=globex").join(file.path.strip_prefix(folder.path().join("tenant=acme")).unwrap());
    std::fs::create_dir_all(moved.parent().unwrap()).unwrap();
    std::fs::copy(&file.path, &moved).unwrap();
    let archive = Archive::open(folder.path()).unwrap();
    let answer = sql(&archive, "globex", "SELECT * FROM events").unwrap();
    assert!(answer.rows.is_empty());
    assert!(archive.broken().contains_key(&moved), "{:?}", archive.broken());
}

#[test]
fn memory_time_and_rows_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let archive = filled(folder.path(), 3000);
    let ask = |query: &str, limits: Limits, rows_max: usize| {
        let ask = Ask::Sql(query.into());
        let question = Question { tenants: Tenants::one("acme"), audit: Tenants::All, span: Span::ALL, ask, rows_max };
        run(&archive, &question, limits, &Arc::new(Progress::default()))
    };
    let small = Limits { memory_bytes: 64 << 10, ..Limits::default() };
    assert!(matches!(ask("SELECT raw, count(*) FROM events GROUP BY raw", small, 10), Err(ArchiveError::Memory(_))));
    assert!(matches!(ask("SELECT * FROM events ORDER BY raw", small, 3000), Err(ArchiveError::Memory(_))));
    let short = Limits { time: Duration::ZERO, ..Limits::default() };
    assert!(matches!(ask("SELECT count(*) FROM events", short, 10), Err(ArchiveError::Timeout)));
    let answer = ask("SELECT sequence FROM events", Limits::default(), 10).unwrap();
    assert_eq!((answer.rows.len(), answer.truncated), (10, true));
    let fault = ask("SELECT 1 FROM events WHERE 1 / (sequence - sequence) = 1", Limits::default(), 10);
    assert!(matches!(fault, Err(ArchiveError::Question(_))), "{fault:?}");
    assert!(archive.broken().is_empty(), "a fault of the question is no fault of the file");
}

#[test]
fn a_cancelled_search_ends() {
    let folder = tempfile::tempdir().unwrap();
    let archive = filled(folder.path(), 300);
    let progress = Arc::new(Progress::default());
    progress.cancel();
    let ask = Ask::Sql("SELECT count(*) FROM events".into());
    let question = Question { tenants: Tenants::All, audit: Tenants::All, span: Span::ALL, ask, rows_max: 1 };
    assert!(matches!(run(&archive, &question, Limits::default(), &progress), Err(ArchiveError::Cancelled)));
}

#[test]
fn an_address_that_never_was_is_answered_by_statistics_and_bloom_filters() {
    let folder = tempfile::tempdir().unwrap();
    let archive = filled(folder.path(), 3000);
    let progress = Arc::new(Progress::default());
    let ask = Ask::Text("address:10.0.0.77".into());
    let question = Question { tenants: Tenants::All, audit: Tenants::All, span: Span::ALL, ask, rows_max: 100 };
    assert!(run(&archive, &question, Limits::default(), &progress).unwrap().rows.is_empty());
    assert_eq!(progress.rows_read.load(std::sync::atomic::Ordering::Relaxed), 0);
}

mod broken {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn arbitrary_bytes_as_a_file_never_panic_and_are_reported(
            cut in 0..4000_usize, at in 0..4000_usize, noise in proptest::collection::vec(any::<u8>(), 0..64)
        ) {
            let folder = tempfile::tempdir().unwrap();
            let archive = filled(folder.path(), 20);
            let file = archive.files().remove(0);
            let mut bytes = std::fs::read(&file.path).unwrap();
            bytes.truncate(bytes.len().saturating_sub(cut / 4));
            let at = at.min(bytes.len());
            let end = (at + noise.len()).min(bytes.len());
            let unchanged = bytes[at..end] == noise[..end - at] && cut / 4 == 0;
            bytes[at..end].copy_from_slice(&noise[..end - at]);
            std::fs::write(&file.path, &bytes).unwrap();
            let answer = sql(&archive, "acme", "SELECT * FROM events ORDER BY time");
            // Damage that reading does not notice is what the hash in the name is for.
            let _ = answer;
            let report = archive::check::check(folder.path(), |_| true);
            prop_assert_eq!(report.broken.len(), usize::from(!unchanged));
        }
    }
}
