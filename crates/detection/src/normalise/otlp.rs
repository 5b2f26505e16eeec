//! OpenTelemetry log records: body and attributes are an event's fields, as those of a JSON line are.
//!
//! Attributes win over the body, and both over what the resource says. Names of OpenTelemetry that OCSF has other
//! names for are added under those; the resource and the scope are kept under `unmapped`.

use super::{Draft, OCSF_VERSION, UNKNOWN, json};
use crate::event::RejectReason;
use serde_json::{Map, Value};

const NANOSECONDS: u64 = 1_000_000;

/// What OpenTelemetry's semantic conventions call what OCSF calls otherwise.
const NAMES: [(&str, &str); 9] = [
    ("client.address", "src_endpoint.ip"),
    ("source.address", "src_endpoint.ip"),
    ("network.peer.address", "src_endpoint.ip"),
    ("server.address", "dst_endpoint.name"),
    ("destination.address", "dst_endpoint.name"),
    ("enduser.id", "user.name"),
    ("session.id", "session.uid"),
    ("process.executable.name", "process.name"),
    ("url.path", "http_request.url.path"),
];
/// The same of resources.
const RESOURCE_NAMES: [(&str, &str); 2] =
    [("service.name", "metadata.product.name"), ("cloud.provider", "cloud.provider")];

pub(super) fn draft(bytes: &[u8], received_ms: u64) -> Result<Draft, RejectReason> {
    let mut record = json::parse(bytes)?;
    let mut object = |field: &str| match record.remove(field) {
        Some(Value::Object(object)) => Ok(object),
        None => Ok(Map::new()),
        Some(_) => Err(RejectReason::BadField { field: field.to_owned() }),
    };
    let (attributes, resource, scope) = (object("attributes")?, object("resource")?, object("scope")?);
    let mut fields = match record.remove("body") {
        Some(Value::Object(body)) => body,
        None | Some(Value::Null) => Map::new(),
        Some(body) => Map::from_iter([("message".to_owned(), body)]),
    };
    fields.extend(attributes);
    // The record says when; a field of the same name is the application's.
    json::TIME_FIELDS.iter().for_each(|field| {
        fields.remove(*field);
    });
    let time_ms = ["time_unix_nano", "observed_time_unix_nano"]
        .iter()
        .find_map(|field| record.get(*field).and_then(Value::as_u64).filter(|nanoseconds| *nanoseconds > 0))
        .map_or(received_ms, |nanoseconds| nanoseconds / NANOSECONDS);
    let text = |fields: &Map<String, Value>, name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    for (ours, theirs) in [("product", "os.type"), ("service", "service.name")] {
        if let Some(value) = text(&resource, theirs) {
            fields.entry(ours).or_insert(value.into());
        }
    }
    let mut draft = json::of_object(&fields, received_ms)?;
    draft.time_ms = time_ms;
    for (theirs, ours) in NAMES {
        let value = text(&fields, theirs);
        let is_name = ours == "src_endpoint.ip"
            && value.as_deref().is_some_and(|value| value.parse::<std::net::IpAddr>().is_err());
        draft.text(if is_name { "src_endpoint.name" } else { ours }, value.as_deref());
    }
    let process = draft.fields.get("process.name").and_then(Value::as_str).map(str::to_owned);
    if !draft.fields.contains_key("process.pid") {
        // OCSF wants to know which process it is.
        draft.text("process.uid", process.as_deref());
    }
    for (theirs, ours) in RESOURCE_NAMES {
        draft.text(ours, text(&resource, theirs).as_deref());
    }
    draft.region(text(&resource, "cloud.region").as_deref());
    draft.device("device.hostname", text(&resource, "host.name").as_deref());
    if let Some(system) = text(&resource, "os.type") {
        draft.device("device.os.type", Some(&system));
        draft.text("device.os.name", Some(&system));
        let kind = match system.as_str() {
            "windows" => 100,
            "linux" => 200,
            "darwin" => 300,
            _ => 0,
        };
        draft.set("device.os.type_id", kind);
    }
    if draft.severity_id == 0 {
        draft.severity_id = severity_of(record.get("severity_number").and_then(Value::as_u64).unwrap_or(0));
    }
    draft.set("metadata.version", OCSF_VERSION);
    draft.text("metadata.product.name", Some(UNKNOWN));
    draft.set("metadata.log_name", "otlp");
    for (theirs, ours) in [
        ("event_name", "metadata.event_code"),
        ("trace_id", "metadata.correlation_uid"),
        ("span_id", "unmapped.span_id"),
        ("severity_text", "severity"),
    ] {
        draft.text(ours, text(&record, theirs).as_deref());
    }
    let rest = Map::from_iter([("resource".to_owned(), resource.into()), ("scope".to_owned(), scope.into())]);
    let rest = Map::from_iter([("unmapped".to_owned(), Value::Object(rest))]);
    super::flat::flatten(&rest, &mut draft.fields)?;
    Ok(draft)
}

