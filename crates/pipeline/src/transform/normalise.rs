//! Normalise: gives an event OCSF's names, and holds it to what its class requires.
//!
//! Without a `class`, lines of the known sources are normalised as detection does it. With one, fields are moved to
//! OCSF's names by the user's table; what the table does not name is kept under `unmapped`.

use super::{BadTransform, Outputs, Refusal, Transform, schema};
use crate::record::Record;
use detection::RejectReason;
use detection::event::{FIELDS_MAX, Fields};
use detection::normalise::{OCSF_VERSION, OWN_PRODUCT};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// How events become OCSF.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NormaliseConfig {
    /// OCSF's class; without it the source's own format decides.
    class: Option<u32>,
    /// OCSF's activity.
    activity: Option<u32>,
    /// OCSF's severity.
    severity: Option<u32>,
    /// The product that rules' `logsource` is compared with.
    product: Option<String>,
    /// The category of it.
    category: Option<String>,
    /// The services of it.
    #[serde(default)]
    services: Vec<String>,
    /// The field that holds the time: RFC 3339, or seconds or milliseconds since 1970; the receipt by default.
    time: Option<String>,
    /// For OCSF's name, the field that it is taken from.
    #[serde(default)]
    map: BTreeMap<String, String>,
    /// For OCSF's name, what its value becomes: `translate.activity_id = { login = 1 }`.
    #[serde(default)]
    translate: BTreeMap<String, BTreeMap<String, Value>>,
    /// Values that are the same for every event.
    #[serde(default)]
    set: BTreeMap<String, Value>,
    /// What becomes of fields that nothing names.
    #[serde(default)]
    unmapped: Unmapped,
    /// Whether events are held to their class.
    #[serde(default)]
    validate: Validate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unmapped {
    #[default]
    Keep,
    LeaveOut,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Validate {
    /// What does not fit becomes a dead letter.
    #[default]
    DeadLetter,
    /// Nothing is checked.
    Off,
}

impl NormaliseConfig {
    pub(super) fn open(&self) -> Result<Normalise, BadTransform> {
        let wrong = |key, why| Err(BadTransform::Setting { key, why });
        let has_table = !self.map.is_empty() || !self.translate.is_empty() || self.time.is_some();
        if self.class.is_none() && (has_table || self.activity.is_some()) {
            return wrong("class", "is needed where fields are mapped: 3002 for logins, 4001 for network traffic, …");
        }
        if self.class.is_some_and(|class| class > 100_000) || self.activity.is_some_and(|activity| activity > 99) {
            return wrong("class", "and activity must be OCSF's numbers");
        }
        if self.severity.is_some_and(|severity| severity > 6) {
            return wrong("severity", "must be 0 (unknown) to 6 (fatal)");
        }
        if self.product.as_deref() == Some(OWN_PRODUCT) {
            return wrong("product", "cannot be the platform's own: only its audit stream speaks for it");
        }
        if let Some(_object) = self.set.values().find(|value| value.is_object()) {
            return wrong("set", "has dotted names and plain values");
        }
        Ok(Normalise { config: self.clone() })
    }
}

/// Makes events OCSF.
pub struct Normalise {
    config: NormaliseConfig,
}

impl Transform for Normalise {
    fn apply(&self, record: Record, out: &mut Outputs) {
        match self.fields(&record) {
            Ok(fields) => out.pass(Record { fields: Some(fields), ..record }),
            Err(refusal) => out.refused.push((record, refusal)),
        }
    }
}

impl Normalise {
    fn fields(&self, record: &Record) -> Result<Fields, Refusal> {
        let config = &self.config;
        let mut fields = match config.class {
            None => known(record)?,
            Some(class) => self.mapped(class, record)?,
        };
        let given = |name: &str, value: Option<Value>| value.map(|value| (name.to_owned(), value));
        fields.extend(given("logsource.product", config.product.clone().map(Value::from)));
        fields.extend(given("logsource.category", config.category.clone().map(Value::from)));
        let services = (!config.services.is_empty()).then(|| Value::from(config.services.clone()));
        fields.extend(given("logsource.service", services));
        fields.extend(config.set.clone());
        fields.extend(given("severity_id", config.severity.map(Value::from)));
        complete(&mut fields, record.received_ms);
        schema::to_numbers(&mut fields);
        if fields.len() > FIELDS_MAX {
            return Err(RejectReason::TooManyFields.into());
        }
        if config.validate == Validate::DeadLetter {
            schema::validate(&fields)?;
        }
        Ok(fields)
    }

    fn mapped(&self, class: u32, record: &Record) -> Result<Fields, Refusal> {
        let config = &self.config;
        let from = record.fields();
        let mut fields = Fields::new();
        fields.insert("class_uid".into(), class.into());
        fields.extend(config.activity.map(|activity| ("activity_id".to_owned(), activity.into())));
        let mut untranslated = Vec::new();
        for (name, origin) in &config.map {
            let Some(value) = from.get(origin) else { continue };
            let value = match (config.translate.get(name), value) {
                (None, value) => Some(value.clone()),
                (Some(table), Value::String(text)) => table.get(text).cloned(),
                (Some(table), value) => table.get(&value.to_string()).cloned(),
            };
            match value {
                Some(value) => fields.extend([(name.clone(), value)]),
                // A word that the table does not know is kept as it is.
                None => untranslated.push(origin),
            }
        }
        if let Some(origin) = &config.time {
            let bad = || RejectReason::BadField { field: origin.clone() };
            let time_ms = from.get(origin).and_then(detection::normalise::time_ms).ok_or_else(bad)?;
            fields.insert("time".into(), time_ms.into());
        }
        if config.unmapped == Unmapped::Keep {
            let is_named =
                |name: &String| config.map.values().any(|origin| origin == name) && !untranslated.contains(&name);
            let rest = from.iter().filter(|(name, _)| !is_named(name) && config.time.as_ref() != Some(name));
            fields.extend(rest.map(|(name, value)| (format!("unmapped.{name}"), value.clone())));
        }
        Ok(fields)
    }
}

/// As detection normalises the formats that it knows.
fn known(record: &Record) -> Result<Fields, Refusal> {
    let event = detection::normalise::normalise(&record.clone().into_raw_event()).map_err(|reject| reject.reason)?;
    let mut fields = event.fields;
    let source = event.logsource;
    let texts = [("logsource.product", source.product), ("logsource.category", source.category)];
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::from(&*text?))));
    fields.extend(texts);
    if !source.services.is_empty() {
        let services: Vec<&str> = source.services.iter().map(AsRef::as_ref).collect();
        fields.insert("logsource.service".into(), services.into());
    }
    // A time under another name, or as a text, is OCSF's time in milliseconds.
    fields.insert("time".into(), event.time_ms.into());
    Ok(fields)
}

