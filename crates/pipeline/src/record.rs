//! Records: events while they are on their way, as they arrived or already taken apart.
//!
//! Pure data. The stored form is JSON, so that people can read what lies in buffers and among dead letters.

use crate::sink::{Notice, Topic};
use crate::transform::schema::CLASSES;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use detection::event::Fields;
use detection::normalise::{class, normalise};
use detection::rules::TENANT_FIELD;
use detection::{EventId, Position, RawEvent, Severity, SourceKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::sync::Arc;

/// Characters of a notice's subject line.
const SUBJECT_CHARACTERS_MAX: usize = 200;
/// What a record weighs beside its bytes and fields.
const OVERHEAD_BYTES: usize = 64;

/// An event on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// How its bytes are to be parsed, while nobody has.
    pub source: SourceKind,
    /// When it was received, in milliseconds since 1970.
    pub received_ms: u64,
    /// Its stream and place, where it has one.
    pub position: Option<Position>,
    /// Whose it is, where its source was said to be a tenant's.
    pub tenant: Option<Arc<str>>,
    /// The bytes it arrived as; empty once a transform has kept them from travelling on.
    pub raw: Bytes,
    /// Its fields, flat, once a transform has taken it apart.
    pub fields: Option<Fields>,
}

impl From<RawEvent> for Record {
    fn from(raw: RawEvent) -> Self {
        let RawEvent { source, received_ms, position, bytes } = raw;
        Self { source, received_ms, position, tenant: None, raw: bytes, fields: None }
    }
}

impl Record {
    /// Its fields; none while it has not been taken apart.
    pub fn fields(&self) -> &Fields {
        static NONE: Fields = Fields::new();
        self.fields.as_ref().unwrap_or(&NONE)
    }

