//! How much memory a request takes once it is decoded: known before it is, so that few bytes cannot become many.
//!
//! Pure. It may say too much, never too little: an empty record is two bytes as protobuf and three as JSON, and a
//! hundred times that in memory.

use opentelemetry_proto::tonic::common::v1::{AnyValue, EntityRef, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::encoding::{WireType, decode_key, decode_varint};

/// What a list takes for each of its elements, at most, while it grows: twice their size.
const GROWTH: usize = 2;
/// A list has room for so many elements once it has one.
const ROOM_MIN: usize = 4;
/// Most messages inside each other; the decoder has the same bound.
const DEPTH_MAX: usize = 100;
/// A text or a list of bytes beside its bytes.
const TEXT_BYTES: usize = GROWTH * size_of::<String>();
/// Any object or array of JSON: a record is the largest of what one may become.
const JSON_BYTES: usize = GROWTH * size_of::<LogRecord>();

/// A message of the protocol.
#[derive(Clone, Copy)]
enum Kind {
    Request,
    ResourceLogs,
    Resource,
    EntityRef,
    ScopeLogs,
    Scope,
    Record,
    Attribute,
    Any,
    Array,
    List,
}

impl Kind {
    /// The message that a field of it is; `None` for texts, and for what is not known and skipped.
    const fn field(self, number: u32) -> Option<Self> {
        match (self, number) {
            (Self::Request, 1) => Some(Self::ResourceLogs),
            (Self::ResourceLogs, 1) => Some(Self::Resource),
            (Self::ResourceLogs, 2) => Some(Self::ScopeLogs),
            (Self::Resource, 1) | (Self::Scope, 3) | (Self::Record, 6) | (Self::List, 1) => Some(Self::Attribute),
            (Self::Resource, 3) => Some(Self::EntityRef),
            (Self::ScopeLogs, 1) => Some(Self::Scope),
            (Self::ScopeLogs, 2) => Some(Self::Record),
            (Self::Record, 5) | (Self::Attribute, 2) | (Self::Array, 1) => Some(Self::Any),
            (Self::Any, 5) => Some(Self::Array),
            (Self::Any, 6) => Some(Self::List),
            _ => None,
        }
    }

    /// What one of them takes in a list of a message of this kind; nothing where it is a part of the message itself.
    const fn element_bytes(self, inner: Self) -> usize {
        match (self, inner) {
            (_, Self::ResourceLogs) => size_of::<ResourceLogs>(),
            (_, Self::EntityRef) => size_of::<EntityRef>(),
            (_, Self::ScopeLogs) => size_of::<ScopeLogs>(),
            (_, Self::Record) => size_of::<LogRecord>(),
            (_, Self::Attribute) => size_of::<KeyValue>(),
            (Self::Array, Self::Any) => size_of::<AnyValue>(),
            _ => 0,
        }
    }
}

/// About how many bytes a request in protobuf takes once it is decoded; `None` where it is none.
pub(super) fn protobuf(bytes: &[u8]) -> Option<usize> {
    let mut sum = bytes.len();
    message(Kind::Request, bytes, DEPTH_MAX, &mut sum)?;
    Some(sum)
}

fn message(kind: Kind, mut bytes: &[u8], depth: usize, sum: &mut usize) -> Option<()> {
    let deeper = depth.checked_sub(1)?;
    let mut lists = 0_u16;
    while !bytes.is_empty() {
        let (number, wire) = decode_key(&mut bytes).ok()?;
        match wire {
            WireType::Varint => drop(decode_varint(&mut bytes).ok()?),
            WireType::SixtyFourBit => bytes = bytes.get(8..)?,
            WireType::ThirtyTwoBit => bytes = bytes.get(4..)?,
            WireType::LengthDelimited => {
                let size = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
                let (inner, rest) = bytes.split_at_checked(size)?;
                bytes = rest;
                match kind.field(number) {
                    Some(element) => {
                        // The first one of each list makes room for some.
                        let (bytes, list) = (kind.element_bytes(element), 1 << element as u16);
                        let room = if lists & list == 0 { ROOM_MIN } else { 0 };
                        lists |= list;
                        *sum = sum.saturating_add(bytes * (GROWTH + room));
                        message(element, inner, deeper, sum)?;
                    }
                    None => *sum = sum.saturating_add(TEXT_BYTES),
                }
            }
            // The protocol has no groups.
            WireType::StartGroup | WireType::EndGroup => return None,
        }
    }
    Some(())
}

/// About how many bytes a request in JSON takes once it is decoded, if it is one.
pub(super) fn json(bytes: &[u8]) -> usize {
    let (mut is_text, mut is_escaped, mut sum) = (false, false, bytes.len());
    for byte in bytes {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => {
                is_text = !is_text;
                sum = sum.saturating_add(TEXT_BYTES / 2);
            }
            b'{' | b'[' if !is_text => sum = sum.saturating_add(JSON_BYTES),
            _ => {}
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};
    use proptest::prelude::*;
    use prost::Message;

    fn text(text: &str) -> AnyValue {
        AnyValue { value: Some(Value::StringValue(text.to_owned())) }
    }

    fn attribute(value: AnyValue) -> KeyValue {
        KeyValue { key: "key".to_owned(), value: Some(value), ..KeyValue::default() }
    }

    fn request(log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
        let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
        ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }
    }

    #[test]
    fn two_bytes_weigh_as_much_as_the_record_that_they_become() {
        let (count, record) = (100_000, size_of::<LogRecord>());
        let bomb = request(vec![LogRecord::default(); count]).encode_to_vec();
        assert!(bomb.len() < 2 * count + 32);
        assert!(protobuf(&bomb).unwrap() >= count * record);
        let scopes =
            format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}{{}}]}}]}}]}}"#, "{},".repeat(count));
        assert!(json(scopes.as_bytes()) >= count * record);
        // The decoder takes structures that are written as lists, too.
        assert!(json(scopes.replace("{}", "[]").as_bytes()) >= count * record);
    }

    #[test]
    fn values_inside_values_are_weighed_and_braces_in_texts_are_not() {
        let many = ArrayValue { values: vec![AnyValue::default(); 10_000] };
        let list = KeyValueList { values: vec![attribute(AnyValue { value: Some(Value::ArrayValue(many)) })] };
        let body = Some(AnyValue { value: Some(Value::KvlistValue(list)) });
        let bytes = request(vec![LogRecord { body, ..LogRecord::default() }]).encode_to_vec();
        assert!(protobuf(&bytes).unwrap() >= 10_000 * size_of::<AnyValue>());
        assert!(json(br#""{{{{[[[[\"{{""#) < JSON_BYTES);
    }

    #[test]
    fn an_ordinary_request_weighs_a_few_times_its_bytes() {
        let attributes = vec![attribute(text("GET /index.html")); 6];
        let body = Some(text("10.0.0.1 - - [24/Nov/2026] GET /index.html HTTP/1.1 200 4711"));
        let bytes = request(vec![LogRecord { body, attributes, ..LogRecord::default() }; 1_000]).encode_to_vec();
        let (weight, size) = (protobuf(&bytes).unwrap(), bytes.len());
        assert!(weight < 16 * size, "{weight} for {size} bytes: what is let in is sixteen times a body");
        let line =
            r#"{"body":{"stringValue":"x"},"attributes":[{"key":"http.method","value":{"stringValue":"GET"}}]},"#;
        assert!(json(line.as_bytes()) < 32 * line.len());
    }

    proptest! {
        #[test]
        fn what_the_decoder_takes_is_weighed(bytes: Vec<u8>, at: prop::sample::Index, byte: u8) {
            let attributes = vec![attribute(text("b")); 3];
            let mut near = request(vec![LogRecord { attributes, ..LogRecord::default() }; 3]).encode_to_vec();
            let at = at.index(near.len());
            near[at] = byte;
            for bytes in [bytes, near] {
                json(&bytes);
                let weight = protobuf(&bytes);
                let has_group = bytes.iter().any(|byte| matches!(byte & 7, 3 | 4));
                if let Ok(request) = ExportLogsServiceRequest::decode(bytes.as_slice()) {
                    let records = request.resource_logs.iter().flat_map(|group| &group.scope_logs);
                    let count: usize = records.map(|scope| scope.log_records.len()).sum();
                    prop_assert!(has_group || weight.unwrap() >= count * size_of::<LogRecord>());
                }
            }
        }
    }
}
