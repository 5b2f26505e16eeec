use std::collections::BTreeMap;
use std::convert::Infallible;

use keyring::{Secret, SigningKey};
use proptest::prelude::*;

use super::*;
use crate::checkpoint::NoteSigner;
use crate::event::{Action, Detail, Outcome, Salt};
use crate::tile::{encode_entries, encode_hashes};

const ORIGIN: &str = "holdfast/demo/eu/0";

/// A log in memory: what a directory of tiles would hold.
#[derive(Clone)]
struct Stored {
    entries: Vec<Vec<u8>>,
    /// The hashes of each level of tiles.
    hashes: BTreeMap<u8, Vec<Hash>>,
    details: BTreeMap<u64, Vec<u8>>,
    seen: u64,
}

impl Source for Stored {
    type Error = Infallible;

    fn tile(&mut self, tile: Tile) -> Result<Option<Vec<u8>>, Infallible> {
        let (first, width) = (tile.first() as usize, usize::from(tile.width()));
        Ok(match tile.kind() {
            Kind::Entries => {
                // The last bundle of a file may hold more or fewer entries than were signed for.
                let end = if width < 256 { self.entries.len() } else { self.entries.len().min(first + width) };
                (first < end).then(|| encode_entries(&self.entries[first..end]).unwrap())
            }
            Kind::Hashes { level } => self
                .hashes
                .get(&level)
                .and_then(|hashes| hashes.get(first..(first + width).min(hashes.len())).map(encode_hashes)),
        })
    }

    fn detail(&mut self, index: u64) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.details.get(&index).cloned())
    }

    fn entry(&mut self, _index: u64, _event: &AuditEvent) {
        self.seen += 1;
    }
}

fn signer() -> NoteSigner {
    NoteSigner::new(ORIGIN, SigningKey::from_seed(Secret::from_bytes([1; 32]))).unwrap()
}

fn leaf(number: u64, detail: &Detail) -> Vec<u8> {
    let mut event = AuditEvent::new(1_700_000_000_000 + number, "eu", "eu-1", 0, Action::RecordPut, Outcome::Success);
    event.request_id = Some(format!("r-{number}"));
    event.detail_digest = number.is_multiple_of(3).then(|| detail.digest());
    event.encode()
}

fn detail(number: u64) -> Detail {
    Detail { old: None, new: Some(serde_json::json!({ "n": number })), salt: Salt::from_bytes([number as u8; 16]) }
}

fn log(size: u64) -> (Stored, Checkpoint) {
    let mut stored = Stored { entries: Vec::new(), hashes: BTreeMap::new(), details: BTreeMap::new(), seen: 0 };
    for number in 0..size {
        stored.entries.push(leaf(number, &detail(number)));
        if number.is_multiple_of(3) {
            stored.details.insert(number, detail(number).encode());
        }
    }
    let root = rehash(&mut stored);
    (stored, Checkpoint::new(ORIGIN, size, root))
}

/// Computes all stored hashes anew, as a forger with full access would.
fn rehash(stored: &mut Stored) -> Hash {
    let mut frontier = Frontier::new();
    stored.hashes.clear();
    for entry in &stored.entries {
        frontier.append(leaf_hash(entry), |node, hash| stored.hashes.entry(node.level).or_default().push(hash));
    }
    frontier.root()
}

fn check(stored: &Stored, checkpoint: &Checkpoint, earlier: Option<&Checkpoint>) -> Report {
    let note = checkpoint.sign(&signer()).unwrap().to_string();
    verify_log(&note, &signer().key(), earlier, &mut stored.clone()).unwrap()
}

fn findings(stored: &Stored, checkpoint: &Checkpoint) -> Vec<Finding> {
    check(stored, checkpoint, None).findings
}

#[test]
fn honest_logs_are_proven_at_every_size() {
    for size in [0, 1, 2, 3, 255, 256, 257, 511, 512, 700] {
        let (stored, checkpoint) = log(size);
        let report = check(&stored, &checkpoint, None);
        assert!(report.is_proven(), "{size}: {:?}", report.findings);
        assert_eq!(report.entries, size);
        assert_eq!(report.details_proven, size.div_ceil(3));
        assert_eq!(report.actions.get("record.put").copied().unwrap_or(0), size);
    }
}

#[test]
fn erased_details_are_counted_and_forged_ones_found() {
    let (mut stored, checkpoint) = log(30);
    stored.details.remove(&3);
    stored.details.insert(6, detail(7).encode());
    let report = check(&stored, &checkpoint, None);
    assert_eq!(report.findings, [Finding::DetailForged { index: 6 }]);
    assert_eq!((report.details_proven, report.details_erased), (8, 1));
}

