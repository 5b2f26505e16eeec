//! What clients did and what came of it: the only evidence the checkers accept.

use serde::Serialize;

/// How an operation ended, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Acknowledged.
    Ok,
    /// Certainly not done.
    Failed,
    /// Done or not, for ever unknown.
    Unknown,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// A record of its own was created, holding this value.
    Create {
        /// The key, used once.
        key: String,
    },
    /// A register that only its home region writes was set; values are unique.
    RegisterWrite {
        /// The register.
        key: String,
        /// What was written.
        value: u64,
    },
    /// Such a register was read, linearizably.
    RegisterRead {
        /// The register.
        key: String,
        /// What was read; none: the value it was made with.
        value: Option<u64>,
    },
    /// A field that every region writes was set; the last writer wins.
    HotWrite {
        /// The record.
        key: String,
        /// What was written.
        value: u64,
    },
    /// A counter that every region adds to was raised by one.
    Add {
        /// The counter.
        key: String,
    },
    /// A session that moves between regions wrote its next number.
    RoamWrite {
        /// The session's record; only it writes there.
        key: String,
        /// The number, one more than before.
        value: u64,
    },
    /// A session that moves between regions read its number elsewhere, with its token.
    RoamRead {
        /// The session's record.
        key: String,
        /// What was read; none: no such record.
        value: Option<u64>,
    },
}

impl Act {
    /// The record's key.
    pub fn key(&self) -> &str {
        match self {
            Self::Create { key }
            | Self::RegisterWrite { key, .. }
            | Self::RegisterRead { key, .. }
            | Self::HotWrite { key, .. }
            | Self::Add { key }
            | Self::RoamWrite { key, .. }
            | Self::RoamRead { key, .. } => key,
        }
    }

    /// Whether it changes something.
    pub const fn is_write(&self) -> bool {
        !matches!(self, Self::RegisterRead { .. } | Self::RoamRead { .. })
    }
}

/// One operation. Times are microseconds since the run began, on one monotonic clock.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation {
    /// What was asked.
    pub act: Act,
    /// The region whose client asked.
    pub home: usize,
    /// The region that answered.
    pub served: Option<usize>,
    /// When it was asked.
    pub invoked_us: u64,
    /// When the answer was there, or the client gave up.
    pub completed_us: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The server's number of the request that was answered.
    pub request: Option<String>,
    /// Whether the answer is a stored one to an earlier try.
    pub is_replayed: bool,
    /// What the last failed try said.
    pub error: Option<String>,
}

impl Operation {
    /// Whether it was acknowledged.
    pub fn is_ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }
    /// Whether it is an acknowledged write.
    pub fn is_acknowledged_write(&self) -> bool {
        self.is_ok() && self.act.is_write()
    }
    /// From question to answer.
    pub fn latency_us(&self) -> u64 {
        self.completed_us.saturating_sub(self.invoked_us)
    }
}

/// How many operations ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// All.
    pub operations: u64,
    /// Acknowledged.
    pub ok: u64,
    /// Certainly not done.
    pub failed: u64,
    /// Nobody knows.
    pub unknown: u64,
    /// Of the acknowledged ones, those that changed something.
    pub writes: u64,
}

impl Tally {
    /// Counts operations.
    pub fn of<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> Self {
        let mut tally = Self::default();
        for operation in operations {
            tally.operations += 1;
            match operation.outcome {
                Outcome::Ok => tally.ok += 1,
                Outcome::Failed => tally.failed += 1,
                Outcome::Unknown => tally.unknown += 1,
            }
            tally.writes += u64::from(operation.is_acknowledged_write());
        }
        tally
    }
}

#[cfg(test)]
pub(crate) mod made {
    //! Short ways to write histories down.

    use super::*;

    pub(crate) fn operation(act: Act, invoked_us: u64, completed_us: u64, outcome: Outcome) -> Operation {
        Operation {
            act,
            home: 0,
            served: Some(0),
            invoked_us,
            completed_us,
            outcome,
            request: None,
            is_replayed: false,
            error: None,
        }
    }
    pub(crate) fn write(value: u64, invoked_us: u64, completed_us: u64) -> Operation {
        operation(Act::RegisterWrite { key: "r".into(), value }, invoked_us, completed_us, Outcome::Ok)
    }
    pub(crate) fn lost_write(value: u64, invoked_us: u64) -> Operation {
        operation(Act::RegisterWrite { key: "r".into(), value }, invoked_us, invoked_us + 5, Outcome::Unknown)
    }
    pub(crate) fn read(value: Option<u64>, invoked_us: u64, completed_us: u64) -> Operation {
        operation(Act::RegisterRead { key: "r".into(), value }, invoked_us, completed_us, Outcome::Ok)
    }
    pub(crate) fn create(key: &str, completed_us: u64, outcome: Outcome) -> Operation {
        operation(Act::Create { key: key.into() }, completed_us.saturating_sub(1), completed_us, outcome)
    }
}
