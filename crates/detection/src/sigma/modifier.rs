//! From a field with modifiers and its values to matchers.

use super::error::Reason;
use super::matcher::{Keywords, Matcher, Network, Node, Order, Part, Test};
use super::pattern::{Pattern, Token, read, widen_dashes};
use super::view::{FieldNames, fold};
use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use regex::RegexBuilder;
use serde_yaml_ng::Value;
use std::sync::Arc;

/// Most memory of one compiled regular expression.
const REGEX_SIZE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// From how many literals on one automaton looks for all of them.
const AUTOMATON_LITERALS_MIN: usize = 4;

/// The modifiers of one key, told apart.
#[derive(Debug, Default)]
struct Modifiers {
    part: Option<Part>,
    all: bool,
    cased: bool,
    negated: bool,
    regex: Option<String>,
    windash: bool,
    expand: bool,
    encodings: Vec<Encoding>,
    special: Option<Special>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Utf16Le,
    Utf16Be,
    Utf16,
    Base64,
    Base64Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Special {
    Cidr,
    Exists,
    FieldReference,
    Compare(Order),
}

impl Modifiers {
    fn read<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, Reason> {
        let mut modifiers = Self::default();
        for word in words {
            match word {
                "contains" => modifiers.part = Some(Part::Anywhere),
                "startswith" => modifiers.part = Some(Part::Start),
                "endswith" => modifiers.part = Some(Part::End),
                "all" => modifiers.all = true,
                "cased" => modifiers.cased = true,
                "neq" => modifiers.negated = true,
                "re" => modifiers.regex = Some(String::new()),
                "i" | "m" | "s" => match &mut modifiers.regex {
                    Some(flags) => flags.push_str(word),
                    None => return Err(Reason::ModifierConflict { modifier: word.to_owned() }),
                },
                "windash" => modifiers.windash = true,
                "expand" => modifiers.expand = true,
                "wide" | "utf16le" => modifiers.encodings.push(Encoding::Utf16Le),
                "utf16be" => modifiers.encodings.push(Encoding::Utf16Be),
                "utf16" => modifiers.encodings.push(Encoding::Utf16),
                "base64" => modifiers.encodings.push(Encoding::Base64),
                "base64offset" => modifiers.encodings.push(Encoding::Base64Offset),
                "cidr" => modifiers.special = Some(Special::Cidr),
                "exists" => modifiers.special = Some(Special::Exists),
                "fieldref" => modifiers.special = Some(Special::FieldReference),
                "gt" => modifiers.special = Some(Special::Compare(Order::Greater)),
                "gte" => modifiers.special = Some(Special::Compare(Order::GreaterOrEqual)),
                "lt" => modifiers.special = Some(Special::Compare(Order::Less)),
                "lte" => modifiers.special = Some(Special::Compare(Order::LessOrEqual)),
                "minute" | "hour" | "day" | "week" | "month" | "year" => {
                    return Err(Reason::Unsupported { what: format!("modifier {word}") });
                }
                other => return Err(Reason::UnknownModifier { modifier: other.to_owned() }),
            }
        }
        modifiers.check()?;
        Ok(modifiers)
    }