#[test]
fn a_swap_is_found_at_both_places() {
    let (mut stored, checkpoint) = log(600);
    stored.entries.swap(17, 400);
    let expected = [Finding::Moved { index: 17, belongs: 400 }, Finding::Moved { index: 400, belongs: 17 }];
    // Their details were not swapped with them, and only those of multiples of three have one.
    let found: Vec<_> =
        findings(&stored, &checkpoint).into_iter().filter(|one| !matches!(one, Finding::DetailForged { .. })).collect();
    assert_eq!(found, expected);
    let (mut stored, checkpoint) = log(600);
    stored.entries.swap(25, 26);
    assert_eq!(
        findings(&stored, &checkpoint),
        [Finding::Moved { index: 25, belongs: 26 }, Finding::Moved { index: 26, belongs: 25 }]
    );
}

#[test]
fn a_dropped_entry_is_one_fault_at_its_index() {
    for (size, at, count) in [(600, 100, 1), (600, 100, 7), (600, 598, 1), (600, 599, 1), (300, 0, 1), (600, 255, 2)] {
        let (mut stored, checkpoint) = log(size);
        stored.entries.drain(at..at + count);
        stored.details.clear();
        let found = findings(&stored, &checkpoint);
        let expected = Finding::Missing { index: at as u64, count: count as u64 };
        assert_eq!(found, [expected], "{count} of {size} at {at}");
    }
}

#[test]
fn a_truncated_log_misses_its_tail() {
    let (mut stored, checkpoint) = log(600);
    stored.entries.truncate(550);
    assert_eq!(findings(&stored, &checkpoint), [Finding::Missing { index: 550, count: 50 }]);
    stored.entries.truncate(500);
    let found = findings(&stored, &checkpoint);
    let tile = Tile::entries(2, 88).unwrap();
    assert_eq!(found, [Finding::FileMissing { tile }, Finding::Missing { index: 500, count: 100 }]);
}

#[test]
fn a_copied_entry_is_found() {
    let (mut stored, checkpoint) = log(600);
    stored.entries[101] = stored.entries[400].clone();
    assert_eq!(findings(&stored, &checkpoint), [Finding::Duplicated { index: 101, of: 400 }]);
    let (mut stored, checkpoint) = log(600);
    stored.entries.insert(101, stored.entries[100].clone());
    stored.details.clear();
    let tile = Tile::entries(2, 88).unwrap();
    assert_eq!(
        findings(&stored, &checkpoint),
        [Finding::Surplus { tile, count: 1 }, Finding::Duplicated { index: 101, of: 100 }]
    );
}

#[test]
fn an_inserted_forgery_is_found() {
    let (mut stored, checkpoint) = log(600);
    stored.details.clear();
    stored.entries.insert(300, leaf(9_999, &detail(0)));
    let tile = Tile::entries(2, 88).unwrap();
    let found = findings(&stored, &checkpoint);
    assert_eq!(found, [Finding::Surplus { tile, count: 1 }, Finding::Forged { index: 300 }]);
}

#[test]
fn a_forger_who_rehashes_everything_is_found_by_the_checkpoint() {
    let (mut stored, checkpoint) = log(600);
    stored.entries[101] = leaf(9_999, &detail(0));
    rehash(&mut stored);
    stored.details.clear();
    assert_eq!(findings(&stored, &checkpoint), [Finding::RootDiffers]);
}

#[test]
fn a_forger_who_rehashes_the_leaf_only_is_placed_by_the_level_above() {
    let (mut stored, checkpoint) = log(600);
    let forged = leaf(10_000, &detail(0));
    stored.hashes.get_mut(&0).unwrap()[301] = leaf_hash(&forged);
    stored.entries[301] = forged;
    stored.details.clear();
    let expected = [Finding::TileForged { level: 1, index: 1, first: 256, count: 256 }, Finding::RootDiffers];
    assert_eq!(findings(&stored, &checkpoint), expected);
}

#[test]
fn forged_and_missing_tiles_are_found() {
    let one = |level, index, first, count| Finding::TileForged { level, index, first, count };
    let (stored, checkpoint) = log(600);
    let mut changed = stored.clone();
    changed.hashes.get_mut(&0).unwrap()[300] = leaf_hash(b"x");
    // The entries prove themselves, so it is the tile that lies, and only there.
    assert_eq!(findings(&changed, &checkpoint), [one(0, 300, 300, 1)]);
    let mut changed = stored;
    changed.hashes.remove(&1);
    let tile = Tile::hashes(1, 0, 2).unwrap();
    assert_eq!(findings(&changed, &checkpoint), [Finding::FileMissing { tile }]);

    let (mut stored, checkpoint) = log(65_536);
    stored.hashes.get_mut(&2).unwrap()[0] = leaf_hash(b"x");
    assert_eq!(findings(&stored, &checkpoint), [one(2, 0, 0, 65_536)]);
}

