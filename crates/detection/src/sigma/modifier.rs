//! From a field with modifiers and its values to matchers.

use super::effect::Effect;
use super::encode::{Encoding, encode};
use super::error::Reason;
use super::matcher::{Matcher, Network, Node, Order, Part, Test};
use super::moment::MomentPart;
use super::pattern::{Pattern, Token, read, widen_dashes};
use super::pipeline::{Filling, PLACEHOLDER_VALUES_MAX, Pipeline};
use super::view::{FieldId, FieldNames};
use super::{LogSourceFilter, VALUES_MAX};
use regex::RegexBuilder;
use serde_yaml_ng::Value;
use std::sync::Arc;

/// Most memory of one compiled regular expression.
const REGEX_SIZE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a rule is read with.
pub(super) struct Reading<'a> {
    pub(super) names: &'a mut FieldNames,
    pub(super) pipeline: &'a Pipeline,
    /// The rule's log source, before the pipeline replaces it.
    pub(super) source: LogSourceFilter,
    /// What the pipeline changed.
    pub(super) effect: Effect,
}

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
    moment: Option<MomentPart>,
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
            modifiers.take(word)?;
        }
        modifiers.check()?;
        Ok(modifiers)
    }

    fn take(&mut self, word: &str) -> Result<(), Reason> {
        let conflict = || Reason::ModifierConflict { modifier: word.to_owned() };
        let special = match word {
            "contains" | "startswith" | "endswith" if self.part.is_some() => return Err(conflict()),
            "contains" => return self.part(Part::Anywhere),
            "startswith" => return self.part(Part::Start),
            "endswith" => return self.part(Part::End),
            "all" => return set(&mut self.all),
            "cased" => return set(&mut self.cased),
            "neq" => return set(&mut self.negated),
            "windash" => return set(&mut self.windash),
            "expand" => return set(&mut self.expand),
            "re" => {
                self.regex.get_or_insert_default();
                return Ok(());
            }
            "i" | "m" | "s" => {
                self.regex.as_mut().ok_or_else(conflict)?.push_str(word);
                return Ok(());
            }
            "cidr" => Special::Cidr,
            "exists" => Special::Exists,
            "fieldref" => Special::FieldReference,
            "gt" => Special::Compare(Order::Greater),
            "gte" => Special::Compare(Order::GreaterOrEqual),
            "lt" => Special::Compare(Order::Less),
            "lte" => Special::Compare(Order::LessOrEqual),
            other => {
                if let Some(moment) = MomentPart::from_modifier(other) {
                    return if self.moment.replace(moment).is_none() { Ok(()) } else { Err(conflict()) };
                }
                let encoding = Encoding::from_modifier(other);
                self.encodings.push(encoding.ok_or_else(|| Reason::UnknownModifier { modifier: other.to_owned() })?);
                return Ok(());
            }
        };
        if self.special.replace(special).is_some() { Err(conflict()) } else { Ok(()) }
    }

    fn part(&mut self, part: Part) -> Result<(), Reason> {
        self.part = Some(part);
        Ok(())
    }

    fn check(&self) -> Result<(), Reason> {
        let conflict = |modifier: &str| Err(Reason::ModifierConflict { modifier: modifier.to_owned() });
        if self.regex.is_some() && (self.special.is_some() || self.part.is_some() || !self.encodings.is_empty()) {
            return conflict("re");
        }
        if self.part.is_some() && !matches!(self.special, None | Some(Special::FieldReference)) {
            return conflict("contains");
        }
        let compares = matches!(self.special, None | Some(Special::Compare(_)));
        if self.moment.is_some() && (!compares || self.part.is_some() || self.regex.is_some()) {
            return conflict("a part of a time");
        }
        Ok(())
    }
}

fn set(flag: &mut bool) -> Result<(), Reason> {
    *flag = true;
    Ok(())
}

/// A key of a selection, `field|modifier|…`, and what stands under it; nothing where the pipeline drops the field.
pub(super) fn field(key: &str, value: &Value, reading: &mut Reading<'_>) -> Result<Option<Node>, Reason> {
    let mut words = key.split('|');
    let field = words.next().unwrap_or_default();
    let modifiers = Modifiers::read(words)?;
    if field.is_empty() && (modifiers.special.is_some() || modifiers.moment.is_some()) {
        return Err(Reason::Wrong { key: key.to_owned(), expected: "the name of a field before its modifiers" });
    }
    if reading.drops(field) {
        return Ok(None);
    }
    let values = match value {
        Value::Sequence(values) => values.as_slice(),
        single => std::slice::from_ref(single),
    };
    if values.is_empty() || values.len() > VALUES_MAX {
        return Err(Reason::Wrong { key: key.to_owned(), expected: "a value or a list of at most 20000" });
    }
    let mut groups = Vec::with_capacity(values.len());
    for value in values {
        let mut forms = Vec::new();
        matcher(key, value, field.is_empty(), &modifiers, reading, &mut forms)?;
        groups.push(forms);
    }
    let mut nodes: Vec<Node> = Vec::new();
    if field.is_empty() {
        nodes.push(test(FieldId::ANY, modifiers.all, groups));
    } else {
        for name in reading.forth(field) {
            nodes.push(test(reading.names.intern(&name), modifiers.all, groups.clone()));
        }
    }
    let node = if nodes.len() == 1 { nodes.swap_remove(0) } else { Node::Any(nodes) };
    Ok(Some(if modifiers.negated { Node::Not(Box::new(node)) } else { node }))
}