    fn check(&self) -> Result<(), Reason> {
        let conflict = |modifier: &str| Err(Reason::ModifierConflict { modifier: modifier.to_owned() });
        if self.regex.is_some() && (self.special.is_some() || self.part.is_some() || !self.encodings.is_empty()) {
            return conflict("re");
        }
        if self.part.is_some() && !matches!(self.special, None | Some(Special::FieldReference)) {
            return conflict("contains");
        }
        Ok(())
    }
}

/// A key of a selection, `field|modifier|…`, and what stands under it.
pub(super) fn field(key: &str, value: &Value, names: &mut FieldNames) -> Result<Node, Reason> {
    let mut words = key.split('|');
    let field = words.next().unwrap_or_default();
    let modifiers = Modifiers::read(words)?;
    let values = match value {
        Value::Sequence(values) => values.as_slice(),
        single => std::slice::from_ref(single),
    };
    if values.is_empty() {
        return Err(Reason::Wrong { key: key.to_owned(), expected: "a value or a list of values" });
    }
    let mut matchers = Vec::with_capacity(values.len());
    let mut alternatives = false;
    for value in values {
        let before = matchers.len();
        matcher(key, value, field.is_empty(), &modifiers, names, &mut matchers)?;
        alternatives |= matchers.len() > before + 1;
    }
    let node = if modifiers.all && alternatives {
        // Each value has several forms, of which one is enough: `all` is of the values, not of their forms.
        let mut groups = Vec::with_capacity(values.len());
        for value in values {
            let mut forms = Vec::new();
            matcher(key, value, field.is_empty(), &modifiers, names, &mut forms)?;
            groups.push(test(field, false, forms, names));
        }
        Node::All(groups)
    } else {
        test(field, modifiers.all, matchers, names)
    };
    Ok(if modifiers.negated { Node::Not(Box::new(node)) } else { node })
}

/// A list of texts without a field: looked for anywhere.
pub(super) fn keywords(values: &[Value]) -> Result<Node, Reason> {
    let mut matchers = Vec::with_capacity(values.len());
    let mut names = FieldNames::default();
    for value in values {
        matcher("keywords", value, true, &Modifiers::default(), &mut names, &mut matchers)?;
    }
    Ok(Node::Keywords(Keywords { all: false, matchers: gather(matchers) }))
}

fn test(field: &str, all: bool, matchers: Vec<Matcher>, names: &mut FieldNames) -> Node {
    let matchers = if all { matchers } else { gather(matchers) };
    if field.is_empty() {
        Node::Keywords(Keywords { all, matchers })
    } else {
        Node::Field(Test { field: names.intern(field), all, matchers })
    }
}

/// Many literals of which any is enough become one automaton.
fn gather(matchers: Vec<Matcher>) -> Vec<Matcher> {
    let literals: Vec<&str> = matchers
        .iter()
        .filter_map(|matcher| match matcher {
            Matcher::Folded(Pattern::Contains(literal)) => Some(literal.as_str()),
            _ => None,
        })
        .collect();
    if literals.len() < AUTOMATON_LITERALS_MIN {
        return matchers;
    }
    let Ok(automaton) = AhoCorasick::new(literals) else { return matchers };
    let mut gathered = vec![Matcher::AnyContains(Arc::new(automaton))];
    gathered.extend(matchers.into_iter().filter(|matcher| !matches!(matcher, Matcher::Folded(Pattern::Contains(_)))));
    gathered
}

fn matcher(
    key: &str,
    value: &Value,
    anywhere: bool,
    modifiers: &Modifiers,
    names: &mut FieldNames,
    matchers: &mut Vec<Matcher>,
) -> Result<(), Reason> {
    let wrong = |expected| Reason::Wrong { key: key.to_owned(), expected };
    match modifiers.special {
        Some(Special::Exists) => {
            matchers.push(Matcher::Exists(value.as_bool().ok_or_else(|| wrong("true or false"))?));
            return Ok(());
        }
        Some(Special::Compare(order)) => {
            let bound = value.as_f64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
            matchers.push(Matcher::Compare(order, bound.ok_or_else(|| wrong("a number"))?));
            return Ok(());
        }
        _ => {}
    }
    let text = match value {
        Value::Null if anywhere => return Err(wrong("text")),
        Value::Null => {
            matchers.push(Matcher::Null);
            return Ok(());
        }
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => return Err(wrong("a text, a number or null")),
    };
    match modifiers.special {
        Some(Special::Cidr) => {
            matchers.push(Matcher::Cidr(Network::read(&text).ok_or(Reason::BadCidr { text })?));
        }
        Some(Special::FieldReference) => matchers.push(Matcher::FieldReference {
            other: names.intern(&text),
            part: modifiers.part.unwrap_or(Part::Whole),
            cased: modifiers.cased,
        }),
        _ => match &modifiers.regex {
            Some(flags) => matchers.push(regex(&text, flags)?),
            None if modifiers.expand && text.contains('%') => matchers.push(Matcher::Never),
            None => patterns(&text, anywhere, modifiers, matchers),
        },
    }
    Ok(())
}

fn regex(text: &str, flags: &str) -> Result<Matcher, Reason> {
    RegexBuilder::new(text)
        .case_insensitive(flags.contains('i'))
        .multi_line(flags.contains('m'))
        .dot_matches_new_line(flags.contains('s'))
        .size_limit(REGEX_SIZE_BYTES_MAX)
        .build()
        .map(|regex| Matcher::Regex(Arc::new(regex)))
        .map_err(|error| Reason::BadRegex {
            cause: error.to_string().lines().last().unwrap_or_default().trim().to_owned(),
        })
}

fn patterns(text: &str, anywhere: bool, modifiers: &Modifiers, matchers: &mut Vec<Matcher>) {
    let mut forms = vec![read(text)];
    let mut cased = modifiers.cased;
    if modifiers.windash {
        forms.iter_mut().for_each(|tokens| widen_dashes(tokens));
    }
    if !modifiers.encodings.is_empty() {
        // Encoded text has no wildcards of its own, and base64 has a meaning only with its case.
        forms = encode(text, &modifiers.encodings)
            .into_iter()
            .map(|bytes| String::from_utf8_lossy(&bytes).chars().map(Token::Literal).collect())
            .collect();
        cased |= modifiers.encodings.iter().any(|e| matches!(e, Encoding::Base64 | Encoding::Base64Offset));
    }
    for mut tokens in forms {
        let part = if anywhere { Some(modifiers.part.unwrap_or(Part::Anywhere)) } else { modifiers.part };
        if matches!(part, Some(Part::Anywhere | Part::End)) && tokens.first() != Some(&Token::Many) {
            tokens.insert(0, Token::Many);
        }
        if matches!(part, Some(Part::Anywhere | Part::Start)) && tokens.last() != Some(&Token::Many) {
            tokens.push(Token::Many);
        }
        let pattern = Pattern::new(&tokens, cased);
        matchers.push(if cased { Matcher::Cased(pattern) } else { Matcher::Folded(pattern) });
    }
}

fn encode(text: &str, encodings: &[Encoding]) -> Vec<Vec<u8>> {
    let mut forms = vec![text.as_bytes().to_vec()];
    for encoding in encodings {
        forms = forms
            .into_iter()
            .flat_map(|bytes| match encoding {
                Encoding::Utf16Le => vec![utf16(&bytes, u16::to_le_bytes, &[])],
                Encoding::Utf16Be => vec![utf16(&bytes, u16::to_be_bytes, &[])],
                Encoding::Utf16 => vec![utf16(&bytes, u16::to_le_bytes, &[0xff, 0xfe])],
                Encoding::Base64 => vec![base64::engine::general_purpose::STANDARD.encode(&bytes).into_bytes()],
                Encoding::Base64Offset => (0..3).map(|offset| base64_at(&bytes, offset)).collect(),
            })
            .collect();
    }
    forms
}

fn utf16(bytes: &[u8], unit: impl Fn(u16) -> [u8; 2], mark: &[u8]) -> Vec<u8> {
    let mut wide = mark.to_vec();
    wide.extend(String::from_utf8_lossy(bytes).encode_utf16().flat_map(unit));
    wide
}

/// What the bytes look like inside base64 when so many bytes stand before them, less the characters
/// that also depend on their neighbours.
fn base64_at(bytes: &[u8], offset: usize) -> Vec<u8> {
    let mut shifted = vec![b' '; offset];
    shifted.extend_from_slice(bytes);
    let encoded = STANDARD_NO_PAD.encode(&shifted).into_bytes();
    let start = [0, 2, 3][offset];
    let end = encoded.len() - usize::from(!shifted.len().is_multiple_of(3));
    encoded.get(start..end).unwrap_or_default().to_vec()
}

/// A name pattern of a condition, such as `selection_*`.
pub(super) fn name_pattern(text: &str) -> Pattern {
    Pattern::new(&read(&fold(text)), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_offsets_are_those_of_the_specification() {
        let forms: Vec<String> =
            (0..3).map(|offset| String::from_utf8(base64_at(b"foobar", offset)).unwrap()).collect();
        assert_eq!(forms, ["Zm9vYmFy", "Zvb2Jhc", "mb29iYX"]);
    }
}
