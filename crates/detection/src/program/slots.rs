//! One event as programs see it: for each field that rules use, its values; text is unescaped and folded when asked for.
//!
//! All text lies in one arena that begins with the event's own line, so nothing is allocated for an event once the
//! arena has grown. It must show the same values as [`crate::sigma::View`] does.

use crate::event::Event;
use crate::sigma::FieldId;
use crate::sigma::view::{fold_character, raw_line};
use rustc_hash::FxHashMap;
use serde_json::Value;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

/// No item.
const NONE: u32 = u32::MAX;

/// The characters outside of ASCII that are folded to some of ASCII.
const FOLDED_TO_ASCII: [&str; 3] = ["\u{130}", "\u{17f}", "\u{212a}"];

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

/// A value: where its text lies in the arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) kind: Kind,
    folded_start: u32,
    folded_end: u32,
    /// The next value of the same field.
    next: u32,
}

impl Item {
    pub(crate) fn new(start: usize, end: usize, kind: Kind) -> Self {
        let place = |place| u32::try_from(place).expect("events are far smaller than 4 GiB");
        Self { start: place(start), end: place(end), kind, folded_start: NONE, folded_end: NONE, next: NONE }
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    first: u32,
    last: u32,
    /// The outermost array that the values came from; 0 for a value outside of arrays.
    array: u32,
}

const EMPTY: Slot = Slot { first: NONE, last: NONE, array: 0 };

/// From names to fields.
#[derive(Clone, Debug, Default)]
pub(crate) struct FieldIndex {
    ids: FxHashMap<Arc<str>, FieldId>,
    /// Whether rules look at every value.
    pub(crate) keeps_all: bool,
}

impl FieldIndex {
    pub(crate) fn new(names: &[Arc<str>], keeps_all: bool) -> Self {
        let id = |place: usize| FieldId(u32::try_from(place).expect("field names are bounded"));
        Self { ids: names.iter().enumerate().map(|(place, name)| (name.clone(), id(place))).collect(), keeps_all }
    }
    pub(crate) fn get(&self, name: &str) -> Option<FieldId> {
        self.ids.get(name).copied()
    }
}

/// The values of one event.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    arena: String,
    items: Vec<Item>,
    slots: Vec<Slot>,
    touched: Vec<u32>,
    line_end: usize,
    /// The line in lower case, once it was asked for.
    line: Option<Range<usize>>,
}

impl Slots {
    pub(crate) fn new(fields: usize) -> Self {
        Self { slots: vec![EMPTY; fields], ..Self::default() }
    }

    /// Forgets the last event and begins one with that line.
    pub(crate) fn begin(&mut self, line: &str) {
        for slot in self.touched.drain(..) {
            self.slots[slot as usize] = EMPTY;
        }
        self.items.clear();
        self.arena.clear();
        self.arena.push_str(line);
        self.line_end = line.len();
        self.line = None;
    }

    /// The event's line, its ASCII in lower case, where every ASCII text without quotes and slashes that is in a value
    /// stands as it is.
    pub(crate) fn plain_line(&mut self) -> Option<&str> {
        if self.line.is_none() {
            let line = &self.arena[..self.line_end];
            let holds = |text: &str| memchr::memmem::find(line.as_bytes(), text.as_bytes()).is_some();
            if line.is_empty() || holds("\\u") || (!line.is_ascii() && FOLDED_TO_ASCII.into_iter().any(holds)) {
                return None;
            }
            let start = self.arena.len();
            self.arena.extend_from_within(..self.line_end);
            self.arena[start..].make_ascii_lowercase();
            self.line = Some(start..self.arena.len());
        }
        self.line.clone().map(|line| &self.arena[line])
    }

    /// The line no longer shows every value.
    pub(crate) fn forget_line(&mut self) {
        (self.line_end, self.line) = (0, None);
    }

    /// Takes in all of an event.
    pub(crate) fn fill(&mut self, index: &FieldIndex, event: &Event) {
        self.begin("");
        for (name, value) in &event.fields {
            let id = index.get(name);
            if id.is_none() && !index.keeps_all {
                continue;
            }
            match value {
                Value::Array(values) => values.iter().for_each(|value| self.push_value(id, value)),
                value => self.push_value(id, value),
            }
        }
        if index.keeps_all
            && let Some(line) = raw_line(&event.raw)
        {
            self.push_text(None, &line, Kind::Text);
        }
    }

