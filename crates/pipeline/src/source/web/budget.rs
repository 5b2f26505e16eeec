//! Memory for requests: so much for all peers of a source together, and a third of it for each.
//!
//! Nobody waits for it: a request for which there is none is told to come again, and those that are under way go on.

use super::super::net::Peer;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one peer may take is this part of what all may.
const PEER_PART: usize = 3;
/// What a request takes beside its bytes.
const REQUEST_BYTES: usize = 8 * 1024;

/// The memory of one source.
pub(in super::super) struct Budget {
    bytes_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    peers: BTreeMap<Peer, usize>,
}

/// There is no room now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct NoRoom;

impl Budget {
    pub(in super::super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, taken: Mutex::default() })
    }

    /// What one peer may take at most; a request that needs more is never taken.
    pub(in super::super) const fn peer_bytes_max(&self) -> usize {
        self.bytes_max / PEER_PART
    }

    /// The share of a request that begins.
    pub(in super::super) fn share(self: &Arc<Self>, peer: Peer) -> Result<Share, NoRoom> {
        let mut share = Share { budget: Arc::clone(self), peer, bytes: 0 };
        share.grow(REQUEST_BYTES)?;
        Ok(share)
    }
}

/// What one request has taken; given back when it goes.
pub(in super::super) struct Share {
    budget: Arc<Budget>,
    peer: Peer,
    bytes: usize,
}

impl Share {
    /// Takes more.
    pub(in super::super) fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let mut taken = self.budget.taken.lock();
        let of_peer = taken.peers.get(&self.peer).copied().unwrap_or(0);
        if taken.all + bytes > self.budget.bytes_max || of_peer + bytes > self.budget.peer_bytes_max() {
            return Err(NoRoom);
        }
        taken.all += bytes;
        *taken.peers.entry(self.peer).or_default() += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back all but so much.
    pub(in super::super) fn shrink_to(&mut self, bytes: usize) {
        let back = self.bytes.saturating_sub(bytes.saturating_add(REQUEST_BYTES));
        self.give_back(back);
    }

    /// What one peer may take at most.
    pub(in super::super) fn most(&self) -> usize {
        self.budget.peer_bytes_max()
    }

    fn give_back(&mut self, bytes: usize) {
        let mut taken = self.budget.taken.lock();
        taken.all -= bytes;
        self.bytes -= bytes;
        if let Some(of_peer) = taken.peers.get_mut(&self.peer) {
            *of_peer -= bytes;
            if *of_peer == 0 {
                taken.peers.remove(&self.peer);
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_leaves_room_for_others_and_what_ends_is_given_back() {
        let budget = Budget::new(300 * 1024);
        let peer = |last: u8| Peer::of([192, 0, 2, last].into());
        let mut greedy = budget.share(peer(1)).unwrap();
        assert_eq!(greedy.grow(100 * 1024), Err(NoRoom), "more than a third");
        greedy.grow(90 * 1024).unwrap();
        assert!(budget.share(peer(1)).is_err(), "what a second request of its needs is more than a third");
        let mut other = budget.share(peer(2)).unwrap();
        other.grow(80 * 1024).unwrap();
        greedy.shrink_to(0);
        let second = budget.share(peer(1)).unwrap();
        drop((greedy, second, other));
        let taken = budget.taken.lock();
        assert_eq!((taken.all, taken.peers.len()), (0, 0));
    }

    #[test]
    fn all_peers_together_have_a_bound() {
        let budget = Budget::new(300 * 1024);
        let shares: Vec<Share> =
            (0..).map_while(|last| budget.share(Peer::of([192, 0, 2, last].into())).ok()).collect();
        assert_eq!(shares.len(), 37);
    }
}
