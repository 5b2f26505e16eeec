//! News of a commit rides with the next entries, where these come soon.
//!
//! After every commit openraft tells each follower with an append that holds nothing else. Under load the next entries
//! are a moment away and carry the same news: half of all appends are spared.

use crate::types::{LogId, Types};
use futures::{Stream, StreamExt, stream};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long news of a commit waits for entries to ride with: followers apply so much later at most.
const COMMIT_LINGER: Duration = Duration::from_millis(2);

/// An append, and how many that said less ride with it.
pub(crate) struct Load {
    pub request: AppendEntriesRequest<Types>,
    pub riders: usize,
}

/// Joins appends without entries to those behind them.
pub(crate) fn load<S>(input: S) -> impl Stream<Item = Load> + use<S>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Unpin,
{
    // Fused: an end that was seen while waiting for entries must not be asked for again.
    stream::unfold((input.fuse(), None), |(mut input, kept)| async move {
        let mut request: AppendEntriesRequest<Types> = match kept {
            Some(kept) => kept,
            None => input.next().await?,
        };
        let (mut riders, mut kept) = (0, None);
        let deadline = Instant::now() + COMMIT_LINGER;
        while request.entries.is_empty() {
            match timeout_at(deadline, input.next()).await {
                Ok(Some(next)) if carries(&next, &request) => {
                    riders += 1;
                    request = next;
                }
                Ok(next) => {
                    kept = next;
                    break;
                }
                Err(_) => break,
            }
        }
        Some((Load { request, riders }, (input, kept)))
    })
}

/// Whether an append says all that an empty one before it said.
fn carries(next: &AppendEntriesRequest<Types>, empty: &AppendEntriesRequest<Types>) -> bool {
    next.vote == empty.vote && next.prev_log_id == empty.prev_log_id && next.leader_commit >= empty.leader_commit
}

/// What openraft hears: an append that was taken says of each rider that the follower has all before it.
pub(crate) fn answers<E>(
    riders: usize,
    previous: Option<LogId>,
    outcome: Result<StreamAppendResult<Types>, E>,
) -> Vec<Result<StreamAppendResult<Types>, E>> {
    let mut answers = Vec::with_capacity(riders + 1);
    if matches!(outcome, Ok(Ok(_))) {
        answers.extend((0..riders).map(|_| Ok(Ok(previous))));
    }
    answers.push(outcome);
    answers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Command, Entry, Vote};
    use futures::channel::mpsc;
    use openraft::EntryPayload;

    fn id(index: u64) -> LogId {
        LogId::new_term_index(1, index)
    }

    fn request(previous: u64, entries: u64, commit: u64) -> AppendEntriesRequest<Types> {
        let entry = |index| Entry { log_id: id(index), payload: EntryPayload::Normal(Command(vec![1].into())) };
        AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(id(previous)),
            entries: (previous + 1..=previous + entries).map(entry).collect(),
            leader_commit: Some(id(commit)),
        }
    }

    async fn loads(requests: Vec<AppendEntriesRequest<Types>>) -> Vec<(usize, usize, Option<LogId>)> {
        let loads = load(stream::iter(requests));
        loads.map(|load| (load.riders, load.request.entries.len(), load.request.leader_commit)).collect().await
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_rides_with_the_entries_behind_it() {
        let found = loads(vec![request(5, 2, 4), request(7, 0, 7), request(7, 3, 7), request(10, 0, 10)]).await;
        assert_eq!(found, [(0, 2, Some(id(4))), (1, 3, Some(id(7))), (0, 0, Some(id(10)))]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_append_for_another_place_carries_nobody() {
        assert_eq!(loads(vec![request(7, 0, 7), request(3, 2, 7)]).await, [(0, 0, Some(id(7))), (0, 2, Some(id(7)))]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_does_not_wait_for_ever() {
        let (sender, receiver) = mpsc::unbounded();
        sender.unbounded_send(request(7, 0, 7)).expect("the receiver lives");
        let mut loads = Box::pin(load(receiver));
        let before = Instant::now();
        assert_eq!(loads.next().await.map(|load| load.riders), Some(0));
        assert!(before.elapsed() <= COMMIT_LINGER + Duration::from_millis(1));
    }

    #[test]
    fn riders_share_a_success_and_one_failure_ends_the_series() {
        let taken: Result<StreamAppendResult<Types>, &str> = Ok(Ok(Some(id(10))));
        assert_eq!(answers(1, Some(id(7)), taken).len(), 2);
        assert_eq!(answers(1, Some(id(7)), Err("lost")), [Err("lost")]);
    }
}