    fn push_value(&mut self, id: Option<FieldId>, value: &Value) {
        match value {
            Value::Null => self.push_text(id, "", Kind::Null),
            Value::String(text) => self.push_text(id, text, Kind::Text),
            Value::Bool(flag) => self.push_text(id, if *flag { "true" } else { "false" }, Kind::Flag),
            other => self.push_text(id, &other.to_string(), Kind::Number),
        }
    }

    /// Adds a value whose text is not in the arena yet.
    pub(crate) fn push_text(&mut self, id: Option<FieldId>, text: &str, kind: Kind) {
        let start = self.arena.len();
        self.arena.push_str(text);
        self.link(id, Item::new(start, self.arena.len(), kind), 0);
    }

    /// Adds a whole number.
    pub(crate) fn push_number(&mut self, id: Option<FieldId>, number: u64) {
        let start = self.arena.len();
        let _ = write!(self.arena, "{number}");
        self.link(id, Item::new(start, self.arena.len(), Kind::Number), 0);
    }

    /// Adds a value whose text is in the arena. A field that is given twice, other than by the same array, is odd:
    /// which value counts is for the slow way to say.
    pub(crate) fn push(&mut self, id: Option<FieldId>, mut item: Item, array: u32) -> Result<(), Odd> {
        if let Some(FieldId(slot)) = id {
            let slot = &self.slots[slot as usize];
            if slot.first != NONE && (array == 0 || slot.array != array) {
                return Err(Odd);
            }
        }
        if item.kind == Kind::Fraction {
            let number: serde_json::Number = serde_json::from_str(self.range(item)).map_err(|_| Odd)?;
            let start = self.arena.len();
            let _ = write!(self.arena, "{number}");
            item = Item::new(start, self.arena.len(), Kind::Number);
        }
        self.link(id, item, array);
        Ok(())
    }

    fn link(&mut self, id: Option<FieldId>, item: Item, array: u32) {
        let place = u32::try_from(self.items.len()).expect("values of an event are bounded");
        self.items.push(item);
        let Some(FieldId(id)) = id else { return };
        let slot = &mut self.slots[id as usize];
        if slot.first == NONE {
            *slot = Slot { first: place, last: place, array };
            self.touched.push(id);
        } else {
            self.items[slot.last as usize].next = place;
            slot.last = place;
        }
    }

    fn range(&self, item: Item) -> &str {
        &self.arena[item.start as usize..item.end as usize]
    }

    /// Whether the field has a value, be it null.
    pub(crate) fn is_present(&self, field: FieldId) -> bool {
        if field == FieldId::ANY {
            return !self.items.is_empty();
        }
        self.slots.get(field.0 as usize).is_some_and(|slot| slot.first != NONE)
    }

    /// Whether the values of the field came from an array.
    pub(crate) fn is_array(&self, field: FieldId) -> bool {
        self.slots.get(field.0 as usize).is_some_and(|slot| slot.array != 0)
    }

    /// Whether all values of the field are null.
    pub(crate) fn is_null(&self, field: FieldId) -> bool {
        self.places(field).all(|place| self.items[place].kind == Kind::Null)
    }

    /// The one value of a field, unless it has none, several, or escapes.
    pub(crate) fn single(&self, field: FieldId) -> Option<(Kind, &str)> {
        let slot = self.slots.get(field.0 as usize).filter(|slot| slot.first != NONE && slot.first == slot.last)?;
        let item = self.items[slot.first as usize];
        (item.kind != Kind::Escaped).then(|| (item.kind, self.range(item)))
    }

