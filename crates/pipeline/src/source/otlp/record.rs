//! From log records to lines: each record with its resource and scope as one JSON object.
//!
//! Pure. The same record makes the same line, so that a repetition is known; what a record says is judged later.

use super::super::handover::{Framed, Spoiled};
use detection::RejectReason;
use detection::event::RAW_SIZE_BYTES_MAX;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use serde_json::{Map, Value};

/// The lines of a request's records, of at most so many bytes together; those beyond are rejected.
pub(super) fn lines(request: &ExportLogsServiceRequest, size_bytes_max: usize) -> Vec<Framed> {
    let (mut lines, mut room) = (Vec::new(), size_bytes_max);
    for group in &request.resource_logs {
        let resource = group.resource.as_ref().map(|resource| map(&resource.attributes)).unwrap_or_default();
        for scope in &group.scope_logs {
            let mut named = Map::new();
            if let Some(scope) = &scope.scope {
                text(&mut named, "name", &scope.name);
                text(&mut named, "version", &scope.version);
                object(&mut named, "attributes", map(&scope.attributes));
            }
            // The same for all records of the group: written once, put into each.
            let mut shared = Map::new();
            object(&mut shared, "resource", resource.clone());
            object(&mut shared, "scope", named);
            let shared = Value::Object(shared).to_string();
            for record in &scope.log_records {
                let limit = RAW_SIZE_BYTES_MAX.min(room);
                let too_large = RejectReason::TooLarge { limit_bytes: limit as u64 };
                let line = if shared.len() > limit { line(record, "{}") } else { line(record, &shared) };
                lines.push(match shared.len() <= limit && line.len() <= limit {
                    true => {
                        room -= line.len();
                        Ok(line.into())
                    }
                    false => Err(Spoiled::of(too_large, &line.into())),
                });
            }
        }
    }
    lines
}

/// A record and what it shares with others as one object.
fn line(record: &LogRecord, shared: &str) -> String {
    let mut fields = Map::new();
    for (name, number) in [
        ("time_unix_nano", record.time_unix_nano),
        ("observed_time_unix_nano", record.observed_time_unix_nano),
        ("severity_number", u64::try_from(record.severity_number).unwrap_or(0)),
    ] {
        if number > 0 {
            fields.insert(name.to_owned(), number.into());
        }
    }
    text(&mut fields, "severity_text", &record.severity_text);
    text(&mut fields, "event_name", &record.event_name);
    text(&mut fields, "trace_id", &hex::encode(&record.trace_id));
    text(&mut fields, "span_id", &hex::encode(&record.span_id));
    if let Some(body) = &record.body {
        fields.insert("body".to_owned(), value(body));
    }
    object(&mut fields, "attributes", map(&record.attributes));
    let own = Value::Object(fields).to_string();
    match (own.as_str(), shared) {
        (own, "{}") => own.to_owned(),
        ("{}", shared) => shared.to_owned(),
        (own, shared) => format!("{},{}", &own[..own.len() - 1], &shared[1..]),
    }
}

fn text(fields: &mut Map<String, Value>, name: &str, value: &str) {
    if !value.is_empty() {
        fields.insert(name.to_owned(), value.into());
    }
}

fn object(fields: &mut Map<String, Value>, name: &str, value: Map<String, Value>) {
    if !value.is_empty() {
        fields.insert(name.to_owned(), Value::Object(value));
    }
}

fn map(attributes: &[KeyValue]) -> Map<String, Value> {
    let one = |attribute: &KeyValue| {
        let value = attribute.value.as_ref().map_or(Value::Null, value);
        (attribute.key.clone(), value)
    };
    attributes.iter().map(one).collect()
}

/// A value as JSON; its nesting is bounded by the decoders (100 in protobuf, 128 in JSON).
fn value(any: &AnyValue) -> Value {
    match &any.value {
        None => Value::Null,
        Some(any_value::Value::StringValue(text)) => text.as_str().into(),
        Some(any_value::Value::BoolValue(bool)) => (*bool).into(),
        Some(any_value::Value::IntValue(number)) => (*number).into(),
        // Not a number and infinity have no form in JSON: null.
        Some(any_value::Value::DoubleValue(number)) => (*number).into(),
        Some(any_value::Value::ArrayValue(array)) => array.values.iter().map(value).collect(),
        Some(any_value::Value::KvlistValue(list)) => Value::Object(map(&list.values)),
        Some(any_value::Value::BytesValue(bytes)) => hex::encode(bytes).into(),
        // Only profiles have tables of strings.
        Some(any_value::Value::StringValueStrindex(index)) => (*index).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use proptest::prelude::*;
    use prost::Message;
    use serde_json::json;

    fn attribute(key: &str, text: &str) -> KeyValue {
        let value = Some(any_value::Value::StringValue(text.to_owned()));
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value }), ..KeyValue::default() }
    }

    fn request(resource: Vec<KeyValue>, log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
        let resource = Some(Resource { attributes: resource, ..Resource::default() });
        let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { resource, scope_logs, schema_url: String::new() }];
        ExportLogsServiceRequest { resource_logs }
    }

    #[test]
    fn a_record_carries_its_resource_and_is_normalised() {
        let record = LogRecord {
            time_unix_nano: 1_795_467_600_000_000_001,
            severity_number: 9,
            attributes: vec![attribute("user.name", "ann")],
            ..LogRecord::default()
        };
        let lines = lines(&request(vec![attribute("host.name", "h1")], vec![record, LogRecord::default()]), 1 << 20);
        // In whatever order the members come.
        let read = |line: &Result<Bytes, _>| serde_json::from_slice::<Value>(line.as_ref().ok()?).ok();
        assert_eq!(
            lines.iter().map(read).collect::<Vec<_>>(),
            [
                Some(json!({"attributes": {"user.name": "ann"}, "severity_number": 9,
                    "time_unix_nano": 1_795_467_600_000_000_001_u64, "resource": {"host.name": "h1"}})),
                Some(json!({"resource": {"host.name": "h1"}}))
            ]
        );
    }

    #[test]
    fn a_large_resource_is_not_multiplied_without_bound() {
        let resource = vec![attribute("a", &"x".repeat(1_000))];
        let lines = lines(&request(resource, vec![LogRecord::default(); 100]), 10_240);
        assert_eq!(lines.iter().filter(|line| line.is_ok()).count(), 10);
        assert!(lines.iter().flatten().map(Bytes::len).sum::<usize>() <= 10_240);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(request) = ExportLogsServiceRequest::decode(bytes.as_slice()) {
                lines(&request, 1 << 20);
            }
            if let Ok(request) = serde_json::from_slice::<ExportLogsServiceRequest>(&bytes) {
                lines(&request, 1 << 20);
            }
        }
        #[test]
        fn bytes_near_a_request_never_panic(at: prop::sample::Index, byte: u8) {
            let mut record = LogRecord { attributes: vec![attribute("a", "b"); 3], ..LogRecord::default() };
            record.body = attribute("", "x").value;
            let mut bytes = request(vec![attribute("h", "i")], vec![record; 3]).encode_to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(request) = ExportLogsServiceRequest::decode(bytes.as_slice()) {
                for line in lines(&request, 1 << 20) {
                    let line: Value = serde_json::from_slice(&line.unwrap()).unwrap();
                    prop_assert!(line.is_object());
                }
            }
        }
    }
}
