//! Duties: work that one node of the region does at a time.
//!
//! A lease is given by a command and ends with the next one; its epoch is the fencing token. Whatever a node did in
//! its duty is one report, judged at its place in the log: under an older epoch nothing of it takes effect. So
//! two nodes that both believe in their lease do no harm, and nothing here needs a clock. A report that is too large for
//! one command comes in parts, which are set aside until its end: then all of it takes effect, in one entry.

use crate::machine::Defect;
use crate::machine::command::{ActChange, Lease, Must, Outcome, Refused, Report, Row, Transact};
use crate::machine::data::{Step, stored};
use crate::machine::keys;
use crate::machine::look::DUTIES_MAX;
use model::NodeId;
use model::codec::encode;
use std::io;
use std::ops::Bound;

/// Most bytes of a duty's name.
const NAME_BYTES_MAX: usize = 128;
/// Most refused writes of one report that are named; beyond it they are counted.
const REFUSED_MAX: usize = 16;

/// What a part of a report holds. The version before set rows aside and nothing else.
pub(super) fn set_aside(part: &[u8]) -> io::Result<(Vec<Row>, Vec<Transact>)> {
    stored(part).or_else(|_| stored(part).map(|rows| (rows, Vec::new())))
}

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
        self.view.delete(keys::DUTY, keys::duty_answer(duty));
        self.view.put(keys::DUTY, keys::lease(duty), encode(&lease));
        *self.assigned = true;
        Ok(Outcome::Noted)
    }

    /// Carries out what was done under a lease that still stands.
    pub(super) fn report(&mut self, report: Report) -> io::Result<Outcome> {
        let lease = match self.lease(&report.duty)? {
            Some(lease) if lease.epoch == report.epoch && lease.life.is_some() => lease,
            Some(lease) if self.machine.has(Defect::Unfenced) => lease,
            _ => return Ok(Outcome::Fenced),
        };
        if report.number <= lease.number {
            // It was done, and its answer may have been lost.
            let answer = self.view.get(keys::DUTY, &keys::duty_answer(&report.duty))?;
            return answer.filter(|_| report.number == lease.number).map_or(Ok(Outcome::Noted), |row| stored(&row));
        }
        let Report { duty, number, is_whole, rows, writes, .. } = report;
        self.view.put(keys::DUTY, keys::lease(&duty), encode(&Lease { number, ..lease }));
        if !is_whole {
            self.view.put(keys::DUTY, keys::duty_part(&duty, number), encode(&(rows, writes)));
            return Ok(Outcome::Noted);
        }
        let mut refused = Refused::default();
        for (key, part) in self.parts(&duty)? {
            let (rows, writes) = set_aside(&part)?;
            self.take_effect(&duty, rows, writes, &mut refused)?;
            self.view.delete(keys::DUTY, key);
        }
        self.take_effect(&duty, rows, writes, &mut refused)?;
        if refused.count == 0 {
            self.view.delete(keys::DUTY, keys::duty_answer(&duty));
            return Ok(Outcome::Noted);
        }
        let outcome = Outcome::Partly(refused);
        self.view.put(keys::DUTY, keys::duty_answer(&duty), encode(&outcome));
        Ok(outcome)
    }

    fn take_effect(
        &mut self,
        duty: &str,
        rows: Vec<Row>,
        writes: Vec<Transact>,
        refused: &mut Refused,
    ) -> io::Result<()> {
        self.put_rows(duty, rows);
        for transact in writes {
            let resource = transact.acts.first().map_or_else(String::new, |act| act.resource.clone());
            if let Some(Outcome::Refused(refusal)) = self.write_once(transact)? {
                refused.count = refused.count.saturating_add(1);
                if refused.first.len() < REFUSED_MAX {
                    refused.first.push((resource, refusal));
                }
            }
        }
        Ok(())
    }

    /// A transaction without the acts that are done already or have nothing to be done to; nothing where none is left.
    fn write_once(&mut self, mut transact: Transact) -> io::Result<Option<Outcome>> {
        let mut acts = Vec::with_capacity(transact.acts.len());
        for act in transact.acts {
            let is_there = self.load(transact.tenant, act.table, &act.key)?.is_some_and(|record| record.exists());
            let is_done = match (&act.must, &act.change) {
                (Must::BeAbsent, _) => is_there,
                // What adds to a record that was never stored, such as an alert that a quota held back, is no loss.
                (Must::Exist, _) | (_, ActChange::Delete) => !is_there,
                _ => false,
            };
            if !is_done {
                acts.push(act);
            }
        }
        transact.acts = acts;
        if transact.acts.is_empty() {
            return Ok(None);
        }
        let action = transact.note.action.clone();
        let outcome = self.transact(transact)?;
        if let Outcome::Refused(why) = &outcome {
            // Whoever reports checks before; what is refused all the same must not go unseen.
            self.machine.observer.refused(self.machine.group, &action, *why);
        }
        Ok(Some(outcome))
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
}