/// Adds what every event must have and what follows from the rest.
fn complete(fields: &mut Fields, received_ms: u64) {
    let number = |fields: &Fields, name: &str| fields.get(name).and_then(Value::as_u64).unwrap_or(0);
    let (class, activity) = (number(fields, "class_uid"), number(fields, "activity_id"));
    let product = fields.get("logsource.product").cloned().unwrap_or_else(|| "unknown".into());
    for (name, value) in [
        ("class_uid", Value::from(class)),
        ("activity_id", activity.into()),
        ("category_uid", (class / 1_000).into()),
        ("type_uid", class.saturating_mul(100).saturating_add(activity).into()),
        ("severity_id", 0.into()),
        ("time", received_ms.into()),
        ("metadata.version", OCSF_VERSION.into()),
        ("metadata.product.name", product),
    ] {
        fields.entry(name.to_owned()).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use detection::SourceKind;
    use proptest::prelude::*;
    use serde_json::json;

    fn run(config: &str, source: SourceKind, raw: &str, fields: Option<Value>) -> Result<Fields, Refusal> {
        let normalise = toml::from_str::<NormaliseConfig>(config).unwrap().open().unwrap();
        let fields = fields.map(|object| object.as_object().unwrap().clone().into_iter().collect());
        let raw = raw.to_owned().into();
        let record = Record { source, received_ms: 1_795_467_600_000, position: None, tenant: None, raw, fields };
        normalise.fields(&record)
    }

    const FIREWALL: &str = r#"
        class = 4001
        activity = 6
        product = "acme"
        services = ["firewall"]
        time = "at"
        map = { "src_endpoint.ip" = "src", "dst_endpoint.ip" = "dst", "disposition_id" = "action" }
        translate = { disposition_id = { allow = 1, deny = 2 } }
        set = { "metadata.product.vendor_name" = "Acme" }
    "#;

    #[test]
    fn fields_are_moved_to_ocsf_s_names_by_the_table() {
        let from = json!({"src": "10.0.0.1", "dst": "10.0.0.2", "action": "deny", "at": 1_700_000_000, "rule": "r1"});
        let fields = run(FIREWALL, SourceKind::Syslog, "", Some(from)).unwrap();
        let expect = json!({"class_uid": 4001, "category_uid": 4, "activity_id": 6, "type_uid": 400_106,
            "severity_id": 0, "time": 1_700_000_000_000_u64, "src_endpoint.ip": "10.0.0.1",
            "dst_endpoint.ip": "10.0.0.2", "disposition_id": 2, "unmapped.rule": "r1",
            "logsource.product": "acme", "logsource.service": ["firewall"], "metadata.product.name": "acme",
            "metadata.product.vendor_name": "Acme", "metadata.version": OCSF_VERSION});
        assert_eq!(json!(fields), expect);
    }

    #[test]
    fn a_word_that_the_table_does_not_translate_is_kept() {
        let from = json!({"src": "10.0.0.1", "action": "quarantine", "at": 1_700_000_000});
        let fields = run(FIREWALL, SourceKind::Syslog, "", Some(from)).unwrap();
        assert_eq!((fields.get("disposition_id"), &fields["unmapped.action"]), (None, &json!("quarantine")));
    }

    #[test]
    fn what_the_schema_calls_a_number_is_one() {
        let config =
            "class = 4001\nmap = { 'dst_endpoint.port' = 'dpt', 'src_endpoint.ip' = 'src', 'traffic.bytes' = 'n' }";
        let from = json!({"src": "10.0.0.1", "dpt": "22", "n": "many", "id": "7"});
        let fields = run(config, SourceKind::Syslog, "", Some(from)).unwrap();
        assert_eq!((&fields["dst_endpoint.port"], &fields["unmapped.id"]), (&json!(22), &json!("7")));
        assert_eq!(fields["traffic.bytes"], "many");
    }

    #[test]
    fn what_the_class_requires_must_be_there() {
        let refusal = run(FIREWALL, SourceKind::Syslog, "", Some(json!({"at": 1}))).unwrap_err();
        assert_eq!(refusal.label(), "not_ocsf");
        let refusal = run(FIREWALL, SourceKind::Syslog, "", Some(json!({"src": "x", "at": "soon"}))).unwrap_err();
        assert_eq!(refusal.label(), "bad_field");
    }

    #[test]
    fn what_detection_normalises_fits_the_schema() {
        let audit = |action: &str, outcome: &str| {
            json!({"time_ms": 5, "region": "eu", "node": "eu-1", "group": 0, "action": action, "outcome": outcome,
                "tenant": "acme", "user": "ann", "session": "s", "address": "203.0.113.9", "resource": "users/ann"})
            .to_string()
        };
        let lines = [
            (
                SourceKind::Syslog,
                "<38>Jun 15 02:04:59 h sshd[1]: Failed password for ann from 203.0.113.9 port 4 ssh2".into(),
            ),
            (SourceKind::Syslog, "<38>Jun 15 04:06:19 h su(pam_unix)[2]: session closed for user cyrus".into()),
            (SourceKind::Syslog, "<13>Jun 15 04:06:19 h cron[2]: done".into()),
            (SourceKind::Ndjson, r#"{"time":5,"message":"x"}"#.into()),
            (SourceKind::Audit, audit("login.failed", "failure")),
            (SourceKind::Audit, audit("user.unlock", "success")),
            (SourceKind::Audit, audit("role.grant", "success")),
            (SourceKind::Audit, audit("record.put", "success")),
            (SourceKind::Audit, audit("tenant.create", "success")),
            (SourceKind::Audit, audit("denied", "denied")),
        ];
        let faults: Vec<String> = lines
            .iter()
            .filter_map(|(source, line)| run("", *source, line, None).err().map(|error| format!("{line}: {error}")))
            .collect();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    #[test]
    fn nobody_speaks_for_the_platform() {
        let config: NormaliseConfig = toml::from_str("class = 0\nproduct = 'holdfast'").unwrap();
        assert!(config.open().is_err());
        let forged = run("", SourceKind::Ndjson, r#"{"product":"holdfast"}"#, None);
        assert_eq!(forged.unwrap_err().label(), "bad_field");
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic_and_what_passes_fits(raw in "\\PC*", kind in 0..2_usize) {
            let kind = [SourceKind::Syslog, SourceKind::Ndjson][kind];
            if let Ok(fields) = run("", kind, &raw, None) {
                prop_assert_eq!(schema::validate(&fields), Ok(()));
            }
        }
        #[test]
        fn arbitrary_fields_never_panic(src in ".*", at: i64, action in ".*") {
            let _ = run(FIREWALL, SourceKind::Syslog, "", Some(json!({"src": src, "at": at, "action": action})));
        }
    }
}
