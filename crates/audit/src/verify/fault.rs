//! Explaining entries that are not what the stored hashes say: forged, missing, copied or moved.
//! One entry dropped shifts all that follow, so runs of the same shift are one fault and not many.

use std::collections::{BTreeMap, BTreeSet};

use super::report::{Finding, Report};
use crate::merkle::Hash;

/// Wrong places that are explained. Further ones are only counted.
pub(super) const FAULTS_MAX: usize = 4_096;

/// The places where the entry is not the one whose hash was stored, in order.
#[derive(Default)]
pub(super) struct Faults {
    /// The index and the hash of the entry that stands there, if one does.
    places: Vec<(u64, Option<Hash>)>,
    left_out: u64,
}

impl Faults {
    pub(super) fn note(&mut self, index: u64, entry: Option<Hash>) {
        if self.places.len() < FAULTS_MAX {
            self.places.push((index, entry));
        } else {
            self.left_out += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = u64> + '_ {
        self.places.iter().map(|(index, _)| *index)
    }

    pub(super) fn hashes(&self) -> BTreeSet<Hash> {
        self.places.iter().filter_map(|(_, entry)| *entry).collect()
    }

    /// Turns the places into findings. `belongs` says at which index each hash is stored.
    pub(super) fn explain(&self, belongs: &BTreeMap<Hash, u64>, report: &mut Report) {
        let wrong: BTreeSet<u64> = self.indices().collect();
        // How far the entries are shifted to the front at this place: 1 after one was dropped.
        let mut shift = 0_i128;
        let mut expected_next = None;
        let mut missing: Option<(u64, u64)> = None;
        // Entries at the end of a shifted run whose absence the shift explains.
        let mut explained = 0_i128;
        let flush = |missing: &mut Option<(u64, u64)>, report: &mut Report| {
            if let Some((index, count)) = missing.take() {
                report.add(Finding::Missing { index, count });
            }
        };
        for (position, (index, entry)) in self.places.iter().copied().enumerate() {
            if expected_next != Some(index) {
                flush(&mut missing, report);
                (shift, explained) = (0, 0);
            }
            expected_next = index.checked_add(1);
            let Some(entry) = entry else {
                if explained > 0 {
                    explained -= 1;
                } else {
                    let (first, count) = missing.unwrap_or((index, 0));
                    missing = Some((first, count + 1));
                }
                continue;
            };
            flush(&mut missing, report);
            let Some(&place) = belongs.get(&entry) else {
                report.add(Finding::Forged { index });
                continue;
            };
            let distance = i128::from(place) - i128::from(index);
            if distance == shift {
                continue;
            }
            if self.goes_on(position, distance, belongs) {
                if distance > shift {
                    let count = (distance - shift) as u64;
                    report.add(Finding::Missing { index: place - count, count });
                } else if !wrong.contains(&place) {
                    report.add(Finding::Duplicated { index, of: place });
                }
                shift = distance;
                explained = distance.max(0);
            } else if wrong.contains(&place) {
                report.add(Finding::Moved { index, belongs: place });
            } else {
                report.add(Finding::Duplicated { index, of: place });
            }
        }
        flush(&mut missing, report);
        report.findings_left_out += self.left_out;
    }

    /// True when the place after this one is shifted as far, or empty because of that.
    fn goes_on(&self, position: usize, distance: i128, belongs: &BTreeMap<Hash, u64>) -> bool {
        let (index, _) = self.places[position];
        match self.places.get(position + 1) {
            Some((next, Some(entry))) if *next == index + 1 => {
                belongs.get(entry).is_some_and(|place| i128::from(*place) - i128::from(*next) == distance)
            }
            Some((next, None)) if *next == index + 1 => distance > 0,
            // What follows was not kept: a shift is likelier than a swap exactly there.
            None if self.left_out > 0 => true,
            _ => false,
        }
    }
}
