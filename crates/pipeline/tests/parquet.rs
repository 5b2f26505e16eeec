//! Parquet files: what is in them, when they are written, and a store that fails.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use bytes::Bytes;
use detection::SourceKind;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use pipeline::dead;
use pipeline::outbound::open_sinks;
use pipeline::runtime::{Pipeline, dead_letters_folder};
use pipeline::sink::SinkConfig;
use pipeline::topology::Topology;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::feed::{self, Feed, soon};
use support::receiver::{Deed, Receiver};
use support::tls::Authority;
use support::{NOW_MS, SOON, clock};
use tokio::sync::oneshot;

struct World {
    pipeline: Pipeline,
    feed: Feed,
    next: u64,
}

impl World {
    async fn start(folder: &Path, sink: &str) -> Self {
        let text = format!("[sinks.lake]\ntype = 'parquet'\ninputs = ['audit']\n{sink}");
        let topology = feed::topology(folder, &text);
        let (host, feed) = feed::host(folder, open_sinks(&topology, &clock()).unwrap());
        Self { pipeline: Pipeline::start(&topology, host).await.unwrap(), feed, next: 0 }
    }

    /// Feeds lines as one batch, each at a place of its own; told when they are durable.
    async fn give(&mut self, lines: &[String]) -> oneshot::Receiver<()> {
        let first = self.next;
        self.next += lines.len() as u64;
        self.feed.give(SourceKind::Ndjson, first, lines).await
    }
}

fn line(n: u64, time_ms: u64) -> String {
    format!(r#"{{"time":{time_ms},"user":{{"name":"Ann"}},"n":{n}}}"#)
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The rows of a file, each column by its name.
fn rows(bytes: Vec<u8>) -> Vec<BTreeMap<String, Field>> {
    let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
    let rows = reader.get_row_iter(None).unwrap().map(Result::unwrap);
    rows.map(|row| row.get_column_iter().map(|(name, field)| (name.clone(), field.clone())).collect()).collect()
}

fn text(text: &str) -> Field {
    Field::Str(text.to_owned())
}

#[tokio::test]
async fn events_are_acknowledged_once_their_file_is_there_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut world =
        World::start(folder.path(), "folder = 'lake'\nraw = true\nroll_events = 4\nroll_seconds = 15").await;
    let lake = folder.path().join("lake");
    let mut told = world.give(&[line(1, NOW_MS), line(2, NOW_MS - 3_600_000), "no json".into()]).await;
    let counts = |world: &World| world.pipeline.monitor().status().components["lake"];
    while counts(&world).received < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(told.try_recv().is_err() && files(&lake).is_empty(), "there are not enough for a file");
    let second = world.give(&[line(3, NOW_MS)]).await;
    soon(told).await.unwrap();
    soon(second).await.unwrap();
    let found = files(&lake);
    let folders: Vec<_> = found.iter().map(|path| path.parent().unwrap().strip_prefix(&lake).unwrap()).collect();
    assert_eq!(
        folders,
        ["tenant=platform/day=2026-11-23/hour=20", "tenant=platform/day=2026-11-23/hour=21"].map(Path::new)
    );
    let all: Vec<_> = found.iter().flat_map(|path| rows(std::fs::read(path).unwrap())).collect();
    assert_eq!(all.len(), 3);
    assert_eq!((&all[0]["user_name"], &all[0]["tenant"]), (&text("ann"), &text("platform")));
    assert_eq!(all[0]["raw"], text(&line(2, NOW_MS - 3_600_000)));
    assert_ne!(all[1]["uid"], all[2]["uid"]);
    let letters = dead::list(&dead_letters_folder(folder.path())).unwrap().0;
    assert_eq!(letters.iter().map(|(_, letter)| letter.code.as_str()).collect::<Vec<_>>(), ["not_json"]);
    assert_eq!((counts(&world).sent, counts(&world).dead_lettered), (3, 1));
    world.pipeline.stop().await;
}

#[tokio::test]
async fn a_file_is_written_after_a_time_and_what_is_not_wanted_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "folder = 'lake'\nroll_seconds = 1\nwants = { tenants = ['acme'] }";
    let mut world = World::start(folder.path(), settings).await;
    let told = world.give(&[line(1, NOW_MS)]).await;
    soon(told).await.unwrap();
    assert_eq!(files(&folder.path().join("lake")), Vec::<PathBuf>::new());
    assert_eq!(world.pipeline.monitor().status().components["lake"].left_out, 1);
    world.pipeline.stop().await;
}

