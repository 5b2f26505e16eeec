//! Duties: work that one node of the region does at a time.
//!
//! A lease is given by a command and ends with the next one; its epoch is the fencing token. Whatever a node did in
//! its duty is one report, judged at its place in the log: under an older epoch nothing of it takes effect. So
//! two nodes that both believe in their lease do no harm, and nothing here needs a clock.

use crate::machine::command::{ActChange, Ingest, Lease, Must, Outcome, Report, Row, Transact};
use crate::machine::data::{Step, stored};
use crate::machine::keys;
use crate::machine::look::DUTIES_MAX;
use model::NodeId;
use model::codec::encode;
use std::io;
use std::ops::Bound;

/// Most bytes of a duty's name.
const NAME_BYTES_MAX: usize = 128;

impl Step<'_> {
    /// Gives a duty to a node: from here on reports under earlier leases are void.
    pub(super) fn assign(&mut self, duty: &str, to: NodeId) -> io::Result<Outcome> {
        if duty.is_empty() || duty.len() > NAME_BYTES_MAX || duty.contains('\0') {
            return Ok(Outcome::Malformed);
        }
        let before = self.lease(duty)?;
        if before.is_none() && self.count_leases()? >= DUTIES_MAX {
            return Ok(Outcome::Malformed);
        }
        let epoch = before.map_or(0, |lease| lease.epoch) + 1;
        self.give(duty, Lease { holder: to, epoch, life: None, number: 0 })
    }

    /// Ties a lease to one life of its holder: what an earlier life reports is void from here on.
    pub(super) fn claim(&mut self, duty: &str, epoch: u64, life: u64) -> io::Result<Outcome> {
        match self.lease(duty)? {
            Some(lease) if lease.epoch == epoch => {
                self.give(duty, Lease { epoch: epoch + 1, life: Some(life), number: 0, ..lease })
            }
            _ => Ok(Outcome::Fenced),
        }
    }

    fn give(&mut self, duty: &str, lease: Lease) -> io::Result<Outcome> {
        for (key, _) in self.parts(duty)? {
            self.view.delete(keys::DUTY, key);
        }
        self.view.put(keys::DUTY, keys::lease(duty), encode(&lease));
        *self.assigned = true;
        Ok(Outcome::Noted)
    }

    /// Carries out what was done under a lease that still stands.
    pub(super) fn report(&mut self, report: Report) -> io::Result<Outcome> {
        let lease = match self.lease(&report.duty)? {
            Some(lease) if lease.epoch == report.epoch && lease.life.is_some() => lease,
            _ => return Ok(Outcome::Fenced),
        };
        if report.number <= lease.number {
            return Ok(Outcome::Noted);
        }
        if report.is_whole {
            for (key, part) in self.parts(&report.duty)? {
                self.put_rows(&report.duty, stored(&part)?);
                self.view.delete(keys::DUTY, key);
            }
            self.put_rows(&report.duty, report.rows);
        } else if !report.rows.is_empty() {
            self.view.put(keys::DUTY, keys::duty_part(&report.duty, report.number), encode(&report.rows));
        }
        for transact in report.writes {
            self.write_once(transact)?;
        }
        self.view.put(keys::DUTY, keys::lease(&report.duty), encode(&Lease { number: report.number, ..lease }));
        Ok(Outcome::Noted)
    }

    /// A transaction without the acts that are done already.
    fn write_once(&mut self, mut transact: Transact) -> io::Result<()> {
        let mut acts = Vec::with_capacity(transact.acts.len());
        for act in transact.acts {
            let is_there = self.load(transact.tenant, act.table, &act.key)?.is_some_and(|record| record.exists());
            let is_done = match &act.change {
                ActChange::Delete => !is_there,
                _ => act.must == Must::BeAbsent && is_there,
            };
            if !is_done {
                acts.push(act);
            }
        }
        transact.acts = acts;
        if transact.acts.is_empty() {
            return Ok(());
        }
        let action = transact.note.action.clone();
        if let Outcome::Refused(why) = self.transact(transact)? {
            // Whoever reports checks before; what is refused all the same must not go unseen.
            self.machine.observer.refused(self.machine.group, &action, why);
        }
        Ok(())
    }

    fn put_rows(&mut self, duty: &str, rows: Vec<Row>) {
        for (key, value) in rows {
            let key = keys::duty_row(duty, &key);
            match value {
                Some(value) => self.view.put(keys::DUTY, key, value),
                None => self.view.delete(keys::DUTY, key),
            }
        }
    }

    fn lease(&self, duty: &str) -> io::Result<Option<Lease>> {
        self.view.get(keys::DUTY, &keys::lease(duty))?.as_deref().map(stored).transpose()
    }

    fn count_leases(&self) -> io::Result<usize> {
        Ok(self.view.scan(keys::DUTY, Bound::Included(b"l"), Bound::Excluded(b"m"), DUTIES_MAX)?.len())
    }

    fn parts(&self, duty: &str) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let (from, to) = (keys::duty_part(duty, 0), keys::duty_part(duty, u64::MAX));
        self.view.scan(keys::DUTY, Bound::Included(&from), Bound::Included(&to), usize::MAX)
    }

    /// Keeps events of others; those that their source has delivered before are left out.
    pub(super) fn ingest(&mut self, ingest: Ingest) -> io::Result<Outcome> {
        let (stream, sequences) = ingest.door.unzip();
        let mut next = match &stream {
            Some(stream) => self.view.get(keys::DUTY, &keys::door(stream))?.as_deref().map(stored).transpose()?,
            None => None,
        };
        let mut sequences = sequences.unwrap_or_default().into_iter();
        for event in ingest.events {
            if let Some(sequence) = sequences.next() {
                if next.is_some_and(|next: u64| sequence < next) {
                    continue;
                }
                next = Some(sequence.saturating_add(1));
            }
            self.keep_event(event);
        }
        if let (Some(stream), Some(next)) = (stream, next) {
            self.view.put(keys::DUTY, keys::door(&stream), encode(&next));
        }
        self.record(&ingest.note);
        Ok(Outcome::Noted)
    }
}
