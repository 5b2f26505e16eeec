//! Checking a whole log against its signed checkpoint, without trusting whoever stored it.
//!
//! Everything is recomputed from the entries: each leaf hash, each tile, the root, each detail's digest.
//! Faults do not stop it: they are findings that say where. It must never believe a tile that the root does not cover.

mod fault;
mod report;

pub use report::{FINDINGS_MAX, Finding, Report};

use std::collections::BTreeMap;

use crate::checkpoint::{Checkpoint, CheckpointError, NoteKey};
use crate::event::{AuditEvent, DetailDigest};
use crate::merkle::{Frontier, Hash, leaf_hash};
use crate::tile::{HEIGHT, Kind, LEVEL_MAX, Tile, WIDTH, decode_entries, decode_hashes};

/// Where a log is read from: a directory, an API, a store.
pub trait Source {
    /// Why reading failed. It ends the verification: a fault of the reader is no fault of the log.
    type Error;

    /// The bytes of one file of the log, exactly as wide as asked, or none when it is not there.
    fn tile(&mut self, tile: Tile) -> Result<Option<Vec<u8>>, Self::Error>;

    /// The stored detail of an entry, or none when it was erased.
    fn detail(&mut self, index: u64) -> Result<Option<Vec<u8>>, Self::Error>;

    /// Told of every entry that can be read, in order. It is proven only when the report has no finding.
    fn entry(&mut self, _index: u64, _event: &AuditEvent) {}
}

/// Why a log could not be verified at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError<E> {
    /// The checkpoint is not one of this log.
    #[error("the checkpoint is refused")]
    Checkpoint(#[from] CheckpointError),
    /// The earlier checkpoint is one of another log.
    #[error("the earlier checkpoint is of another log")]
    OtherLog,
    /// Reading failed.
    #[error("the log could not be read")]
    Read(#[source] E),
}

/// Checks every file and every detail of the log that `note` describes and `key` signed.
/// With an `earlier` checkpoint, which the caller has opened before, also that the log continues it.
pub fn verify_log<S: Source>(
    note: &str,
    key: &NoteKey,
    earlier: Option<&Checkpoint>,
    source: &mut S,
) -> Result<Report, VerifyError<S::Error>> {
    let checkpoint = Checkpoint::open(note, key)?;
    if earlier.is_some_and(|earlier| earlier.origin != checkpoint.origin) {
        return Err(VerifyError::OtherLog);
    }
    let size = checkpoint.size;
    let mut pass = Pass {
        source,
        size,
        earlier: earlier.cloned(),
        report: Report::new(checkpoint),
        of_entries: Chain::default(),
        of_tiles: Chain::default(),
        faults: fault::Faults::default(),
    };
    for index in 0..size.div_ceil(u64::from(WIDTH)) {
        pass.bundle(index).map_err(VerifyError::Read)?;
    }
    pass.close().map_err(VerifyError::Read)
}

/// One way to compute the root: from the entries, or from the hashes that were stored of them.
#[derive(Default)]
struct Chain {
    frontier: Frontier,
    is_broken: bool,
    earlier_root: Option<Hash>,
    /// Hashes of the upper levels that were computed and not yet compared: at most a tile of each.
    pending: BTreeMap<u8, Vec<Hash>>,
    /// Upper hashes that were stored otherwise. They count only when this way has the signed root.
    findings: Vec<Finding>,
}

struct Pass<'source, S: Source> {
    source: &'source mut S,
    size: u64,
    earlier: Option<Checkpoint>,
    report: Report,
    of_entries: Chain,
    of_tiles: Chain,
    faults: fault::Faults,
}

impl Chain {
    fn append(&mut self, hash: Option<Hash>, earlier: Option<u64>) {
        // A chain with a gap still counts, so that later hashes keep their place.
        self.is_broken |= hash.is_none();
        let pending = &mut self.pending;
        self.frontier.append(hash.unwrap_or(Hash::from_bytes([0; 32])), |node, hash| {
            if node.level > 0 {
                pending.entry(node.level).or_default().push(hash);
            }
        });
        if earlier == Some(self.frontier.size()) {
            self.earlier_root = Some(self.frontier.root());
        }
    }

    /// Compares the upper hashes computed last with the tile that holds them.
    fn compare(&mut self, level: u8, stored: Option<&[Hash]>) {
        let computed = self.pending.remove(&level).unwrap_or_default();
        let height = u32::from(level) * u32::from(HEIGHT);
        let first = (self.frontier.size() >> height) - computed.len() as u64;
        let differing = stored.into_iter().flatten().zip(&computed).zip(first..).filter(|((a, b), _)| a != b);
        for (_, index) in differing.take(FINDINGS_MAX.saturating_sub(self.findings.len())) {
            self.findings.push(Finding::TileForged { level, index, first: index << height, count: 1 << height });
        }
    }

    fn proves(&self, root: &Hash) -> bool {
        !self.is_broken && self.frontier.root() == *root
    }
}

