//! A group's audit log: a leaf for everything that happened, in the batch of what happened.

use crate::machine::keys;
use crate::machine::note::Note;
use crate::machine::view::View;
use audit::event::Salt;
use audit::merkle::leaf_hash;
use audit::{Action, AuditEvent, Detail, Frontier, Outcome};
use model::cluster::Cluster;
use model::codec::{decode, encode};
use model::{GroupId, Hlc};
use std::io;
use std::sync::Arc;
use storage::Space;

/// The growing end of a group's audit log.
pub struct Ledger {
    cluster: Arc<Cluster>,
    region: String,
    group: GroupId,
    frontier: Frontier,
    hlc: Hlc,
    nonce: [u8; 16],
}

impl Ledger {
    /// An empty log; [`Ledger::reload`] reads what is stored.
    pub fn new(cluster: Arc<Cluster>, region: impl Into<String>, group: GroupId) -> Self {
        Self { cluster, region: region.into(), group, frontier: Frontier::new(), hlc: Hlc::ZERO, nonce: [0; 16] }
    }

    /// How many data groups a region has.
    pub fn groups(&self) -> u16 {
        self.cluster.groups
    }

    /// Reads the stored end of the log.
    pub fn reload(&mut self, space: &dyn Space) -> io::Result<()> {
        let invalid = |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        (self.frontier, self.hlc) = match space.get(keys::META, keys::META_FRONTIER)? {
            Some(bytes) => {
                let (frontier, hlc): (Vec<u8>, Hlc) = decode(&bytes).map_err(|error| invalid(&error))?;
                (Frontier::decode(&frontier).map_err(|error| invalid(&error))?, hlc)
            }
            None => (Frontier::new(), Hlc::ZERO),
        };
        Ok(())
    }

    /// Stores the end of the log with the batch.
    pub fn save(&self, view: &mut View) {
        view.put(keys::META, keys::META_FRONTIER, encode(&(self.frontier.encode(), self.hlc)));
    }

    /// Begins an entry: salts are derived from what its proposer drew.
    pub fn begin(&mut self, nonce: [u8; 16]) {
        self.nonce = nonce;
    }

    /// The next moment of a group that keeps no other clock.
    pub fn advance(&mut self, stamp: Hlc) -> Hlc {
        self.hlc = self.hlc.advance(stamp);
        self.hlc
    }

    /// Leaves and root.
    pub fn head(&self) -> (u64, [u8; 32]) {
        (self.frontier.size(), *self.frontier.root().as_bytes())
    }

    /// Appends what happened at `hlc`.
    pub fn record(&mut self, view: &mut View, note: &Note, hlc: Hlc) {
        let index = self.frontier.size();
        let detail = note.values.as_ref().map(|(old, new)| self.detail(index, old.as_deref(), new.as_deref()));
        let outcome = match &note.refused {
            None => Outcome::Success,
            Some(_) if note.action == "denied" => Outcome::Denied,
            Some(_) => Outcome::Failure,
        };
        let node = self.cluster.node(note.node).map(|(_, node)| node.name.as_str()).unwrap_or_default();
        let action = Action::parse(&note.action);
        let event = AuditEvent {
            reason: note.refused.clone(),
            tenant: note.tenant.clone(),
            user: note.user.clone(),
            session: note.session.map(|session| session.to_string()),
            address: note.address.clone(),
            resource: note.resource.clone(),
            fields: note.fields.clone(),
            request_id: note.request_id.clone(),
            detail_digest: detail.as_ref().map(Detail::digest),
            count: detail.as_ref().filter(|_| action == Action::RecordQuery).and_then(seen),
            ..AuditEvent::new(hlc.wall_ms(), self.region.as_str(), node, self.group.get(), action.clone(), outcome)
        };
        let leaf = event.encode();
        self.frontier.append(leaf_hash(&leaf), |node, hash| {
            view.put(keys::AUDIT_NODE, node.to_key(), *hash.as_bytes());
        });
        if let Some(detail) = detail {
            view.put(keys::AUDIT_DETAIL, keys::number(index), detail.encode());
        }
        view.put(keys::AUDIT_LEAF, keys::number(index), leaf);
    }

    /// Old and new value beside the leaf. The salt keeps short values from being guessed from their
    /// digest once they are erased.
    fn detail(&self, index: u64, old: Option<&str>, new: Option<&str>) -> Detail {
        let json = |text: Option<&str>| text.and_then(|text| serde_json::from_str(text).ok());
        let place = [self.nonce.as_slice(), &index.to_be_bytes()].concat();
        let salt = blake3::derive_key("holdfast audit detail salt 1", &place);
        let salt = Salt::from_bytes(*salt.first_chunk().expect("a key has 32 bytes"));
        Detail { old: json(old), new: json(new), salt }
    }
}

/// How many records a reader saw.
fn seen(detail: &Detail) -> Option<u64> {
    detail.new.as_ref()?.as_array().map(|records| records.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use detection::normalise::normalise;
    use detection::{Position, RawEvent, SourceKind};

    #[test]
    fn detection_reads_every_leaf_that_can_be_written() {
        let outcomes = [(Outcome::Success, 1), (Outcome::Failure, 2), (Outcome::Denied, 2)];
        let others = [Action::parse("of.another.version")];
        for action in Action::ALL.iter().chain(&others) {
            for (outcome, status) in outcomes {
                let event = AuditEvent::new(7, "eu", "eu-1", 1, action.clone(), outcome);
                for event in [event.clone(), AuditEvent { user: Some("ann".into()), reason: Some("x".into()), ..event }]
                {
                    let raw = RawEvent {
                        source: SourceKind::Audit,
                        received_ms: 8,
                        position: Some(Position { stream: "audit/eu-1".into(), sequence: 1 }),
                        bytes: event.encode().into(),
                    };
                    let read = normalise(&raw).unwrap_or_else(|reject| panic!("{event:?}: {}", reject.reason));
                    assert_eq!(read.text("api.operation"), Some(action.as_str()));
                    assert_eq!(read.fields["status_id"], status, "{event:?}");
                }
            }
        }
    }
}
