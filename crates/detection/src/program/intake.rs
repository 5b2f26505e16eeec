//! From a raw event to slots without the event in between: what normalising would make of it, for the fields rules use.
//!
//! Only events it is sure of; any other is odd and goes through [`crate::normalise`], which alone says why an event
//! is rejected.

use super::item::{Item, Kind, Odd};
use super::scan::{self, Sink};
use super::slots::{FieldIndex, Slots};
use crate::event::{HOST_FIELD, Owner};
use crate::normalise::{OWN_PRODUCT, class, json};
use crate::rules::TENANT_FIELD;
use crate::sigma::{FieldId, FieldNames};
use rustc_hash::FxHashSet;

/// Most objects and arrays of one event whose paths are remembered; more is odd.
const CONTAINERS_MAX: usize = 64;

/// Fields that are looked at whether or not rules use them.
#[derive(Clone, Debug)]
pub(crate) struct SystemFields {
    times: [FieldId; json::TIME_FIELDS.len()],
    class_uid: FieldId,
    activity_id: FieldId,
    severity_id: FieldId,
    category_uid: FieldId,
    type_uid: FieldId,
    /// Product, category and service; the nested name first.
    source: [[FieldId; 2]; 3],
    host: FieldId,
    tenant: FieldId,
}

impl SystemFields {
    pub(crate) fn new(names: &mut FieldNames) -> Self {
        Self {
            times: json::TIME_FIELDS.map(|name| names.intern(name)),
            class_uid: names.intern("class_uid"),
            activity_id: names.intern("activity_id"),
            severity_id: names.intern("severity_id"),
            category_uid: names.intern("category_uid"),
            type_uid: names.intern("type_uid"),
            source: [
                ["logsource.product", "product"],
                ["logsource.category", "category"],
                ["logsource.service", "service"],
            ]
            .map(|pair| pair.map(|name| names.intern(name))),
            host: names.intern(HOST_FIELD),
            tenant: names.intern(TENANT_FIELD),
        }
    }

    /// Says whose the event is; what says it itself is read the slow way, where that is taken out.
    pub(super) fn stamp(&self, owner: Owner<'_>, slots: &mut Slots) -> Result<(), Odd> {
        match owner {
            Owner::Itself => Ok(()),
            Owner::Nobody | Owner::Tenant(_) if slots.is_present(self.tenant) => Err(Odd),
            Owner::Nobody => Ok(()),
            Owner::Tenant(tenant) => {
                // The line does not show it.
                slots.forget_line();
                slots.push_text(Some(self.tenant), tenant, Kind::Text);
                Ok(())
            }
        }
    }

    /// Whether it is one of them. What a list of values means there, be it empty, is for normalising to say.
    fn has(&self, field: FieldId) -> bool {
        let numbers = [self.class_uid, self.activity_id, self.severity_id, self.category_uid, self.type_uid];
        self.times.contains(&field)
            || numbers.contains(&field)
            || self.source.as_flattened().contains(&field)
            || field == self.host
    }
}

/// What an event's line says of the event as a whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intake {
    pub(crate) time_ms: u64,
}

/// What an event's line says of where it came from.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    /// The key of its log source, as [`super::write_source_key`] writes it.
    pub(crate) source: String,
    /// The host that wrote it, empty where it names none.
    pub(crate) host: String,
}

/// Paths of containers, to notice a name that is given twice.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    text: String,
    containers: Vec<(u64, u32)>,
    /// Of scalars that no rule names, where rules look at every value.
    others: FxHashSet<u64>,
}

struct Json<'a> {
    slots: &'a mut Slots,
    index: &'a FieldIndex,
    system: &'a SystemFields,
    containers: &'a mut Vec<(u64, u32)>,
    others: &'a mut FxHashSet<u64>,
}

fn hash(path: &str) -> u64 {
    use std::hash::BuildHasher as _;
    rustc_hash::FxBuildHasher.hash_one(path)
}

