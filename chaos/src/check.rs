//! Judges of a recorded history. Pure: the same history gets the same verdict.
//!
//! A checker counts only because its tests feed it spoiled histories and it rejects every one.

pub mod audit;
pub mod convergence;
pub mod counter;
pub mod loss;
pub mod register;
pub mod session;

use serde::Serialize;

/// Violations kept of one checker; the rest is counted.
const VIOLATIONS_KEPT: usize = 20;

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The property.
    pub property: &'static str,
    /// How many things were examined: a checker of nothing proves nothing.
    pub examined: u64,
    /// How many violated it.
    pub violated: u64,
    /// The first of them.
    pub violations: Vec<String>,
}

impl Finding {
    /// Nothing found yet.
    pub const fn new(property: &'static str) -> Self {
        Self { property, examined: 0, violated: 0, violations: Vec::new() }
    }
    /// Adds a violation.
    pub fn violate(&mut self, what: impl FnOnce() -> String) {
        self.violated += 1;
        if self.violations.len() < VIOLATIONS_KEPT {
            self.violations.push(what());
        }
    }
    /// Whether the property holds.
    pub const fn holds(&self) -> bool {
        self.violated == 0
    }
}