/// A list of texts without a field: looked for anywhere.
pub(super) fn keywords(values: &[Value], reading: &mut Reading<'_>) -> Result<Node, Reason> {
    if values.len() > VALUES_MAX {
        return Err(Reason::Wrong { key: "keywords".to_owned(), expected: "a list of at most 20000" });
    }
    let mut matchers = Vec::with_capacity(values.len());
    for value in values {
        matcher("keywords", value, true, &Modifiers::default(), reading, &mut matchers)?;
    }
    Ok(Node::Field(Test { field: FieldId::ANY, all: false, matchers }))
}

/// `all` is of the values, not of the forms of one value, of which one is enough.
fn test(field: FieldId, all: bool, groups: Vec<Vec<Matcher>>) -> Node {
    if all && groups.iter().any(|forms| forms.len() != 1) {
        let tests = groups.into_iter().map(|matchers| Node::Field(Test { field, all: false, matchers }));
        return Node::All(tests.collect());
    }
    Node::Field(Test { field, all, matchers: groups.into_iter().flatten().collect() })
}

fn matcher(
    key: &str,
    value: &Value,
    anywhere: bool,
    modifiers: &Modifiers,
    reading: &mut Reading<'_>,
    matchers: &mut Vec<Matcher>,
) -> Result<(), Reason> {
    let wrong = |expected| Reason::Wrong { key: key.to_owned(), expected };
    let bound = || value.as_f64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
    match (modifiers.moment, modifiers.special) {
        (Some(part), order) => {
            let order = if let Some(Special::Compare(order)) = order { order } else { Order::Equal };
            matchers.push(Matcher::Moment(part, order, bound().ok_or_else(|| wrong("a number"))?));
            return Ok(());
        }
        (None, Some(Special::Exists)) => {
            matchers.push(Matcher::Exists(value.as_bool().ok_or_else(|| wrong("true or false"))?));
            return Ok(());
        }
        (None, Some(Special::Compare(order))) => {
            matchers.push(Matcher::Compare(order, bound().ok_or_else(|| wrong("a number"))?));
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
    let texts = if modifiers.expand { expand(&text, modifiers.regex.is_some(), reading)? } else { vec![text] };
    if texts.is_empty() {
        matchers.push(Matcher::Never);
    }
    for text in texts {
        of_text(text, anywhere, modifiers, reading, matchers)?;
    }
    Ok(())
}

fn of_text(
    text: String,
    anywhere: bool,
    modifiers: &Modifiers,
    reading: &mut Reading<'_>,
    matchers: &mut Vec<Matcher>,
) -> Result<(), Reason> {
    match modifiers.special {
        Some(Special::Cidr) => {
            matchers.push(Matcher::Cidr(Network::read(&text).ok_or(Reason::BadCidr { text })?));
        }
        Some(Special::FieldReference) => {
            for name in reading.forth(&text) {
                let part = modifiers.part.unwrap_or(Part::Whole);
                let other = reading.names.intern(&name);
                matchers.push(Matcher::FieldReference { other, part, cased: modifiers.cased });
            }
        }
        _ => match &modifiers.regex {
            Some(flags) => matchers.push(regex(&text, flags)?),
            None => patterns(&text, anywhere, modifiers, matchers),
        },
    }
    Ok(())
}

/// Fills the placeholders of a text: every combination of their values; nothing where one has none.
fn expand(text: &str, is_regex: bool, reading: &mut Reading<'_>) -> Result<Vec<String>, Reason> {
    let mut texts = vec![String::new()];
    let mut rest = text;
    while let Some((before, name, after)) = placeholder(rest) {
        let values: Vec<String> = match reading.fill(name) {
            Filling::Values(values) if is_regex => values.iter().map(|value| regex::escape(value)).collect(),
            Filling::Values(values) => values.to_vec(),
            Filling::Anything => vec![if is_regex { ".*" } else { "*" }.to_owned()],
            Filling::Nothing => return Ok(Vec::new()),
        };
        if texts.len().saturating_mul(values.len()) > PLACEHOLDER_VALUES_MAX {
            return Err(Reason::Wrong { key: text.to_owned(), expected: "at most 10000 values" });
        }
        texts =
            texts.iter().flat_map(|text| values.iter().map(move |value| format!("{text}{before}{value}"))).collect();
        rest = after;
    }
    texts.iter_mut().for_each(|text| text.push_str(rest));
    Ok(texts)
}

/// What stands before the first `%name%`, the name, and what stands after it.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    for (place, _) in text.match_indices('%') {
        let (name, after) = text[place + 1..].split_once('%')?;
        if is_name(name) {
            return Some((&text[..place], name, after));
        }
    }
    None
}

/// Flags are written into the expression, so that its text says all of it.
fn regex(text: &str, flags: &str) -> Result<Matcher, Reason> {
    let flags: String = ['i', 'm', 's'].into_iter().filter(|flag| flags.contains(*flag)).collect();
    let text = if flags.is_empty() { text.to_owned() } else { format!("(?{flags}){text}") };
    RegexBuilder::new(&text)
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
        // Encoded text has no wildcards of its own.
        forms = encode(text, &modifiers.encodings)
            .into_iter()
            .map(|bytes| String::from_utf8_lossy(&bytes).chars().map(Token::Literal).collect())
            .collect();
        cased |= modifiers.encodings.iter().any(|encoding| encoding.is_base64());
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
