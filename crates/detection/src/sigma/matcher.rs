//! Compiled conditions: trees of tests on fields, evaluated without allocating.

use super::pattern::Pattern;
use super::view::{FieldId, Item, View};
use aho_corasick::AhoCorasick;
use regex::Regex;
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;

/// A condition or a part of one.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    /// A selection, which conditions may name more than once.
    Selection(Arc<Node>),
    Field(Test),
    Keywords(Keywords),
}

/// Matchers on one field.
#[derive(Clone, Debug)]
pub(crate) struct Test {
    pub(crate) field: FieldId,
    pub(crate) all: bool,
    pub(crate) matchers: Vec<Matcher>,
}

/// Patterns looked for anywhere in an event.
#[derive(Clone, Debug)]
pub(crate) struct Keywords {
    pub(crate) all: bool,
    pub(crate) matchers: Vec<Matcher>,
}

/// One matcher on one value.
#[derive(Clone, Debug)]
pub(crate) enum Matcher {
    /// The field is missing or null.
    Null,
    /// The field is there, or is not.
    Exists(bool),
    /// Case is ignored.
    Folded(Pattern),
    /// Case matters.
    Cased(Pattern),
    /// Any of many literals, case ignored.
    AnyContains(Arc<AhoCorasick>),
    Regex(Arc<Regex>),
    Cidr(Network),
    Compare(Order, f64),
    /// Compared with another field of the same event.
    FieldReference {
        other: FieldId,
        part: Part,
        cased: bool,
    },
    /// A placeholder that nothing was given for.
    Never,
}

/// How numbers compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// Which part of a value another must equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    Anywhere,
    Start,
    End,
}

/// An address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let bits: u8 = bits.parse().ok()?;
        (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(Self { address, bits })
    }

    fn contains(self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u32| {
            let ignored = width - u32::from(self.bits);
            a.checked_shr(ignored).unwrap_or(0) == b.checked_shr(ignored).unwrap_or(0)
        };
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(b)) => b.to_ipv4_mapped().is_some_and(|b| self.contains(b.into())),
            _ => false,
        }
    }
}

impl Node {
    pub(crate) fn holds(&self, view: &View<'_>) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.holds(view)),
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(view)),
            Self::Not(node) => !node.holds(view),
            Self::Selection(node) => node.holds(view),
            Self::Field(test) => test.holds(view),
            Self::Keywords(keywords) => keywords.hold(view),
        }
    }
}

impl Test {
    fn holds(&self, view: &View<'_>) -> bool {
        let items = view.items(self.field);
        let one = |matcher: &Matcher| match matcher {
            Matcher::Null => items.iter().all(|item| item.value.is_null()),
            Matcher::Exists(wanted) => items.is_empty() != *wanted,
            matcher => items.iter().any(|item| !item.value.is_null() && matcher.matches(item, view)),
        };
        if self.all { self.matchers.iter().all(one) } else { self.matchers.iter().any(one) }
    }
}

impl Keywords {
    fn hold(&self, view: &View<'_>) -> bool {
        let (text, folded) = view.keywords();
        let one = |matcher: &Matcher| match matcher {
            Matcher::Folded(pattern) => pattern.matches(folded),
            Matcher::Cased(pattern) => pattern.matches(text),
            Matcher::AnyContains(automaton) => automaton.is_match(folded.as_str()),
            Matcher::Regex(regex) => regex.is_match(text),
            _ => false,
        };
        if self.all { self.matchers.iter().all(one) } else { self.matchers.iter().any(one) }
    }
}

impl Matcher {
    fn matches(&self, item: &Item<'_>, view: &View<'_>) -> bool {
        match self {
            Self::Folded(pattern) => pattern.matches(&item.folded),
            Self::Cased(pattern) => pattern.matches(&item.text),
            Self::AnyContains(automaton) => automaton.is_match(item.folded.as_ref()),
            Self::Regex(regex) => regex.is_match(&item.text),
            Self::Cidr(network) => item.text.parse().is_ok_and(|address| network.contains(address)),
            Self::Compare(order, bound) => number(item).is_some_and(|number| match order {
                Order::Greater => number > *bound,
                Order::GreaterOrEqual => number >= *bound,
                Order::Less => number < *bound,
                Order::LessOrEqual => number <= *bound,
            }),
            Self::FieldReference { other, part, cased } => view.items(*other).iter().any(|other| {
                let (is, wanted) = if *cased { (&item.text, &other.text) } else { (&item.folded, &other.folded) };
                match part {
                    Part::Whole => is == wanted,
                    Part::Anywhere => is.contains(wanted.as_ref()),
                    Part::Start => is.starts_with(wanted.as_ref()),
                    Part::End => is.ends_with(wanted.as_ref()),
                }
            }),
            Self::Null | Self::Exists(_) | Self::Never => false,
        }
    }
}

fn number(item: &Item<'_>) -> Option<f64> {
    match item.value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}
