//! A node at its duty: what it reads of the duty's state, and how what it did is stored, all of it or nothing.

use super::{Lost, RETRY_AFTER};
use crate::driver::proposer::ProposeFailed;
use crate::driver::record::raised;
use crate::machine::command::{Act, ActChange, Command, Lease, Outcome, Refused, Report, Row, Transact};
use crate::node::Node;
use detection::engine::coverage_degraded;
use std::sync::Arc;

/// Bytes of one part of a report: several fit into an entry of the log.
const PART_BYTES_MAX: usize = 512 * 1024;
/// Bytes of one row, and of one transaction: each must fit into a command. One that does not is left out, and told.
const PIECE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// That something of a report was not stored is told once in that time.
const TOLD_EVERY_MS: u64 = 3_600_000;

/// A node at its duty.
pub struct Post {
    /// The node.
    pub node: Arc<Node>,
    duty: String,
    lease: Lease,
    told_ms: u64,
}

/// A part of a report.
type Part = (Vec<Row>, Vec<Transact>);

impl Post {
    pub(super) fn new(node: Arc<Node>, duty: String, lease: Lease) -> Self {
        Self { node, duty, lease, told_ms: 0 }
    }

    /// The duty's name.
    pub fn duty(&self) -> &str {
        &self.duty
    }

