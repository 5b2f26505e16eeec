//! Redact: takes out what must not travel on, and keeps what is needed to join events.
//!
//! Fields are removed, masked, or replaced by a keyed hash; patterns are masked wherever they stand. The line an event
//! was made of would still hold it all: it does not travel on either.

use super::condition::{Condition, ConditionConfig};
use super::{BadTransform, Outputs, Refusal, Transform, regex};
use crate::record::Record;
use bytes::Bytes;
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// What a masked value becomes.
pub const MASK: &str = "[redacted]";
/// Most patterns of one transform.
const PATTERNS_MAX: usize = 64;
/// Fewest bytes of the file with the key: less could be guessed.
const KEY_BYTES_MIN: usize = 16;
/// Digits of a card's number (ISO/IEC 7812-1).
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// What is taken out.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedactConfig {
    /// Fields that go: names, or `name.*` for all that begin so.
    #[serde(default)]
    remove: Vec<String>,
    /// Fields whose values are masked.
    #[serde(default)]
    mask: Vec<String>,
    /// Fields whose values become a keyed hash: the same value is the same hash, so that joins still work.
    #[serde(default)]
    hash: Vec<String>,
    /// The file with the key of the hash.
    hash_key: Option<PathBuf>,
    /// What is masked wherever it stands: `card_number`, `e_mail`, or a regular expression.
    #[serde(default)]
    patterns: Vec<String>,
    /// Only events that meet it are touched; all by default.
    #[serde(rename = "where")]
    condition: Option<ConditionConfig>,
}

impl RedactConfig {
    pub(super) fn open(&self, folder: &Path) -> Result<Redact, BadTransform> {
        let wrong = |key, why| Err(BadTransform::Setting { key, why });
        if self.remove.is_empty() && self.mask.is_empty() && self.hash.is_empty() && self.patterns.is_empty() {
            return wrong("redact", "needs remove, mask, hash or patterns");
        }
        if self.patterns.len() > PATTERNS_MAX {
            return wrong("patterns", "has at most 64 entries");
        }
        let key = match (&self.hash_key, self.hash.is_empty()) {
            (None, true) => None,
            (Some(_), true) => return wrong("hash_key", "is for hash = [...]"),
            (None, false) => return wrong("hash_key", "is needed: a file with a secret of 16 bytes or more"),
            (Some(path), false) => Some(read_key(&folder.join(path))?),
        };
        let pattern = |text: &String| match text.as_str() {
            "card_number" => Ok(Pattern::Card),
            "e_mail" => {
                regex("patterns", r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,255}\.[A-Za-z]{2,24}").map(Pattern::Regex)
            }
            other => regex("patterns", other).map(Pattern::Regex),
        };
        let open = |config: &ConditionConfig| {
            config.open().map_err(|why| BadTransform::Condition { key: "where".into(), why })
        };
        Ok(Redact {
            remove: self.remove.clone(),
            mask: self.mask.clone(),
            hash: self.hash.clone(),
            key,
            patterns: self.patterns.iter().map(pattern).collect::<Result<_, _>>()?,
            condition: self.condition.as_ref().map(open).transpose()?,
        })
    }
}

fn read_key(path: &Path) -> Result<[u8; 32], BadTransform> {
    let text = std::fs::read(path).map_err(|error| BadTransform::File { path: path.display().to_string(), error })?;
    let secret = text.trim_ascii();
    if secret.len() < KEY_BYTES_MIN {
        return Err(BadTransform::Setting { key: "hash_key", why: "names a file with fewer than 16 bytes" });
    }
    Ok(blake3::derive_key("holdfast pipeline redact 1", secret))
}

/// Takes out what must not travel on.
pub struct Redact {
    remove: Vec<String>,
    mask: Vec<String>,
    hash: Vec<String>,
    key: Option<[u8; 32]>,
    patterns: Vec<Pattern>,
    condition: Option<Condition>,
}

enum Pattern {
    Card,
    Regex(Regex),
}

impl Transform for Redact {
    fn apply(&self, mut record: Record, out: &mut Outputs) {
        if self.condition.as_ref().is_some_and(|condition| !condition.holds(&mut record)) {
            return out.pass(record);
        }
        let Some(fields) = record.fields.take() else { return self.line(record, out) };
        let kept = fields.into_iter().filter(|(name, _)| !named(&self.remove, name));
        let redacted = kept.map(|(name, value)| {
            let value = match () {
                () if named(&self.mask, &name) => MASK.into(),
                () if named(&self.hash, &name) => self.hashed(&value),
                () => self.cleaned(value),
            };
            (name, value)
        });
        record.fields = Some(redacted.collect());
        record.raw = Bytes::new();
        out.pass(record);
    }
}

