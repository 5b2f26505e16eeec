//! CEF, the Common Event Format (version 0 and 1): seven fields between bars, then an extension of pairs.
//!
//! What comes before `CEF:`, such as a syslog header, is passed over. A value of the extension goes on until the next
//! key, and may hold spaces; `\=`, `\\`, `\n` and `\r` are taken for what they mean.

use crate::transform::Refusal;
use detection::RejectReason;
use detection::event::{FIELDS_MAX, Fields};
use serde_json::Value;

/// Most bytes of a key in a value's shadow: a longer word is part of the value.
const KEY_BYTES_MAX: usize = 128;
const HEADER: [&str; 7] = ["version", "vendor", "product", "product_version", "event_class", "name", "severity"];

pub(super) fn parse(text: &str) -> Result<Fields, Refusal> {
    let start = text.find("CEF:").ok_or(Refusal::NotCef("CEF: is missing"))?;
    let mut rest = &text[start + "CEF:".len()..];
    let mut fields = Fields::new();
    for name in HEADER {
        let end = unescaped(rest, '|').ok_or(Refusal::NotCef("the header has fewer than seven fields"))?;
        fields.insert(format!("cef.{name}"), unescape(rest[..end].trim()).into());
        rest = &rest[end + 1..];
    }
    let version = fields.get("cef.version").and_then(Value::as_str).unwrap_or_default();
    if version.is_empty() || !version.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::NotCef("the version is not a number"));
    }
    extension(rest, &mut fields)?;
    Ok(fields)
}

/// Where a character stands that no backslash stands before.
fn unescaped(text: &str, wanted: char) -> Option<usize> {
    let mut escaped = false;
    for (place, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            found if found == wanted => return Some(place),
            _ => {}
        }
    }
    None
}

fn extension(text: &str, fields: &mut Fields) -> Result<(), Refusal> {
    let mut rest = text.trim_start();
    while let Some(equals) = unescaped(rest, '=') {
        let key = rest[..equals].trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(Refusal::NotCef("a key of the extension is missing"));
        }
        let after = &rest[equals + 1..];
        let end = value_end(after);
        if fields.len() >= FIELDS_MAX {
            return Err(RejectReason::TooManyFields.into());
        }
        fields.insert(key.to_owned(), unescape(after[..end].trim()).into());
        rest = after[end..].trim_start();
    }
    Ok(())
}

/// Where a value ends: before the next word that is a key. An equals sign that nobody escaped, as in a URL, belongs to
/// the value where what stands before it is no key.
fn value_end(text: &str) -> usize {
    let (mut word, mut escaped) = (None, false);
    for (place, character) in text.char_indices() {
        match (character, word) {
            _ if escaped => escaped = false,
            ('\\', _) => escaped = true,
            ('=', Some(word)) if is_key(&text[word..place]) => return word,
            (space, _) if space.is_whitespace() => word = Some(place + space.len_utf8()),
            _ => {}
        }
    }
    text.len()
}

/// Keys are made of letters, digits and what programs put between them.
fn is_key(word: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'[' | b']');
    (1..=KEY_BYTES_MAX).contains(&word.len()) && word.bytes().all(fits)
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => plain.push('\n'),
                Some('r') => plain.push('\r'),
                Some(escaped @ ('\\' | '|' | '=')) => plain.push(escaped),
                Some(other) => plain.extend(['\\', other]),
                None => plain.push('\\'),
            },
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn header_and_extension_are_unescaped() {
        let line = r"<134>Jun 15 02:04:59 fw CEF:0|Acme\|Co|Wall|1.2|100|blocked a \\ thing|7|src=10.0.0.1 msg=a \= b and more\nlines dst=2001:db8::1 spt=22";
        let fields = json!(parse(line).unwrap());
        let expect = json!({"cef.version": "0", "cef.vendor": "Acme|Co", "cef.product": "Wall",
            "cef.product_version": "1.2", "cef.event_class": "100", "cef.name": r"blocked a \ thing",
            "cef.severity": "7", "src": "10.0.0.1", "msg": "a = b and more\nlines", "dst": "2001:db8::1", "spt": "22"});
        assert_eq!(fields, expect);
    }

    #[test]
    fn an_equals_sign_in_a_value_belongs_to_it() {
        let line = "CEF:0|a|b|c|d|e|5|request=http://x/?a=b&c=d msg=1 = 2 cs1=a== empty= cs2[0]=x";
        let fields = parse(line).unwrap();
        for (key, value) in
            [("request", "http://x/?a=b&c=d"), ("msg", "1 = 2"), ("cs1", "a=="), ("empty", ""), ("cs2[0]", "x")]
        {
            assert_eq!(fields.get(key), Some(&json!(value)), "{key} in {fields:?}");
        }
    }

    #[test]
    fn empty_values_and_no_extension_are_fine_and_missing_parts_are_not() {
        let fields = parse("CEF:0|a|b|c|d|e|5|one= two=2").unwrap();
        assert_eq!((&fields["one"], &fields["two"]), (&json!(""), &json!("2")));
        assert!(parse("CEF:0|a|b|c|d|e|5|").is_ok());
        for bad in ["CEF:0|a|b|c|d|e|5", "CEF:x|a|b|c|d|e|5|", "CEF:0|a|b|c|d|e|5|=v", "CEF:0|a|b|c|d|e|5|a b=v"] {
            assert!(matches!(parse(bad), Err(Refusal::NotCef(_))), "{bad}");
        }
    }
}
