//! An event as the naive evaluator sees it: interned fields, each value once as text and once folded to lower case.

use crate::event::Event;
use serde_json::Value;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A field name that rules use, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldId(pub(crate) u32);

impl FieldId {
    /// Not one field, but every value of the event: where keywords are looked for.
    pub(crate) const ANY: Self = Self(u32::MAX);
}

/// All field names that loaded rules use.
#[derive(Clone, Debug, Default)]
pub struct FieldNames {
    ids: BTreeMap<Arc<str>, FieldId>,
    names: Vec<Arc<str>>,
}

impl FieldNames {
    /// The number of a name, given to it now if it has none.
    pub fn intern(&mut self, name: &str) -> FieldId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = FieldId(u32::try_from(self.names.len()).expect("rule files are bounded, so are their fields"));
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        self.ids.insert(name, id);
        id
    }
    /// The number of a name that has one.
    pub fn id(&self, name: &str) -> Option<FieldId> {
        self.ids.get(name).copied()
    }
    /// The name of a number; `any field` for keywords.
    pub fn name(&self, id: FieldId) -> &str {
        self.names.get(id.0 as usize).map_or("any field", AsRef::as_ref)
    }
    /// All names, in the order of their numbers.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// One value of a field.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    pub(crate) is_null: bool,
    pub(crate) text: Cow<'a, str>,
    pub(crate) folded: Cow<'a, str>,
}

impl<'a> Item<'a> {
    fn of(value: &'a Value) -> Self {
        let text: Cow<'a, str> = match value {
            Value::String(text) => Cow::Borrowed(text),
            Value::Null => Cow::Borrowed(""),
            other => Cow::Owned(other.to_string()),
        };
        Self::of_text(text, value.is_null())
    }

    fn of_text(text: Cow<'a, str>, is_null: bool) -> Self {
        let folded = match &text {
            Cow::Borrowed(text) => fold(text),
            Cow::Owned(text) => Cow::Owned(fold(text).into_owned()),
        };
        Self { is_null, text, folded }
    }
}

/// Lower case, character by character, as rules and events are compared.
pub(crate) fn fold(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            Cow::Borrowed(text)
        }
    } else {
        Cow::Owned(text.chars().flat_map(fold_character).collect())
    }
}

/// One character in lower case. The long s is an s, as it is to regular expressions that ignore case.
pub(crate) fn fold_character(character: char) -> impl Iterator<Item = char> {
    if character == 'ſ' { 's'.to_lowercase() } else { character.to_lowercase() }
}

/// Whether the raw bytes are a line that says more than the fields made of it.
pub(crate) fn raw_line(raw: &[u8]) -> Option<Cow<'_, str>> {
    // JSON is in the fields already, unescaped.
    let is_line = raw.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first != b'{');
    is_line.then(|| String::from_utf8_lossy(raw))
}

/// An event, its fields looked up once for all rules.
#[derive(Debug)]
pub struct View<'a> {
    event: &'a Event,
    slots: Vec<Vec<Item<'a>>>,
    everything: OnceCell<Vec<Item<'a>>>,
}

impl<'a> View<'a> {
    /// The view of an event under the names that loaded rules use.
    pub fn new(names: &FieldNames, event: &'a Event) -> Self {
        let mut slots: Vec<Vec<Item<'a>>> = Vec::new();
        slots.resize_with(names.len(), Vec::new);
        for (name, value) in &event.fields {
            if let Some(FieldId(slot)) = names.id(name) {
                slots[slot as usize] = match value {
                    Value::Array(values) => values.iter().map(Item::of).collect(),
                    value => vec![Item::of(value)],
                };
            }
        }
        Self { event, slots, everything: OnceCell::new() }
    }

    pub(crate) fn items(&self, field: FieldId) -> &[Item<'a>] {
        if field == FieldId::ANY {
            return self.everything();
        }
        self.slots.get(field.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// Every value of the event, and the line it was made of: what keywords are looked for in.
    fn everything(&self) -> &[Item<'a>] {
        self.everything.get_or_init(|| {
            let mut items = Vec::new();
            for value in self.event.fields.values() {
                match value {
                    Value::Array(values) => items.extend(values.iter().map(Item::of)),
                    value => items.push(Item::of(value)),
                }
            }
            items.extend(raw_line(&self.event.raw).map(|line| Item::of_text(line, false)));
            items
        })
    }
}