impl Redact {
    /// A line that nobody has taken apart has no fields: patterns are all that can be found in it.
    fn line(&self, mut record: Record, out: &mut Outputs) {
        if !self.remove.is_empty() || !self.mask.is_empty() || !self.hash.is_empty() {
            let refusal = Refusal::NoText("to redact: put a parse before it, and it".to_owned());
            out.refused.push((record, refusal));
            return;
        }
        match std::str::from_utf8(&record.raw).map(|line| self.masked(line)) {
            Ok(Cow::Borrowed(_)) => {}
            Ok(Cow::Owned(line)) => record.raw = line.into(),
            Err(_) => {
                out.refused.push((record, detection::RejectReason::NotUtf8.into()));
                return;
            }
        }
        out.pass(record);
    }

    fn hashed(&self, value: &Value) -> Value {
        let Some(key) = &self.key else { return MASK.into() };
        match value {
            Value::Null => Value::Null,
            Value::Array(values) => values.iter().map(|value| self.hashed(value)).collect(),
            value => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let hash = blake3::keyed_hash(key, text.as_bytes());
                format!("h-{}", &hash.to_hex()[..32]).into()
            }
        }
    }

    fn cleaned(&self, value: Value) -> Value {
        match value {
            Value::String(text) => match self.masked(&text) {
                Cow::Borrowed(_) => Value::String(text),
                Cow::Owned(masked) => masked.into(),
            },
            Value::Number(number) => {
                let text = number.to_string();
                match self.masked(&text) {
                    Cow::Borrowed(_) => Value::Number(number),
                    Cow::Owned(masked) => masked.into(),
                }
            }
            Value::Array(values) => values.into_iter().map(|value| self.cleaned(value)).collect(),
            Value::Object(object) => object.into_iter().map(|(name, value)| (name, self.cleaned(value))).collect(),
            value @ (Value::Null | Value::Bool(_)) => value,
        }
    }

    fn masked<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut masked = Cow::Borrowed(text);
        for pattern in &self.patterns {
            let next = match pattern {
                Pattern::Card => cards(&masked),
                Pattern::Regex(regex) => match regex.replace_all(&masked, MASK) {
                    Cow::Borrowed(_) => None,
                    Cow::Owned(text) => Some(text),
                },
            };
            masked = next.map_or(masked, Cow::Owned);
        }
        masked
    }
}

fn named(names: &[String], field: &str) -> bool {
    names.iter().any(|name| match name.strip_suffix(".*") {
        Some(prefix) => field.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')),
        None => name == field,
    })
}

/// Masks numbers of cards but for their last four digits; `None` where there are none.
///
/// Digits may be grouped by single spaces or hyphens. A number begins and ends where a group does, begins with a digit
/// that issuers use, and its check digit is right (Luhn): other long numbers stay.
fn cards(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut masked = String::new();
    let mut copied = 0;
    let mut at = 0;
    while at < bytes.len() {
        let begins = bytes[at].is_ascii_digit() && (at == 0 || !bytes[at - 1].is_ascii_digit());
        match if begins { card(&bytes[at..]) } else { None } {
            Some(length) => {
                masked.push_str(&text[copied..at]);
                masked.push_str("[card …");
                masked.push_str(&text[at + length - 4..at + length]);
                masked.push(']');
                at += length;
                copied = at;
            }
            None => at += 1,
        }
    }
    (copied > 0).then(|| masked + &text[copied..])
}

/// How long a card's number at the beginning is; the longest counts.
fn card(bytes: &[u8]) -> Option<usize> {
    if !(b'2'..=b'6').contains(&bytes[0]) {
        return None;
    }
    let mut digits = Vec::with_capacity(*CARD_DIGITS.end());
    let mut found = None;
    let mut at = 0;
    while at < bytes.len() && digits.len() < *CARD_DIGITS.end() {
        if bytes[at].is_ascii_digit() {
            digits.push(bytes[at] - b'0');
            let ends = !bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
            // Grouped digits end in four: `4111 1111 1111 1111 22` is a number and something else.
            if ends
                && CARD_DIGITS.contains(&digits.len())
                && luhn(&digits)
                && bytes[at - 3..=at].iter().all(u8::is_ascii_digit)
            {
                found = Some(at + 1);
            }
        } else {
            let groups = matches!(bytes[at], b' ' | b'-') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
            if !groups {
                break;
            }
        }
        at += 1;
    }
    found
}

