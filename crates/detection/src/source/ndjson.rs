//! One JSON object a line.
//!
//! Pure: a body in, raw events and dead letters out, line by line; one bad line never takes its neighbours with it.

use crate::event::{Position, RAW_SIZE_BYTES_MAX, RawEvent, Reject, RejectReason, SourceKind};
use bytes::Bytes;
use serde::de::IgnoredAny;
use std::sync::Arc;

/// Most lines of one body; the rest is rejected as one.
pub const LINES_MAX: usize = 100_000;

/// The events of a body, each numbered by its line from `first_sequence` where a stream is given.
pub fn parse_ndjson(
    body: &Bytes,
    received_ms: u64,
    stream: Option<&Arc<str>>,
    first_sequence: u64,
) -> (Vec<RawEvent>, Vec<Reject>) {
    let (mut events, mut rejects) = (Vec::new(), Vec::new());
    let mut start = 0;
    for (number, line) in body.split(|byte| *byte == b'\n').enumerate() {
        let range = start..start + line.len();
        start += line.len() + 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let sequence = first_sequence.saturating_add(number as u64);
        let raw = RawEvent {
            source: SourceKind::Ndjson,
            received_ms,
            position: stream.map(|stream| Position { stream: stream.clone(), sequence }),
            bytes: body.slice(range),
        };
        if number >= LINES_MAX {
            rejects.push(Reject::of(&raw, RejectReason::TooLarge { limit_bytes: body.len() as u64 }));
            break;
        }
        match check(&raw.bytes) {
            Ok(()) => events.push(raw),
            Err(reason) => rejects.push(Reject::of(&raw, reason)),
        }
    }
    (events, rejects)
}

fn check(line: &[u8]) -> Result<(), RejectReason> {
    if line.len() > RAW_SIZE_BYTES_MAX {
        return Err(RejectReason::TooLarge { limit_bytes: RAW_SIZE_BYTES_MAX as u64 });
    }
    serde_json::from_slice::<IgnoredAny>(line)
        .map_err(|error| RejectReason::NotJson { column: error.column() as u64 })?;
    if line.trim_ascii_start().first() == Some(&b'{') { Ok(()) } else { Err(RejectReason::NotAnObject) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bad_line_is_rejected_alone() {
        let body = Bytes::from_static(b"{\"a\":1}\n\n[1]\nnot json\n{\"b\":2}");
        let stream: Arc<str> = "http".into();
        let (events, rejects) = parse_ndjson(&body, 7, Some(&stream), 10);
        let sequences: Vec<u64> = events.iter().map(|event| event.position.as_ref().unwrap().sequence).collect();
        assert_eq!(sequences, [10, 14]);
        let reasons: Vec<&str> = rejects.iter().map(|reject| reject.reason.label()).collect();
        assert_eq!(reasons, ["not_an_object", "not_json"]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse_ndjson(&bytes.into(), 0, None, 0);
        }
    }
}