    /// The text of a field, where it is one.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.fields().get(field).and_then(Value::as_str)
    }

    /// Sets a field.
    pub fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.fields.get_or_insert_default().insert(field.to_owned(), value.into());
    }

    /// About how much memory it takes.
    pub fn size_bytes(&self) -> usize {
        let fields = self.fields().iter().map(|(name, value)| name.len() + value_bytes(value));
        OVERHEAD_BYTES + self.raw.len() + fields.sum::<usize>()
    }

    /// As detection takes it: as it arrived, or as what was made of it.
    pub fn into_raw_event(self) -> RawEvent {
        let Self { source, received_ms, position, raw, fields, .. } = self;
        match fields {
            None => RawEvent { source, received_ms, position, bytes: raw },
            Some(fields) => {
                let object: Map<String, Value> = fields.into_iter().collect();
                let bytes = Value::Object(object).to_string().into();
                RawEvent { source: SourceKind::Parsed, received_ms, position, bytes }
            }
        }
    }

    /// Its id: of its stream and place, or of its content.
    pub fn id(&self) -> EventId {
        if self.position.is_some() || self.fields.is_none() {
            let (source, received_ms) = (self.source, self.received_ms);
            return RawEvent { source, received_ms, position: self.position.clone(), bytes: self.raw.clone() }.id();
        }
        self.clone().into_raw_event().id()
    }

    /// As sinks take it; `platform` is whose it is where no tenant's source brought it.
    pub fn notice(&self, platform: &str) -> Notice {
        // Of what nobody has taken apart, it must be known all the same whose it is and how grave.
        let fields = match &self.fields {
            Some(fields) => Cow::Borrowed(fields),
            None => Cow::Owned(normalise(&self.clone().into_raw_event()).map(|event| event.fields).unwrap_or_default()),
        };
        let number = |field: &str| fields.get(field).and_then(Value::as_u64);
        let severity = match number("severity_id") {
            None | Some(0 | 1) => Severity::Informational,
            Some(2) => Severity::Low,
            Some(3) => Severity::Medium,
            Some(4) => Severity::High,
            Some(5 | 6) => Severity::Critical,
            // OCSF's "other" says nothing.
            Some(_) => Severity::Informational,
        };
        let text = |field: &str| fields.get(field).and_then(Value::as_str);
        let tenant = match self.source {
            // The platform's own events say themselves whose they are; others' are their source's.
            SourceKind::Audit => text(TENANT_FIELD).or_else(|| text("tenant")),
            _ => self.tenant.as_deref(),
        };
        let line = String::from_utf8_lossy(&self.raw);
        let subject = self.text("message").unwrap_or(&line).chars().take(SUBJECT_CHARACTERS_MAX);
        let subject = subject.map(|character| if character.is_control() { ' ' } else { character }).collect();
        let body = match &self.fields {
            Some(fields) => ocsf(fields),
            None => Map::from_iter([("raw_data".to_owned(), Value::from(line.as_ref()))]),
        };
        Notice {
            key: self.id().to_string(),
            topic: Topic::Event,
            tenant: tenant.unwrap_or(platform).to_owned(),
            at_ms: number("time").unwrap_or(self.received_ms),
            severity,
            subject,
            to: Vec::new(),
            body: Value::Object(body).to_string(),
        }
    }
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(values) => values.iter().map(value_bytes).sum::<usize>() + 2,
        Value::Object(object) => object.iter().map(|(name, value)| name.len() + value_bytes(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}

/// What OCSF has lists of where events have one.
const LISTS: [&str; 1] = ["resources"];

/// What rules look at in every event, and the classes that OCSF has it in.
const OF_CLASSES: [(&str, &[u32]); 7] = [
    ("logsource", &[]),
    ("product", &[]),
    ("category", &[]),
    ("database", &[class::BASE, class::DATASTORE]),
    ("resources", &[class::BASE, class::DETECTION_FINDING, class::API_ACTIVITY]),
    ("service", &[class::BASE, class::AUTHENTICATION]),
    ("process", &[class::BASE, class::PROCESS]),
];

/// Fields as OCSF nests them; what is no part of the class is unmapped.
fn ocsf(fields: &Fields) -> Map<String, Value> {
    let mut body = nested(fields);
    let Some(class) = body.get("class_uid").and_then(Value::as_u64) else { return body };
    let is_known = CLASSES.iter().any(|known| u64::from(known.uid) == class);
    for (name, classes) in OF_CLASSES {
        let is_of_class = classes.iter().any(|uid| u64::from(*uid) == class);
        // A plain name is what a log source calls itself.
        let is_plain = body.get(name).is_some_and(Value::is_string);
        if is_of_class && !is_plain || !is_known && name != "logsource" {
            continue;
        }
        if let Some(value) = body.remove(name)
            && let Some(unmapped) = body.entry("unmapped").or_insert_with(|| Map::new().into()).as_object_mut()
        {
            unmapped.insert(name.to_owned(), value);
        }
    }
    for list in LISTS {
        if let Some(one @ Value::Object(_)) = body.get_mut(list) {
            *one = Value::Array(vec![one.take()]);
        }
    }
    body
}

/// Dotted names as objects in objects. Where a name is both a value and the beginning of others, these stay dotted.
pub fn nested(fields: &Fields) -> Map<String, Value> {
    let mut root = Map::new();
    for (name, value) in fields {
        if !plant(&mut root, name, value) {
            root.insert(name.clone(), value.clone());
        }
    }
    root
}

fn plant(object: &mut Map<String, Value>, name: &str, value: &Value) -> bool {
    match name.split_once('.') {
        Some((head, rest)) if !head.is_empty() && !rest.is_empty() => {
            let inner = object.entry(head).or_insert_with(|| Value::Object(Map::new()));
            inner.as_object_mut().is_some_and(|inner| plant(inner, rest, value))
        }
        _ => {
            let free = !object.contains_key(name);
            if free {
                object.insert(name.to_owned(), value.clone());
            }
            free
        }
    }
}

/// A record as it lies in buffers and among dead letters. Fields added later are ignored here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    source: SourceKind,
    received_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    sequence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<Arc<str>>,
    /// The bytes, where they are text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The bytes in base64, where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fields: Option<Fields>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<&Record> for Stored {
    fn from(record: &Record) -> Self {
        let text = std::str::from_utf8(&record.raw).ok();
        Self {
            source: record.source,
            received_ms: record.received_ms,
            stream: record.position.as_ref().map(|position| Arc::clone(&position.stream)),
            sequence: record.position.as_ref().map_or(0, |position| position.sequence),
            tenant: record.tenant.clone(),
            text: text.filter(|text| !text.is_empty()).map(str::to_owned),
            base64: text.is_none().then(|| BASE64.encode(&record.raw)),
            fields: record.fields.clone(),
        }
    }
}

