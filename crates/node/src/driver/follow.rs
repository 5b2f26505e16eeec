//! What this region wrote of the platform's own records, in order: the change log is the outbox.
//!
//! A change is in it because the record was stored, in the same batch; who follows keeps its place as a row of its
//! duty, so that nothing is told that was not stored, and nothing stored is not told.

use crate::driver::duty::Post;
use crate::node::Node;
use model::codec::decode;
use model::{FieldId, PartitionId, TableId, TenantId, Value};
use replication::op::{FieldWrite, OpKind};
use std::io;

/// Pause after the disk failed.
const AGAIN_AFTER: std::time::Duration = std::time::Duration::from_secs(1);
/// Changes read at once.
const CHANGES_AT_ONCE: usize = 256;

/// One record that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrote {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Which table.
    pub table: TableId,
    /// Which record.
    pub key: String,
    /// The fields that were set.
    pub fields: Vec<(FieldId, Value)>,
}

impl Wrote {
    /// The text a field was set to.
    pub fn text(&self, field: FieldId) -> Option<&str> {
        self.fields.iter().find_map(|(id, value)| match value {
            Value::Text(text) if *id == field => Some(text.as_str()),
            _ => None,
        })
    }
    /// The number a field was set to.
    pub fn number(&self, field: FieldId) -> Option<u64> {
        self.fields.iter().find_map(|(id, value)| match value {
            Value::Int(number) if *id == field => u64::try_from(*number).ok(),
            _ => None,
        })
    }
}

/// The place that a duty keeps in a row; none where it has none. A disk that fails is asked again: to begin anew would
/// be to do everything twice.
pub async fn place(post: &Post, row: &[u8]) -> Option<u64> {
    loop {
        match post.row(row) {
            Ok(None) => return None,
            Ok(Some(bytes)) => {
                let place = decode(&bytes);
                if let Err(error) = &place {
                    tracing::error!(%error, duty = post.duty(), "the place in the change log is no place");
                }
                return place.ok();
            }
            Err(error) => {
                tracing::error!(%error, duty = post.duty(), "the place in the change log cannot be read");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }
}

/// What was written after the given place, and the place to go on from: the same where there is nothing yet.
pub fn after(node: &Node, place: u64) -> io::Result<(Vec<Wrote>, u64)> {
    let partition: PartitionId = node.cluster.partition(TenantId::PLATFORM);
    let changes = node.home().machine.changes_after(partition, node.region.origin(), place, CHANGES_AT_ONCE)?;
    let end = changes.last().map_or(place, |change| change.header.sequence);
    let ours = changes.iter().filter(|change| change.header.tenant == TenantId::PLATFORM);
    let wrote = ours.flat_map(|change| {
        let at_ms = change.header.hlc.wall_ms();
        let ops = change.body().into_iter().flat_map(|body| &body.ops);
        ops.filter_map(move |op| {
            let OpKind::Upsert { fields } = &op.kind else { return None };
            let set = fields.iter().filter_map(|(id, write)| match write {
                FieldWrite::Set { value, .. } => Some((*id, value.clone())),
                FieldWrite::Increment { .. } => None,
            });
            Some(Wrote { at_ms, table: op.table, key: op.key.clone(), fields: set.collect() })
        })
    });
    Ok((wrote.collect(), end))
}

/// Waits until more may have been written.
pub async fn more(node: &Node, until: std::time::Duration) {
    let mut changes = node.home().machine.changes();
    changes.mark_unchanged();
    let _ = tokio::time::timeout(until, changes.changed()).await;
}
