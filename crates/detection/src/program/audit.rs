//! The platform's own audit events straight into slots: the same fields as [`crate::normalise`] makes of them.

use super::intake::{Intake, Origin};
use super::item::{Item, Kind, Odd};
use super::scan::{self, Sink};
use super::slots::{FieldIndex, Slots};
use crate::normalise::{OCSF_VERSION, OWN_PRODUCT, UNKNOWN, audit as ocsf, class};
use crate::sigma::FieldId;
use crate::source::audit::has_failed;

/// The keys of an audit event, in the order of their places in [`key`].
const KEYS: [&str; 17] = [
    "time_ms",
    "region",
    "node",
    "group",
    "action",
    "outcome",
    "reason",
    "tenant",
    "user",
    "session",
    "address",
    "resource",
    "fields",
    "request_id",
    "detail_digest",
    "count",
    "country",
];

/// Places of keys that are looked at one by one.
mod key {
    pub(super) const TIME_MS: usize = 0;
    pub(super) const GROUP: usize = 3;
    pub(super) const ACTION: usize = 4;
    pub(super) const OUTCOME: usize = 5;
    pub(super) const USER: usize = 8;
    pub(super) const SESSION: usize = 9;
    pub(super) const ADDRESS: usize = 10;
    pub(super) const RESOURCE: usize = 11;
    pub(super) const FIELDS: usize = 12;
    pub(super) const COUNT: usize = 15;
}

/// The fields that audit events become, where rules use them.
#[derive(Clone, Debug)]
pub(crate) struct AuditFields {
    /// For each key with a text, the fields it is copied to.
    copies: [Vec<FieldId>; KEYS.len()],
    fields: Option<FieldId>,
    count: Option<FieldId>,
    group: Option<FieldId>,
    user_name: Option<FieldId>,
    user_uid: Option<FieldId>,
    service_name: Option<FieldId>,
    database_type: Option<FieldId>,
    session_uid: Option<FieldId>,
    status: Option<FieldId>,
    status_id: Option<FieldId>,
    /// Fields that are the same in every audit event.
    constants: Vec<(FieldId, &'static str)>,
    class_uid: Option<FieldId>,
    category_uid: Option<FieldId>,
    activity_id: Option<FieldId>,
    severity_id: Option<FieldId>,
    type_uid: Option<FieldId>,
    time: Option<FieldId>,
}

impl AuditFields {
    /// `used` fields are those below that number: system fields that no rule uses need not be filled.
    pub(crate) fn new(index: &FieldIndex, used: u32) -> Self {
        let id = |name: &str| index.get(name).filter(|id| id.0 < used);
        let copies = KEYS.map(|key| {
            let names: &[&str] = match key {
                "region" => &["cloud.region"],
                "node" => &["unmapped.node"],
                "action" => &["api.operation"],
                "reason" => &["status_detail"],
                "tenant" => &["metadata.tenant_uid"],
                "user" => &["actor.user.name"],
                "session" => &["actor.session.uid"],
                "address" => &["src_endpoint.ip", "src_endpoint.name"],
                "resource" => &["resources.name"],
                "request_id" => &["api.request.uid"],
                "detail_digest" => &["unmapped.detail_digest"],
                "country" => &["src_endpoint.location.country"],
                _ => &[],
            };
            names.iter().filter_map(|name| id(name)).collect()
        });
        let constants = [
            ("metadata.version", OCSF_VERSION),
            ("metadata.product.name", "Holdfast"),
            ("metadata.log_name", "audit"),
            ("service.name", "Holdfast"),
            ("database.name", "Holdfast"),
            ("actor.app_name", "Holdfast"),
            ("cloud.provider", UNKNOWN),
        ];
        Self {
            copies,
            fields: id("unmapped.fields"),
            count: id("count"),
            group: id("unmapped.group"),
            user_name: id("user.name"),
            user_uid: id("user.uid"),
            service_name: id("src_endpoint.svc_name"),
            database_type: id("database.type_id"),
            session_uid: id("session.uid"),
            status: id("status"),
            status_id: id("status_id"),
            constants: constants.into_iter().filter_map(|(name, value)| Some((id(name)?, value))).collect(),
            class_uid: id("class_uid"),
            category_uid: id("category_uid"),
            activity_id: id("activity_id"),
            severity_id: id("severity_id"),
            type_uid: id("type_uid"),
            time: id("time"),
        }
    }
}

struct Record<'a> {
    items: [Option<Item>; KEYS.len()],
    slots: &'a mut Slots,
    fields: Option<FieldId>,
}

