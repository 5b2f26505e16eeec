//! Searches and hunts that somebody waits for: how far they are, what they found, and how they are cancelled.
//!
//! Bounds: [`RUNNING_MAX`] at once, [`KEPT_MAX`] remembered, each for [`KEPT_MS`] after it ended. Who may see a job is
//! decided by whoever asks with its owner's name.

use crate::ArchiveError;
use crate::hunt::Found;
use crate::search::{Answer, Progress};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Jobs that run at once: each has a thread, and the memory of one search.
pub const RUNNING_MAX: usize = 2;
/// Jobs that are remembered, running ones among them.
pub const KEPT_MAX: usize = 32;
/// How long an ended job is remembered.
pub const KEPT_MS: u64 = 3_600_000;

/// What a job gave.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A search's answer.
    Rows(Arc<Answer>),
    /// A hunt's alerts.
    Alerts(Arc<Found>),
    /// Why there is nothing.
    Failed(Arc<ArchiveError>),
}

/// Whose a job is, and what it does, for lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Who began it: a name that nobody else has.
    pub owner: String,
    /// `search` or `hunt`.
    pub kind: &'static str,
    /// Whose events, in words.
    pub tenant: String,
    /// The question, in words.
    pub question: String,
    /// When it began.
    pub began_ms: u64,
}

/// A job.
#[derive(Debug)]
pub struct Job {
    /// What it is.
    pub about: About,
    /// How far it is.
    pub progress: Arc<Progress>,
    done: watch::Sender<Option<(u64, Outcome)>>,
}

impl Job {
    /// What it gave, if it has ended.
    pub fn outcome(&self) -> Option<Outcome> {
        self.done.borrow().as_ref().map(|(_, outcome)| outcome.clone())
    }
    /// Waits until it has ended.
    pub async fn ended(&self) -> Option<Outcome> {
        let mut done = self.done.subscribe();
        let ended = done.wait_for(Option::is_some).await.ok()?;
        ended.as_ref().map(|(_, outcome)| outcome.clone())
    }
}

/// Why a job was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{RUNNING_MAX} searches are running: wait for one, or cancel it")]
pub struct Busy;

/// The jobs of a node.
#[derive(Debug, Default)]
pub struct Jobs {
    jobs: Mutex<BTreeMap<u128, Arc<Job>>>,
}

impl Jobs {
    /// Begins a job: `work` gets a thread where it may block.
    pub fn begin(
        &self,
        id: u128,
        about: About,
        now: impl Fn() -> u64 + Send + 'static,
        work: impl FnOnce(&Arc<Progress>) -> Outcome + Send + 'static,
    ) -> Result<Arc<Job>, Busy> {
        let job = Arc::new(Job { about, progress: Arc::default(), done: watch::channel(None).0 });
        {
            let mut jobs = self.jobs.lock();
            let now_ms = now();
            jobs.retain(|_, job| job.done.borrow().as_ref().is_none_or(|(at_ms, _)| now_ms < at_ms + KEPT_MS));
            if jobs.values().filter(|job| job.outcome().is_none()).count() >= RUNNING_MAX {
                return Err(Busy);
            }
            while jobs.len() >= KEPT_MAX {
                let ended = jobs.iter().filter_map(|(id, job)| Some((job.done.borrow().as_ref()?.0, *id)));
                let Some((_, oldest)) = ended.min() else { return Err(Busy) };
                jobs.remove(&oldest);
            }
            jobs.insert(id, Arc::clone(&job));
        }
        let running = Arc::clone(&job);
        tokio::task::spawn_blocking(move || {
            let guard = Guard { job: &running, now: &now };
            let outcome = work(&running.progress);
            guard.end(outcome);
        });
        Ok(job)
    }

    /// A job.
    pub fn get(&self, id: u128) -> Option<Arc<Job>> {
        self.jobs.lock().get(&id).cloned()
    }

    /// The jobs of an owner; of all where none is named.
    pub fn list(&self, owner: Option<&str>) -> Vec<(u128, Arc<Job>)> {
        let jobs = self.jobs.lock();
        let own = jobs.iter().filter(|(_, job)| owner.is_none_or(|owner| job.about.owner == owner));
        own.map(|(id, job)| (*id, Arc::clone(job))).collect()
    }

    /// Cancels a job that runs; forgets one that has ended.
    pub fn remove(&self, id: u128) {
        let mut jobs = self.jobs.lock();
        let Some(job) = jobs.get(&id) else { return };
        job.progress.cancel();
        if job.outcome().is_some() {
            jobs.remove(&id);
        }
    }
}

/// Ends a job even where its work panicked: a slot that nobody leaves would be lost.
struct Guard<'a> {
    job: &'a Job,
    now: &'a dyn Fn() -> u64,
}

impl Guard<'_> {
    fn end(self, outcome: Outcome) {
        self.job.done.send_replace(Some(((self.now)(), outcome)));
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.job.outcome().is_none() {
            let why = ArchiveError::Question("it ended in a defect, which is in the node's log".into());
            self.job.done.send_replace(Some(((self.now)(), Outcome::Failed(Arc::new(why)))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    fn about(owner: &str) -> About {
        About { owner: owner.into(), kind: "search", tenant: "acme".into(), question: "x".into(), began_ms: 0 }
    }

    #[tokio::test]
    async fn a_job_is_cancelled_and_then_forgotten_and_others_wait_their_turn() {
        let jobs = Jobs::default();
        let until_cancelled = |progress: &Arc<Progress>| {
            while !progress.is_cancelled() {
                std::hint::spin_loop();
            }
            Outcome::Failed(Arc::new(ArchiveError::Cancelled))
        };
        let one = jobs.begin(1, about("ann"), || 0, until_cancelled).unwrap();
        jobs.begin(2, about("bob"), || 0, until_cancelled).unwrap();
        assert_eq!(jobs.begin(3, about("ann"), || 0, until_cancelled).err(), Some(Busy));
        assert_eq!(jobs.list(Some("ann")).len(), 1);
        jobs.remove(1);
        assert!(matches!(one.ended().await, Some(Outcome::Failed(why)) if matches!(*why, ArchiveError::Cancelled)));
        assert!(jobs.get(1).is_some());
        jobs.remove(1);
        assert!(jobs.get(1).is_none());
        jobs.remove(2);
    }

    #[tokio::test]
    async fn work_that_panics_leaves_its_slot_and_old_jobs_are_forgotten() {
        let jobs = Jobs::default();
        let job = jobs.begin(1, about("ann"), || 0, |_| panic!("a defect")).unwrap();
        assert!(matches!(job.ended().await, Some(Outcome::Failed(_))));
        for id in 2..100 {
            let job = jobs.begin(
                id,
                about("ann"),
                || 0,
                |progress| {
                    progress.rows_read.fetch_add(1, Ordering::Relaxed);
                    Outcome::Rows(Arc::default())
                },
            );
            job.unwrap().ended().await;
        }
        assert_eq!(jobs.list(None).len(), KEPT_MAX);
        let job = jobs.begin(100, about("ann"), || KEPT_MS, |_| Outcome::Rows(Arc::default())).unwrap();
        job.ended().await;
        assert_eq!(jobs.list(None).len(), 1);
    }
}
