//! Conditions as trees of tests on fields, and the naive evaluator of them.
//!
//! It tries every matcher on every value and remembers nothing: slow and plain, it is what compiled programs are
//! held to, and what explains them.

use super::moment::MomentPart;
use super::pattern::Pattern;
use super::view::{FieldId, Item, View};
use regex::Regex;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// A condition or a part of one.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    /// A selection, which conditions may name more than once.
    Selection(Arc<Selection>),
    Field(Test),
}

/// A selection and its name.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) name: String,
    pub(crate) node: Node,
}

/// Matchers on one field, or on every value of the event.
#[derive(Clone, Debug)]
pub(crate) struct Test {
    pub(crate) field: FieldId,
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
    Regex(Arc<Regex>),
    Cidr(Network),
    Compare(Order, f64),
    /// A part of the time that the value tells.
    Moment(MomentPart, Order, f64),
    /// Compared with another field of the same event.
    FieldReference {
        other: FieldId,
        part: Part,
        cased: bool,
    },
}

/// How numbers compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Order {
    pub(crate) fn holds(self, number: f64, bound: f64) -> bool {
        match self {
            Self::Equal => number == bound,
            Self::Greater => number > bound,
            Self::GreaterOrEqual => number >= bound,
            Self::Less => number < bound,
            Self::LessOrEqual => number <= bound,
        }
    }
    const fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Greater => ">",
            Self::GreaterOrEqual => "≥",
            Self::Less => "<",
            Self::LessOrEqual => "≤",
        }
    }
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

    /// Whether it is of version 4, how many bits count, and the address as a number.
    pub(crate) fn parts(self) -> (bool, u8, u128) {
        match self.address {
            IpAddr::V4(address) => (true, self.bits, u128::from(address.to_bits())),
            IpAddr::V6(address) => (false, self.bits, address.to_bits()),
        }
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
    /// Of how many parts it consists.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::All(nodes) | Self::Any(nodes) => 1 + nodes.iter().map(Self::size).sum::<usize>(),
            Self::Not(node) => 1 + node.size(),
            Self::Selection(selection) => selection.node.size(),
            Self::Field(test) => test.matchers.len(),
        }
    }

    pub(crate) fn holds(&self, view: &View<'_>) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.holds(view)),
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(view)),
            Self::Not(node) => !node.holds(view),
            Self::Selection(selection) => selection.node.holds(view),
            Self::Field(test) => test.holds(view),
        }
    }
}

impl Test {
    pub(crate) fn holds(&self, view: &View<'_>) -> bool {
        let one = |matcher: &Matcher| matcher.holds(self.field, view);
        if self.all { self.matchers.iter().all(one) } else { self.matchers.iter().any(one) }
    }
}

impl Matcher {
    /// Whether any value of the field does.
    pub(crate) fn holds(&self, field: FieldId, view: &View<'_>) -> bool {
        let items = view.items(field);
        match self {
            Self::Null => items.iter().all(|item| item.is_null),
            Self::Exists(wanted) => items.is_empty() != *wanted,
            Self::FieldReference { other, part, cased } => {
                let present = |items: &'_ &Item<'_>| !items.is_null;
                items.iter().filter(present).any(|item| {
                    view.items(*other).iter().filter(present).any(|other| {
                        let (is, wanted) =
                            if *cased { (&item.text, &other.text) } else { (&item.folded, &other.folded) };
                        part.holds(is, wanted)
                    })
                })
            }
            matcher => items.iter().any(|item| !item.is_null && matcher.takes(&item.text, &item.folded)),
        }
    }

    /// Whether one value does, given as text and folded.
    pub(crate) fn takes(&self, text: &str, folded: &str) -> bool {
        match self {
            Self::Folded(pattern) => pattern.matches(folded),
            Self::Cased(pattern) => pattern.matches(text),
            Self::Regex(regex) => regex.is_match(text),
            Self::Cidr(network) => text.parse().is_ok_and(|address| network.contains(address)),
            Self::Compare(order, bound) => number(text).is_some_and(|number| order.holds(number, *bound)),
            Self::Moment(part, order, bound) => part.of(text).is_some_and(|number| order.holds(number, *bound)),
            Self::Null | Self::Exists(_) | Self::FieldReference { .. } => false,
        }
    }

    /// Whether it looks at the folded text, not at the text as it is.
    pub(crate) fn is_folded(&self) -> bool {
        matches!(self, Self::Folded(_) | Self::FieldReference { cased: false, .. })
    }
}

impl Part {
    pub(crate) fn holds(self, is: &str, wanted: &str) -> bool {
        match self {
            Self::Whole => is == wanted,
            Self::Anywhere => is.contains(wanted),
            Self::Start => is.starts_with(wanted),
            Self::End => is.ends_with(wanted),
        }
    }
}

/// The number that a text is. Words such as `inf` are none.
fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("is missing or null"),
            Self::Exists(true) => f.write_str("exists"),
            Self::Exists(false) => f.write_str("does not exist"),
            Self::Folded(pattern) => pattern.fmt(f),
            Self::Cased(pattern) => write!(f, "{pattern} (case counts)"),
            Self::Regex(regex) => write!(f, "matches /{regex}/"),
            Self::Cidr(network) => write!(f, "is in {}/{}", network.address, network.bits),
            Self::Compare(order, bound) => write!(f, "{} {bound}", order.sign()),
            Self::Moment(part, order, bound) => write!(f, "{part:?} {} {bound}", order.sign()),
            Self::FieldReference { part, .. } => f.write_str(match part {
                Part::Whole => "is the other field",
                Part::Anywhere => "contains the other field",
                Part::Start => "starts with the other field",
                Part::End => "ends with the other field",
            }),
        }
    }
}