impl Sink for Record<'_> {
    fn scalar(&mut self, path: &str, array: u32, item: Item) -> Result<(), Odd> {
        // Keys added later are ignored, as normalising does.
        let Some(key) = place_of(path) else { return Ok(()) };
        if key == key::FIELDS {
            let is_text = matches!(item.kind, Kind::Text | Kind::Escaped);
            return match self.fields {
                _ if array == 0 || !is_text => Err(Odd),
                Some(field) => self.slots.push(Some(field), item, array),
                None => Ok(()),
            };
        }
        if array != 0 || self.items[key].is_some() {
            return Err(Odd);
        }
        self.items[key] = Some(item);
        Ok(())
    }

    fn container(&mut self, path: &str, _: u32, is_object: bool) -> Result<(), Odd> {
        match place_of(path) {
            None => Ok(()),
            // Once, for the list itself; a list in it or a second one is odd.
            Some(key) if key == key::FIELDS && !is_object && self.items[key].is_none() => {
                self.items[key] = Some(Item::new(0, 0, Kind::Null));
                Ok(())
            }
            Some(_) => Err(Odd),
        }
    }
}

/// Reads an audit event.
pub(crate) fn audit(
    line: &[u8],
    fields: &AuditFields,
    path: &mut String,
    slots: &mut Slots,
    origin: &mut Origin,
) -> Result<Intake, Odd> {
    let line = simdutf8::basic::from_utf8(line).map_err(|_| Odd)?.trim_end_matches([' ', '\n', '\r']);
    slots.begin(line);
    let mut record = Record { items: [None; KEYS.len()], slots, fields: fields.fields };
    let escapes = scan::read(line, path, &mut record)?;
    let items = record.items;
    slots.escaped(escapes);
    for (key, item) in KEYS.iter().zip(&items) {
        check(key, *item)?;
    }
    let text = |key: usize| items[key].map(|item| &line[item.start as usize..item.end as usize]);
    let whole = |key: usize| text(key).map_or(Ok(0_u64), |text| text.parse().map_err(|_| Odd));
    let (action, outcome) = (text(key::ACTION).ok_or(Odd)?, text(key::OUTCOME).ok_or(Odd)?);
    let failed = has_failed(outcome).ok_or(Odd)?;
    text(key::TIME_MS).ok_or(Odd)?;
    let (time_ms, group) = (whole(key::TIME_MS)?, whole(key::GROUP)?);
    for (item, copies) in items.iter().zip(&fields.copies) {
        for field in copies {
            copy(slots, *item, *field)?;
        }
    }
    let (class_uid, activity_id) = ocsf::class_of(action);
    if class_uid == class::USER_ACCESS {
        // Rare, and with a list of its own.
        return Err(Odd);
    }
    numbers(slots, fields, [class_uid, activity_id, ocsf::severity_of(action, failed)], time_ms, group);
    // As a number that is one: `-1` or `1e3` would not be read by the full parser.
    if let Some(item) = items[key::COUNT].filter(|item| item.kind == Kind::Number) {
        let count: u64 = line[item.start as usize..item.end as usize].parse().map_err(|_| Odd)?;
        if let Some(field) = fields.count {
            slots.push_number(Some(field), count);
        }
    }
    for (field, value) in &fields.constants {
        slots.push_text(Some(*field), value, Kind::Text);
    }
    if let Some(field) = fields.status {
        slots.push_text(Some(field), if failed { "Failure" } else { "Success" }, Kind::Text);
    }
    if let Some(field) = fields.status_id {
        slots.push_number(Some(field), if failed { 2 } else { 1 });
    }
    if let Some(field) = fields.database_type {
        slots.push_number(Some(field), ocsf::DATABASE_TYPE.into());
    }
    let is_said = |key: usize| items[key].is_some_and(|item| item.kind != Kind::Null && item.start != item.end);
    if let (Some(field), false) = (fields.service_name, is_said(key::ADDRESS)) {
        slots.push_text(Some(field), "Holdfast", Kind::Text);
    }
    let mut is_named = true;
    if class_uid == class::AUTHENTICATION {
        is_named = is_said(key::USER);
        for (key, field) in [(key::USER, fields.user_name), (key::SESSION, fields.session_uid)] {
            if let Some(field) = field {
                copy(slots, items[key], field)?;
            }
        }
    }
    if class_uid == class::ACCOUNT_CHANGE {
        let resource = items[key::RESOURCE].filter(|item| item.kind != Kind::Null);
        if resource.is_some_and(|item| item.kind == Kind::Escaped) {
            return Err(Odd);
        }
        let last = resource.and(text(key::RESOURCE)).and_then(|resource| resource.rsplit('/').next());
        let last = last.filter(|last| !last.is_empty());
        is_named = last.is_some();
        if let (Some(field), Some(last)) = (fields.user_name, last) {
            slots.push_text(Some(field), last, Kind::Text);
        }
    }
    if let (Some(field), false) = (fields.user_uid, is_named) {
        slots.push_text(Some(field), UNKNOWN, Kind::Text);
    }
    origin.source.clear();
    origin.source.extend(["=", OWN_PRODUCT, "\0\0=audit\0"]);
    Ok(Intake { time_ms })
}

