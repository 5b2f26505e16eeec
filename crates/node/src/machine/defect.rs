//! Defects that tests plant in a node, to show that a checker finds them. A node on a machine never has one.

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// A restarted leader leads on without an election: see `consensus::GroupOptions::plant_leader_restore`.
    LeaderRestored,
    /// A report counts under a lease that has ended.
    Unfenced,
    /// What was delivered before is not known again.
    DeliveryForgotten,
    /// Every other tuple is not sent to where correlations across regions are judged.
    TupleLost,
}
