//! Keeps the events of the past: reads what happened in this region, in order, and gives it to the archive.
//!
//! Every node of a region archives what it holds, on its own disk: a search is answered by any node, and a lost disk
//! is filled again from the region's log. What leaves is put on record first; what cannot be recorded does not leave.

use crate::config::{ArchiveConfig, Config};
use crate::core::ingest::Taken;
use crate::driver::known::Forecasts;
use crate::driver::streams;
use crate::machine::note::Note;
use crate::node::Node;
use anyhow::Context;
use archive::forecast::Bounds;
use archive::job::Jobs;
use archive::retain::{Hold, Policy, Removed, Why};
use archive::row::PLATFORM;
use archive::{Archive, Entry, Span};
use detection::SourceKind;
use detection::normalise::normalise_for;
use detection::rules::RuleSet;
use model::TenantId;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The folder in a node's data.
const FOLDER: &str = "archive";
/// How often what is there is looked through.
const MAINTAIN_EVERY_MS: u64 = 60_000;
/// How long to wait after a disk failed.
const RETRY: Duration = Duration::from_secs(5);
/// Where nothing happens, open events are looked at this often.
const TICK: Duration = Duration::from_secs(5);
/// How long files are put together at a time, so that new events do not wait longer; there may be more to do.
const COMPACT_MS_MAX: u64 = 5_000;
/// How far back a forecast looks.
const FORECAST_MS: u64 = 24 * 3_600_000;

/// A node's archive, what it is kept by, and the searches in it.
pub struct Keeper {
    /// The events.
    pub archive: Arc<Archive>,
    /// Searches and hunts.
    pub jobs: Jobs,
    /// How long what is kept.
    pub config: ArchiveConfig,
    /// The node's own rules, for hunts.
    pub rules: Option<PathBuf>,
}

/// Opens a node's archive.
pub fn keep(node: &Node, config: &Config) -> anyhow::Result<()> {
    let archive = Archive::open(&config.data.join(FOLDER)).context("it cannot be opened")?;
    let (kept, rules) = (config.archive.clone(), config.detection.rules.clone());
    let keeper = Keeper { archive: Arc::new(archive), jobs: Jobs::default(), config: kept, rules };
    anyhow::ensure!(node.archive.set(keeper).is_ok(), "it is open already");
    Ok(())
}

impl Keeper {
    /// The policy for the tenants there are.
    pub(crate) fn policy(&self, node: &Node) -> Policy {
        let days = |class: u8| self.config.retention_days[usize::from(class.min(3))];
        let control = node.control();
        let tenants =
            control.tenants.values().map(|tenant| (tenant.name.as_str().into(), days(tenant.continuity_class)));
        let hold = |hold: &crate::config::LegalHold| {
            let span = hold.span().unwrap_or(Span::ALL);
            Hold { tenant: hold.tenant.as_str().into(), span }
        };
        Policy {
            days: days(0),
            tenants: tenants.collect(),
            holds: self.config.holds.iter().map(hold).collect(),
            size_bytes_max: self.config.max_bytes,
        }
    }
}

/// What the rules of a set would have raised in the last day of this node's archive, by their ids: what a rollout
/// compares with. Nothing where the node keeps no archive.
pub(crate) async fn forecast(node: &Node, rules: Arc<RuleSet>) -> Forecasts {
    let Some(keeper) = node.archive.get() else { return Forecasts::new() };
    let (archive, to_ms) = (Arc::clone(&keeper.archive), node.world.clock.wall_ms());
    let span = Span { from_ms: to_ms.saturating_sub(FORECAST_MS), to_ms };
    let report = blocking(move || archive::forecast::run(&archive, &rules, span, Bounds::default())).await;
    report.map(|report| report.forecast()).unwrap_or_default()
}

/// Archives until the node stops; at once if it keeps no archive.
pub async fn run(node: Arc<Node>) {
    let Some(keeper) = node.archive.get() else { return };
    let (mut maintained_ms, mut is_stuck) = (0, false);
    for number in 0_usize.. {
        let now_ms = node.world.clock.wall_ms();
        if now_ms >= maintained_ms + MAINTAIN_EVERY_MS {
            maintained_ms = now_ms;
            is_stuck = maintain(&node, keeper, is_stuck, now_ms).await;
        }
        let reader = Arc::clone(&node);
        let read = move |archive: &Archive| if is_stuck { 0 } else { read(&reader, archive, number, now_ms) };
        match round(&keeper.archive, now_ms, read).await {
            None => tokio::time::sleep(RETRY).await,
            Some(0) => wait(&node).await,
            Some(_) => {}
        }
    }
}

