//! What a verification found: counts for the reader, and each fault with its place.

use std::collections::BTreeMap;
use std::fmt;

use crate::checkpoint::Checkpoint;
use crate::event::LeafError;
use crate::tile::Tile;

/// Findings kept in one report. Further ones are counted.
pub const FINDINGS_MAX: usize = 1_000;

/// One fault of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Neither the entries nor the stored hashes have the root that was signed.
    RootDiffers,
    /// The log once was larger than it is now.
    Shrunk {
        /// The size it had.
        earlier: u64,
    },
    /// The log does not continue what was signed before: its history was rewritten.
    Forked {
        /// The size of the earlier checkpoint.
        earlier: u64,
    },
    /// The entry was never in the log: it was changed, or put there.
    Forged {
        /// Its index.
        index: u64,
    },
    /// Entries of the log are not there.
    Missing {
        /// The index of the first one.
        index: u64,
        /// How many.
        count: u64,
    },
    /// The entry is a copy of another one.
    Duplicated {
        /// Where the copy stands.
        index: u64,
        /// Which entry it copies.
        of: u64,
    },
    /// The entry belongs elsewhere.
    Moved {
        /// Where it stands.
        index: u64,
        /// Where it belongs.
        belongs: u64,
    },
    /// Entries after the last one that was signed for.
    Surplus {
        /// The bundle they are in.
        tile: Tile,
        /// How many.
        count: u64,
    },
    /// The entry is in the log and is no audit event.
    NotAnEvent {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        error: LeafError,
    },
    /// The old and new values stored beside an entry are not those it commits to.
    DetailForged {
        /// The entry's index.
        index: u64,
    },
    /// A stored hash is not the hash of what it stands for.
    TileForged {
        /// The level of tiles.
        level: u8,
        /// The index of the hash on that level.
        index: u64,
        /// The first entry it stands for.
        first: u64,
        /// How many entries it stands for.
        count: u64,
    },
    /// A file of the log is not there.
    FileMissing {
        /// Which.
        tile: Tile,
    },
    /// A file of the log has another length or form than its path says.
    FileMalformed {
        /// Which.
        tile: Tile,
    },
}

/// The outcome of a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The checkpoint it was held against.
    pub checkpoint: Checkpoint,
    /// Entries that were read.
    pub entries: u64,
    /// Entries of each action, by its name.
    pub actions: BTreeMap<String, u64>,
    /// Details that are those their entries commit to.
    pub details_proven: u64,
    /// Details that were erased, or are not kept here.
    pub details_erased: u64,
    /// The faults, at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// Faults beyond those.
    pub findings_left_out: u64,
}

impl Report {
    pub(super) fn new(checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint,
            entries: 0,
            actions: BTreeMap::new(),
            details_proven: 0,
            details_erased: 0,
            findings: Vec::new(),
            findings_left_out: 0,
        }
    }

    /// True when every entry is proven and nothing is missing.
    pub fn is_proven(&self) -> bool {
        self.findings.is_empty()
    }

    pub(super) fn add(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_left_out += 1;
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RootDiffers => formatter.write_str("the root over the log is not the signed one"),
            Self::Shrunk { earlier } => write!(formatter, "the log had {earlier} entries before: entries were cut off"),
            Self::Forked { earlier } => {
                write!(formatter, "the first {earlier} entries are not those signed before: history was rewritten")
            }
            Self::Forged { index } => write!(formatter, "entry {index} is forged: it never was in the log"),
            Self::Missing { index, count: 1 } => write!(formatter, "entry {index} is missing"),
            Self::Missing { index, count } => write!(formatter, "{count} entries from {index} on are missing"),
            Self::Duplicated { index, of } => write!(formatter, "entry {index} is a copy of entry {of}"),
            Self::Moved { index, belongs } => write!(formatter, "entry {index} was moved: it belongs at {belongs}"),
            Self::Surplus { tile, count } => write!(formatter, "{tile}: {count} entries more than were signed for"),
            Self::NotAnEvent { index, error } => write!(formatter, "entry {index}: {error}"),
            Self::DetailForged { index } => {
                write!(formatter, "entry {index}: the stored old and new values are not those it commits to")
            }
            Self::TileForged { level, index, first, count } => write!(
                formatter,
                "hash {index} of level {level} is not that of the entries {first} to {}",
                first.saturating_add(count - 1)
            ),
            Self::FileMissing { tile } => write!(formatter, "{tile} is missing"),
            Self::FileMalformed { tile } => write!(formatter, "{tile} is malformed"),
        }
    }
}
