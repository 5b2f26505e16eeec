//! Topologies at work: acknowledgement through the whole graph, backpressure, dead letters and their replay, buffers
//! on disk, and the stop.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use async_trait::async_trait;
use detection::{RawEvent, SourceKind};
use parking_lot::Mutex;
use pipeline::dead::{self, Act, Doing};
use pipeline::runtime::{Inlet, Pipeline, Sinks, Witness, dead_letters_folder};
use pipeline::sink::{Notice, Refused, Sink, Wants};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::SOON;
use support::feed::{self, Feed, soon};
use tokio::sync::{Notify, oneshot};

/// A sink that a test looks into; it can be told to say "later", or "never" to what holds a word.
#[derive(Default)]
struct Seen {
    bodies: Mutex<Vec<String>>,
    is_closed: Mutex<bool>,
    hates: Mutex<Option<&'static str>>,
    wants: Mutex<Option<Wants>>,
    breaks: Mutex<bool>,
    changed: Notify,
}

impl Seen {
    async fn wait_for(&self, count: usize) -> Vec<String> {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if self.bodies.lock().len() >= count {
                    return self.bodies.lock().clone();
                }
                changed.await;
            }
        };
        tokio::time::timeout(SOON, waiting).await.expect("it arrives")
    }
    fn answer(&self, body: &str) -> Result<(), Refused> {
        assert!(!std::mem::take(&mut *self.breaks.lock()), "it breaks");
        if *self.is_closed.lock() {
            return Err(Refused::Later("closed".into()));
        }
        if self.hates.lock().is_some_and(|word| body.contains(word)) {
            return Err(Refused::Never("hated".into()));
        }
        self.bodies.lock().push(body.to_owned());
        self.changed.notify_waiters();
        self.changed.notify_one();
        Ok(())
    }
}

struct Outside(Arc<Seen>);
#[async_trait]
impl Sink for Outside {
    fn name(&self) -> &str {
        "outside"
    }
    fn wants(&self, notice: &Notice) -> bool {
        self.0.wants.lock().as_ref().is_none_or(|wants| wants.admit(notice))
    }
    async fn deliver(&self, notices: &[Notice]) -> (usize, Result<(), Refused>) {
        for (taken, notice) in notices.iter().enumerate() {
            if let Err(refused) = self.0.answer(&notice.body) {
                return (taken, Err(refused));
            }
        }
        (notices.len(), Ok(()))
    }
}

struct Log(Arc<Seen>);
#[async_trait]
impl Inlet for Log {
    async fn take(&self, _tenant: &str, events: Vec<RawEvent>) -> Result<(), Refused> {
        for event in events {
            self.0.answer(&String::from_utf8_lossy(&event.bytes))?;
        }
        Ok(())
    }
}

