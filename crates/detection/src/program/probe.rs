//! Probes: for the rules of one log source, what to look for in each field to find those that may match.
//!
//! Exact values are looked up in a hash table, all others are found by one automaton in one pass over the text.

use super::slots::Slots;
use super::witness::{Anchor, Sign, Witness};
use crate::sigma::FieldId;
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// Most bytes of literals of an automaton that is a full table; larger ones take less memory and more time.
const TABLE_BYTES_MAX: usize = 48 * 1024;

/// What is looked for in one field.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    field: FieldId,
    /// Rules that may match whenever the field is there.
    present: Vec<u32>,
    exact: FxHashMap<Box<str>, Box<[u32]>>,
    automaton: Option<AhoCorasick>,
    /// For each literal of the automaton, the rules by where it must stand.
    within: Vec<Box<[(Anchor, u32)]>>,
}

/// The probes of some rules, and the rules that show no sign.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    probes: Vec<Probe>,
    always: Vec<u32>,
}

impl Probes {
    /// Of rules and their witnesses.
    pub(super) fn new(rules: Vec<(u32, Option<Witness>)>) -> Self {
        let mut always = Vec::new();
        let mut fields: BTreeMap<FieldId, BTreeMap<Sign, Vec<u32>>> = BTreeMap::new();
        for (rule, witness) in rules {
            match witness {
                None => always.push(rule),
                Some(witness) => {
                    for (field, sign) in witness.signs {
                        fields.entry(field).or_default().entry(sign).or_default().push(rule);
                    }
                }
            }
        }
        Self { probes: fields.into_iter().map(|(field, signs)| Probe::new(field, signs)).collect(), always }
    }

    pub(super) fn always(&self) -> usize {
        self.always.len()
    }

    /// Looks through an event; tells each rule that may match, some more than once.
    pub(super) fn look(&self, slots: &mut Slots, tell: &mut impl FnMut(u32)) {
        self.always.iter().copied().for_each(&mut *tell);
        for probe in &self.probes {
            if slots.is_present(probe.field) {
                probe.look(slots, tell);
            }
        }
    }

    /// Bytes it holds.
    pub(super) fn size_bytes(&self) -> usize {
        self.probes.iter().map(|probe| probe.automaton.as_ref().map_or(0, AhoCorasick::memory_usage)).sum()
    }
}

impl Probe {
    fn new(field: FieldId, signs: BTreeMap<Sign, Vec<u32>>) -> Self {
        let (mut present, mut exact) = (Vec::new(), FxHashMap::default());
        let mut literals: BTreeMap<String, Vec<(Anchor, u32)>> = BTreeMap::new();
        for (sign, mut rules) in signs {
            rules.sort_unstable();
            rules.dedup();
            match sign {
                Sign::Present => present = rules,
                Sign::Exact(text) => {
                    exact.insert(text.into_boxed_str(), rules.into_boxed_slice());
                }
                Sign::Within(text, anchor) => {
                    literals.entry(text).or_default().extend(rules.into_iter().map(|rule| (anchor, rule)));
                }
            }
        }
        let size: usize = literals.keys().map(String::len).sum();
        let kind = if size <= TABLE_BYTES_MAX { AhoCorasickKind::DFA } else { AhoCorasickKind::ContiguousNFA };
        let build = |kind| {
            let builder =
                AhoCorasick::builder().match_kind(MatchKind::Standard).kind(Some(kind)).build(literals.keys());
            builder.or_else(|_| AhoCorasick::new(literals.keys()))
        };
        let mut automaton = None;
        if !literals.is_empty() {
            match build(kind) {
                Ok(built) => automaton = Some(built),
                // Too many states for any automaton: then these rules are tried on every event with the field.
                Err(_) => present.extend(literals.values().flatten().map(|(_, rule)| *rule)),
            }
        }
        let within = literals.into_values().map(Vec::into_boxed_slice).collect();
        Self { field, present, exact, automaton, within }
    }

    fn look(&self, slots: &mut Slots, tell: &mut impl FnMut(u32)) {
        self.present.iter().copied().for_each(&mut *tell);
        if self.exact.is_empty() && self.automaton.is_none() {
            return;
        }
        slots.ready(self.field, true);
        for (_, folded) in slots.texts(self.field) {
            if !self.exact.is_empty()
                && let Some(rules) = self.exact.get(folded)
            {
                rules.iter().copied().for_each(&mut *tell);
            }
            let Some(automaton) = &self.automaton else { continue };
            for found in automaton.find_overlapping_iter(folded) {
                for (anchor, rule) in &self.within[found.pattern().as_usize()] {
                    let stands = match anchor {
                        Anchor::Anywhere => true,
                        Anchor::Start => found.start() == 0,
                        Anchor::End => found.end() == folded.len(),
                    };
                    if stands {
                        tell(*rule);
                    }
                }
            }
        }
    }
}
