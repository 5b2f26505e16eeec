//! What detection would not take: found before it is acknowledged, so that it becomes a dead letter with its reason.
//!
//! Detection reads what it has to later, and again on other nodes: there nobody could be told any more.

use crate::record::Record;
use crate::transform::Refusal;
use detection::RawEvent;
use detection::normalise::normalise;
use detection::rules::TENANT_FIELD;

/// A record as detection takes it.
///
/// # Errors
/// Why it never will.
pub(crate) fn fit(record: &Record) -> Result<RawEvent, Refusal> {
    let raw = record.clone().into_raw_event();
    let event = normalise(&raw).map_err(|reject| reject.reason)?;
    match event.fields.get(TENANT_FIELD) {
        Some(named) if named.as_str() != record.tenant.as_deref() => Err(Refusal::OtherTenant),
        _ => Ok(raw),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use detection::SourceKind;
    use serde_json::json;

    fn refusal(source: SourceKind, raw: &str, tenant: Option<&str>) -> Option<&'static str> {
        let record = Record {
            source,
            received_ms: 1_795_467_600_000,
            position: None,
            tenant: tenant.map(Into::into),
            raw: raw.to_owned().into(),
            fields: None,
        };
        fit(&record).err().map(|refusal| refusal.label())
    }

    #[test]
    fn what_detection_cannot_read_is_refused_with_its_reason() {
        for (source, raw, label) in [
            (SourceKind::Syslog, "<13>hello", "bad_time"),
            (SourceKind::Ndjson, "not json", "not_json"),
            (SourceKind::Ndjson, r#"{"time":"soon"}"#, "bad_field"),
            (SourceKind::Ndjson, "[1]", "not_an_object"),
            (SourceKind::Otlp, r#"{"attributes":1}"#, "bad_field"),
        ] {
            assert_eq!(refusal(source, raw, None), Some(label), "{raw}");
        }
        assert_eq!(refusal(SourceKind::Syslog, "<13>Jun 15 04:06:19 h cron[2]: done", None), None);
    }

    #[test]
    fn nobody_speaks_in_another_tenants_name() {
        let named = |tenant: &str| json!({"metadata": {"tenant_uid": tenant}}).to_string();
        for (line, of, is_fit) in [
            (named("acme"), None, false),
            (named("acme"), Some("bolt"), false),
            (named("acme"), Some("acme"), true),
            ("{}".to_owned(), Some("acme"), true),
            (r#"{"metadata.tenant_uid":["acme","bolt"]}"#.to_owned(), Some("acme"), false),
        ] {
            let label = refusal(SourceKind::Ndjson, &line, of);
            assert_eq!(label, (!is_fit).then_some("other_tenant"), "{line} of {of:?}");
        }
        let attribute = json!({"attributes": {"metadata.tenant_uid": "acme"}}).to_string();
        assert_eq!(refusal(SourceKind::Otlp, &attribute, None), Some("other_tenant"));
    }

    #[test]
    fn an_event_that_a_transform_made_too_large_is_refused() {
        let text = "x".repeat(detection::event::RAW_SIZE_BYTES_MAX);
        let mut record = Record::from(RawEvent {
            source: SourceKind::Syslog,
            received_ms: 1,
            position: None,
            bytes: Default::default(),
        });
        record.set("message", text);
        assert_eq!(fit(&record).unwrap_err().label(), "too_large");
    }
}
