//! What a text must contain for a pattern to match it: literals, folded, of which at least one is there.

use crate::sigma::pattern::{Pattern, Token};
use crate::sigma::view::{fold, fold_character};
use regex_syntax::hir::{Class, Hir, HirKind};

/// Most alternatives of a regular expression that are followed.
const ALTERNATIVES_MAX: usize = 64;
/// Literals shorter than this are found everywhere.
const USEFUL_CHARACTERS_MIN: usize = 2;
/// A class of more characters than that is not looked into.
const CLASS_MAX: u32 = 4;

/// The longest run of literal characters of a pattern with wildcards.
pub(super) fn of_glob(tokens: &[Token]) -> Option<String> {
    let runs = tokens.split(|token| !matches!(token, Token::Literal(_)));
    let longest = runs.max_by_key(|run| run.len()).filter(|run| !run.is_empty())?;
    let text: String =
        longest.iter().filter_map(|token| if let Token::Literal(c) = token { Some(*c) } else { None }).collect();
    Some(fold(&text).into_owned())
}

/// The longest literal of a pattern.
pub(super) fn of_pattern(pattern: &Pattern) -> Option<String> {
    match pattern {
        Pattern::Exact(text) | Pattern::Contains(text) | Pattern::StartsWith(text) | Pattern::EndsWith(text) => {
            Some(fold(text).into_owned()).filter(|text| !text.is_empty())
        }
        Pattern::Anything => None,
        Pattern::Glob(tokens) => of_glob(tokens),
    }
}

/// Literals of which a text must contain one for a regular expression to match it.
pub(super) fn of_regex(expression: &str) -> Option<Vec<String>> {
    let hir = regex_syntax::Parser::new().parse(expression).ok()?;
    let literals = required(&hir)?;
    let useful = literals.iter().all(|literal| literal.chars().count() >= USEFUL_CHARACTERS_MIN);
    (useful && literals.len() <= ALTERNATIVES_MAX).then_some(literals)
}

fn required(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => None,
        HirKind::Literal(_) | HirKind::Class(_) => single(hir).map(|text| vec![text]),
        HirKind::Capture(capture) => required(&capture.sub),
        HirKind::Repetition(repetition) => {
            if repetition.min > 0 {
                required(&repetition.sub)
            } else {
                None
            }
        }
        HirKind::Alternation(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(required(part)?);
                if all.len() > ALTERNATIVES_MAX {
                    return None;
                }
            }
            Some(all)
        }
        HirKind::Concat(parts) => of_concat(parts),
    }
}

/// The best of a sequence: its runs of single characters, and what its other parts require.
fn of_concat(parts: &[Hir]) -> Option<Vec<String>> {
    let mut candidates: Vec<Vec<String>> = Vec::new();
    let mut run = String::new();
    for part in parts {
        if let HirKind::Look(_) = part.kind() {
            continue;
        }
        match single(part) {
            Some(text) => run.push_str(&text),
            None => {
                candidates.push(vec![std::mem::take(&mut run)]);
                candidates.extend(required(part));
            }
        }
    }
    candidates.push(vec![run]);
    let shortest = |literals: &Vec<String>| literals.iter().map(String::len).min().unwrap_or(0);
    candidates.into_iter().filter(|literals| shortest(literals) > 0).max_by_key(shortest)
}

/// The one text, folded, that a part matches, whatever its case.
fn single(hir: &Hir) -> Option<String> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(fold(std::str::from_utf8(&literal.0).ok()?).into_owned()),
        HirKind::Class(Class::Unicode(class)) => {
            let count: u32 =
                class.ranges().iter().map(|range| u32::from(range.end()) - u32::from(range.start()) + 1).sum();
            if count == 0 || count > CLASS_MAX {
                return None;
            }
            let mut forms = class
                .ranges()
                .iter()
                .flat_map(|range| range.start()..=range.end())
                .map(|character| fold_character(character).collect::<String>());
            let first = forms.next()?;
            forms.all(|form| form == first).then_some(first)
        }
        HirKind::Capture(capture) => single(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min == 1 && repetition.max == Some(1) => single(&repetition.sub),
        HirKind::Concat(parts) => parts.iter().map(single).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, expect: Option<&[&str]>) {
        let expect = expect.map(|literals| literals.iter().map(|literal| (*literal).to_owned()).collect());
        assert_eq!(of_regex(expression), expect, "{expression}");
    }

    #[test]
    fn required_literals_are_in_every_match() {
        check("foo.*barbaz", Some(&["barbaz"]));
        check("(?i)PowerShell", Some(&["powershell"]));
        check("a(bc|de)f", Some(&["bc", "de"]));
        check("(abc)?d", None);
        check("[a-z]+", None);
        check(r"\\Windows\\Temp\\[0-9]{8}\.tmp$", Some(&[r"\windows\temp\"]));
        check("^(foo|ba)$", Some(&["foo", "ba"]));
        check("x|yy", None);
    }
}
