//! One event as programs see it: for each field that rules use, its values; text is unescaped and folded when asked for.
//!
//! All text lies in one arena that begins with the event's own line, so nothing is allocated for an event once the
//! arena has grown. It must show the same values as [`crate::sigma::View`] does.

use super::escape::{escaped, is_unusual};
use super::item::{Item, Kind, NONE, Odd, Part};
use super::scan::Escapes;
use crate::event::Event;
use crate::sigma::FieldId;
use crate::sigma::view::{fold_character, raw_line};
use rustc_hash::FxHashMap;
use serde_json::Value;
use std::fmt::Write as _;
use std::sync::Arc;

/// The characters outside of ASCII that are folded to some of ASCII.
const FOLDED_TO_ASCII: [&str; 3] = ["\u{130}", "\u{17f}", "\u{212a}"];

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
    /// The line shows every value.
    is_line_whole: bool,
    /// Its escapes that [`super::escape::shown`] does not write.
    escapes: Escapes,
    /// Where the line begins in lower case, once that was asked for, and whether all of it is ASCII.
    lowered: Option<(usize, bool)>,
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
        (self.is_line_whole, self.escapes) = (!line.is_empty(), Escapes::default());
        self.lowered = None;
    }

    /// The event's line, its ASCII in lower case, where every ASCII text without quotes and slashes that is in a value
    /// stands as it is.
    pub(crate) fn plain_line(&mut self) -> Option<&str> {
        if !self.is_line_whole || self.escapes.numbers {
            return None;
        }
        let (start, is_ascii) = self.lowered();
        let (line, lowered) = (&self.arena.as_bytes()[..self.line_end], &self.arena[start..start + self.line_end]);
        let holds = |text: &str| memchr::memmem::find(line, text.as_bytes()).is_some();
        (is_ascii || !FOLDED_TO_ASCII.into_iter().any(holds)).then_some(lowered)
    }

    /// The line no longer shows every value.
    pub(crate) fn forget_line(&mut self) {
        self.is_line_whole = false;
    }

    /// The line has escapes that nobody needs.
    pub(crate) fn escaped(&mut self, escapes: Escapes) {
        self.escapes = escapes;
    }

    /// Where the line begins in lower case, and whether all of it is ASCII: made once for all values, which are most of
    /// it.
    fn lowered(&mut self) -> (usize, bool) {
        *self.lowered.get_or_insert_with(|| {
            let start = self.arena.len();
            self.arena.extend_from_within(..self.line_end);
            self.arena[start..].make_ascii_lowercase();
            (start, self.arena.as_bytes()[..self.line_end].is_ascii())
        })
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
            Value::Number(number) => self.push_text(id, &number.to_string(), Kind::Number),
            other => self.push_text(id, &other.to_string(), Kind::Text),
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

    /// The values of a field that are not null: as they are, and folded, each empty unless it was made ready.
    pub(crate) fn texts(&self, field: FieldId) -> impl Iterator<Item = (&str, &str)> {
        self.places(field).map(|place| self.items[place]).filter(|item| item.kind != Kind::Null).map(|item| {
            let text = if item.kind == Kind::Escaped { "" } else { self.range(item) };
            (text, self.part(item.folded))
        })
    }

    /// The values of a field that are not null, folded, as JSON shows them: what [`super::escape::shown`] makes of them. Empty unless
    /// they were made ready.
    pub(crate) fn shown(&self, field: FieldId) -> impl Iterator<Item = &str> {
        let items = self.places(field).map(|place| self.items[place]).filter(|item| item.kind != Kind::Null);
        items.map(|item| self.part(item.shown))
    }

    fn part(&self, part: Part) -> &str {
        if part == Part::NONE { "" } else { &self.arena[part.range()] }
    }

    /// Unescapes the values of a field.
    pub(crate) fn ready(&mut self, field: FieldId) {
        self.each(field, Self::ready_item);
    }

    /// Folds the values of a field.
    pub(crate) fn ready_folded(&mut self, field: FieldId) {
        self.each(field, Self::fold_item);
    }

    /// Folds the values of a field, but leaves them escaped: most are never unescaped.
    pub(crate) fn ready_shown(&mut self, field: FieldId) {
        self.each(field, Self::show_item);
    }

    fn each(&mut self, field: FieldId, act: impl Fn(&mut Self, usize)) {
        if field == FieldId::ANY {
            (0..self.items.len()).for_each(|place| act(self, place));
            return;
        }
        let mut place = self.slots.get(field.0 as usize).map_or(NONE, |slot| slot.first);
        while place != NONE {
            act(self, place as usize);
            place = self.items[place as usize].next;
        }
    }

    fn ready_item(&mut self, place: usize) {
        let item = self.items[place];
        if item.kind != Kind::Escaped {
            return;
        }
        let start = self.arena.len();
        self.unescape(item.start as usize, item.end as usize, false);
        let text = Item::new(start, self.arena.len(), Kind::Text);
        self.items[place] = Item { start: text.start, end: text.end, kind: Kind::Text, ..item };
    }

    fn fold_item(&mut self, place: usize) {
        let item = self.items[place];
        if item.folded != Part::NONE {
            return;
        }
        let lowered = self.lowered_item(item);
        self.items[place].folded = match lowered {
            Some(lowered) if item.kind == Kind::Escaped => {
                let start = self.arena.len();
                self.unescape(lowered.start as usize, lowered.end as usize, true);
                Part::new(start, self.arena.len())
            }
            Some(lowered) => lowered,
            None => {
                self.ready_item(place);
                let Item { start, end, .. } = self.items[place];
                self.fold(start as usize, end as usize)
            }
        };
    }

    fn show_item(&mut self, place: usize) {
        let item = self.items[place];
        if item.shown != Part::NONE {
            return;
        }
        self.items[place].shown = match self.lowered_item(item) {
            Some(lowered) if self.is_shown(item) => lowered,
            None if self.is_shown(item) => self.fold(item.start as usize, item.end as usize),
            _ => {
                self.fold_item(place);
                let folded = self.items[place].folded;
                match escaped(&self.arena[folded.range()]) {
                    None => folded,
                    Some(text) => {
                        let start = self.arena.len();
                        self.arena.push_str(&text);
                        Part::new(start, self.arena.len())
                    }
                }
            }
        };
    }

    /// Whether an item stands in the line as [`super::escape::shown`] shows it, but for its case.
    fn is_shown(&self, item: Item) -> bool {
        let (start, end) = (item.start as usize, item.end as usize);
        let is_usual = || self.escapes == Escapes::default() || !is_unusual(&self.arena.as_bytes()[start..end]);
        item.kind.is_word() || end <= self.line_end && (item.kind != Kind::Escaped || is_usual())
    }

    /// Where an item stands in lower case already, but for its escapes.
    fn lowered_item(&mut self, item: Item) -> Option<Part> {
        if item.kind.is_word() {
            return Some(Part { start: item.start, end: item.end });
        }
        let (start, end) = (item.start as usize, item.end as usize);
        if end > self.line_end {
            return None;
        }
        let (lowered, is_ascii) = self.lowered();
        let is_ascii = is_ascii || self.arena.as_bytes()[start..end].is_ascii();
        is_ascii.then(|| Part::new(lowered + start, lowered + end))
    }

    /// Appends a text in lower case, runs of ASCII many bytes at a time.
    fn fold(&mut self, mut from: usize, end: usize) -> Part {
        let begin = self.arena.len();
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
        Part::new(begin, self.arena.len())
    }

    /// Appends a JSON string's text, or where that is in lower case already, its folded text. The reader has seen that
    /// its escapes are sound.
    fn unescape(&mut self, start: usize, end: usize, folds: bool) {
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
                    let character = unit.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
                    if folds {
                        self.arena.extend(fold_character(character));
                        continue;
                    }
                    character
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