#[tokio::test]
async fn what_a_buffer_holds_for_a_file_survives_a_stop_and_is_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let settings = |events: usize| {
        format!("folder = 'lake'\nroll_events = {events}\nroll_seconds = 3600\nbuffer = {{ max_bytes = 1048576 }}")
    };
    let mut world = World::start(folder.path(), &settings(1_000)).await;
    let lines: Vec<String> = (0..700).map(|n| line(n, NOW_MS)).collect();
    soon(world.give(&lines).await).await.unwrap();
    world.pipeline.stop().await;
    assert!(files(&folder.path().join("lake")).is_empty(), "not enough for a file");
    let world = World::start(folder.path(), &settings(700)).await;
    let written = async {
        while world.pipeline.monitor().status().components["lake"].sent < 700 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, written).await.expect("the file is written");
    let found = files(&folder.path().join("lake"));
    assert_eq!(found.len(), 1, "{found:?}");
    let all = rows(std::fs::read(&found[0]).unwrap());
    assert_eq!(all.len(), 700);
    assert!(all.iter().all(|row| row["raw"] == Field::Null), "lines leave only where they may");
    world.pipeline.stop().await;
    let world = World::start(folder.path(), &settings(1)).await;
    assert_eq!(world.pipeline.monitor().status().components["lake"].buffered_events, 0, "it was confirmed");
    world.pipeline.stop().await;
}

#[tokio::test]
async fn a_bucket_is_asked_again_for_the_same_object_until_it_has_it() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(authority.path("id"), "KEYID\n").unwrap();
    std::fs::write(authority.path("secret"), "wJalrXUtnFEMI\n").unwrap();
    let deeds = vec![Deed::Answer(503, vec![]), Deed::HangUp, Deed::Answer(403, vec![]), Deed::Answer(200, vec![])];
    let receiver = Receiver::start(&authority, deeds).await;
    let settings = format!(
        "roll_events = 2\nroll_seconds = 15\n\
         bucket = {{ url = '{}', region = 'eu-central-1', key_id = '{}', \
         key_secret = '{}', tls = {{ ca = '{}' }} }}",
        receiver.url("/soc/events/eu"),
        authority.path("id").display(),
        authority.path("secret").display(),
        authority.path("ca.pem").display()
    );
    let mut world = World::start(folder.path(), &settings).await;
    let told = world.give(&[line(1, NOW_MS), line(2, NOW_MS + 1)]).await;
    soon(told).await.unwrap();
    let requests = receiver.requests();
    assert_eq!(requests.len(), 4);
    for request in &requests {
        assert_eq!((&request.line, &request.body), (&requests[0].line, &requests[0].body), "the same each time");
        assert!(request.line.starts_with("PUT /soc/events/eu/tenant%3Dplatform/day%3D2026-11-23/hour%3D21/"));
        let authorization = &request.headers["authorization"];
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=KEYID/"), "{authorization}");
        assert!(authorization.contains("/eu-central-1/s3/aws4_request"), "{authorization}");
    }
    assert_eq!(rows(requests[0].body.clone()).len(), 2);
    assert_eq!(world.pipeline.monitor().status().components["lake"].retries, 3);
    world.pipeline.stop().await;
}

#[test]
fn a_description_that_cannot_be_says_what_to_do() {
    let bucket =
        |more: &str| format!("bucket = {{ url = 'https://s3.example/soc', key_id = 'i', key_secret = 's' {more} }}");
    for (settings, field) in [
        (String::new(), "folder"),
        (format!("folder = 'f'\n{}", bucket("")), "folder"),
        (bucket(", timeout_seconds = 0"), "bucket"),
        (bucket("").replace("/soc", "/soc?a"), "bucket"),
        (bucket("").replace("https://s3", "http://s3"), "bucket"),
        ("folder = 'f'\nroll_events = 0".to_owned(), "roll_events"),
        ("folder = 'f'\nroll_seconds = 0".to_owned(), "roll_seconds"),
        ("folder = 'f'\nroll_bytes = 0".to_owned(), "roll_bytes"),
    ] {
        let config: SinkConfig = toml::from_str(&format!("type = 'parquet'\n{settings}")).unwrap();
        let problems = config.problems();
        assert!(problems.iter().any(|problem| problem.field == field), "{settings}: {problems:?}");
    }
    let text = |inputs: &str, more: &str| {
        format!("[sinks.lake]\ntype = 'parquet'\nfolder = 'lake'\ninputs = ['{inputs}']\n{more}")
    };
    let findings = |text: &str| {
        let found = Topology::read("t", text, ".".into()).1;
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(findings(&text("audit", "roll_seconds = 15")), Vec::<String>::new());
    assert_eq!(findings(&text("audit", "buffer = { max_bytes = 1048576 }")), Vec::<String>::new());
    assert!(findings(&text("audit", ""))[0].contains("buffer"), "until a file is written its sources wait");
    assert!(findings(&text("alerts", "roll_seconds = 15"))[0].contains("events only"));
}