/// The OCSF severity of a severity number: TRACE 1, DEBUG 5, INFO 9, WARN 13, ERROR 17, FATAL 21.
fn severity_of(number: u64) -> u32 {
    match number {
        1..=12 => 1,
        13..=16 => 3,
        17..=20 => 4,
        21..=24 => 6,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(record: &Value) -> Result<Draft, RejectReason> {
        draft(record.to_string().as_bytes(), 7)
    }

    #[test]
    fn a_record_is_its_body_its_attributes_and_its_resource() {
        let draft = of(&json!({
            "time_unix_nano": 1_795_467_600_123_456_789_u64, "severity_number": 17, "severity_text": "ERROR",
            "body": "login failed", "trace_id": "5b8a", "event_name": "login",
            "attributes": {"enduser.id": "ann", "client.address": "203.0.113.9", "time": "not ours"},
            "resource": {"service.name": "shop", "host.name": "h1", "os.type": "linux", "k8s": {"pod": "p"}},
            "scope": {"name": "auth"},
        }))
        .unwrap();
        assert_eq!((draft.time_ms, draft.severity_id, draft.class_uid), (1_795_467_600_123, 4, 0));
        assert_eq!(draft.logsource.product.as_deref(), Some("linux"));
        assert_eq!(draft.logsource.services, ["shop".into()]);
        for (field, value) in [
            ("message", "login failed"),
            ("user.name", "ann"),
            ("enduser.id", "ann"),
            ("src_endpoint.ip", "203.0.113.9"),
            ("device.hostname", "h1"),
            ("unmapped.resource.k8s.pod", "p"),
            ("unmapped.scope.name", "auth"),
            ("metadata.correlation_uid", "5b8a"),
        ] {
            assert_eq!(draft.fields.get(field), Some(&value.into()), "{field}");
        }
    }

    #[test]
    fn a_structured_body_is_read_as_a_json_line_is() {
        let body = json!({"EventID": 4625, "product": "windows", "service": "security", "class_uid": 3002});
        let draft = of(&json!({"body": body, "resource": {"os.type": "linux"}})).unwrap();
        assert_eq!((draft.time_ms, draft.class_uid), (7, 3002));
        assert_eq!((draft.logsource.product.as_deref(), &draft.fields["EventID"]), (Some("windows"), &4625.into()));
    }

    #[test]
    fn nobody_speaks_for_the_platform() {
        for forged in [
            json!({"body": {"product": "holdfast"}}),
            json!({"attributes": {"product": "holdfast"}}),
            json!({"resource": {"os.type": "holdfast"}}),
            json!({"body": {"logsource": {"product": "holdfast"}}}),
        ] {
            assert_eq!(of(&forged).unwrap_err(), RejectReason::BadField { field: "product".into() }, "{forged}");
        }
        assert_eq!(of(&json!({"attributes": 1})).unwrap_err(), RejectReason::BadField { field: "attributes".into() });
    }
}
