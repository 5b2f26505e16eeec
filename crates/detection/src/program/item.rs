//! The values of one event: what each is, and where it lies in the arena.

use std::ops::Range;

/// No item.
pub(super) const NONE: u32 = u32::MAX;

/// The fast reader does not vouch for this event: it is read the slow way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Odd;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    /// Text with JSON's escapes still in it.
    Escaped,
    /// A whole number, written as everyone writes it.
    Number,
    /// A number that has other ways to be written.
    Fraction,
    Flag,
    Null,
}

impl Kind {
    /// Whether its text is in lower case and without escapes in any case.
    pub(super) fn is_word(self) -> bool {
        matches!(self, Self::Number | Self::Flag | Self::Null)
    }
}

/// A value: where its text lies in the arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) kind: Kind,
    /// Its text in lower case, once that was asked for.
    pub(super) folded: Part,
    /// The same as JSON shows it.
    pub(super) shown: Part,
    /// The next value of the same field.
    pub(super) next: u32,
}

/// Where something lies in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Part {
    pub(super) const NONE: Self = Self { start: NONE, end: NONE };

    pub(super) fn new(start: usize, end: usize) -> Self {
        let place = |place| u32::try_from(place).expect("events are far smaller than 4 GiB");
        Self { start: place(start), end: place(end) }
    }

    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl Item {
    pub(crate) fn new(start: usize, end: usize, kind: Kind) -> Self {
        let Part { start, end } = Part::new(start, end);
        Self { start, end, kind, folded: Part::NONE, shown: Part::NONE, next: NONE }
    }
}