impl Sink for Json<'_> {
    fn scalar(&mut self, path: &str, array: u32, item: Item) -> Result<(), Odd> {
        let id = self.index.get(path);
        if id.is_none() && !self.index.keeps_all {
            return Ok(());
        }
        if array == 0 && (id.is_none() || !self.containers.is_empty()) {
            let hash = hash(path);
            let is_known = self.containers.iter().any(|(known, _)| *known == hash);
            if is_known || id.is_none() && !self.others.insert(hash) {
                return Err(Odd);
            }
        }
        self.slots.push(id, item, array)
    }

    fn container(&mut self, path: &str, array: u32, is_object: bool) -> Result<(), Odd> {
        if let Some(id) = self.index.get(path)
            && (self.slots.is_present(id) && array == 0 || !is_object && self.system.has(id))
        {
            return Err(Odd);
        }
        let hash = hash(path);
        if array == 0 && self.others.contains(&hash) {
            return Err(Odd);
        }
        let known = self.containers.iter().find(|(known, _)| *known == hash);
        match known {
            // The elements of an array lie under its own path.
            Some((_, of)) if array != 0 && (*of == 0 || *of == array) => Ok(()),
            Some(_) => Err(Odd),
            None if self.containers.len() >= CONTAINERS_MAX => Err(Odd),
            None => {
                self.containers.push((hash, array));
                Ok(())
            }
        }
    }
}

/// Reads an event that is JSON already.
pub(crate) fn ndjson(
    line: &[u8],
    received_ms: u64,
    index: &FieldIndex,
    system: &SystemFields,
    paths: &mut Paths,
    slots: &mut Slots,
    origin: &mut Origin,
) -> Result<Intake, Odd> {
    let line = simdutf8::basic::from_utf8(line).map_err(|_| Odd)?.trim_end_matches([' ', '\n', '\r']);
    slots.begin(line);
    paths.containers.clear();
    paths.others.clear();
    let mut sink = Json { slots, index, system, containers: &mut paths.containers, others: &mut paths.others };
    let escapes = scan::read(line, &mut paths.text, &mut sink)?;
    slots.escaped(escapes);
    let time_ms = match system.times.iter().find(|field| slots.is_present(**field)) {
        Some(field) => time_ms(slots, *field)?,
        None => received_ms,
    };
    let class_uid = number(slots, system.class_uid, class::BASE)?;
    let activity_id = number(slots, system.activity_id, 0)?;
    let severity_id = number(slots, system.severity_id, 0)?;
    for (field, value) in [
        (system.class_uid, u64::from(class_uid)),
        (system.category_uid, u64::from(class_uid / 1_000)),
        (system.activity_id, activity_id.into()),
        (system.severity_id, severity_id.into()),
        (system.type_uid, u64::from(class_uid * 100 + activity_id)),
        (system.times[0], time_ms),
    ] {
        if !slots.is_present(field) {
            slots.push_number(Some(field), value);
        }
    }
    write_source(slots, system, &mut origin.source)?;
    if slots.is_present(system.host) && !slots.is_array(system.host) {
        // What is not a text is not a name.
        if let (Kind::Text, text) = slots.single(system.host).ok_or(Odd)? {
            origin.host.push_str(text);
        }
    }
    Ok(Intake { time_ms })
}

fn time_ms(slots: &Slots, field: FieldId) -> Result<u64, Odd> {
    let (kind, text) = slots.single(field).filter(|_| !slots.is_array(field)).ok_or(Odd)?;
    let time_ms = match kind {
        Kind::Number => text.parse().ok().and_then(json::time_of_number),
        Kind::Text => json::time_of_text(text),
        _ => None,
    };
    time_ms.ok_or(Odd)
}

/// A number from 0 to a million.
fn number(slots: &Slots, field: FieldId, default: u32) -> Result<u32, Odd> {
    if !slots.is_present(field) {
        return Ok(default);
    }
    match slots.single(field).filter(|_| !slots.is_array(field)) {
        Some((Kind::Number, text)) => text.parse().ok().filter(|number| *number <= 1_000_000).ok_or(Odd),
        _ => Err(Odd),
    }
}

/// Writes the key of the event's log source, as [`super::write_source_key`] does.
fn write_source(slots: &Slots, system: &SystemFields, key: &mut String) -> Result<(), Odd> {
    key.clear();
    for [nested, plain] in system.source {
        let field = if slots.is_present(nested) { nested } else { plain };
        if slots.is_present(field) {
            let (kind, text) = slots.single(field).filter(|_| !slots.is_array(field)).ok_or(Odd)?;
            if kind == Kind::Text {
                if text == OWN_PRODUCT || text.contains('\0') {
                    return Err(Odd);
                }
                key.push('=');
                key.push_str(text);
            }
        }
        key.push('\0');
    }
    Ok(())
}
