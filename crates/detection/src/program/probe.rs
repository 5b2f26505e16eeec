//! Probes: for the rules of one log source, what to look for in each field to find those that may match.
//!
//! Exact values are looked up in a hash table, addresses by network, all other texts are found by one automaton in
//! one pass over the value.

use super::slots::Slots;
use super::witness::{Anchor, Sign, Witness};
use crate::sigma::FieldId;
use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind, dfa::DFA, packed};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Most bytes of literals of an automaton that is a full table; larger ones take less memory and more time.
const TABLE_BYTES_MAX: usize = 48 * 1024;

/// Most literals that are first looked for many bytes at a time.
const SKIM_LITERALS_MAX: usize = 64;
/// Literals shorter than this are too common for that to help.
const SKIM_BYTES_MIN: usize = 4;
/// Texts shorter than this are looked through byte by byte.
const SKIM_TEXT_BYTES_MIN: usize = 24;

/// Parts of a long text that are walked at once.
const PARTS: usize = 4;
/// Shorter parts are not worth it.
const PART_BYTES_MIN: usize = 24;

/// Bytes at the edge of a text by which literals are looked up.
const EDGE_BYTES: usize = 4;

/// What is looked for in one field.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    field: FieldId,
    /// Rules that may match whenever the field is there.
    present: Vec<u32>,
    exact: FxHashMap<Box<str>, Box<[u32]>>,
    networks: Networks,
    literals: Literals,
    starts: Edges,
    ends: Edges,
}

/// Literals that stand at the beginning or end of a text, by the bytes nearest to it.
#[derive(Clone, Debug, Default)]
struct Edges(FxHashMap<[u8; EDGE_BYTES], Vec<(Box<str>, Box<[u32]>)>>);

/// Networks by length of prefix.
#[derive(Clone, Debug, Default)]
struct Networks {
    lengths: Vec<(bool, u8)>,
    rules: FxHashMap<(bool, u8, u128), Box<[u32]>>,
}

/// An automaton for literals, and for each of them the rules by where it must stand.
#[derive(Clone, Debug, Default)]
struct Literals {
    /// Says quickly that there is none; most texts hold none.
    skim: Option<packed::Searcher>,
    table: Option<DFA>,
    graph: Option<NFA>,
    rules: Vec<Literal>,
    /// Bytes of the longest.
    longest: usize,
    /// Whether a JSON line shows each literal as it is: it has no quote or slash, and is no part of a number.
    is_plain: bool,
}

#[derive(Clone, Debug)]
struct Literal {
    size: usize,
    rules: Box<[(Anchor, u32)]>,
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

    /// Bytes that automata hold.
    pub(super) fn size_bytes(&self) -> usize {
        self.probes.iter().map(|probe| probe.literals.size_bytes()).sum()
    }
}

impl Probe {
    fn new(field: FieldId, signs: BTreeMap<Sign, Vec<u32>>) -> Self {
        let (mut present, mut exact, mut networks) = (Vec::new(), FxHashMap::default(), Vec::new());
        let mut literals: BTreeMap<String, Vec<(Anchor, u32)>> = BTreeMap::new();
        let (mut starts, mut ends) = (Edges::default(), Edges::default());
        for (sign, mut rules) in signs {
            rules.sort_unstable();
            rules.dedup();
            match sign.shown() {
                Sign::Present => present = rules,
                Sign::Exact(text) => {
                    exact.insert(text.into_boxed_str(), rules.into_boxed_slice());
                }
                Sign::Network(is_v4, bits, prefix) => networks.push(((is_v4, bits, prefix), rules.into_boxed_slice())),
                Sign::Within(text, Anchor::Start) if text.len() >= EDGE_BYTES => {
                    starts.add(text.as_bytes().first_chunk(), &text, rules);
                }
                Sign::Within(text, Anchor::End) if text.len() >= EDGE_BYTES => {
                    ends.add(text.as_bytes().last_chunk(), &text, rules);
                }
                Sign::Within(text, anchor) => {
                    literals.entry(text).or_default().extend(rules.into_iter().map(|rule| (anchor, rule)));
                }
            }
        }
        let lengths: BTreeSet<(bool, u8)> = networks.iter().map(|((is_v4, bits, _), _)| (*is_v4, *bits)).collect();
        let networks = Networks { lengths: lengths.into_iter().collect(), rules: networks.into_iter().collect() };
        let literals = match Literals::new(&literals) {
            Some(built) => built,
            None => {
                // Too many states for any automaton: then these rules are tried on every event with the field.
                present.extend(literals.values().flatten().map(|(_, rule)| *rule));
                Literals::default()
            }
        };
        Self { field, present, exact, networks, literals, starts, ends }
    }

