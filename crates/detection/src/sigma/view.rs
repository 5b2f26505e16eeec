//! An event as matchers see it: interned fields, each value once as text and once folded to lower case.

use crate::event::Event;
use serde_json::Value;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;

/// A field name that rules use, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldId(u32);

/// All field names that loaded rules use.
#[derive(Clone, Debug, Default)]
pub struct FieldNames(BTreeMap<String, FieldId>);

impl FieldNames {
    /// The number of a name, given to it now if it has none.
    pub fn intern(&mut self, name: &str) -> FieldId {
        if let Some(id) = self.0.get(name) {
            return *id;
        }
        let id = FieldId(u32::try_from(self.0.len()).expect("rule files are bounded, so are their fields"));
        self.0.insert(name.to_owned(), id);
        id
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One value of a field.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    pub(crate) value: &'a Value,
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
        let folded = match &text {
            Cow::Borrowed(text) => fold(text),
            Cow::Owned(text) => Cow::Owned(fold(text).into_owned()),
        };
        Self { value, text, folded }
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
        Cow::Owned(text.chars().flat_map(char::to_lowercase).collect())
    }
}

/// An event, its fields looked up once for all rules.
#[derive(Debug)]
pub struct View<'a> {
    event: &'a Event,
    slots: Vec<Vec<Item<'a>>>,
    keywords: OnceCell<(String, String)>,
}

impl<'a> View<'a> {
    /// The view of an event under the names that loaded rules use.
    pub fn new(names: &FieldNames, event: &'a Event) -> Self {
        let mut slots: Vec<Vec<Item<'a>>> = Vec::new();
        slots.resize_with(names.len(), Vec::new);
        for (name, value) in &event.fields {
            if let Some(FieldId(slot)) = names.0.get(name) {
                slots[*slot as usize] = match value {
                    Value::Array(values) => values.iter().map(Item::of).collect(),
                    value => vec![Item::of(value)],
                };
            }
        }
        Self { event, slots, keywords: OnceCell::new() }
    }

    pub(crate) fn items(&self, field: FieldId) -> &[Item<'a>] {
        self.slots.get(field.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// All text of the event, as it is and folded: what keywords are looked for in.
    pub(crate) fn keywords(&self) -> &(String, String) {
        self.keywords.get_or_init(|| {
            let mut text = String::from_utf8_lossy(&self.event.raw).into_owned();
            for value in self.event.fields.values() {
                match value {
                    Value::String(value) => {
                        text.push('\n');
                        text.push_str(value);
                    }
                    Value::Array(values) => values.iter().filter_map(Value::as_str).for_each(|value| {
                        text.push('\n');
                        text.push_str(value);
                    }),
                    _ => {}
                }
            }
            let folded = fold(&text).into_owned();
            (text, folded)
        })
    }
}
