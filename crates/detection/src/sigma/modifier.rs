//! From a field with modifiers and its values to matchers.

mod placeholder;
mod words;

use super::VALUES_MAX;
use super::budget::{Budget, PART_COST_BYTES};
use super::effect::Effect;
use super::encode;
use super::error::Reason;
use super::matcher::{Matcher, Network, Node, Order, Part, Test};
use super::pattern::{Pattern, Token, read, widen_dashes};
use super::rule::Taxonomy;
use super::view::{FieldId, FieldNames};
use regex::RegexBuilder;
use serde_yaml_ng::Value;
use std::sync::Arc;
use words::{Modifiers, Special};

/// Most memory of one compiled regular expression, in the steps in which it is tried: each is charged whole. Public rules
/// need the last, for repetitions of all letters there are.
const REGEX_SIZES_BYTES: [usize; 3] = [64 * 1024, 512 * 1024, 4 * 1024 * 1024];
/// Most bytes of a regular expression.
const REGEX_TEXT_BYTES_MAX: usize = 4 * 1024;
/// Most characters of a pattern with wildcards inside: matching takes at most that many looks at each character.
const GLOB_CHARACTERS_MAX: usize = 2 * 1024;

/// What a rule is read with.
pub(super) struct Reading<'a> {
    pub(super) names: &'a mut FieldNames,
    pub(super) taxonomy: Taxonomy,
    pub(super) budget: &'a mut Budget,
    /// What the pipeline changed.
    pub(super) effect: Effect,
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
    let node = if field.is_empty() {
        test(FieldId::ANY, modifiers.all, groups)
    } else {
        let names: Vec<String> = reading.forth(field);
        let names: Vec<FieldId> = names.iter().map(|name| reading.names.intern(name)).collect();
        reading.budget.spend(names.len().saturating_sub(1).saturating_mul(groups.len() * PART_COST_BYTES))?;
        under(&names, modifiers.all, groups)
    };
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

/// What is asked of a field that events may have under several names: any of them may hold a value, and it is missing
/// where all are.
fn under(names: &[FieldId], all: bool, groups: Vec<Vec<Matcher>>) -> Node {
    let any = |groups: Vec<Vec<Matcher>>| {
        let mut tests: Vec<Node> = names.iter().map(|name| test(*name, all, groups.clone())).collect();
        if tests.len() == 1 { tests.swap_remove(0) } else { Node::Any(tests) }
    };
    let is_absence = |forms: &Vec<Matcher>| matches!(forms.as_slice(), [Matcher::Null | Matcher::Exists(false)]);
    if names.len() == 1 || !groups.iter().any(is_absence) {
        return any(groups);
    }
    let (absent, present): (Vec<_>, Vec<_>) = groups.into_iter().partition(is_absence);
    let mut parts: Vec<Node> = Vec::new();
    for forms in absent {
        parts.push(Node::All(names.iter().map(|name| test(*name, false, vec![forms.clone()])).collect()));
    }
    if !present.is_empty() {
        parts.push(any(present));
    }
    if all { Node::All(parts) } else { Node::Any(parts) }
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
    reading.budget.spend(PART_COST_BYTES)?;
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
    let texts =
        if modifiers.expand { placeholder::expand(&text, modifiers.regex.is_some(), reading)? } else { vec![text] };
    for text in texts {
        of_text(key, text, anywhere, modifiers, reading, matchers)?;
    }
    Ok(())
}

fn of_text(
    key: &str,
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
            Some(flags) => matchers.push(regex(&text, flags, reading.budget)?),
            None => patterns(key, &text, anywhere, modifiers, reading.budget, matchers)?,
        },
    }
    Ok(())
}

/// Flags are written into the expression, so that its text says all of it.
fn regex(text: &str, flags: &str, budget: &mut Budget) -> Result<Matcher, Reason> {
    let bad = |cause: &str| Reason::BadRegex { cause: cause.to_owned() };
    if text.len() > REGEX_TEXT_BYTES_MAX {
        return Err(bad("longer than 4096 bytes"));
    }
    let flags: String = ['i', 'm', 's'].into_iter().filter(|flag| flags.contains(*flag)).collect();
    let text = if flags.is_empty() { text.to_owned() } else { format!("(?{flags}){text}") };
    let mut last = String::new();
    for size_bytes in REGEX_SIZES_BYTES {
        budget.spend(size_bytes)?;
        match RegexBuilder::new(&text).size_limit(size_bytes).build() {
            Ok(regex) => return Ok(Matcher::Regex(Arc::new(regex))),
            Err(error) => last = error.to_string(),
        }
    }
    Err(bad(last.lines().last().unwrap_or_default().trim()))
}

fn patterns(
    key: &str,
    text: &str,
    anywhere: bool,
    modifiers: &Modifiers,
    budget: &mut Budget,
    matchers: &mut Vec<Matcher>,
) -> Result<(), Reason> {
    let wrong = |expected| Reason::Wrong { key: key.to_owned(), expected };
    let mut tokens = read(text);
    if modifiers.windash {
        widen_dashes(&mut tokens);
    }
    let mut forms = vec![tokens];
    let mut cased = modifiers.cased;
    if !modifiers.encodings.is_empty() {
        forms = encode::forms(&forms[0], &modifiers.encodings).map_err(wrong)?;
        cased |= modifiers.encodings.iter().any(|encoding| encoding.is_base64());
    }
    for mut tokens in forms {
        budget.spend(tokens.len().saturating_mul(size_of::<Token>()))?;
        let part = if anywhere { Some(modifiers.part.unwrap_or(Part::Anywhere)) } else { modifiers.part };
        if matches!(part, Some(Part::Anywhere | Part::End)) && tokens.first() != Some(&Token::Many) {
            tokens.insert(0, Token::Many);
        }
        if matches!(part, Some(Part::Anywhere | Part::Start)) && tokens.last() != Some(&Token::Many) {
            tokens.push(Token::Many);
        }
        let pattern = Pattern::new(&tokens, cased);
        if matches!(&pattern, Pattern::Glob(tokens) if tokens.len() > GLOB_CHARACTERS_MAX) {
            return Err(wrong("of at most 2048 characters where it has wildcards inside"));
        }
        matchers.push(if cased { Matcher::Cased(pattern) } else { Matcher::Folded(pattern) });
    }
    Ok(())
}