    fn look(&self, slots: &mut Slots, tell: &mut impl FnMut(u32)) {
        self.present.iter().copied().for_each(&mut *tell);
        let asks_edges = !self.starts.0.is_empty() || !self.ends.0.is_empty();
        let asks_whole = !self.exact.is_empty() || !self.networks.lengths.is_empty() || asks_edges;
        if !asks_whole && (self.literals.rules.is_empty() || self.is_not_in_line(slots)) {
            return;
        }
        slots.ready_shown(self.field);
        for shown in slots.shown(self.field) {
            if !self.exact.is_empty()
                && let Some(rules) = self.exact.get(shown)
            {
                rules.iter().copied().for_each(&mut *tell);
            }
            if !self.networks.lengths.is_empty() {
                self.networks.look(shown, tell);
            }
            if asks_edges {
                let text = shown.as_bytes();
                self.starts.look(text.first_chunk(), tell, |literal| text.starts_with(literal));
                self.ends.look(text.last_chunk(), tell, |literal| text.ends_with(literal));
            }
            self.literals.look(shown.as_bytes(), tell);
        }
    }

    /// Whether no literal is anywhere in the event's line, so that no value needs to be looked at.
    fn is_not_in_line(&self, slots: &mut Slots) -> bool {
        let Some(skim) = self.literals.skim.as_ref().filter(|_| self.field == FieldId::ANY && self.literals.is_plain)
        else {
            return false;
        };
        slots.plain_line().is_some_and(|line| skim.find(line).is_none())
    }
}

impl Edges {
    fn add(&mut self, edge: Option<&[u8; EDGE_BYTES]>, text: &str, rules: Vec<u32>) {
        if let Some(edge) = edge {
            self.0.entry(*edge).or_default().push((text.into(), rules.into_boxed_slice()));
        }
    }

    fn look(&self, edge: Option<&[u8; EDGE_BYTES]>, tell: &mut impl FnMut(u32), stands: impl Fn(&[u8]) -> bool) {
        let Some(literals) = edge.and_then(|edge| self.0.get(edge)) else { return };
        for (_, rules) in literals.iter().filter(|(literal, _)| stands(literal.as_bytes())) {
            rules.iter().copied().for_each(&mut *tell);
        }
    }
}

impl Networks {
    fn look(&self, text: &str, tell: &mut impl FnMut(u32)) {
        let Ok(address) = text.parse::<IpAddr>() else { return };
        for (is_v4, bits) in &self.lengths {
            let prefix = match (is_v4, address) {
                (true, IpAddr::V4(address)) => prefix_of(u128::from(address.to_bits()), *bits, 32),
                (true, IpAddr::V6(address)) => match address.to_ipv4_mapped() {
                    Some(address) => prefix_of(u128::from(address.to_bits()), *bits, 32),
                    None => continue,
                },
                (false, IpAddr::V6(address)) => prefix_of(address.to_bits(), *bits, 128),
                (false, IpAddr::V4(_)) => continue,
            };
            if let Some(rules) = self.rules.get(&(*is_v4, *bits, prefix)) {
                rules.iter().copied().for_each(&mut *tell);
            }
        }
    }
}

/// The leading bits of an address.
pub(super) fn prefix_of(address: u128, bits: u8, width: u32) -> u128 {
    address.checked_shr(width.saturating_sub(u32::from(bits))).unwrap_or(0)
}

impl Literals {
    fn new(literals: &BTreeMap<String, Vec<(Anchor, u32)>>) -> Option<Self> {
        if literals.is_empty() {
            return Some(Self::default());
        }
        let size: usize = literals.keys().map(String::len).sum();
        let (mut table, mut graph) = (None, None);
        if size <= TABLE_BYTES_MAX {
            table = DFA::builder().match_kind(MatchKind::Standard).prefilter(false).build(literals.keys()).ok();
        }
        if table.is_none() {
            graph = Some(NFA::builder().match_kind(MatchKind::Standard).prefilter(false).build(literals.keys()).ok()?);
        }
        let rules = literals
            .iter()
            .map(|(text, rules)| Literal { size: text.len(), rules: rules.clone().into_boxed_slice() })
            .collect();
        let is_long = literals.keys().all(|text| text.len() >= SKIM_BYTES_MIN);
        let skim = (is_long && literals.len() <= SKIM_LITERALS_MAX)
            .then(|| packed::Config::new().builder().extend(literals.keys()).build())
            .flatten();
        let is_plain = literals.keys().all(|text| {
            let is_shown = |byte: u8| (b' '..0x7f).contains(&byte) && !matches!(byte, b'"' | b'\\' | b'/');
            text.bytes().all(is_shown) && text.bytes().any(|byte| byte.is_ascii_lowercase() && byte != b'e')
        });
        let longest = literals.keys().map(String::len).max().unwrap_or(0);
        Some(Self { skim, table, graph, rules, longest, is_plain })
    }

