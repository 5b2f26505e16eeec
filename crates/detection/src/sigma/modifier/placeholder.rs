//! Placeholders: `%name%` in the values of fields with `expand`, and `\%` for a plain `%`.
//!
//! A placeholder that nothing is given for refuses the rule: one that never matched would match everything where it is
//! negated.

use super::Reading;
use crate::sigma::error::Reason;
use crate::sigma::pipeline::{Filling, PLACEHOLDER_VALUES_MAX};

/// Fills the placeholders of a text: every combination of their values.
pub(super) fn expand(text: &str, is_regex: bool, reading: &mut Reading<'_>) -> Result<Vec<String>, Reason> {
    let mut texts = vec![String::new()];
    let mut rest = text;
    while let Some((before, name, after)) = next(rest) {
        let taxonomy = reading.taxonomy.clone();
        let filling = taxonomy.pipeline.fill(&taxonomy.source, name);
        reading.effect.filled(name, &filling);
        let values: Vec<String> = match filling {
            Filling::Values(values) if is_regex => values.iter().map(|value| regex::escape(value)).collect(),
            Filling::Values(values) => values.to_vec(),
            Filling::Anything => vec![if is_regex { ".*" } else { "*" }.to_owned()],
            Filling::Nothing => return Err(Reason::UnfilledPlaceholder { name: name.to_owned() }),
        };
        if texts.len().saturating_mul(values.len()) > PLACEHOLDER_VALUES_MAX {
            return Err(Reason::Wrong { key: text.to_owned(), expected: "at most 10000 values" });
        }
        let before = plain(before);
        let before = before.as_str();
        let longest = |texts: &[String]| texts.iter().map(String::len).max().unwrap_or(0);
        let length = longest(&texts) + before.len() + longest(&values);
        reading.budget.spend(length.saturating_mul(texts.len() * values.len()))?;
        texts =
            texts.iter().flat_map(|text| values.iter().map(move |value| format!("{text}{before}{value}"))).collect();
        rest = after;
    }
    let rest = plain(rest);
    texts.iter_mut().for_each(|text| text.push_str(&rest));
    Ok(texts)
}

/// What stands before the first placeholder, its name, and what stands after it.
fn next(text: &str) -> Option<(&str, &str, &str)> {
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    for (place, _) in text.match_indices('%') {
        let (name, after) = text[place + 1..].split_once('%')?;
        if is_name(name) && !is_escaped(&text[..place]) {
            return Some((&text[..place], name, after));
        }
    }
    None
}

/// Whether what follows such a text has a backslash of its own.
fn is_escaped(before: &str) -> bool {
    before.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// The text without the backslashes that make a `%` a plain one.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for (place, part) in text.split('%').enumerate() {
        if place > 0 {
            if is_escaped(&plain) {
                plain.pop();
            }
            plain.push('%');
        }
        plain.push_str(part);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_percent_sign_begins_no_placeholder() {
        assert_eq!(next(r"\%plain%name%"), Some((r"\%plain", "name", "")));
        assert_eq!(next(r"\\%name%x"), Some((r"\\", "name", "x")));
        assert_eq!(next(r"\\\%name%x"), None);
        assert_eq!(next("100% of %a b% and %c%"), Some(("100% of %a b% and ", "c", "")));
        for (text, expect) in [(r"\%a\\%b", r"%a\\%b"), (r"\\\%", r"\\%"), ("%", "%"), (r"a\", r"a\")] {
            assert_eq!(plain(text), expect, "{text}");
        }
    }
}