#[test]
fn a_log_continues_its_earlier_checkpoint_or_is_found_out() {
    let (stored, checkpoint) = log(600);
    for size in [0, 1, 255, 256, 599, 600] {
        let (_, earlier) = log(size);
        assert!(check(&stored, &checkpoint, Some(&earlier)).is_proven(), "{size}");
    }
    let (_, mut earlier) = log(300);
    earlier.root = leaf_hash(b"x");
    assert_eq!(check(&stored, &checkpoint, Some(&earlier)).findings, [Finding::Forked { earlier: 300 }]);
    let (_, later) = log(700);
    assert_eq!(check(&stored, &checkpoint, Some(&later)).findings, [Finding::Shrunk { earlier: 700 }]);
    let other = Checkpoint::new("holdfast/demo/us/0", 0, crate::merkle::empty_root());
    let note = checkpoint.sign(&signer()).unwrap().to_string();
    let refused = verify_log(&note, &signer().key(), Some(&other), &mut stored.clone());
    assert_eq!(refused, Err(VerifyError::OtherLog));
}

#[test]
fn another_key_verifies_nothing() {
    let (mut stored, checkpoint) = log(3);
    let note = checkpoint.sign(&signer()).unwrap().to_string();
    let other = NoteSigner::new(ORIGIN, SigningKey::from_seed(Secret::from_bytes([2; 32]))).unwrap();
    assert!(matches!(verify_log(&note, &other.key(), None, &mut stored), Err(VerifyError::Checkpoint(_))));
    assert_eq!(stored.seen, 0);
}

#[test]
fn findings_are_bounded() {
    let (mut stored, checkpoint) = log(6_000);
    stored.details.clear();
    for (number, entry) in stored.entries.iter_mut().enumerate() {
        *entry = leaf(10_000 + number as u64, &detail(0));
    }
    let report = check(&stored, &checkpoint, None);
    assert_eq!(report.findings.len(), FINDINGS_MAX);
    assert_eq!(report.findings.len() as u64 + report.findings_left_out, 6_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_of_a_leaf_is_found_at_its_index(size in 1_u64..700, at in any::<u64>(), bit in any::<usize>()) {
        let (mut stored, checkpoint) = log(size);
        let index = at % size;
        let entry = &mut stored.entries[index as usize];
        let bit = bit % (entry.len() * 8);
        entry[bit / 8] ^= 1 << (bit % 8);
        let found = findings(&stored, &checkpoint).contains(&Finding::Forged { index });
        prop_assert!(found);
    }

    #[test]
    fn no_edit_of_the_entries_goes_unnoticed(
        size in 2_u64..700,
        edits in proptest::collection::vec((0_u8..5, any::<usize>(), any::<usize>()), 1..5),
    ) {
        let (mut stored, checkpoint) = log(size);
        let honest = stored.entries.clone();
        for (kind, a, b) in edits {
            let length = stored.entries.len();
            if length == 0 {
                break;
            }
            let (a, b) = (a % length, b % length);
            match kind {
                0 => stored.entries.swap(a, b),
                1 => drop(stored.entries.remove(a)),
                2 => stored.entries.insert(a, stored.entries[b].clone()),
                3 => stored.entries.truncate(a),
                _ => stored.entries[a] = leaf(a as u64 + 10_000, &detail(0)),
            }
        }
        prop_assert_eq!(findings(&stored, &checkpoint).is_empty(), stored.entries == honest);
    }

    #[test]
    fn arbitrary_files_never_panic(
        size in 0_u64..600,
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
        missing in any::<u64>(),
    ) {
        struct Arbitrary(Vec<u8>, u64);
        impl Source for Arbitrary {
            type Error = Infallible;
            fn tile(&mut self, tile: Tile) -> Result<Option<Vec<u8>>, Infallible> {
                Ok((self.1 >> (tile.index() % 64) & 1 == 1).then(|| self.0.clone()))
            }
            fn detail(&mut self, _index: u64) -> Result<Option<Vec<u8>>, Infallible> {
                Ok(Some(self.0.clone()))
            }
        }
        let checkpoint = Checkpoint::new(ORIGIN, size, leaf_hash(b"x"));
        let note = checkpoint.sign(&signer()).unwrap().to_string();
        let report = verify_log(&note, &signer().key(), None, &mut Arbitrary(bytes, missing)).unwrap();
        prop_assert!(!report.is_proven());
    }
}
