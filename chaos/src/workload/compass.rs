//! Which node a client tries next: its own region's in turn, those that answered lately first.

use crate::client::Door;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A node that refused a connection or lost a request is tried last for so long.
const SUSPECT_FOR_US: u64 = 1_000_000;

/// What clients know about nodes. Shared by all clients: the nodes' state is the same for all.
pub(crate) struct Compass {
    doors: Vec<Door>,
    refused_until_us: Vec<AtomicU64>,
    slow_until_us: Vec<AtomicU64>,
    turn: AtomicUsize,
}

impl Compass {
    pub(crate) fn new(doors: Vec<Door>) -> Self {
        let never = || doors.iter().map(|_| AtomicU64::new(0)).collect();
        Self { refused_until_us: never(), slow_until_us: never(), turn: AtomicUsize::new(0), doors }
    }

    pub(crate) fn door(&self, index: usize) -> &Door {
        &self.doors[index]
    }

    /// The node took no connection.
    pub(crate) fn refused(&self, index: usize, now_us: u64) {
        self.refused_until_us[index].store(now_us + SUSPECT_FOR_US, Ordering::Relaxed);
    }

    /// The node lost a request, or said it cannot.
    pub(crate) fn slow(&self, index: usize, now_us: u64) {
        self.slow_until_us[index].store(now_us + SUSPECT_FOR_US, Ordering::Relaxed);
    }

    /// A region's nodes, the most promising first.
    pub(crate) fn round(&self, region: usize, now_us: u64) -> Vec<usize> {
        let mut nodes: Vec<usize> = (0..self.doors.len()).filter(|index| self.doors[*index].region == region).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % nodes.len().max(1);
        nodes.rotate_left(turn);
        nodes.sort_by_key(|index| (self.is_refusing(*index, now_us), self.is_slow(*index, now_us)));
        nodes
    }

    /// Whether no node of a region takes connections.
    pub(crate) fn is_gone(&self, region: usize, now_us: u64) -> bool {
        let mut nodes = (0..self.doors.len()).filter(|index| self.doors[*index].region == region);
        nodes.all(|index| self.is_refusing(index, now_us))
    }

    fn is_refusing(&self, index: usize, now_us: u64) -> bool {
        self.refused_until_us[index].load(Ordering::Relaxed) > now_us
    }

    fn is_slow(&self, index: usize, now_us: u64) -> bool {
        self.slow_until_us[index].load(Ordering::Relaxed) > now_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compass() -> Compass {
        let door = |region, node: &str| Door { region, node: node.into(), base: String::new() };
        Compass::new(vec![door(0, "eu-1"), door(0, "eu-2"), door(1, "us-1")])
    }

    #[test]
    fn a_node_that_refused_comes_last_and_returns() {
        let compass = compass();
        compass.refused(0, 0);
        assert_eq!(compass.round(0, 1), [1, 0]);
        assert_eq!(compass.round(0, 1), [1, 0]);
        let later: Vec<usize> = (0..2).map(|_| compass.round(0, SUSPECT_FOR_US)[0]).collect();
        assert!(later.contains(&0), "after a while its turn comes again");
    }

    #[test]
    fn a_region_is_gone_only_when_all_its_nodes_refuse() {
        let compass = compass();
        compass.refused(0, 0);
        compass.slow(1, 0);
        assert!(!compass.is_gone(0, 1), "a slow node is not gone");
        compass.refused(1, 0);
        assert!(compass.is_gone(0, 1));
        assert!(!compass.is_gone(1, 1));
    }
}