/// The check digit of ISO/IEC 7812-1, annex B.
fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(*digit);
            if place % 2 == 1 { digit * 2 - if digit > 4 { 9 } else { 0 } } else { digit }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use detection::SourceKind;
    use proptest::prelude::*;
    use serde_json::json;

    fn record(fields: Option<Value>, raw: &str) -> Record {
        let fields = fields.map(|object| object.as_object().unwrap().clone().into_iter().collect());
        Record {
            source: SourceKind::Syslog,
            received_ms: 0,
            position: None,
            tenant: None,
            raw: raw.to_owned().into(),
            fields,
        }
    }

    fn run(config: &str, record: Record) -> Record {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "0123456789abcdef\n").unwrap();
        let redact = toml::from_str::<RedactConfig>(config).unwrap().open(folder.path()).unwrap();
        let mut out = Outputs::default();
        redact.apply(record, &mut out);
        out.passed.pop().unwrap().1
    }

    #[test]
    fn fields_are_removed_masked_and_hashed_and_the_line_does_not_travel_on() {
        let config = "remove = ['secret', 'http.*']\nmask = ['user.phone']\nhash = ['user.name', 'other.name']\nhash_key = 'key'";
        let event = json!({"secret": "s", "http.cookie": "c", "httpd": "stays", "user.phone": "1", "user.name": "ann", "other.name": "ann"});
        let after = run(config, record(Some(event), "s c 1 ann"));
        let fields = after.fields();
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["httpd", "other.name", "user.name", "user.phone"]);
        assert_eq!(fields["user.phone"], MASK);
        assert_eq!(fields["user.name"], fields["other.name"]);
        assert!(after.raw.is_empty() && !json!(fields).to_string().contains("ann"));
    }

    #[track_caller]
    fn check(text: &str, expect: &str) {
        assert_eq!(cards(text).as_deref().unwrap_or(text), expect);
    }

    #[test]
    fn cards_are_found_by_their_check_digit() {
        check("paid with 4111 1111 1111 1111 today", "paid with [card …1111] today");
        check("pan=4111-1111-1111-1111;", "pan=[card …1111];");
        check("5500005555555559 and 340000000000009", "[card …5559] and [card …0009]");
        check("1 4111111111111111 2", "1 [card …1111] 2");
        check("4111111111111112", "4111111111111112");
        check("at 1795467600000 ms", "at 1795467600000 ms");
        check("41111111111111111111111", "41111111111111111111111");
        check("é4111111111111111é", "é[card …1111]é");
    }

    #[test]
    fn patterns_are_masked_in_lines_texts_numbers_and_lists() {
        let config = "patterns = ['card_number', 'e_mail', 'tok_\\w+']";
        let line = run(config, record(None, "ann@example.org paid 4111111111111111 tok_abc"));
        assert_eq!(line.raw, "[redacted] paid [card …1111] [redacted]");
        let event = json!({"n": 4_111_111_111_111_111_u64, "list": ["tok_1", "fine"], "plain": 5});
        let after = run(config, record(Some(event), ""));
        assert_eq!(json!(after.fields), json!({"n": "[card …1111]", "list": [MASK, "fine"], "plain": 5}));
    }

    #[test]
    fn a_line_with_fields_to_hide_does_not_pass_before_it_is_parsed() {
        let redact = toml::from_str::<RedactConfig>("remove = ['a']").unwrap().open(Path::new(".")).unwrap();
        let mut out = Outputs::default();
        redact.apply(record(None, "a=1"), &mut out);
        assert_eq!((out.passed.len(), out.refused.len()), (0, 1));
    }

    proptest! {
        #[test]
        fn no_card_survives_however_it_is_grouped(mut digits in proptest::collection::vec(0..10_u8, 15), groups in any::<bool>(), before in "[^0-9]{0,5}", after in "[^0-9]{0,5}") {
            digits[0] = 4;
            let check = (0..10).find(|check| luhn(&[digits.as_slice(), &[*check]].concat())).unwrap();
            digits.push(check);
            let number: String = digits.iter().map(|digit| char::from(b'0' + digit)).collect();
            let written = if groups { format!("{} {} {} {}", &number[..4], &number[4..8], &number[8..12], &number[12..]) } else { number };
            let masked = cards(&format!("{before}{written}{after}"));
            prop_assert!(masked.is_some_and(|masked| !masked.contains(&written)));
        }
        #[test]
        fn arbitrary_text_never_panics(text in "[0-9 \\-é]{0,60}") {
            let _ = cards(&text);
        }
    }
}