    fn places(&self, field: FieldId) -> Places<'_> {
        if field == FieldId::ANY {
            return Places { items: &self.items, next: if self.items.is_empty() { NONE } else { 0 }, all: true };
        }
        let next = self.slots.get(field.0 as usize).map_or(NONE, |slot| slot.first);
        Places { items: &self.items, next, all: false }
    }

    /// The values of a field that are not null: as they are, and folded. The field must be ready.
    pub(crate) fn texts(&self, field: FieldId) -> impl Iterator<Item = (&str, &str)> {
        self.places(field).map(|place| self.items[place]).filter(|item| item.kind != Kind::Null).map(|item| {
            let folded = if item.folded_start == NONE {
                ""
            } else {
                &self.arena[item.folded_start as usize..item.folded_end as usize]
            };
            (self.range(item), folded)
        })
    }

    /// Unescapes the values of a field, and folds them if asked to.
    pub(crate) fn ready(&mut self, field: FieldId, folded: bool) {
        if field == FieldId::ANY {
            (0..self.items.len()).for_each(|place| self.ready_item(place, folded));
            return;
        }
        let mut place = self.slots.get(field.0 as usize).map_or(NONE, |slot| slot.first);
        while place != NONE {
            self.ready_item(place as usize, folded);
            place = self.items[place as usize].next;
        }
    }

    fn ready_item(&mut self, place: usize, folded: bool) {
        let mut item = self.items[place];
        if item.kind == Kind::Escaped {
            let start = self.arena.len();
            self.unescape(item.start as usize, item.end as usize);
            item.start = u32::try_from(start).unwrap_or(NONE);
            item.end = u32::try_from(self.arena.len()).unwrap_or(NONE);
            item.kind = Kind::Text;
            self.items[place] = item;
        }
        if !folded || item.folded_start != NONE {
            return;
        }
        let start = self.arena.len();
        self.fold(item.start as usize, item.end as usize);
        self.items[place].folded_start = u32::try_from(start).unwrap_or(NONE);
        self.items[place].folded_end = u32::try_from(self.arena.len()).unwrap_or(NONE);
    }

    /// Appends a text in lower case, runs of ASCII many bytes at a time.
    fn fold(&mut self, mut from: usize, end: usize) {
        while from < end {
            let rest = &self.arena.as_bytes()[from..end];
            let is_other = |byte: &u8| !byte.is_ascii();
            let run = if rest.is_ascii() { rest.len() } else { rest.iter().position(is_other).unwrap_or(rest.len()) };
            let start = self.arena.len();
            self.arena.extend_from_within(from..from + run);
            self.arena[start..].make_ascii_lowercase();
            from += run;
            if let Some(character) = self.arena[from..end].chars().next() {
                self.arena.extend(fold_character(character));
                from += character.len_utf8();
            }
        }
    }

    /// Appends a JSON string's text. The reader has seen that its escapes are sound.
    fn unescape(&mut self, start: usize, end: usize) {
        let mut from = start;
        while let Some(slash) = memchr::memchr(b'\\', &self.arena.as_bytes()[from..end]) {
            let slash = from + slash;
            self.arena.extend_from_within(from..slash);
            from = slash + 2;
            let plain = match self.arena.as_bytes()[slash + 1] {
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'u' => {
                    from = slash + 6;
                    let unit = self.arena.get(slash + 2..from).and_then(|digits| u32::from_str_radix(digits, 16).ok());
                    unit.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
                }
                other => char::from(other),
            };
            self.arena.push(plain);
        }
        self.arena.extend_from_within(from..end);
    }
}

struct Places<'a> {
    items: &'a [Item],
    next: u32,
    all: bool,
}

impl Iterator for Places<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.next == NONE {
            return None;
        }
        let place = self.next as usize;
        self.next = if !self.all {
            self.items[place].next
        } else if place + 1 < self.items.len() {
            self.next + 1
        } else {
            NONE
        };
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sigma::view::fold;

    #[test]
    fn only_those_characters_are_folded_to_ascii() {
        let folded = ('\u{80}'..=char::MAX).filter(|character| fold_character(*character).any(|part| part.is_ascii()));
        assert_eq!(folded.map(String::from).collect::<Vec<_>>(), FOLDED_TO_ASCII);
    }

    #[test]
    fn texts_are_folded_as_everywhere_else() {
        for text in ["", "ABC", "Microsoft® WINDOWS", "ÄÖ", "aſKb\u{130}", "x\u{e9}"] {
            let mut slots = Slots::new(0);
            slots.begin(text);
            slots.fold(0, text.len());
            assert_eq!(&slots.arena[text.len()..], fold(text), "{text}");
        }
    }
}
