//! Searches and hunts that somebody waits for: how far they are, what they found, and how they are cancelled.
//!
//! Bounds: [`Jobs::begin`] gives each tenant one slot, all tenants together [`TENANTS_RUNNING_MAX`], and the platform
//! [`PLATFORM_RUNNING_MAX`] of its own. Results are remembered for [`KEPT_MS`], [`KEPT_EACH_MAX`] of one tenant and
//! [`KEPT_MAX`] of all, up to [`KEPT_BYTES_MAX`]: the oldest are forgotten first. Who may see a job is decided by
//! whoever asks with its owner's name.

use crate::ArchiveError;
use crate::hunt::Found;
use crate::search::{Answer, Progress};
use model::TenantId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Jobs of tenants that run at once, one of each: a job has a thread, and the memory of one search.
pub const TENANTS_RUNNING_MAX: usize = 3;
/// Jobs of the platform's own people that run at once, whatever tenants do.
pub const PLATFORM_RUNNING_MAX: usize = 2;
/// Jobs that are remembered, running ones among them.
pub const KEPT_MAX: usize = 64;
/// Jobs of one tenant that are remembered.
pub const KEPT_EACH_MAX: usize = 16;
/// Bytes of results that are remembered, as JSON.
pub const KEPT_BYTES_MAX: usize = 256 << 20;
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
    /// The owner's tenant, which has the slot.
    pub by: TenantId,
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
    fn ended_ms(&self) -> Option<u64> {
        self.done.borrow().as_ref().map(|(at_ms, _)| *at_ms)
    }
    fn size_bytes(&self) -> usize {
        match self.done.borrow().as_ref() {
            Some((_, Outcome::Rows(answer))) => answer.size_bytes,
            Some((_, Outcome::Alerts(found))) => found.size_bytes,
            Some((_, Outcome::Failed(_))) | None => 0,
        }
    }
    /// Waits until it has ended.
    pub async fn ended(&self) -> Option<Outcome> {
        let mut done = self.done.subscribe();
        let ended = done.wait_for(Option::is_some).await.ok()?;
        ended.as_ref().map(|(_, outcome)| outcome.clone())
    }
}

/// Why a job was not begun: as many run as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("other searches are running: wait for one, or cancel it")]
pub struct Busy;

type Known = BTreeMap<u128, Arc<Job>>;

/// The jobs of a node.
#[derive(Debug, Default)]
pub struct Jobs {
    jobs: Mutex<Known>,
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
            jobs.retain(|_, job| job.ended_ms().is_none_or(|at_ms| now_ms < at_ms + KEPT_MS));
            let by = job.about.by;
            if !has_slot(&jobs, by) {
                return Err(Busy);
            }
            forget(&mut jobs, |jobs| jobs.values().filter(|job| job.about.by == by).count() >= KEPT_EACH_MAX, Some(by));
            let size_bytes = |jobs: &Known| jobs.values().map(|job| job.size_bytes()).sum::<usize>();
            forget(&mut jobs, |jobs| jobs.len() >= KEPT_MAX || size_bytes(jobs) > KEPT_BYTES_MAX, None);
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
        if job.ended_ms().is_some() {
            jobs.remove(&id);
        }
    }
}

/// Whether a tenant may begin another job.
fn has_slot(jobs: &Known, by: TenantId) -> bool {
    let running = || jobs.values().filter(|job| job.ended_ms().is_none()).map(|job| job.about.by);
    let own = running().filter(|other| *other == by).count();
    if by == TenantId::PLATFORM {
        return own < PLATFORM_RUNNING_MAX;
    }
    own == 0 && running().filter(|other| *other != TenantId::PLATFORM).count() < TENANTS_RUNNING_MAX
}

