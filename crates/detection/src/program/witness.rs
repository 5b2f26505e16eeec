//! Witnesses: for each rule, the values of which one must be there for the rule to match, chosen to be rare.
//!
//! A witness may be seen where the rule does not match; it must never be missing where it does.

use super::escape::shown;
use super::literal;
use super::probe::prefix_of;
use crate::sigma::FieldId;
use crate::sigma::matcher::{Matcher, Node, Test};
use crate::sigma::pattern::Pattern;

/// What is looked for in a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sign {
    /// The field is there.
    Present,
    /// The field's folded text is this.
    Exact(String),
    /// The field's text is an address of this network: whether of version 4, bits of the prefix, the prefix.
    Network(bool, u8, u128),
    /// The field's folded text holds this.
    Within(String, Anchor),
}

impl Sign {
    /// The same in a text as JSON shows it.
    pub(super) fn shown(self) -> Self {
        match self {
            Self::Exact(text) => Self::Exact(shown(&text)),
            Self::Within(text, anchor) => Self::Within(shown(&text), anchor),
            Self::Present | Self::Network(..) => self,
        }
    }
}

/// Where in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Anchor {
    Anywhere,
    Start,
    End,
}

/// Signs of which one must be seen, and how often one probably is.
#[derive(Clone, Debug, Default)]
pub(super) struct Witness {
    pub(super) signs: Vec<(FieldId, Sign)>,
    chance: f64,
}

/// How often a field is there that rules ask for.
const PRESENT_CHANCE: f64 = 0.5;
/// The chance of a text that is short or a number.
const SHORT_CHANCE: f64 = 0.04;
/// The chance of a longer text.
const EXACT_CHANCE: f64 = 0.004;
/// Looking through every value of an event costs more than through one field.
const ANYWHERE_PENALTY: f64 = 0.2;
/// By so much rarer is a text with each character more.
const CHARACTER_CHANCE: f64 = 0.72;
/// Words that make a text longer but not rarer: they are in most paths and command lines.
const COMMON: [&str; 22] = [
    "c:\\",
    "windows",
    "system32",
    "syswow64",
    "program files",
    "\\microsoft",
    "software\\",
    "currentversion",
    "\\users\\",
    "appdata",
    ".exe",
    ".dll",
    "http",
    "://",
    "control\\",
    "currentcontrolset",
    "\\services\\",
    "powershell",
    "\\temp",
    "local",
    "common",
    "/usr/",
];

/// The rarest witness of a condition; nothing where a rule may match an event without showing any sign.
pub(super) fn of(node: &Node) -> Option<Witness> {
    seek(node, true)
}

fn seek(node: &Node, positive: bool) -> Option<Witness> {
    match (node, positive) {
        (Node::Not(inner), _) => seek(inner, !positive),
        (Node::Selection(selection), _) => seek(&selection.node, positive),
        (Node::All(nodes), true) | (Node::Any(nodes), false) => rarest(nodes.iter().map(|node| seek(node, positive))),
        (Node::Any(nodes), true) | (Node::All(nodes), false) => union(nodes.iter().map(|node| seek(node, positive))),
        (Node::Field(test), true) => of_test(test),
        (Node::Field(_), false) => None,
    }
}

fn rarest(witnesses: impl Iterator<Item = Option<Witness>>) -> Option<Witness> {
    witnesses.flatten().min_by(|a, b| a.chance.total_cmp(&b.chance))
}

fn union(witnesses: impl Iterator<Item = Option<Witness>>) -> Option<Witness> {
    let mut all = Witness::default();
    for witness in witnesses {
        let witness = witness?;
        all.signs.extend(witness.signs);
        all.chance += witness.chance;
    }
    Some(all)
}

fn of_test(test: &Test) -> Option<Witness> {
    let each = test.matchers.iter().map(|matcher| of_matcher(test.field, matcher));
    if test.all { rarest(each) } else { union(each) }
}

fn of_matcher(field: FieldId, matcher: &Matcher) -> Option<Witness> {
    let signs = match matcher {
        Matcher::Null | Matcher::Exists(false) => return None,
        Matcher::Folded(pattern) | Matcher::Cased(pattern) => {
            let anchor = match pattern {
                Pattern::StartsWith(_) => Anchor::Start,
                Pattern::EndsWith(_) => Anchor::End,
                _ => Anchor::Anywhere,
            };
            match (pattern, literal::of_pattern(pattern)) {
                (Pattern::Exact(_), text) => vec![Sign::Exact(text.unwrap_or_default())],
                (_, Some(text)) => vec![Sign::Within(text, anchor)],
                (_, None) => vec![Sign::Present],
            }
        }
        Matcher::Regex(regex) => match literal::of_regex(regex.as_str()) {
            Some(texts) => texts.into_iter().map(|text| Sign::Within(text, Anchor::Anywhere)).collect(),
            None => vec![Sign::Present],
        },
        Matcher::Cidr(network) => {
            let (is_v4, bits, address) = network.parts();
            vec![Sign::Network(is_v4, bits, prefix_of(address, bits, if is_v4 { 32 } else { 128 }))]
        }
        Matcher::Exists(true) | Matcher::Compare(..) | Matcher::Moment(..) | Matcher::FieldReference { .. } => {
            vec![Sign::Present]
        }
    };
    let penalty = if field == FieldId::ANY && !signs.is_empty() { ANYWHERE_PENALTY } else { 0.0 };
    let chance = signs.iter().map(chance).sum::<f64>() + penalty;
    Some(Witness { signs: signs.into_iter().map(|sign| (field, sign)).collect(), chance })
}

fn chance(sign: &Sign) -> f64 {
    match sign {
        Sign::Present => PRESENT_CHANCE,
        // Half of the addresses for each bit, but most that are seen are of few networks.
        Sign::Network(_, bits, _) => 0.5 * 0.8_f64.powi(i32::from(*bits)),
        Sign::Exact(text) if text.len() < 6 => SHORT_CHANCE,
        Sign::Exact(_) => EXACT_CHANCE,
        Sign::Within(text, _) => {
            let common: usize = COMMON.iter().filter(|word| text.contains(*word)).map(|word| word.len()).sum();
            let length = text.len().saturating_sub(common).max(1);
            0.3 * CHARACTER_CHANCE.powi(i32::try_from(length).unwrap_or(i32::MAX))
        }
    }
}