/// Makes room and then reads, so that what waits for a disk waits in the region's log and not in memory. How many
/// places of streams were read; `None` where there was no room.
async fn round(
    archive: &Arc<Archive>,
    now_ms: u64,
    read: impl FnOnce(&Archive) -> usize + Send + 'static,
) -> Option<usize> {
    if archive.is_full(now_ms) {
        let full = Arc::clone(archive);
        let rolled = blocking(move || full.roll(now_ms)).await?;
        let told = |error: &archive::ArchiveError| {
            tracing::error!(%error, "events of the past cannot be written: they wait in the region's log");
        };
        rolled.inspect_err(told).ok()?;
    }
    // Parsing is work for a thread that nobody else waits for.
    let archive = Arc::clone(archive);
    blocking(move || read(&archive)).await
}

/// Work that waits for the disk, where that holds nobody up.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.inspect_err(|error| tracing::error!(%error, "work on the archive ended early")).ok()
}

async fn wait(node: &Node) {
    let mut changes: Vec<_> = node.data.values().map(|data| data.machine.changes()).collect();
    changes.push(node.control.machine.changes());
    let any = futures::future::select_all(changes.iter_mut().map(|changes| Box::pin(changes.changed())));
    let _ = tokio::time::timeout(TICK, any).await;
}

/// Reads a turn of every stream, or of as many as there is room for; each round begins with another one.
fn read(node: &Node, archive: &Archive, number: usize, now_ms: u64) -> usize {
    let mut names = streams::names(node);
    let first = number % names.len().max(1);
    names.rotate_left(first);
    let mut count = 0;
    for stream in names {
        if archive.is_full(now_ms) {
            break;
        }
        for (sequence, taken) in streams::turn(node, &stream, archive.next(&stream)).events {
            count += 1;
            match taken {
                Some(taken) => take(node, archive, &stream, sequence, taken, now_ms),
                // It was told by who reads streams.
                None => archive.take(&stream, sequence, None, now_ms),
            }
        }
    }
    count
}

fn take(node: &Node, archive: &Archive, stream: &str, sequence: u64, taken: Taken, now_ms: u64) {
    let source = taken.raw.source;
    let entry = normalise_for(&taken.raw, taken.owner()).ok().map(|mut event| {
        // An audit log says whose each of its events is, and they are received when they happen.
        let own = (source == SourceKind::Audit).then(|| event.text("metadata.tenant_uid").map(str::to_owned)).flatten();
        if source == SourceKind::Audit {
            event.received_ms = event.time_ms;
        }
        // The door knew who brought an event; what an entry says of itself is believed where such a tenant is known.
        let own = own.filter(|name| node.control().tenant(name).is_some());
        let name = taken.tenant.or(own).filter(|name| archive::layout::is_tenant(name));
        Entry { tenant: name.as_deref().unwrap_or(PLATFORM).into(), source, event }
    });
    // What cannot be parsed was counted by the detector, which reads the same.
    archive.take(stream, sequence, entry, now_ms);
}

/// Lets go what need not be kept, puts small files together, and counts. Whether nothing more can be taken.
async fn maintain(node: &Arc<Node>, keeper: &Keeper, was_stuck: bool, now_ms: u64) -> bool {
    let policy = keeper.policy(node);
    let leaving = keeper.archive.leaving(&policy, now_ms);
    if leaving.is_empty() || record(node, &leaving).await {
        let (archive, policy) = (Arc::clone(&keeper.archive), policy.clone());
        blocking(move || archive.retain(&policy, now_ms)).await;
    }
    let (archive, clock) = (Arc::clone(&keeper.archive), Arc::clone(&node.world.clock));
    let compact = move || {
        let until_ms = clock.wall_ms() + COMPACT_MS_MAX;
        archive.compact(now_ms, || clock.wall_ms() < until_ms)
    };
    if let Some(Err(error)) = blocking(compact).await {
        tracing::error!(%error, "files of the archive cannot be put together");
    }
    count(node, keeper);
    let is_stuck = keeper.archive.is_stuck(&policy, now_ms);
    if is_stuck && !was_stuck {
        tracing::error!(
            "the archive is full of what is under legal hold: it takes nothing more until it may be larger"
        );
        let why = format!("{} bytes, {} are allowed", keeper.archive.size_bytes(), policy.size_bytes_max);
        let note = Note { refused: Some(why), ..note(node, "archive.full", "archive".into()) };
        // Said again while it lasts, should this time be lost.
        return node.record(TenantId::PLATFORM, note).await.is_ok();
    }
    is_stuck
}