/// Forgets the oldest that have ended, of one tenant or of all, while there are too many.
fn forget(jobs: &mut Known, too_many: impl Fn(&Known) -> bool, of: Option<TenantId>) {
    while too_many(jobs) {
        let whose = jobs.iter().filter(|(_, job)| of.is_none_or(|of| job.about.by == of));
        let Some((_, oldest)) = whose.filter_map(|(id, job)| Some((job.ended_ms()?, *id))).min() else { return };
        jobs.remove(&oldest);
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

    fn about(owner: &str, by: u64) -> About {
        let by = TenantId::new(by);
        About { owner: owner.into(), by, kind: "search", tenant: "acme".into(), question: "x".into(), began_ms: 0 }
    }

    fn until_cancelled(progress: &Arc<Progress>) -> Outcome {
        while !progress.is_cancelled() {
            std::hint::spin_loop();
        }
        Outcome::Failed(Arc::new(ArchiveError::Cancelled))
    }

    #[tokio::test]
    async fn a_job_is_cancelled_and_then_forgotten_and_others_wait_their_turn() {
        let jobs = Jobs::default();
        let one = jobs.begin(1, about("ann", 7), || 0, until_cancelled).unwrap();
        assert_eq!(jobs.begin(2, about("bob", 7), || 0, until_cancelled).err(), Some(Busy));
        assert_eq!((jobs.list(Some("ann")).len(), jobs.list(Some("bob")).len()), (1, 0));
        jobs.remove(1);
        assert!(matches!(one.ended().await, Some(Outcome::Failed(why)) if matches!(*why, ArchiveError::Cancelled)));
        assert!(jobs.get(1).is_some());
        jobs.remove(1);
        assert!(jobs.get(1).is_none());
        jobs.begin(3, about("bob", 7), || 0, until_cancelled).unwrap();
        jobs.remove(3);
    }

    #[tokio::test]
    async fn no_tenant_takes_the_archive_from_another_and_all_leave_room_for_the_platform() {
        let jobs = Jobs::default();
        let platform = TenantId::PLATFORM.get();
        let owners = [7, 7, 8, 9, 10, platform, platform, platform];
        let begun = (1..).zip(owners).map(|(id, by)| jobs.begin(id, about("x", by), || 0, until_cancelled).is_ok());
        assert_eq!(begun.collect::<Vec<_>>(), [true, false, true, true, false, true, true, false]);
        for (id, _) in jobs.list(None) {
            jobs.remove(id);
        }
    }

    #[tokio::test]
    async fn work_that_panics_leaves_its_slot() {
        let jobs = Jobs::default();
        let job = jobs.begin(1, about("ann", 7), || 0, |_| panic!("a defect")).unwrap();
        assert!(matches!(job.ended().await, Some(Outcome::Failed(_))));
        jobs.begin(2, about("ann", 7), || 0, |_| Outcome::Rows(Arc::default())).unwrap().ended().await;
    }

    #[tokio::test]
    async fn results_are_forgotten_by_age_by_tenant_and_by_size() {
        let jobs = Jobs::default();
        let run = async |id: u128, by: u64, now_ms: u64, size_bytes: usize| {
            let answer = Answer { size_bytes, ..Answer::default() };
            let job = jobs.begin(id, about("ann", by), move || now_ms, |_| Outcome::Rows(Arc::new(answer)));
            job.unwrap().ended().await;
        };
        run(0, 1, 0, 1).await;
        for id in 1..100 {
            run(id, 7, id as u64, 1).await;
        }
        // Whoever asks a lot forgets their own first.
        assert_eq!(jobs.list(None).len(), KEPT_EACH_MAX + 1);
        assert!(jobs.get(0).is_some() && jobs.get(99).is_some() && jobs.get(100 - KEPT_EACH_MAX as u128 - 1).is_none());
        run(100, 8, 200, KEPT_BYTES_MAX).await;
        run(101, 9, 201, 1).await;
        assert_eq!(jobs.list(None).len(), 2, "what is large and young stays, what is old goes");
        run(102, 9, KEPT_MS + 201, 1).await;
        assert_eq!(jobs.list(None).len(), 1);
    }
}
