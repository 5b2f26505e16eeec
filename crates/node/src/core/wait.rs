//! Waiting, always bounded: for what a session has seen, and for other regions to have what was written.

use crate::driver::proposer::{COMMAND_BYTES_MAX, ProposeFailed};
use crate::machine::data::DataMachine;
use crate::node::Node;
use api::core::Answer;
use api::problem::{Missing, Problem, Unavailable};
use api::types::{Durability, Durable};
use identity::VectorToken;
use model::{RegionId, Stamp, Tenant, TenantId, VersionVector};
use std::time::Duration;

/// How long a read or write waits for what its session has seen.
const SEEN_WAIT: Duration = Duration::from_secs(2);
/// How long a write waits for other regions.
const REMOTE_WAIT: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a failed proposal is to a client.
pub(crate) fn failed(failure: ProposeFailed) -> Problem {
    let unavailable = |reason, detail: &str| Problem::unavailable(reason, detail, RETRY_AFTER);
    match failure {
        ProposeFailed::NoLeader => {
            unavailable(Unavailable::NoQuorum, "no majority of this region can be reached; nothing was done")
        }
        ProposeFailed::Unknown => unavailable(
            Unavailable::Timeout,
            "the leader was lost on the way: the outcome is unknown; retry with the same Idempotency-Key",
        ),
        ProposeFailed::TooLarge => Problem::TooLarge { max_bytes: COMMAND_BYTES_MAX as u64 },
        ProposeFailed::Busy => Problem::TooMany { retry_after: RETRY_AFTER },
        ProposeFailed::Stopped => unavailable(Unavailable::ShuttingDown, "the node is stopping; nothing was done"),
    }
}

/// A defect: what happened is in the log, never in the answer.
pub(crate) fn internal(what: &str, error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "{what}");
    Problem::Internal
}

impl Node {
    /// The token of a vector, for the client to bring along.
    pub(crate) fn sign(&self, tenant: TenantId, vector: VersionVector) -> Answer<String> {
        let keys = self.session_keys().ok_or_else(starting)?;
        let token = VectorToken { cluster: self.cluster.name.clone(), tenant, vector };
        token.sign(&keys).map_err(|error| internal("a consistency token could not be made", &error))
    }

    /// What a token has seen.
    pub(crate) fn seen_by(&self, tenant: TenantId, token: &str) -> Answer<VersionVector> {
        let keys = self.session_keys().ok_or_else(starting)?;
        VectorToken::verify(token, &keys, &self.cluster.name, tenant)
            .map_err(|error| Problem::invalid("Holdfast-Session", error.to_string()))
    }

    /// Waits until this node has what the token has seen.
    pub(crate) async fn catch_up(&self, tenant: TenantId, token: Option<&str>) -> Answer<()> {
        let Some(token) = token else { return Ok(()) };
        let wanted = self.seen_by(tenant, token)?;
        let (machine, partition) = (&self.data_of(tenant).machine, self.cluster.partition(tenant));
        let reached = until(machine, SEEN_WAIT, || machine.vector(partition).covers(&wanted)).await;
        if reached {
            return Ok(());
        }
        let known = machine.vector(partition);
        let missing = wanted
            .iter()
            .filter(|(origin, sequence)| known.get(*origin) < *sequence)
            .map(|(origin, wanted)| Missing { origin: origin.to_string(), wanted, known: known.get(origin) })
            .collect();
        Err(Problem::Behind { missing, retry_after: RETRY_AFTER })
    }

    /// Other regions that the tenant's data may be in.
    pub(crate) fn other_regions(&self, tenant: &Tenant) -> Vec<RegionId> {
        tenant.allowed_regions.iter().copied().filter(|region| *region != self.region.id).collect()
    }

    /// Refuses a durability that can never be reached, before anything is written.
    pub(crate) fn check_durability(&self, tenant: &Tenant, durability: Durability) -> Answer<()> {
        let others = self.other_regions(tenant).len();
        match durability {
            Durability::Remote(count) if usize::from(count) > others => Err(Problem::invalid(
                "Holdfast-Durability",
                format!("remote:{count}, but this tenant's data may be in {others} other regions only"),
            )),
            _ => Ok(()),
        }
    }

    /// Waits until as many other regions as asked have made a change durable.
    pub(crate) async fn durable(&self, tenant: &Tenant, stamp: Stamp, durability: Durability) -> Durable {
        let Durability::Remote(count) = durability else { return Durable::AsAsked };
        let machine = &self.data_of(tenant.id).machine;
        let partition = self.cluster.partition(tenant.id);
        let others = self.other_regions(tenant);
        let reached = until(machine, REMOTE_WAIT, || {
            let progress = machine.progress();
            let has = |region: &&RegionId| {
                let vector = progress.get(*region).and_then(|partitions| partitions.get(&partition));
                vector.is_some_and(|vector| vector.get(stamp.origin) >= stamp.sequence)
            };
            others.iter().filter(has).count() >= usize::from(count)
        });
        if reached.await { Durable::AsAsked } else { Durable::Locally }
    }
}

/// Waits for a condition that only applying can bring about.
async fn until(machine: &DataMachine, wait: Duration, holds: impl Fn() -> bool) -> bool {
    let mut changes = machine.changes();
    let waiting = async {
        while !holds() {
            if changes.changed().await.is_err() {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(wait, waiting).await.unwrap_or(false)
}

/// The cluster has not been set up yet.
pub(crate) fn starting() -> Problem {
    Problem::unavailable(Unavailable::Starting, "the control plane has not started yet", RETRY_AFTER)
}
