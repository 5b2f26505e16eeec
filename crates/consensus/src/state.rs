//! openraft's state machine over the node's [`Machine`].
//!
//! Blank entries and memberships end here. The position (last applied entry and last membership)
//! goes into the same batch as the commands' effects, so the two can never disagree.

use crate::machine::Machine;
use crate::options::{APPLY_BYTES_MAX, APPLY_ENTRIES_MAX};
use crate::shipment::{Shipment, blocking, copy};
use crate::types::{Entry, LogId, Reply, Snapshot, SnapshotMeta, StoredMembership, Types};
use futures::{Stream, StreamExt};
use model::codec;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use storage::Checkpoint;
use tokio::sync::watch;

/// How far the state has come; stored by the machine with every batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub applied: Option<LogId>,
    pub membership: StoredMembership,
}

impl Position {
    /// What the machine has stored.
    pub fn load(machine: &dyn Machine) -> io::Result<Self> {
        let Some(bytes) = machine.position()? else { return Ok(Self::default()) };
        codec::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }
}

/// The newest checkpoint and what it holds, shared with its builder.
type Current = Arc<Mutex<Option<(SnapshotMeta, Arc<dyn Checkpoint>)>>>;

/// Feeds a machine.
pub(crate) struct StateMachine {
    machine: Arc<dyn Machine>,
    position: Position,
    current: Current,
    applied: watch::Sender<Option<u64>>,
}

/// Entries collected for one apply.
#[derive(Default)]
struct Pending {
    items: Vec<(Entry, Option<ApplyResponder<Types>>)>,
    size_bytes: usize,
}

impl StateMachine {
    /// Continues where the machine is; the receiver follows the applied index.
    pub fn open(machine: Arc<dyn Machine>) -> io::Result<(Self, watch::Receiver<Option<u64>>)> {
        let position = Position::load(&*machine)?;
        let (applied, receiver) = watch::channel(position.applied.as_ref().map(LogId::index));
        Ok((Self { machine, position, current: Current::default(), applied }, receiver))
    }

    /// Where the state is.
    pub fn applied(&self) -> Option<LogId> {
        self.position.applied
    }

    /// One batch: all commands, then the position; then the answers.
    fn flush(&mut self, pending: Pending) -> io::Result<()> {
        let mut position = self.position.clone();
        let mut commands = Vec::with_capacity(pending.items.len());
        for (entry, _) in &pending.items {
            position.applied = Some(entry.log_id);
            match &entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(command) => commands.push((entry.log_id.index(), &command.0[..])),
                EntryPayload::Membership(membership) => {
                    position.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                }
            }
        }
        let results = self.machine.apply(&commands, &codec::encode(&position))?;
        assert_eq!(results.len(), commands.len(), "a machine answers every command exactly once");
        self.position = position;
        let mut results = results.into_iter();
        for (entry, responder) in pending.items {
            let reply = match entry.payload {
                EntryPayload::Normal(_) => Reply(results.next().expect("counted above")),
                EntryPayload::Blank | EntryPayload::Membership(_) => Reply::default(),
            };
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        self.applied.send_replace(self.position.applied.as_ref().map(LogId::index));
        Ok(())
    }

    /// A durable, frozen copy of the state as it is now.
    fn freeze(&self) -> io::Result<(SnapshotMeta, Arc<dyn Checkpoint>)> {
        let space = self.machine.space();
        let checkpoint = blocking(|| {
            space.flush()?;
            space.checkpoint()
        })?;
        Ok((self.position.meta(), checkpoint))
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = Shipment;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.position.applied, self.position.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut pending = Pending::default();
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            if let EntryPayload::Normal(command) = &entry.payload {
                pending.size_bytes += command.0.len();
            }
            pending.items.push((entry, responder));
            if pending.items.len() >= APPLY_ENTRIES_MAX || pending.size_bytes >= APPLY_BYTES_MAX {
                self.flush(std::mem::take(&mut pending))?;
            }
        }
        if pending.items.is_empty() { Ok(()) } else { self.flush(pending) }
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        // Frozen here, between two applies, so that the copy is exactly what its position says.
        Builder { frozen: Some(self.freeze()), current: Arc::clone(&self.current) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, shipment: Shipment) -> io::Result<()> {
        let space = self.machine.space();
        blocking(|| match shipment {
            Shipment::Received { install, files } => install.finish(&files),
            Shipment::Local(checkpoint) => copy(&*checkpoint, space.install()?),
        })?;
        self.machine.reloaded()?;
        self.position = Position::load(&*self.machine)?;
        if self.position.meta() != *meta {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the snapshot is not what its sender said"));
        }
        let frozen = self.freeze()?;
        *self.current.lock() = Some(frozen);
        self.applied.send_replace(self.position.applied.as_ref().map(LogId::index));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let current = self.current.lock().clone();
        Ok(current.map(|(meta, checkpoint)| Snapshot { meta, snapshot: Shipment::Local(checkpoint) }))
    }
}

/// Hands over a checkpoint that is already there.
pub(crate) struct Builder {
    frozen: Option<io::Result<(SnapshotMeta, Arc<dyn Checkpoint>)>>,
    current: Current,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Shipment;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let frozen = self.frozen.take().unwrap_or_else(|| Err(io::Error::other("a builder builds once")));
        let (meta, checkpoint) = frozen?;
        *self.current.lock() = Some((meta.clone(), Arc::clone(&checkpoint)));
        Ok(Snapshot { meta, snapshot: Shipment::Local(checkpoint) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Command;
    use openraft::impls::EmptyNode;
    use openraft::{Membership, Vote};
    use std::collections::{BTreeMap, BTreeSet};

    fn membership() -> Membership<u64, EmptyNode> {
        let nodes: BTreeMap<u64, EmptyNode> = [(1, EmptyNode {}), (2, EmptyNode {})].into();
        Membership::new(vec![BTreeSet::from([1])], nodes).expect("the voter is among the nodes")
    }

    /// What is on disks already must stay readable: these bytes never change.
    #[test]
    fn stored_bytes_are_golden() {
        fn check<T: Serialize>(value: &T, expect: &str) {
            let hex: String = codec::encode(value).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expect);
        }
        let log_id = LogId::new_term_index(3, 300);
        check(&Vote::<openraft::alias::LeaderIdOf<Types>>::new(7, 2), "0107010200");
        check(&log_id, "0103ac02");
        check(&Entry { log_id, payload: EntryPayload::Blank }, "0103ac0200");
        check(&Entry { log_id, payload: EntryPayload::Normal(Command("ab".into())) }, "0103ac0201026162");
        check(&Entry { log_id, payload: EntryPayload::Membership(membership()) }, "0103ac0202010101020102");
        check(
            &Position { applied: Some(log_id), membership: StoredMembership::new(Some(log_id), membership()) },
            "010103ac020103ac02010101020102",
        );
    }
}