fn note(node: &Node, action: &str, resource: String) -> Note {
    let tenant = Some(PLATFORM.to_owned());
    Note { action: action.into(), tenant, resource: Some(resource), node: node.place.id, ..Note::default() }
}

/// Puts on record what leaves.
async fn record(node: &Node, leaving: &[Removed]) -> bool {
    for removed in leaving {
        let action = if removed.why == Why::Full { "archive.evict" } else { "archive.expire" };
        let old = serde_json::json!({"rows": removed.rows, "bytes": removed.size_bytes, "node": node.place.name});
        let resource = format!("archive/{}/days/{}", removed.tenant, removed.day);
        let values = Some((Some(old.to_string()), None));
        let tenant = Some(removed.tenant.to_string());
        let note = Note { tenant, values, ..note(node, action, resource) };
        if let Err(problem) = node.record(TenantId::PLATFORM, note).await {
            tracing::warn!(%problem, "what should leave the archive stays: it cannot be put on record");
            return false;
        }
        if removed.why == Why::Full {
            tracing::warn!(tenant = %removed.tenant, day = removed.day, "the archive is full: events leave before their time");
        }
    }
    true
}

fn count(node: &Node, keeper: &Keeper) {
    let files = keeper.archive.files();
    let rows: u64 = files.iter().map(|file| file.name.rows).sum();
    let metric = |what, value: u64| node.metrics.archive.with_label_values(&[what]).set(value as f64);
    metric("files", files.len() as u64);
    metric("rows", rows);
    metric("bytes", keeper.archive.size_bytes());
    metric("open", keeper.archive.open_rows() as u64);
    metric("broken", keeper.archive.broken().len() as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::bed::Bed;
    use archive::archive::OPEN_ROWS_MAX;
    use detection::normalise::normalise;
    use detection::rollout::Care;
    use detection::{Position, RawEvent};

    const STREAM: &str = "events/eu";
    const TURN: u64 = 5_000;

    /// A source that never ends.
    fn more(archive: &Archive) -> usize {
        let from = archive.next(STREAM);
        for sequence in from..from + TURN {
            let position = Some(Position { stream: STREAM.into(), sequence });
            let bytes = r#"{"time":1000,"message":"x"}"#.into();
            let event = normalise(&RawEvent { source: SourceKind::Ndjson, received_ms: 1_000, position, bytes });
            let entry = Entry { tenant: "acme".into(), source: SourceKind::Ndjson, event: event.unwrap() };
            archive.take(STREAM, sequence, Some(entry), 1_000);
        }
        TURN as usize
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenants_events_are_its_own_where_this_node_does_not_know_it_yet() {
        let bed = Bed::start("", Care::default()).await;
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::open(folder.path()).unwrap();
        let event = |tenant: Option<&str>| {
            let bytes = r#"{"time":1000,"message":"x"}"#.into();
            let raw = RawEvent { source: SourceKind::Ndjson, received_ms: 1_000, position: None, bytes };
            Taken { raw, tenant: tenant.map(str::to_owned) }
        };
        for (sequence, tenant) in (0..).zip([Some("acme"), None, Some("../up")]) {
            take(&bed.node, &archive, STREAM, sequence, event(tenant), 1_000);
        }
        archive.roll(1_000).unwrap();
        let mut rows: Vec<(String, u64)> =
            archive.files().iter().map(|file| (file.partition.tenant.to_string(), file.name.rows)).collect();
        rows.sort();
        assert_eq!(rows, [("acme".into(), 1), ("platform".into(), 2)]);
        bed.stop().await;
    }

    #[tokio::test]
    async fn while_a_disk_fails_events_wait_in_the_regions_log_and_not_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Arc::new(Archive::open(folder.path()).unwrap());
        let in_the_way = folder.path().join("tenant=acme");
        std::fs::write(&in_the_way, b"").unwrap();
        let mut rounds = Vec::new();
        for _ in 0..20 {
            rounds.push(round(&archive, 1_000, more).await.is_some());
        }
        let turns = OPEN_ROWS_MAX / TURN as usize;
        assert_eq!(rounds, (0..20).map(|round| round < turns).collect::<Vec<_>>());
        assert_eq!(archive.open_rows(), OPEN_ROWS_MAX);
        // Nothing was lost, and it goes on when the disk is well again.
        std::fs::remove_file(&in_the_way).unwrap();
        assert_eq!(round(&archive, 1_000, more).await, Some(TURN as usize));
        assert_eq!(archive.files().iter().map(|file| file.name.rows).sum::<u64>(), OPEN_ROWS_MAX as u64);
        assert_eq!(round(&archive, 1_000, |_| panic!("a defect")).await, None, "a panic is no success");
    }
}