/// The place of a key in [`KEYS`].
fn place_of(key: &str) -> Option<usize> {
    Some(match key {
        "time_ms" => 0,
        "region" => 1,
        "node" => 2,
        "group" => 3,
        "action" => 4,
        "outcome" => 5,
        "reason" => 6,
        "tenant" => 7,
        "user" => 8,
        "session" => 9,
        "address" => 10,
        "resource" => 11,
        "fields" => 12,
        "request_id" => 13,
        "detail_digest" => 14,
        "count" => 15,
        "country" => 16,
        _ => return None,
    })
}

/// Whether a key's value has the type that the full parser wants.
fn check(key: &str, item: Option<Item>) -> Result<(), Odd> {
    let Some(item) = item else { return Ok(()) };
    let fits = match key {
        "time_ms" | "group" => item.kind == Kind::Number,
        "count" => matches!(item.kind, Kind::Number | Kind::Null),
        // Escapes in these would have to be undone before they are compared.
        "action" | "outcome" => item.kind == Kind::Text,
        "region" | "node" => matches!(item.kind, Kind::Text | Kind::Escaped),
        "fields" => true,
        _ => matches!(item.kind, Kind::Text | Kind::Escaped | Kind::Null),
    };
    if fits { Ok(()) } else { Err(Odd) }
}

/// Empty texts and nulls leave the field unset.
fn copy(slots: &mut Slots, item: Option<Item>, field: FieldId) -> Result<(), Odd> {
    match item {
        Some(item) if item.kind != Kind::Null && item.start != item.end => slots.push(Some(field), item, 0),
        _ => Ok(()),
    }
}

fn numbers(slots: &mut Slots, fields: &AuditFields, class: [u32; 3], time_ms: u64, group: u64) {
    let [class_uid, activity_id, severity_id] = class.map(u64::from);
    for (field, value) in [
        (fields.class_uid, class_uid),
        (fields.category_uid, class_uid / 1_000),
        (fields.activity_id, activity_id),
        (fields.severity_id, severity_id),
        (fields.type_uid, class_uid * 100 + activity_id),
        (fields.time, time_ms),
        (fields.group, group),
    ] {
        if let Some(field) = field {
            slots.push_number(Some(field), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_at_its_place() {
        let places: Vec<usize> = KEYS.iter().filter_map(|key| place_of(key)).collect();
        assert_eq!(places, (0..KEYS.len()).collect::<Vec<_>>());
    }
}
