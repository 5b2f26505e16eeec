//! Pairs of keys and values: `user=ann action="log in"`. Words without a value are passed over.

use crate::transform::Refusal;
use detection::RejectReason;
use detection::event::{FIELDS_MAX, Fields};

pub(super) fn parse(text: &str, between_pairs: char, between: char) -> Result<Fields, Refusal> {
    let mut fields = Fields::new();
    let is_gap = |character: char| character == between_pairs || character.is_whitespace();
    let ends = |character: char| {
        character == between_pairs || (between_pairs == ' ' && character.is_whitespace()) || character == '\n'
    };
    let mut rest = text.trim_start_matches(is_gap);
    while !rest.is_empty() {
        let stop = rest.find(|character| character == between || ends(character));
        let Some(stop) = stop else { break };
        let (key, after) = rest.split_at(stop);
        let Some(after) = after.strip_prefix(between) else {
            rest = after.trim_start_matches(is_gap);
            continue;
        };
        let after = if between_pairs == ' ' { after } else { after.trim_start_matches(' ') };
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = after.find(ends).unwrap_or(after.len());
                (after[..end].trim_end().to_owned(), &after[end..])
            }
        };
        if fields.len() >= FIELDS_MAX {
            return Err(RejectReason::TooManyFields.into());
        }
        let key = key.trim();
        if !key.is_empty() {
            fields.insert(key.to_owned(), value.into());
        }
        rest = after.trim_start_matches(is_gap);
    }
    if fields.is_empty() { Err(Refusal::NoPairs) } else { Ok(fields) }
}

/// Up to the closing quote, or to the end where there is none.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return (value, &text[place + 1..]),
            '\\' => match characters.next() {
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                Some((_, other)) => value.extend(['\\', other]),
                None => value.push('\\'),
            },
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(text: &str, pair: char, value: char, expect: serde_json::Value) {
        assert_eq!(json!(parse(text, pair, value).unwrap()), expect, "{text}");
    }

    #[test]
    fn pairs_are_found_quoted_or_not() {
        check(
            r#"login user=ann action="log \"in\"" empty= n=1"#,
            ' ',
            '=',
            json!({"user": "ann", "action": "log \"in\"", "empty": "", "n": "1"}),
        );
        check("a: b c, d:e ,f: \"g, h\"", ',', ':', json!({"a": "b c", "d": "e", "f": "g, h"}));
        check("a=\"open", ' ', '=', json!({"a": "open"}));
    }
}
