//! One node in memory, with virtual time: what drivers do is tested on the node they are written for.

use crate::core::ingest::Taken;
use crate::driver::known::Known;
use crate::machine::command::{Command, Door, Ingest, Select};
use crate::machine::control::platform;
use crate::machine::note::Note;
use crate::node::Node;
use crate::start::{Running, Start};
use crate::world::World;
use bytes::Bytes;
use detection::rollout::Care;
use detection::rules::RuleSet;
use detection::{Alert, RawEvent, SourceKind};
use identity::{Account, SessionKey};
use keyring::SigningKey;
use model::cluster::Cluster;
use model::codec::encode;
use model::entropy::Entropy;
use model::time::Clock;
use model::{NodeId, RegionId, TenantId, Value};
use pipeline::sink::Sink;
use pipeline::transform::enrich::Addresses;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use storage::MemoryEngine;
use tokio::sync::watch;
use tokio::time::Instant;
use transport::{MemoryNetwork, Peer};

/// When everything begins.
pub(crate) const BEGIN_MS: u64 = 1_767_225_600_000;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// One region of one node.
pub(crate) const CLUSTER: &str = r#"
name = "test"
environment = "development"
partitions = 4
groups = 1
detection_shards = 1
[[regions]]
id = 1
name = "eu"
[[regions.nodes]]
id = 1
name = "eu-1"
link = "127.0.0.1:1"
api = "127.0.0.1:2"
metrics = "127.0.0.1:3"
"#;

struct Virtual(Instant);

impl Clock for Virtual {
    fn wall_ms(&self) -> u64 {
        BEGIN_MS + u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Not random, and no two alike.
#[derive(Default)]
pub(crate) struct Counted(AtomicU64);

impl Entropy for Counted {
    fn fill(&self, bytes: &mut [u8]) {
        let mut reader = blake3::Hasher::new();
        reader.update(&self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        reader.finalize_xof().fill(bytes);
    }
}

/// What a bed's node has that others' have not.
#[derive(Default)]
pub(crate) struct Furniture {
    pub(crate) rules: Arc<RuleSet>,
    pub(crate) care: Care,
    pub(crate) addresses: Option<Arc<Addresses>>,
    pub(crate) sinks: Vec<Arc<dyn Sink>>,
    pub(crate) bootstrap: Option<(SessionKey, Account)>,
}

/// The node.
pub(crate) struct Bed {
    pub(crate) node: Arc<Node>,
    /// The rules as they change.
    pub(crate) rules: watch::Sender<Known>,
    running: Running,
}

impl Bed {
    pub(crate) async fn start(rules: &str, care: Care) -> Self {
        Self::furnished(Furniture { rules: rules_of(rules), care, ..Furniture::default() }).await
    }

    pub(crate) async fn furnished(with: Furniture) -> Self {
        let cluster = Arc::new(Cluster::parse(CLUSTER).unwrap());
        let zone = cluster.node(NodeId::new(1)).unwrap().1.zone.clone();
        let entropy = Arc::new(Counted::default());
        let link = MemoryNetwork::new(7).join(Peer { node: NodeId::new(1), region: RegionId::new(1), zone });
        let world = World {
            clock: Arc::new(Virtual(Instant::now())),
            entropy: Arc::clone(&entropy) as _,
            engine: Arc::new(MemoryEngine::auto_sync()),
            link,
        };
        let rules = watch::channel(Known::of(with.rules)).0;
        let start = Start {
            cluster,
            name: "eu-1".into(),
            world,
            timing: consensus::Timing::default(),
            audit_key: SigningKey::generate(&*entropy),
            session_ms: 86_400_000,
            password_cost: identity::password::Cost::Cheap,
            rules: rules.subscribe(),
            care: with.care,
            addresses: with.addresses,
            sinks: with.sinks,
            works: Vec::new(),
            first: true,
            lost: false,
            bootstrap: with.bootstrap,
            defect: None,
        };
        let running = Running::start(start).await.unwrap();
        Self { node: Arc::clone(&running.node), rules, running }
    }

    /// The node knows other rules; nothing is expected of them.
    pub(crate) fn change_rules(&self, text: &str) {
        self.rules.send_replace(Known { rules: rules_of(text), forecast: Some(Arc::default()) });
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.node.world.clock.wall_ms()
    }

    /// Puts events into the region's log, received now.
    pub(crate) async fn ingest(&self, lines: impl IntoIterator<Item = String>) {
        self.ingest_of(self.now_ms(), lines).await;
    }

    /// Puts events into the region's log that were received then.
    pub(crate) async fn ingest_of(&self, received_ms: u64, lines: impl IntoIterator<Item = String>) {
        let event = |line: String| {
            let raw = RawEvent { source: SourceKind::Ndjson, received_ms, position: None, bytes: Bytes::from(line) };
            encode(&Taken { raw, tenant: None })
        };
        let command = Ingest { events: lines.into_iter().map(event).collect(), ..ingest() };
        self.node.propose(self.node.cluster.home(), &Command::Ingest(command)).await.unwrap();
    }

    /// The alerts that are stored.
    pub(crate) fn alerts(&self) -> Vec<Alert> {
        let select = Select::Range { from: String::new(), to: None, after: None, limit: 1_000 };
        let machine = &self.node.home().machine;
        let records = machine.read_local(TenantId::PLATFORM, platform::ALERTS, &select).unwrap().records;
        let alert = |(_, record): (String, model::Record)| {
            let mut texts = record.visible().filter_map(|(_, state)| match state.value() {
                Value::Text(text) => serde_json::from_str::<Alert>(&text).ok(),
                _ => None,
            });
            texts.next()
        };
        records.into_iter().filter_map(alert).collect()
    }

    /// How many alerts of a rule are stored.
    pub(crate) fn alerts_of(&self, rule: &str) -> usize {
        self.alerts().iter().filter(|alert| &*alert.rule.id == rule).count()
    }

    /// Lets time pass until it is so.
    #[track_caller]
    pub(crate) fn until(&self, what: impl Fn(&Self) -> bool) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let begin = Instant::now();
            while !what(self) {
                assert!(begin.elapsed() < PATIENCE, "it does not come: {caller}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    pub(crate) async fn stop(self) {
        self.running.stop().await;
    }
}

fn ingest() -> Ingest {
    Ingest { events: Vec::new(), door: Door::Open, note: Note { action: "ingest".into(), ..Note::default() } }
}

/// Rules of one file.
pub(crate) fn rules_of(text: &str) -> Arc<RuleSet> {
    let (rules, errors) = detection::rules::load_texts(vec![("a.yml".into(), text.to_owned())]);
    assert!(errors.is_empty(), "{errors:?}");
    Arc::new(rules)
}