    /// Rows of the duty's state whose keys begin with `prefix`.
    pub fn rows(&self, prefix: &[u8]) -> std::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.node.home().machine.duty_rows(&self.duty, prefix)
    }

    /// The same, read until it can be: a disk that fails is not one that is empty.
    pub async fn stored(&self, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        loop {
            match self.rows(prefix) {
                Ok(rows) => return rows,
                Err(error) => {
                    tracing::error!(%error, duty = self.duty, "the state of a duty cannot be read; it is tried again");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    /// One row.
    pub fn row(&self, key: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
        Ok(self.rows(key)?.into_iter().find(|(found, _)| found == key).map(|(_, value)| value))
    }

    /// Stores what was done, all of it or nothing, and tries until that is certain. What can never be stored is
    /// left out, and told.
    pub async fn report(&mut self, rows: Vec<Row>, writes: Vec<Transact>) -> Result<(), Lost> {
        let (mut parts, left_out) = in_parts(rows, writes);
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            self.send(false, part).await?;
        }
        let refused = self.send(true, last).await?;
        self.tell(left_out, refused).await;
        Ok(())
    }

    async fn send(&mut self, is_whole: bool, (rows, writes): Part) -> Result<Refused, Lost> {
        let Lease { epoch, number, .. } = self.lease;
        let report = Report { duty: self.duty.clone(), epoch, number: number + 1, is_whole, rows, writes };
        let command = Command::Report(report);
        loop {
            let refused = match self.node.propose_and_see(self.node.cluster.home(), &command).await {
                Ok(Outcome::Noted) => Refused::default(),
                Ok(Outcome::Partly(refused)) => refused,
                Ok(Outcome::Fenced) => return Err(Lost),
                // A report is made by this very version of the program, and its parts are bounded: an answer that is
                // none is a defect. The duty is taken up again from what was stored.
                outcome @ (Ok(_) | Err(ProposeFailed::TooLarge)) => {
                    tracing::error!(duty = self.duty, ?outcome, "a report was not understood");
                    return Err(Lost);
                }
                // Whether it was done or not: the same number again is done once.
                Err(_) => {
                    tokio::time::sleep(RETRY_AFTER).await;
                    continue;
                }
            };
            self.lease.number += 1;
            return Ok(refused);
        }
    }

    /// Tells what of a report is not there.
    async fn tell(&mut self, left_out: Vec<String>, refused: Refused) {
        let metric = |what: &str, count: u64| {
            self.node.metrics.duties.with_label_values(&[self.duty.as_str(), what]).inc_by(count);
        };
        metric("left_out", left_out.len() as u64);
        metric("refused", u64::from(refused.count));
        for what in &left_out {
            tracing::error!(duty = self.duty, what, "a part of a report is too large to be stored");
        }
        for (resource, refusal) in &refused.first {
            tracing::error!(duty = self.duty, resource, reason = refusal.reason(), "a write of a report was refused");
        }
        let lost = refused.first.first().map(|(resource, refusal)| format!("{resource}: {}", refusal.reason()));
        if let Some(what) = left_out.into_iter().next().or(lost) {
            self.degraded(format!("{} could not store what it found: {what}", self.duty)).await;
        }
    }

    /// Raises the alert that this duty may have missed something; not more often than once an hour.
    pub(crate) async fn degraded(&mut self, text: String) {
        let now_ms = self.node.world.clock.wall_ms();
        if self.told_ms > 0 && now_ms < self.told_ms.saturating_add(TOLD_EVERY_MS) {
            return;
        }
        self.told_ms = now_ms;
        degraded(&self.node, &self.duty, text).await;
    }
}

/// Raises the alert that a part of detection may have missed something, and tries until it is stored.
pub(super) async fn degraded(node: &Node, of: &str, text: String) {
    let alert = coverage_degraded("platform".into(), node.world.clock.wall_ms(), of, text);
    let Some(raised) = raised(node, &alert) else { return };
    certainly(node, &Command::Transact(raised)).await;
}

/// Proposes what must be in the platform's log, and tries until it is there, or the node stops.
pub(crate) async fn certainly(node: &Node, command: &Command) {
    while let Err(error) = node.propose(node.cluster.home(), command).await {
        if matches!(error, ProposeFailed::Stopped | ProposeFailed::TooLarge) {
            return tracing::error!(%error, "what must be on record is not");
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// A report as parts that fit, at least one, and what fits into none.
fn in_parts(rows: Vec<Row>, writes: Vec<Transact>) -> (Vec<Part>, Vec<String>) {
    let (mut parts, mut part, mut size_bytes) = (Vec::new(), Part::default(), 0);
    let mut left_out = Vec::new();
    let mut room_for = |size: usize, part: &mut Part| {
        if size_bytes + size > PART_BYTES_MAX && size_bytes > 0 {
            parts.push(std::mem::take(part));
            size_bytes = 0;
        }
        size_bytes += size;
    };
    for transact in writes {
        let size = transact.acts.iter().map(size_of_act).sum();
        if size > PIECE_BYTES_MAX {
            let what = transact.acts.first().map_or("a transaction", |act| act.resource.as_str());
            left_out.push(format!("{what} has {size} bytes"));
            continue;
        }
        room_for(size, &mut part);
        part.1.push(transact);
    }
    for row in rows {
        let size = row.0.len() + row.1.as_ref().map_or(0, Vec::len);
        if size > PIECE_BYTES_MAX {
            left_out.push(format!("a row of its state has {size} bytes"));
            continue;
        }
        room_for(size, &mut part);
        part.0.push(row);
    }
    parts.push(part);
    (parts, left_out)
}

fn size_of_act(act: &Act) -> usize {
    let values = match &act.change {
        ActChange::Put(set) | ActChange::Patch { set, .. } | ActChange::Upsert { set, .. } => set.as_slice(),
        ActChange::Delete | ActChange::Check => &[],
    };
    let size = |value: &model::Value| if let model::Value::Text(text) = value { text.len() } else { 16 };
    128 + act.key.len() + values.iter().map(|(_, _, value)| size(value)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::codec::encode;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_part_fits_into_a_command_and_nothing_else_is_left_out(sizes in proptest::collection::vec(0..6_000_000_usize, 0..12)) {
            let rows: Vec<Row> = (0..).zip(&sizes).map(|(key, size)| (vec![key], Some(vec![7; *size]))).collect();
            let (parts, left_out) = in_parts(rows.clone(), Vec::new());
            let too_large = |row: &&Row| row.1.as_ref().is_some_and(|value| value.len() + 1 > PIECE_BYTES_MAX);
            prop_assert_eq!(left_out.len(), rows.iter().filter(too_large).count());
            prop_assert!(parts.iter().all(|part| encode(part).len() < crate::driver::proposer::COMMAND_BYTES_MAX));
            let stored: Vec<Row> = parts.into_iter().flat_map(|(rows, _)| rows).collect();
            prop_assert_eq!(stored, rows.into_iter().filter(|row| !too_large(&row)).collect::<Vec<_>>());
        }
    }
}
