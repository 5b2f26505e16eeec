//! Parse: takes a line, or the text of one field, apart into fields.
//!
//! JSON, syslog, CEF, pairs of keys and values, and regular expressions with named groups.

mod cef;
mod pairs;

use super::{BadTransform, Outputs, Refusal, Transform, regex};
use crate::record::Record;
use detection::RejectReason;
use detection::event::{FIELDS_MAX, Fields, RAW_SIZE_BYTES_MAX};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

/// What is parsed, and how.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParseConfig {
    /// How.
    format: Format,
    /// The field whose text is parsed; the whole line by default.
    field: Option<String>,
    /// New fields are put under this name.
    into: Option<String>,
    /// For `regex`: the expression; its named groups become fields.
    pattern: Option<String>,
    /// For `key_value`: what stands between pairs; white space by default.
    between_pairs: Option<char>,
    /// For `key_value`: what stands between a key and its value.
    between_key_and_value: Option<char>,
    /// What becomes of what does not parse.
    #[serde(default)]
    on_error: OnError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    Json,
    Syslog,
    Cef,
    KeyValue,
    Regex,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnError {
    /// It becomes a dead letter.
    #[default]
    DeadLetter,
    /// It goes on as it was.
    Pass,
}

impl ParseConfig {
    pub(super) fn open(&self) -> Result<Parse, BadTransform> {
        let only_for = |key, is_set: bool, format| {
            let why = "is for another format only";
            if is_set && self.format != format { Err(BadTransform::Setting { key, why }) } else { Ok(()) }
        };
        only_for("pattern", self.pattern.is_some(), Format::Regex)?;
        only_for("between_pairs", self.between_pairs.is_some(), Format::KeyValue)?;
        only_for("between_key_and_value", self.between_key_and_value.is_some(), Format::KeyValue)?;
        let parser = match self.format {
            Format::Json => Parser::Json,
            Format::Syslog => Parser::Syslog,
            Format::Cef => Parser::Cef,
            Format::KeyValue => {
                let (pair, value) = (self.between_pairs.unwrap_or(' '), self.between_key_and_value.unwrap_or('='));
                if pair == value || [pair, value].contains(&'"') || value.is_whitespace() {
                    let why = "must be a character that is neither a quote, white space, nor between_pairs";
                    return Err(BadTransform::Setting { key: "between_key_and_value", why });
                }
                Parser::Pairs { pair, value }
            }
            Format::Regex => {
                let why = "is needed for format = 'regex', with named groups such as (?P<user>\\w+)";
                let missing = BadTransform::Setting { key: "pattern", why };
                let pattern = self.pattern.as_deref().map(|pattern| regex("pattern", pattern)).transpose()?;
                let pattern = pattern.filter(|pattern| pattern.capture_names().flatten().next().is_some());
                Parser::Regex(pattern.ok_or(missing)?)
            }
        };
        let prefix = self.into.as_ref().map(|into| format!("{into}.")).unwrap_or_default();
        Ok(Parse { parser, field: self.field.clone(), prefix, on_error: self.on_error })
    }
}

/// Takes records apart.
pub struct Parse {
    parser: Parser,
    field: Option<String>,
    prefix: String,
    on_error: OnError,
}

enum Parser {
    Json,
    Syslog,
    Cef,
    Pairs { pair: char, value: char },
    Regex(Regex),
}

impl Transform for Parse {
    fn apply(&self, mut record: Record, out: &mut Outputs) {
        match self.found(&record) {
            Ok(found) => {
                let fields = record.fields.get_or_insert_default();
                fields.extend(found.into_iter().map(|(name, value)| (format!("{}{name}", self.prefix), value)));
                out.pass(record);
            }
            Err(_) if self.on_error == OnError::Pass => out.pass(record),
            Err(refusal) => out.refused.push((record, refusal)),
        }
    }
}

impl Parse {
    fn found(&self, record: &Record) -> Result<Fields, Refusal> {
        let text = match &self.field {
            Some(field) => record.text(field).ok_or_else(|| Refusal::NoText(field.clone()))?,
            None => std::str::from_utf8(&record.raw).map_err(|_| RejectReason::NotUtf8)?,
        };
        if text.len() > RAW_SIZE_BYTES_MAX {
            return Err(RejectReason::TooLarge { limit_bytes: RAW_SIZE_BYTES_MAX as u64 }.into());
        }
        let found = self.parser.parse(text, record.received_ms)?;
        if found.len() + record.fields().len() > FIELDS_MAX {
            return Err(RejectReason::TooManyFields.into());
        }
        Ok(found)
    }
}

impl Parser {
    fn parse(&self, text: &str, received_ms: u64) -> Result<Fields, Refusal> {
        match self {
            Self::Json => json(text),
            Self::Syslog => syslog(text, received_ms),
            Self::Cef => cef::parse(text),
            Self::Pairs { pair, value } => pairs::parse(text, *pair, *value),
            Self::Regex(pattern) => {
                let captures = pattern.captures(text).ok_or(Refusal::NoMatch)?;
                let names = pattern.capture_names().flatten();
                let found = names.filter_map(|name| Some((name.to_owned(), captures.name(name)?.as_str().into())));
                Ok(found.collect())
            }
        }
    }
}

