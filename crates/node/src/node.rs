//! A node: its groups, their state machines, the tasks that drive them, and what requests are judged by.

use crate::driver::proposer::{ProposeFailed, Proposer};
use crate::machine::command::{Command, Outcome};
use crate::machine::control::{Control, ControlCommand, ControlMachine, ControlOutcome};
use crate::machine::data::DataMachine;
use crate::telemetry::metrics::Metrics;
use crate::world::World;
use bytes::Bytes;
use consensus::Group;
use identity::{Capability, Policy, Session, SessionKeys};
use keyring::SigningKey;
use model::cluster::{Cluster, Node as Place, Region};
use model::codec::{decode, encode};
use model::{GroupId, TenantId, UserId};
use parking_lot::Mutex;
use pipeline::transform::enrich::Addresses;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Capabilities remembered; at the bound all are forgotten and derived again.
const CAPABILITIES_MAX: usize = 10_000;

/// How long a request waits for its node to apply what its leader has.
const SEE_WAIT: Duration = Duration::from_secs(2);

/// Waits, within bounds: the command is durable already, and a node that lags answers all the same.
async fn see(group: &Group, index: u64) {
    let _ = tokio::time::timeout(SEE_WAIT, group.wait_applied(index)).await;
}

/// One data group on this node.
pub struct DataGroup {
    /// Its consensus.
    pub group: Group,
    /// Its state.
    pub machine: Arc<DataMachine>,
    /// The way to its leader.
    pub proposer: Proposer,
}

/// The control group on this node.
pub struct ControlGroup {
    /// Its consensus.
    pub group: Group,
    /// Its state.
    pub machine: Arc<ControlMachine>,
    /// The way to its leader.
    pub proposer: Proposer,
}

/// A running node. Everything that answers requests shares it.
pub struct Node {
    /// The cluster's description.
    pub cluster: Arc<Cluster>,
    /// This node's region.
    pub region: Region,
    /// This node.
    pub place: Place,
    /// The doors to the world.
    pub world: World,
    /// The control group.
    pub control: ControlGroup,
    /// The data groups.
    pub data: BTreeMap<GroupId, DataGroup>,
    /// Instruments.
    pub metrics: Arc<Metrics>,
    /// Signs this region's audit checkpoints.
    pub audit_key: Arc<SigningKey>,
    /// How long sessions live.
    pub session_ms: u64,
    /// How dear passwords are to verify.
    pub password_cost: identity::password::Cost,
    /// Set once the node stops taking requests.
    pub stopping: AtomicBool,
    /// The rules that it has read.
    pub(crate) rules: tokio::sync::watch::Receiver<crate::driver::known::Known>,
    /// Where addresses are, if a list says it.
    pub(crate) addresses: Option<Arc<Addresses>>,
    /// The events of the past; a node of the simulator has none.
    pub(crate) archive: std::sync::OnceLock<crate::driver::archive::Keeper>,
    /// Its pipeline, once that runs; a node of the simulator has none.
    pub(crate) piped: std::sync::OnceLock<crate::intake::Piped>,
    pub(crate) policy: Policy,
    pub(crate) capabilities: Mutex<BTreeMap<(UserId, u32, bool), Arc<Capability>>>,
    pub(crate) session_keys: Mutex<Option<(u64, Arc<SessionKeys>)>>,
    /// The incidents, for whoever acts on them.
    pub(crate) incidents: tokio::sync::Mutex<crate::driver::book::Book>,
    /// What the region's log says the time is.
    pub(crate) beat: Arc<crate::driver::beat::Beat>,
    /// Who is told outside.
    pub(crate) sinks: Vec<Arc<dyn pipeline::sink::Sink>>,
    /// State of the links to other regions, kept by their drivers.
    pub(crate) links: Mutex<BTreeMap<(GroupId, model::RegionId), crate::driver::pull::LinkView>>,
}

impl Node {
    /// The control plane as this node knows it.
    pub fn control(&self) -> Arc<Control> {
        self.control.machine.control()
    }

    /// The group that holds a tenant.
    pub fn data_of(&self, tenant: TenantId) -> &DataGroup {
        self.data.get(&self.cluster.group(tenant)).expect("a node has every data group of its region")
    }

    /// The group that holds the platform's own records, and the duties of this region's nodes.
    pub fn home(&self) -> &DataGroup {
        self.data_of(TenantId::PLATFORM)
    }

    /// The way to a group's leader.
    pub fn proposer(&self, group: GroupId) -> Option<&Proposer> {
        if group == GroupId::CONTROL {
            return Some(&self.control.proposer);
        }
        self.data.get(&group).map(|group| &group.proposer)
    }

    /// Has a command of a data group carried out.
    pub async fn propose(&self, group: GroupId, command: &Command) -> Result<Outcome, ProposeFailed> {
        let group = self.data.get(&group).expect("a node has every data group of its region");
        let done = group.proposer.propose(Bytes::from(encode(command))).await?;
        decode(&done.result).map_err(|_| ProposeFailed::Unknown)
    }

    /// As [`Node::propose`], and waits until this node has the effects too, so that the next request sees them.
    pub async fn propose_and_see(&self, group: GroupId, command: &Command) -> Result<Outcome, ProposeFailed> {
        let group = self.data.get(&group).expect("a node has every data group of its region");
        let done = group.proposer.propose(Bytes::from(encode(command))).await?;
        see(&group.group, done.index).await;
        decode(&done.result).map_err(|_| ProposeFailed::Unknown)
    }

    /// Has a command of the control plane carried out, and waits until this node has its effects.
    pub async fn propose_control(&self, command: &ControlCommand) -> Result<ControlOutcome, ProposeFailed> {
        let done = self.control.proposer.propose(Bytes::from(encode(command))).await?;
        see(&self.control.group, done.index).await;
        decode(&done.result).map_err(|_| ProposeFailed::Unknown)
    }

    /// What a session may do, derived from the policy once.
    pub fn capability(&self, session: &Session) -> Arc<Capability> {
        let account = session.account();
        let key = (account.id, account.epoch, session.second_factor());
        let mut known = self.capabilities.lock();
        if let Some(capability) = known.get(&key) {
            return Arc::clone(capability);
        }
        if known.len() >= CAPABILITIES_MAX {
            known.clear();
        }
        let capability = Arc::new(Capability::derive(&self.policy, session.subject()));
        known.insert(key, Arc::clone(&capability));
        capability
    }

    /// The keys of sessions, as the control plane has them now; none before the cluster was set up.
    pub fn session_keys(&self) -> Option<Arc<SessionKeys>> {
        let control = self.control();
        let mut known = self.session_keys.lock();
        if let Some((version, keys)) = &*known
            && *version == control.version
        {
            return Some(Arc::clone(keys));
        }
        let keys = Arc::new(SessionKeys::new(&control.keys).ok()?);
        *known = Some((control.version, Arc::clone(&keys)));
        Some(keys)
    }

    /// A region's name.
    pub fn region_name(&self, id: model::RegionId) -> String {
        self.cluster.region(id).map_or_else(|| id.to_string(), |region| region.name.clone())
    }
}