impl<S: Source> Pass<'_, S> {
    /// Reads one bundle and the tile of its hashes, and compares them.
    fn bundle(&mut self, index: u64) -> Result<(), S::Error> {
        let first = index * u64::from(WIDTH);
        let entries = self.entries(index)?;
        let stored = self.hashes(0, index)?;
        let width = (self.size - first).min(u64::from(WIDTH)) as usize;
        let earlier = self.earlier.as_ref().map(|checkpoint| checkpoint.size);
        for place in 0..width {
            let entry = entries.get(place).copied();
            let stored = stored.as_ref().map(|hashes| hashes[place]);
            if entry.is_none() || stored.is_some_and(|stored| entry != Some(stored)) {
                self.faults.note(first + place as u64, entry);
            }
            self.of_entries.append(entry, earlier);
            self.of_tiles.append(stored.or(entry), earlier);
        }
        self.compare_upper(|hashes| hashes.len() == usize::from(WIDTH))
    }

    /// Compares the upper levels whose computed hashes are `ready` with what is stored.
    fn compare_upper(&mut self, ready: impl Fn(&[Hash]) -> bool) -> Result<(), S::Error> {
        for level in 1..=LEVEL_MAX {
            if !self.of_tiles.pending.get(&level).is_some_and(|hashes| ready(hashes)) {
                continue;
            }
            let after = self.of_tiles.frontier.size() >> (u32::from(level) * u32::from(HEIGHT));
            let stored = self.hashes(level, (after - 1) / u64::from(WIDTH))?;
            self.of_entries.compare(level, stored.as_deref());
            self.of_tiles.compare(level, stored.as_deref());
        }
        Ok(())
    }

    /// The leaf hashes of a bundle's entries, each checked on its own.
    fn entries(&mut self, index: u64) -> Result<Vec<Hash>, S::Error> {
        let first = index * u64::from(WIDTH);
        let Some(tile) = Tile::at(Kind::Entries, index, self.size) else { return Ok(Vec::new()) };
        let Some(bytes) = self.source.tile(tile)? else {
            self.report.add(Finding::FileMissing { tile });
            return Ok(Vec::new());
        };
        let Ok(mut entries) = decode_entries(&bytes) else {
            self.report.add(Finding::FileMalformed { tile });
            return Ok(Vec::new());
        };
        let surplus = entries.len().saturating_sub(usize::from(tile.width()));
        if surplus > 0 {
            self.report.add(Finding::Surplus { tile, count: surplus as u64 });
            entries.truncate(usize::from(tile.width()));
        }
        for (entry, index) in entries.iter().zip(first..) {
            self.entry(index, entry)?;
        }
        Ok(entries.into_iter().map(leaf_hash).collect())
    }

    fn entry(&mut self, index: u64, leaf: &[u8]) -> Result<(), S::Error> {
        self.report.entries += 1;
        let event = match AuditEvent::decode(leaf) {
            Ok(event) => event,
            Err(error) => {
                self.report.add(Finding::NotAnEvent { index, error });
                return Ok(());
            }
        };
        *self.report.actions.entry(event.action.as_str().to_owned()).or_default() += 1;
        if let Some(digest) = event.detail_digest {
            match self.source.detail(index)? {
                None => self.report.details_erased += 1,
                Some(detail) if DetailDigest::of(&detail) == digest => self.report.details_proven += 1,
                Some(_) => self.report.add(Finding::DetailForged { index }),
            }
        }
        self.source.entry(index, &event);
        Ok(())
    }

    fn hashes(&mut self, level: u8, index: u64) -> Result<Option<Vec<Hash>>, S::Error> {
        let Some(tile) = Tile::at(Kind::Hashes { level }, index, self.size) else { return Ok(None) };
        let Some(bytes) = self.source.tile(tile)? else {
            self.report.add(Finding::FileMissing { tile });
            return Ok(None);
        };
        let hashes = decode_hashes(&bytes, tile.width());
        if hashes.is_none() {
            self.report.add(Finding::FileMalformed { tile });
        }
        Ok(hashes)
    }

    fn close(mut self) -> Result<Report, S::Error> {
        self.compare_upper(|hashes| !hashes.is_empty())?;
        let root = self.report.checkpoint.root;
        let (tiles_prove, entries_prove) = (self.of_tiles.proves(&root), self.of_entries.proves(&root));
        let believed = if entries_prove { &mut self.of_entries } else { &mut self.of_tiles };
        std::mem::take(&mut believed.findings).into_iter().for_each(|finding| self.report.add(finding));
        if !tiles_prove && !entries_prove {
            self.report.add(Finding::RootDiffers);
        }
        if entries_prove {
            for index in self.faults.indices() {
                self.report.add(Finding::TileForged { level: 0, index, first: index, count: 1 });
            }
        } else if !self.faults.is_empty() {
            let places = self.places()?;
            self.faults.explain(&places, &mut self.report);
        }
        self.compare_earlier(entries_prove);
        Ok(self.report)
    }

    /// Where the entries that stand in a wrong place belong, by the stored hashes.
    fn places(&mut self) -> Result<BTreeMap<Hash, u64>, S::Error> {
        let wanted = self.faults.hashes();
        let mut places = BTreeMap::new();
        for index in 0..self.size.div_ceil(u64::from(WIDTH)) {
            let Some(tile) = Tile::at(Kind::Hashes { level: 0 }, index, self.size) else { continue };
            let bytes = self.source.tile(tile)?.unwrap_or_default();
            let hashes = decode_hashes(&bytes, tile.width()).unwrap_or_default();
            for (hash, place) in hashes.into_iter().zip(tile.first()..).filter(|(hash, _)| wanted.contains(hash)) {
                places.entry(hash).or_insert(place);
            }
        }
        Ok(places)
    }

    fn compare_earlier(&mut self, entries_prove: bool) {
        let Some(earlier) = self.earlier.take() else { return };
        let chain = if entries_prove { &self.of_entries } else { &self.of_tiles };
        let root = if earlier.size == 0 { Some(crate::merkle::empty_root()) } else { chain.earlier_root };
        if earlier.size > self.size {
            self.report.add(Finding::Shrunk { earlier: earlier.size });
        } else if root != Some(earlier.root) {
            self.report.add(Finding::Forked { earlier: earlier.size });
        }
    }
}

#[cfg(test)]
mod tests;