fn json(text: &str) -> Result<Fields, Refusal> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| RejectReason::NotJson { column: error.column() as u64 })?;
    let object = value.as_object().ok_or(RejectReason::NotAnObject)?;
    let mut fields = Fields::new();
    detection::normalise::flatten(object, &mut fields)?;
    Ok(fields)
}

fn syslog(text: &str, received_ms: u64) -> Result<Fields, Refusal> {
    let line = detection::source::syslog::parse(text.as_bytes(), received_ms)?;
    let mut fields = Fields::new();
    let texts = [
        ("host", line.host),
        ("program", line.program),
        ("process_id", line.process_id),
        ("message_id", line.message_id),
        ("message", Some(line.message)),
    ];
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into())));
    fields.extend(texts);
    let numbers = [
        ("facility", line.facility.map(u64::from)),
        ("severity", line.severity.map(u64::from)),
        ("time_ms", line.time_ms),
    ];
    fields.extend(numbers.into_iter().filter_map(|(name, number)| Some((name.to_owned(), number?.into()))));
    let parameters = line.parameters.into_iter();
    fields.extend(parameters.map(|(element, name, value)| (format!("{element}.{name}"), value.into())));
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use detection::SourceKind;
    use proptest::prelude::*;
    use serde_json::json;

    fn run(config: &str, line: &[u8]) -> Result<Value, String> {
        let parse = toml::from_str::<ParseConfig>(config).unwrap().open().unwrap();
        let raw = line.to_vec().into();
        let record = Record {
            source: SourceKind::Syslog,
            received_ms: 1_795_467_600_000,
            position: None,
            tenant: None,
            raw,
            fields: None,
        };
        let mut out = Outputs::default();
        parse.apply(record, &mut out);
        match (out.passed.pop(), out.refused.pop()) {
            (Some((0, record)), None) => Ok(json!(record.fields)),
            (None, Some((_, refusal))) => Err(refusal.label().to_owned()),
            other => panic!("one record in, one out: {other:?}"),
        }
    }

    #[track_caller]
    fn check(config: &str, line: &str, expect: Value) {
        assert_eq!(run(config, line.as_bytes()), Ok(expect), "{config}");
    }

    #[test]
    fn each_format_becomes_fields() {
        check("format = 'json'", r#"{"a":{"b":1},"c":["x"]}"#, json!({"a.b": 1, "c": ["x"]}));
        check("format = 'json'\ninto = 'in'", r#"{"a":1}"#, json!({"in.a": 1}));
        let line = "<34>1 2026-06-15T02:04:59Z h app 7 id [e k=\"v\"] hello";
        let expect = json!({"facility": 4, "severity": 2, "host": "h", "program": "app", "process_id": "7",
            "message_id": "id", "message": "hello", "e.k": "v", "time_ms": 1_781_489_099_000_u64});
        check("format = 'syslog'", line, expect);
        let pattern = r"format = 'regex'
            pattern = '^(?P<user>\w+) from (?P<from>\S+)( port (?P<port>\d+))?'";
        check(pattern, "ann from 10.0.0.1", json!({"user": "ann", "from": "10.0.0.1"}));
        check("format = 'json'\non_error = 'pass'", "not json", Value::Null);
    }

    #[test]
    fn what_does_not_parse_says_why() {
        assert_eq!(run("format = 'json'", b"[1]"), Err("not_an_object".into()));
        assert_eq!(run("format = 'json'", b"\xff"), Err("not_utf8".into()));
        assert_eq!(run("format = 'syslog'", b"<999>x"), Err("bad_priority".into()));
        assert_eq!(run("format = 'cef'", b"x"), Err("not_cef".into()));
        assert_eq!(run("format = 'key_value'", b"nothing"), Err("no_pairs".into()));
        assert_eq!(run("format = 'regex'\npattern = '(?P<a>b)'", b"c"), Err("no_match".into()));
        assert_eq!(run("format = 'json'\nfield = 'f'", b"{}"), Err("no_text".into()));
        let large = vec![b' '; RAW_SIZE_BYTES_MAX + 1];
        assert_eq!(run("format = 'json'", &large), Err("too_large".into()));
        let wide = (0..=FIELDS_MAX).map(|n| format!("k{n}=v ")).collect::<String>();
        assert_eq!(run("format = 'key_value'", wide.as_bytes()), Err("too_many_fields".into()));
    }

    #[test]
    fn settings_of_another_format_are_refused() {
        for wrong in [
            "format = 'json'\npattern = 'x'",
            "format = 'regex'",
            "format = 'regex'\npattern = 'no group'",
            "format = 'cef'\nbetween_pairs = ','",
            "format = 'key_value'\nbetween_key_and_value = '\"'",
        ] {
            assert!(toml::from_str::<ParseConfig>(wrong).unwrap().open().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(line: Vec<u8>, format in 0..5_usize) {
            let config = [
                "format = 'json'", "format = 'syslog'", "format = 'cef'", "format = 'key_value'",
                "format = 'regex'\npattern = '(?P<a>.)(?P<b>.*)'",
            ][format];
            let _ = run(config, &line);
        }
        #[test]
        fn nearly_cef_and_nearly_pairs_never_panic(text in "(CEF:)?[0-9|\\\\= \"a-z,é]{0,80}") {
            let _ = run("format = 'cef'", text.as_bytes());
            let _ = run("format = 'key_value'", text.as_bytes());
            let _ = run("format = 'key_value'\nbetween_pairs = ','", text.as_bytes());
        }
    }
}