    fn size_bytes(&self) -> usize {
        self.table.as_ref().map_or(0, Automaton::memory_usage) + self.graph.as_ref().map_or(0, Automaton::memory_usage)
    }

    fn look(&self, text: &[u8], tell: &mut impl FnMut(u32)) {
        if text.len() >= SKIM_TEXT_BYTES_MIN && self.skim.as_ref().is_some_and(|skim| skim.find(text).is_none()) {
            return;
        }
        match (&self.table, &self.graph) {
            (Some(table), _) => self.walk(table, text, tell),
            (None, Some(graph)) => self.walk(graph, text, tell),
            (None, None) => {}
        }
    }

    /// Finds all literals, also those within others. Each step waits for the memory that the one before it led to: of a
    /// long text, several parts are walked at once, and their waits overlap. The parts do too, as no literal may lie
    /// in none of them.
    fn walk(&self, automaton: &impl Automaton, text: &[u8], tell: &mut impl FnMut(u32)) {
        let overlap = self.longest.saturating_sub(1);
        let size = (text.len() + (PARTS - 1) * overlap).div_ceil(PARTS);
        if size < PART_BYTES_MIN || size * 2 > text.len() {
            return self.walk_parts(automaton, text, [0], text.len(), tell);
        }
        let begins = std::array::from_fn(|part| (part * (size - overlap)).min(text.len() - size));
        self.walk_parts::<PARTS>(automaton, text, begins, size, tell);
    }

    fn walk_parts<const N: usize>(
        &self,
        automaton: &impl Automaton,
        text: &[u8],
        begins: [usize; N],
        size: usize,
        tell: &mut impl FnMut(u32),
    ) {
        let Ok(start) = automaton.start_state(Anchored::No) else { return };
        let parts = begins.map(|begin| &text[begin..begin + size]);
        let (mut states, mut from) = ([start; N], 0);
        while let Some(step) = advance(automaton, &mut states, &parts, size, from) {
            from = step + 1;
            for (begin, state) in begins.iter().zip(states) {
                if automaton.is_match(state) {
                    self.ends(automaton, state, begin + step + 1, text.len(), tell);
                }
            }
        }
    }

    /// Literals end here.
    fn ends(&self, automaton: &impl Automaton, state: StateID, end: usize, size: usize, tell: &mut impl FnMut(u32)) {
        for number in 0..automaton.match_len(state) {
            let literal = &self.rules[automaton.match_pattern(state, number).as_usize()];
            for (anchor, rule) in &literal.rules {
                let stands = match anchor {
                    Anchor::Anywhere => true,
                    Anchor::Start => end == literal.size,
                    Anchor::End => end == size,
                };
                if stands {
                    tell(*rule);
                }
            }
        }
    }
}

/// Goes on to the next step with which a literal may end in any of the parts, which are of one size. Apart, so that
/// the states stay in registers.
#[inline(never)]
fn advance<const N: usize>(
    automaton: &impl Automaton,
    states: &mut [StateID; N],
    parts: &[&[u8]; N],
    size: usize,
    from: usize,
) -> Option<usize> {
    let parts = parts.map(|part| &part[..size]);
    let mut now = *states;
    for step in from..size {
        let mut is_special = false;
        for (state, part) in now.iter_mut().zip(&parts) {
            *state = automaton.next_state(Anchored::No, *state, part[step]);
            is_special |= automaton.is_special(*state);
        }
        if is_special {
            *states = now;
            return Some(step);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_found_wherever_it_lies_in_a_long_text() {
        let literal = "needle-of-some-length";
        let anchors = [(Anchor::Anywhere, 0), (Anchor::Start, 1), (Anchor::End, 2)];
        let of = |text: &str| (text.to_owned(), anchors.to_vec());
        let literals = Literals::new(&BTreeMap::from([of(literal), of("le-of"), of("xx")])).unwrap();
        for size in (literal.len()..300).chain([1_000, 1_001, 4_095]) {
            for place in 0..=size - literal.len() {
                let mut text = ".".repeat(size);
                text.replace_range(place..place + literal.len(), literal);
                let mut told = BTreeSet::new();
                literals.look(text.as_bytes(), &mut |rule| {
                    told.insert(rule);
                });
                let mut expect = BTreeSet::from([0]);
                expect.extend((place == 0).then_some(1));
                expect.extend((place + literal.len() == size).then_some(2));
                assert_eq!(told, expect, "at {place} of {size}");
            }
        }
    }
}
