//! Normalising: from raw events to OCSF 1.x, with all fields flattened to dotted names.
//!
//! Pure and total: every raw event becomes an event or a dead letter with its reason.

pub(crate) mod audit;
mod badge;
mod flat;
pub(crate) mod json;
mod otlp;
mod syslog;
mod tuple;

pub use flat::flatten;
pub use json::{says_when, time_ms};
pub(crate) use tuple::SERVICE as TUPLE_SERVICE;

use crate::event::{
    Event, FIELDS_MAX, Fields, LogSource, Owner, RAW_SIZE_BYTES_MAX, RawEvent, Reject, RejectReason, SourceKind,
};
use crate::rules::TENANT_FIELD;
use serde_json::Value;

/// The version of OCSF that fields are named after.
pub const OCSF_VERSION: &str = "1.4.0";

/// What stands where OCSF wants somebody or something to be named, and nobody has.
pub(crate) const UNKNOWN: &str = "unknown";

/// The product of the platform's own events, for rules' `logsource`.
pub const OWN_PRODUCT: &str = "holdfast";

/// OCSF classes used here.
pub mod class {
    /// Base Event.
    pub const BASE: u32 = 0;
    /// Process Activity.
    pub const PROCESS: u32 = 1007;
    /// Detection Finding.
    pub const DETECTION_FINDING: u32 = 2004;
    /// Incident Finding.
    pub const INCIDENT_FINDING: u32 = 2005;
    /// Account Change.
    pub const ACCOUNT_CHANGE: u32 = 3001;
    /// Authentication.
    pub const AUTHENTICATION: u32 = 3002;
    /// User Access Management.
    pub const USER_ACCESS: u32 = 3005;
    /// Network Activity.
    pub const NETWORK: u32 = 4001;
    /// API Activity.
    pub const API_ACTIVITY: u32 = 6003;
    /// Datastore Activity.
    pub const DATASTORE: u32 = 6005;
}

/// Normalises one raw event.
pub fn normalise(raw: &RawEvent) -> Result<Event, Reject> {
    if raw.bytes.len() > RAW_SIZE_BYTES_MAX {
        return Err(Reject::of(raw, RejectReason::TooLarge { limit_bytes: RAW_SIZE_BYTES_MAX as u64 }));
    }
    let draft = match raw.source {
        SourceKind::Audit => audit::draft(&raw.bytes),
        SourceKind::Syslog => syslog::draft(&raw.bytes, raw.received_ms),
        SourceKind::Ndjson | SourceKind::Parsed => json::draft(&raw.bytes, raw.received_ms),
        SourceKind::Otlp => otlp::draft(&raw.bytes, raw.received_ms),
        SourceKind::Badge => badge::draft(&raw.bytes),
        SourceKind::Tuple => return tuple::event(raw).map_err(|reason| Reject::of(raw, reason)),
    };
    draft.and_then(|draft| draft.finish(raw)).map_err(|reason| Reject::of(raw, reason))
}

/// Normalises one raw event that is somebody's.
pub fn normalise_for(raw: &RawEvent, owner: Owner<'_>) -> Result<Event, Reject> {
    let mut event = normalise(raw)?;
    match owner {
        Owner::Itself => {}
        Owner::Nobody => {
            event.fields.remove(TENANT_FIELD);
        }
        Owner::Tenant(tenant) => {
            event.fields.insert(TENANT_FIELD.to_owned(), tenant.into());
        }
    }
    Ok(event)
}

/// An event in the making.
#[derive(Debug, Default)]
struct Draft {
    time_ms: u64,
    class_uid: u32,
    activity_id: u32,
    severity_id: u32,
    logsource: LogSource,
    fields: Fields,
}

impl Draft {
    fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.fields.insert(field.to_owned(), value.into());
    }

    /// Sets a text unless it is empty or already set.
    fn text(&mut self, field: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.fields.entry(field.to_owned()).or_insert_with(|| value.into());
        }
    }

    /// A device, whose kind OCSF wants to know.
    fn device(&mut self, field: &str, value: Option<&str>) {
        self.text(field, value);
        if self.fields.contains_key(field) {
            self.fields.entry("device.type_id".to_owned()).or_insert_with(|| 0.into());
        }
    }

    /// The region of a cloud, whose provider OCSF wants to know.
    fn region(&mut self, region: Option<&str>) {
        self.text("cloud.region", region);
        if self.fields.contains_key("cloud.region") {
            self.text("cloud.provider", Some(UNKNOWN));
        }
    }

    fn finish(mut self, raw: &RawEvent) -> Result<Event, RejectReason> {
        let category_uid = self.class_uid / 1_000;
        for (field, value) in [
            ("class_uid", self.class_uid),
            ("category_uid", category_uid),
            ("activity_id", self.activity_id),
            ("severity_id", self.severity_id),
            ("type_uid", self.class_uid * 100 + self.activity_id),
        ] {
            self.fields.entry(field.to_owned()).or_insert_with(|| value.into());
        }
        self.fields.entry("time".to_owned()).or_insert_with(|| self.time_ms.into());
        if self.fields.len() > FIELDS_MAX {
            return Err(RejectReason::TooManyFields);
        }
        Ok(Event {
            id: raw.id(),
            position: raw.position.clone(),
            time_ms: self.time_ms,
            received_ms: raw.received_ms,
            class_uid: self.class_uid,
            activity_id: self.activity_id,
            category_uid,
            severity_id: self.severity_id,
            logsource: self.logsource,
            fields: self.fields,
            raw: raw.bytes.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, kind in 0..7_usize) {
            use SourceKind::{Audit, Badge, Ndjson, Otlp, Parsed, Syslog, Tuple};
            let source = [Audit, Syslog, Ndjson, Otlp, Badge, Parsed, Tuple][kind];
            let _ = normalise(&RawEvent { source, received_ms: 1_795_467_600_000, position: None, bytes: bytes.into() });
        }
        #[test]
        fn arbitrary_messages_never_panic(program in "(sshd|su|sudo|sshd\\(pam_unix\\))", message in "\\PC*") {
            let line = format!("Jun 14 15:16:01 combo {program}[1]: {message}");
            let source = SourceKind::Syslog;
            let raw = RawEvent { source, received_ms: 1_795_467_600_000, position: None, bytes: line.into() };
            prop_assert!(normalise(&raw).is_ok());
        }
    }
}