/// Bytes that are not what they are said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record's bytes are not base64")]
pub struct NotBase64;

impl TryFrom<Stored> for Record {
    type Error = NotBase64;
    fn try_from(stored: Stored) -> Result<Self, NotBase64> {
        let Stored { source, received_ms, stream, sequence, tenant, text, base64, fields } = stored;
        let raw = match (text, base64) {
            (Some(text), _) => text.into(),
            (None, Some(encoded)) => BASE64.decode(encoded).map_err(|_| NotBase64)?.into(),
            (None, None) => Bytes::new(),
        };
        let position = stream.map(|stream| Position { stream, sequence });
        Ok(Self { source, received_ms, position, tenant, raw, fields })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn fields(pairs: &[(&str, Value)]) -> Fields {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn dotted_names_nest_and_a_clash_loses_nothing() {
        let flat = fields(&[("a", json!(1)), ("a.b", json!(2)), ("c.d.e", json!(3)), ("c.f", json!(4))]);
        let object = Value::Object(nested(&flat));
        assert_eq!(object, json!({"a": 1, "a.b": 2, "c": {"d": {"e": 3}, "f": 4}}));
    }

    #[test]
    fn what_was_made_of_an_event_reaches_detection_under_the_same_names() {
        let made = fields(&[
            ("class_uid", json!(3002)),
            ("logsource.product", json!("vpn")),
            ("logsource.service", json!(["login", "auth"])),
            ("user.name", json!("ann")),
            ("time", json!(1_795_467_600_000_u64)),
        ]);
        let position = Some(Position { stream: "s".into(), sequence: 7 });
        let raw = b"line".as_slice().into();
        let record =
            Record { source: SourceKind::Syslog, received_ms: 5, position, tenant: None, raw, fields: Some(made) };
        let id = record.id();
        let event = detection::normalise::normalise(&record.into_raw_event()).unwrap();
        assert_eq!((event.id, event.class_uid, event.time_ms), (id, 3002, 1_795_467_600_000));
        assert_eq!(event.text("user.name"), Some("ann"));
        assert_eq!(event.logsource.services, ["login".into(), "auth".into()]);
    }

    proptest! {
        #[test]
        fn a_stored_record_comes_back(raw: Vec<u8>, parsed: bool, sequence: Option<u64>) {
            let position = sequence.map(|sequence| Position { stream: "s/é".into(), sequence });
            let fields = parsed.then(|| fields(&[("a.b", json!([1, "x", null]))]));
            let record = Record { source: SourceKind::Syslog, received_ms: 1, position, tenant: None, raw: raw.into(), fields };
            let text = serde_json::to_string(&Stored::from(&record)).unwrap();
            let back: Record = serde_json::from_str::<Stored>(&text).unwrap().try_into().unwrap();
            prop_assert_eq!(back, record);
        }
        #[test]
        fn every_name_is_nested_without_a_panic(names in proptest::collection::btree_set("[a.]{0,6}", 0..12)) {
            let flat: Fields = names.into_iter().map(|name| (name, json!(1))).collect();
            prop_assert!(nested(&flat).len() <= flat.len());
        }
    }
}