/// A log that leaves out what it has had already, as the region's does: in each stream, what is not beyond its last.
#[derive(Default)]
struct Doors {
    next: Mutex<BTreeMap<Arc<str>, u64>>,
    seen: Arc<Seen>,
    tenants: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl Inlet for Doors {
    async fn take(&self, tenant: &str, events: Vec<RawEvent>) -> Result<(), Refused> {
        self.tenants.lock().insert(tenant.to_owned());
        for event in events {
            let place = event.position.expect("the source has places");
            let mut next = self.next.lock();
            let next = next.entry(place.stream).or_default();
            if place.sequence >= *next {
                *next = place.sequence + 1;
                self.seen.answer(&String::from_utf8_lossy(&event.bytes))?;
            }
        }
        Ok(())
    }
}

struct World {
    pipeline: Pipeline,
    feed: Feed,
    outside: Arc<Seen>,
    copy: Arc<Seen>,
    log: Arc<Seen>,
    witness: Arc<Witnessed>,
}

/// What was put on record.
#[derive(Default)]
struct Witnessed {
    acts: Mutex<Vec<Act>>,
    changed: Notify,
}

#[async_trait]
impl Witness for Witnessed {
    async fn saw(&self, act: &Act) -> bool {
        self.acts.lock().push(act.clone());
        self.changed.notify_one();
        true
    }
}

async fn start(folder: &Path, text: &str) -> World {
    let log = Arc::<Seen>::default();
    start_with(folder, text, Arc::clone(&log), Arc::new(Log(log))).await
}

async fn start_with(folder: &Path, text: &str, log: Arc<Seen>, inlet: Arc<dyn Inlet>) -> World {
    let (outside, copy) = (Arc::<Seen>::default(), Arc::<Seen>::default());
    let sink = |seen: &Arc<Seen>| Arc::new(Outside(Arc::clone(seen))) as Arc<dyn Sink>;
    let sinks = Sinks::from([("outside".into(), sink(&outside)), ("copy".into(), sink(&copy))]);
    let witness = Arc::<Witnessed>::default();
    let (mut host, feed) = feed::host(folder, sinks);
    host.inlets = BTreeMap::from([("detector".into(), inlet)]);
    host.witness = Some(Arc::clone(&witness) as Arc<dyn Witness>);
    let pipeline = Pipeline::start(&feed::topology(folder, text), host).await.unwrap();
    World { pipeline, feed, outside, copy, log, witness }
}

impl World {
    /// Feeds lines as one batch; told when they are durable.
    async fn give(&self, lines: &[&str]) -> oneshot::Receiver<()> {
        self.feed.give(SourceKind::Ndjson, 0, lines).await
    }
}

/// Waits until something that another task does has happened.
async fn until(mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.expect("it happens");
}

const BOTH: &str = "
[transforms.json]
type = 'parse'
inputs = ['audit']
format = 'json'
[sinks.outside]
type = 'directory'
folder = 'unused'
inputs = ['json']
[sinks.copy]
type = 'directory'
folder = 'copy'
inputs = ['json']
";

#[tokio::test]
async fn a_batch_is_acknowledged_once_every_branch_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let world = start(folder.path(), BOTH).await;
    *world.outside.is_closed.lock() = true;
    let mut told = world.give(&[r#"{"n":1}"#]).await;
    world.copy.wait_for(1).await;
    assert!(told.try_recv().is_err(), "one branch is not durable");
    until(|| world.pipeline.monitor().status().components["outside"].retries > 0).await;
    *world.outside.is_closed.lock() = false;
    soon(told).await.unwrap();
    assert_eq!(world.outside.wait_for(1).await, [r#"{"n":1}"#]);
    let counts = world.pipeline.monitor().status().components;
    assert_eq!((counts["audit"].received, counts["json"].sent, counts["outside"].sent), (1, 1, 1));
    assert_eq!(counts["outside"].buffered_events, 0);
    assert!(world.pipeline.stop().await);
}

#[tokio::test]
async fn a_sink_that_breaks_is_begun_again_and_what_it_held_is_not_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let world = start(folder.path(), BOTH).await;
    *world.outside.breaks.lock() = true;
    let told = world.give(&[r#"{"n":1}"#]).await;
    soon(told).await.unwrap_err();
    let monitor = world.pipeline.monitor();
    let told = world.give(&[r#"{"n":2}"#]).await;
    soon(told).await.unwrap();
    assert_eq!(world.outside.wait_for(1).await, [r#"{"n":2}"#]);
    let counts = monitor.status().components;
    assert_eq!((counts["outside"].restarts, counts["outside"].running, counts["copy"].restarts), (1, 1, 0));
    assert!(monitor.down().is_empty());
    world.pipeline.stop().await;
}

#[tokio::test]
async fn what_a_broken_sink_held_of_its_buffer_is_told_again() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        "[sinks.copy]\ntype = 'directory'\nfolder = 'copy'\ninputs = ['audit']\nbuffer = { max_bytes = 1048576 }\n";
    let world = start(folder.path(), text).await;
    *world.copy.breaks.lock() = true;
    soon(world.give(&[r#"{"n":1}"#]).await).await.unwrap();
    assert!(world.copy.wait_for(1).await[0].contains(r#"\"n\":1"#));
    world.pipeline.stop().await;
}

#[tokio::test]
async fn what_cannot_be_dealt_with_is_a_dead_letter_and_can_be_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let world = start(folder.path(), BOTH).await;
    *world.outside.hates.lock() = Some("bad");
    let told = world.give(&["no json", r#"{"n":"bad"}"#, r#"{"n":"good"}"#]).await;
    soon(told).await.unwrap();
    assert_eq!(world.outside.wait_for(1).await, [r#"{"n":"good"}"#]);
    let letters = dead::list(&dead_letters_folder(folder.path())).unwrap().0;
    let codes: Vec<_> = letters.iter().map(|(_, letter)| (&*letter.component, letter.code.as_str())).collect();
    assert_eq!(codes, [("json", "not_json"), ("outside", "sink_refused")]);
    *world.outside.hates.lock() = None;
    dead::replay(&dead_letters_folder(folder.path()), &letters[1..], "ann").unwrap();
    assert_eq!(world.outside.wait_for(2).await[1], r#"{"n":"bad"}"#);
    assert_eq!(world.copy.wait_for(2).await.len(), 2, "the replay went to the sink that refused it, and nowhere else");
    assert_eq!(dead::list(&dead_letters_folder(folder.path())).unwrap().0.len(), 1);
    tokio::time::timeout(SOON, world.witness.changed.notified()).await.expect("it is put on record");
    let acts = world.witness.acts.lock().clone();
    assert_eq!((acts.len(), acts[0].doing, acts[0].count, &*acts[0].by), (1, Doing::Replay, 1, "ann"));
    world.pipeline.stop().await;
}

#[tokio::test]
async fn a_full_queue_holds_the_source_back_and_nothing_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let world = start(folder.path(), BOTH).await;
    *world.outside.is_closed.lock() = true;
    let lines: Vec<String> = (0..512).map(|n| format!("{{\"n\":{n}}}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut told = Vec::new();
    let mut held_back = false;
    for _ in 0..200 {
        let given = tokio::time::timeout(Duration::from_millis(500), world.give(&lines)).await;
        match given {
            Ok(done) => told.push(done),
            Err(_) => {
                held_back = true;
                break;
            }
        }
    }
    assert!(held_back, "200 batches of 512 events do not fit");
    let counts = world.pipeline.monitor().status().components;
    assert!(counts["outside"].buffered_events <= 8_192 && counts["outside"].dropped == 0);
    *world.outside.is_closed.lock() = false;
    let count = told.len();
    for told in told {
        soon(told).await.unwrap();
    }
    world.outside.wait_for(count * 512).await;
    assert!(world.pipeline.monitor().status().components["outside"].waited_us > 0);
    // Nothing more is on its way then.
    world.pipeline.stop().await;
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    world.outside.bodies.lock().iter().for_each(|body| *found.entry(body.clone()).or_default() += 1);
    assert_eq!(found, lines.iter().map(|line| ((*line).to_owned(), count)).collect());
}

#[tokio::test]
async fn what_is_in_a_buffer_is_acknowledged_and_survives_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        "[sinks.copy]\ntype = 'directory'\nfolder = 'copy'\ninputs = ['audit']\nbuffer = { max_bytes = 1048576 }\n";
    let world = start(folder.path(), text).await;
    *world.copy.is_closed.lock() = true;
    soon(world.give(&[r#"{"n":1}"#, r#"{"n":2}"#]).await).await.unwrap();
    assert_eq!(world.pipeline.monitor().status().components["copy"].buffered_events, 2);
    world.pipeline.stop().await;
    let world = start(folder.path(), text).await;
    let bodies = world.copy.wait_for(2).await;
    assert!(bodies[0].contains(r#"\"n\":1"#) && bodies[1].contains(r#"\"n\":2"#), "{bodies:?}");
    world.pipeline.stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_what_is_on_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let world = start(folder.path(), BOTH).await;
    let told = world.give(&[r#"{"n":1}"#]).await;
    // The source has handed it over once there is room for the next.
    let other = world.give(&[r#"{"n":2}"#]).await;
    let third = world.give(&[r#"{"n":3}"#]).await;
    assert!(world.pipeline.stop().await);
    soon(told).await.unwrap();
    for (place, told) in [other, third].into_iter().enumerate() {
        // Handed over or not: what was is durable, what was not is not acknowledged.
        let is_done = soon(told).await.is_ok();
        assert_eq!(is_done, world.outside.bodies.lock().len() > place + 1);
    }
}

#[tokio::test]
async fn a_followed_file_reaches_detection_once_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[sources.lines]\ntype = 'file'\npaths = ['in.log']\nformat = 'ndjson'\npoll_milliseconds = 10\n";
    std::fs::write(folder.path().join("in.log"), "{\"n\":1}\n{\"n\":2}\n").unwrap();
    let world = start(folder.path(), text).await;
    assert_eq!(world.log.wait_for(2).await, [r#"{"n":1}"#, r#"{"n":2}"#]);
    assert!(world.pipeline.stop().await);
    let mut file = std::fs::OpenOptions::new().append(true).open(folder.path().join("in.log")).unwrap();
    std::io::Write::write_all(&mut file, b"{\"n\":3}\n").unwrap();
    let world = start(folder.path(), text).await;
    let after = world.log.wait_for(1).await;
    // At least once: what was not yet remembered as durable may come again, under the same places.
    assert_eq!(after.last().unwrap(), r#"{"n":3}"#);
    world.pipeline.stop().await;
}

/// Half of the events go one way, half another, all of them a third, and all ways lead to the detector.
const MEETING: &str = "
[sources.lines]
type = 'file'
paths = ['in.log']
format = 'ndjson'
poll_milliseconds = 10
tenant = 'acme'
[transforms.json]
type = 'parse'
inputs = ['lines']
format = 'json'
[transforms.kinds]
type = 'route'
inputs = ['json']
ways = { even = { kind = 'even' } }
[transforms.evens]
type = 'filter'
inputs = ['kinds.even']
where = { kind = 'even' }
[transforms.copies]
type = 'redact'
inputs = ['json']
mask = ['kind']
[sinks.detector]
inputs = ['evens', 'kinds.unmatched', 'copies']
buffer = { max_bytes = 16777216 }
";

#[tokio::test]
async fn where_ways_meet_again_nothing_is_lost_and_what_is_read_again_is_known() {
    const EVENTS: usize = 2_000;
    let folder = tempfile::tempdir().unwrap();
    let lines: String = (0..EVENTS)
        .map(|n| format!("{{\"n\":{n},\"kind\":\"{}\"}}\n", if n % 2 == 0 { "even" } else { "odd" }))
        .collect();
    std::fs::write(folder.path().join("in.log"), lines).unwrap();
    let doors = Arc::new(Doors::default());
    for _ in 0..2 {
        let inlet = Arc::clone(&doors) as Arc<dyn Inlet>;
        let world = start_with(folder.path(), MEETING, Arc::clone(&doors.seen), inlet).await;
        doors.seen.wait_for(2 * EVENTS).await;
        let is_told = async {
            while world.pipeline.monitor().status().components["detector"].sent < 2 * EVENTS as u64 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, is_told).await.expect("all of it is told");
        assert!(world.pipeline.stop().await);
        // As if nothing had been remembered: all of it is read again.
        std::fs::remove_dir_all(folder.path().join("sources")).unwrap();
    }
    let bodies = doors.seen.bodies.lock();
    assert_eq!(bodies.len(), 2 * EVENTS, "nothing twice");
    assert_eq!(bodies.iter().collect::<BTreeSet<_>>().len(), 2 * EVENTS, "and all of it");
    assert_eq!(*doors.tenants.lock(), BTreeSet::from(["acme".to_owned()]));
}

#[tokio::test]
async fn what_detection_would_not_take_is_a_dead_letter_of_the_detector() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[sources.lines]\ntype = 'file'\npaths = ['in.log']\nformat = 'ndjson'\npoll_milliseconds = 10\n";
    let lines = "not json\n{\"time\":\"soon\"}\n{\"metadata\":{\"tenant_uid\":\"acme\"}}\n{\"n\":1}\n";
    std::fs::write(folder.path().join("in.log"), lines).unwrap();
    let world = start(folder.path(), text).await;
    assert_eq!(world.log.wait_for(1).await, [r#"{"n":1}"#]);
    let letters = dead::list(&dead_letters_folder(folder.path())).unwrap().0;
    let codes: Vec<_> = letters.iter().map(|(_, letter)| (&*letter.component, letter.code.as_str())).collect();
    assert_eq!(codes, [("detector", "not_json"), ("detector", "bad_field"), ("detector", "other_tenant")]);
    assert_eq!(world.pipeline.monitor().status().components["detector"].dead_lettered, 3);
    world.pipeline.stop().await;
}

#[tokio::test]
async fn a_sink_of_events_is_told_what_it_wants_and_nothing_of_other_tenants() {
    let folder = tempfile::tempdir().unwrap();
    let text = "
[sinks.outside]
type = 'directory'
folder = 'unused'
inputs = ['audit']
[sinks.copy]
type = 'directory'
folder = 'copy'
inputs = ['audit']
";
    let wants: Wants = toml::from_str("tenants = ['acme']\nseverity_min = 'low'").unwrap();
    let world = start(folder.path(), text).await;
    *world.outside.wants.lock() = Some(wants);
    let entry = |tenant: &str, action: &str, outcome: &str| {
        format!(r#"{{"time_ms":5,"action":"{action}","outcome":"{outcome}","tenant":"{tenant}","user":"ann"}}"#)
    };
    let entries = [
        entry("bolt", "denied", "denied"),
        entry("acme", "record.view", "success"),
        entry("acme", "denied", "denied"),
        entry("bolt", "record.view", "success"),
    ];
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    soon(world.feed.give(SourceKind::Audit, 0, &entries).await).await.unwrap();
    let told = world.outside.wait_for(1).await;
    assert!(told.len() == 1 && told[0].contains("acme") && told[0].contains("denied"), "{told:?}");
    assert_eq!(world.copy.wait_for(4).await.len(), 4);
    let counts = world.pipeline.monitor().status().components;
    assert_eq!((counts["outside"].sent, counts["outside"].left_out), (1, 3));
    world.pipeline.stop().await;
}
