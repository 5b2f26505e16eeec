//! Acknowledgement of a batch through the whole graph: done once every branch of it is durable, and only then.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;

/// A batch that is on its way. When its last ticket goes, its source is told: durable, or not.
#[derive(Clone)]
pub(super) struct Ticket(Arc<Batch>);

struct Batch {
    done: Mutex<Option<oneshot::Sender<()>>>,
    lost: AtomicBool,
}

impl Ticket {
    /// For a batch whose source waits for `done`.
    pub(super) fn new(done: Option<oneshot::Sender<()>>) -> Self {
        Self(Arc::new(Batch { done: Mutex::new(done), lost: AtomicBool::new(false) }))
    }

    /// This branch of it is not durable, and never will be: the source has to bring it again.
    pub(super) fn lost(&self) {
        self.0.lost.store(true, Ordering::Release);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if !*self.lost.get_mut()
            && let Some(done) = self.done.get_mut().take()
        {
            // A source that has ended does not need to know.
            let _ = done.send(());
        }
    }
}

/// A branch of a batch: lost unless it says that it is durable before it goes.
pub(super) struct Branch(Option<Ticket>);

impl Branch {
    pub(super) fn of(ticket: &Ticket) -> Self {
        Self(Some(ticket.clone()))
    }

    /// All of it is durable.
    pub(super) fn durable(mut self) {
        self.0 = None;
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        if let Some(ticket) = &self.0 {
            ticket.lost();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_done_when_every_branch_is_durable() {
        let (done, mut told) = oneshot::channel();
        let ticket = Ticket::new(Some(done));
        let (one, other) = (Branch::of(&ticket), Branch::of(&ticket));
        drop(ticket);
        one.durable();
        assert_eq!(told.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        other.durable();
        assert_eq!(told.try_recv(), Ok(()));
    }

    #[test]
    fn a_batch_of_which_a_branch_was_lost_is_never_done() {
        let (done, mut told) = oneshot::channel();
        let ticket = Ticket::new(Some(done));
        let (one, other) = (Branch::of(&ticket), Branch::of(&ticket));
        drop(ticket);
        drop(one);
        other.durable();
        assert_eq!(told.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
