//! What every simulated cluster begins with: nine nodes, two tenants, their tables and users, rules.
//!
//! Everything is created through the node's own commands; nothing is written past it.

use crate::plot;
use crate::random::{Random, SeededEntropy};
use crate::world::World;
use anyhow::{Context, bail};
use identity::password::{Cost, PasswordHash};
use identity::token::KeyId;
use identity::{Account, Grant, Login, Role, SessionKey};
use model::cluster::{Cluster, Environment, Node, Region};
use model::{FieldKind, Merge, NodeId, RegionId, TenantId, UserId};
use node::machine::control::{ControlCommand, ControlOutcome};
use node::machine::note::Note;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Regions, in order of their ids.
pub const REGIONS: [&str; 3] = ["eu", "us", "ap"];
/// Nodes of each region.
pub const NODES: u64 = 3;
/// Partitions of the tenants' data.
const PARTITIONS: u16 = 8;
/// Shards of each region's detection.
const DETECTION_SHARDS: u16 = 2;

/// A tenant of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantPlan {
    /// Its name.
    pub name: &'static str,
    /// The login that works with its data.
    pub login: &'static str,
    /// Positions of the regions its data may be in.
    pub regions: &'static [usize],
}

/// Everywhere, and pinned to two regions.
pub const TENANTS: [TenantPlan; 2] = [
    TenantPlan { name: "acme", login: "alice", regions: &[0, 1, 2] },
    TenantPlan { name: "globex", login: "bob", regions: &[0, 1] },
];

/// The platform's analyst, who sends events in.
pub const ANALYST: &str = "carol";
/// Everybody's password.
pub const PASSWORD: &str = "Unlikely-horse-7-battery";
/// Hot records.
pub const CALLS: &str = "calls";
/// Counters that are never deleted.
pub const METERS: &str = "meters";
/// Keys of meters.
pub const METER_KEYS: [&str; 2] = ["m0", "m1"];

/// Five of one kind at one door, and many at any door of any region.
const RULES: &str = "title: Door forced
name: door_forced
logsource: {product: doors}
detection:
  selection:
    kind: forced
  condition: selection
level: informational
---
title: doors_forced
name: doors_forced
correlation:
  type: event_count
  rules: [door_forced]
  group-by: [door]
  timespan: 5m
  condition: {gte: 5}
level: high
---
title: forced_anywhere
name: forced_anywhere
across_regions: true
correlation:
  type: event_count
  rules: [door_forced]
  timespan: 20s
  condition: {gte: 6}
level: high
";
/// The rule that looks across regions.
pub const ACROSS: &str = "forced_anywhere";

/// The rules every node detects by: one of each kind.
pub fn rules() -> detection::rules::RuleSet {
    let (rules, errors) = detection::rules::load_texts(vec![("sim.yml".to_owned(), RULES.to_owned() + &plot::rules())]);
    assert!(errors.is_empty(), "the simulator's rules are sound: {errors:?}");
    rules
}

/// The description of the cluster.
pub fn cluster(groups: u16) -> Cluster {
    let address = |port: u64| SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap_or(u16::MAX)));
    let node = |region: usize, index: u64| {
        let id = region as u64 * NODES + index + 1;
        Node {
            id: NodeId::new(id),
            name: format!("{}-{}", REGIONS[region], index + 1),
            zone: "protected".into(),
            link: address(1000 + id * 3),
            api: address(1001 + id * 3),
            metrics: address(1002 + id * 3),
        }
    };
    let region = |(position, name): (usize, &&str)| Region {
        id: RegionId::new(u16::try_from(position + 1).unwrap_or(u16::MAX)),
        name: (*name).into(),
        incarnation: 0,
        nodes: (0..NODES).map(|index| node(position, index)).collect(),
    };
    Cluster {
        name: "sim".into(),
        environment: Environment::Development,
        partitions: PARTITIONS,
        groups,
        detection_shards: DETECTION_SHARDS,
        regions: REGIONS.iter().enumerate().map(region).collect(),
        links: Vec::new(),
    }
}

/// The first session key and the analyst's account.
pub fn bootstrap(seed: u64) -> (SessionKey, Account) {
    let entropy = SeededEntropy::new(Random::new(seed, 0xb007));
    let key = SessionKey::generate(KeyId::FIRST, &entropy);
    (key, account(ANALYST, TenantId::PLATFORM, &[Role::Soc, Role::Auditor], &entropy))
}

fn account(login: &str, tenant: TenantId, roles: &[Role], entropy: &SeededEntropy) -> Account {
    Account {
        id: UserId::new(0),
        login: Login::parse(login).expect("the plan's logins are sound"),
        person: login.to_owned(),
        tenant,
        grants: roles.iter().copied().map(Grant::whole).collect(),
        password: PasswordHash::new(PASSWORD, Cost::Cheap, entropy),
        totp: None,
        totp_last: None,
        must_change: false,
        disabled: false,
        epoch: 1,
    }
}

/// The address clients come from.
pub const fn address() -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))
}

/// Creates tenants, tables and users, and waits until every node knows them.
pub async fn create(world: &World, seed: u64) -> anyhow::Result<()> {
    let node = world.any_node().context("a node lives")?;
    let entropy = SeededEntropy::new(Random::new(seed, 0xacc0));
    for plan in TENANTS {
        let allowed_regions = plan.regions.iter().map(|at| RegionId::new(*at as u16 + 1)).collect();
        let command = ControlCommand::CreateTenant {
            name: plan.name.into(),
            allowed_regions,
            continuity_class: 1,
            note: Note { action: "tenant.create".into(), ..Note::default() },
        };
        let ControlOutcome::Tenant(tenant) = node.propose_control(&command).await? else { bail!("no tenant") };
        let text = |name: &str| (name.to_owned(), FieldKind::Text, Merge::Lww);
        let tables = [
            (CALLS, vec![text("owner"), text("note")]),
            (
                METERS,
                vec![("n".to_owned(), FieldKind::Int, Merge::Counter), ("peak".to_owned(), FieldKind::Int, Merge::Max)],
            ),
        ];
        for (name, fields) in tables {
            let note = Note { action: "table.create".into(), ..Note::default() };
            let command = ControlCommand::CreateTable { tenant: tenant.id, name: name.into(), fields, note };
            let ControlOutcome::Table(_) = node.propose_control(&command).await? else { bail!("no table") };
        }
        let account = account(plan.login, tenant.id, &[Role::Agent], &entropy);
        let note = Note { action: "user.create".into(), ..Note::default() };
        let ControlOutcome::User(_) = node.propose_control(&ControlCommand::CreateUser { account, note }).await? else {
            bail!("no user")
        };
    }
    for _ in 0..600 {
        let knows = |node: &node::Node| {
            let control = node.control();
            TENANTS.iter().all(|plan| control.user(plan.login).is_some())
        };
        if world.nodes().all(|node| knows(&node)) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("not every node learned of the tenants")
}
