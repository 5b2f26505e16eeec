//! Which node a client tries next: its own region's in turn, those that are not under suspicion first.
//!
//! A node that refused a connection, lost a request or said that it cannot is suspected until it says that it is
//! ready: clients do not find that out with requests of their own.

use crate::client::{Call, CallError, Client, Door};
use reqwest::Method;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

/// A suspected node is asked whether it is ready this often, and has this long to say so.
const ASK_EVERY: Duration = Duration::from_millis(200);
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

const TRUSTED: u8 = 0;
/// It answers late, not at all, or that it cannot.
const SLOW: u8 = 1;
/// It takes no connections.
const REFUSING: u8 = 2;

/// What clients know about nodes. Shared by all clients: the nodes' state is the same for all.
pub(crate) struct Compass {
    doors: Vec<Door>,
    states: Vec<AtomicU8>,
    turn: AtomicUsize,
}

impl Compass {
    pub(crate) fn new(doors: Vec<Door>) -> Self {
        let states = doors.iter().map(|_| AtomicU8::new(TRUSTED)).collect();
        Self { doors, states, turn: AtomicUsize::new(0) }
    }

    pub(crate) fn door(&self, index: usize) -> &Door {
        &self.doors[index]
    }

    /// The node took no connection.
    pub(crate) fn refused(&self, index: usize) {
        self.states[index].store(REFUSING, Ordering::Relaxed);
    }

    /// The node lost a request, or said it cannot. One that took no connections counts as such until it is ready.
    pub(crate) fn slow(&self, index: usize) {
        // Whoever was first to say what it is was right enough.
        let _ = self.states[index].compare_exchange(TRUSTED, SLOW, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The node said it is ready.
    fn trust(&self, index: usize) {
        self.states[index].store(TRUSTED, Ordering::Relaxed);
    }

    fn state(&self, index: usize) -> u8 {
        self.states[index].load(Ordering::Relaxed)
    }

    /// A region's nodes, the most promising first.
    pub(crate) fn round(&self, region: usize) -> Vec<usize> {
        let mut nodes: Vec<usize> = (0..self.doors.len()).filter(|index| self.doors[*index].region == region).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % nodes.len().max(1);
        nodes.rotate_left(turn);
        nodes.sort_by_key(|index| self.state(*index));
        nodes
    }

    /// Whether no node of a region took connections when it was last tried, and none has said since that it is ready.
    pub(crate) fn is_gone(&self, region: usize) -> bool {
        let mut nodes = (0..self.doors.len()).filter(|index| self.doors[*index].region == region);
        nodes.all(|index| self.state(index) == REFUSING)
    }

    /// Asks suspected nodes whether they are ready, for ever.
    pub(crate) async fn watch(&self, client: &Client) {
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            for index in (0..self.doors.len()).filter(|index| self.state(*index) != TRUSTED) {
                let call = Call::new(Method::GET, "/readyz", "").within(ANSWER_WITHIN);
                match client.send(&self.doors[index], &call).await {
                    Ok(answer) if answer.is_success() => self.trust(index),
                    Err(CallError::NotSent(_)) => self.refused(index),
                    Ok(_) | Err(CallError::Lost(_)) => self.slow(index),
                }
            }
        }
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
    fn a_suspected_node_comes_last_until_it_is_ready() {
        let compass = compass();
        compass.refused(0);
        assert_eq!(compass.round(0), [1, 0]);
        assert_eq!(compass.round(0), [1, 0]);
        compass.trust(0);
        let firsts: Vec<usize> = (0..2).map(|_| compass.round(0)[0]).collect();
        assert!(firsts.contains(&0), "its turn comes again");
    }

    #[test]
    fn a_region_is_gone_only_when_all_its_nodes_refuse() {
        let compass = compass();
        compass.refused(0);
        compass.slow(1);
        assert!(!compass.is_gone(0), "a slow node is not gone");
        compass.refused(1);
        assert!(compass.is_gone(0));
        assert!(!compass.is_gone(1));
    }
}
