//! Sigma's texts with wildcards: `*`, `?`, and `\` before them for themselves.

use super::view::{fold, fold_character};
use std::fmt;

/// One piece of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// That character.
    Literal(char),
    /// Any characters, also none.
    Many,
    /// Any one character.
    One,
    /// Any of the characters that begin an option on a command line.
    Dash,
}

/// The characters that begin an option on a command line.
pub(super) const DASHES: [char; 5] = ['-', '/', '\u{2013}', '\u{2014}', '\u{2015}'];

/// Reads the wildcards and escapes of a text. A `\` before anything but `*`, `?` and `\` is itself.
pub(crate) fn read(text: &str) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        tokens.push(match character {
            '*' => Token::Many,
            '?' => Token::One,
            '\\' => match characters.next_if(|next| matches!(next, '*' | '?' | '\\')) {
                Some(escaped) => Token::Literal(escaped),
                None => Token::Literal('\\'),
            },
            other => Token::Literal(other),
        });
    }
    tokens
}

/// Replaces each dash that begins an option by any such character.
pub(crate) fn widen_dashes(tokens: &mut [Token]) {
    let is_word = |token: Option<&Token>| matches!(token, Some(Token::Literal(c)) if c.is_alphanumeric() || *c == '_');
    for place in 0..tokens.len() {
        let before = place.checked_sub(1).and_then(|before| tokens.get(before));
        if matches!(tokens[place], Token::Literal('-' | '/')) && !is_word(before) && is_word(tokens.get(place + 1)) {
            tokens[place] = Token::Dash;
        }
    }
}

/// A pattern ready to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    Exact(String),
    Contains(String),
    StartsWith(String),
    EndsWith(String),
    Anything,
    Glob(Vec<Token>),
}

impl Pattern {
    /// The cheapest pattern of those tokens; folded unless case matters.
    pub(crate) fn new(tokens: &[Token], cased: bool) -> Self {
        let open_start = tokens.first() == Some(&Token::Many);
        let open_end = tokens.last() == Some(&Token::Many);
        if tokens.iter().all(|token| *token == Token::Many) && open_start {
            return Self::Anything;
        }
        let inner = &tokens[usize::from(open_start)..tokens.len() - usize::from(open_end)];
        let literal: Option<String> =
            inner.iter().map(|token| if let Token::Literal(c) = token { Some(*c) } else { None }).collect();
        let Some(literal) = literal else {
            return Self::Glob(if cased { tokens.to_vec() } else { fold_tokens(tokens) });
        };
        let literal = if cased { literal } else { fold(&literal).into_owned() };
        match (open_start, open_end) {
            (false, false) => Self::Exact(literal),
            (true, true) => Self::Contains(literal),
            (false, true) => Self::StartsWith(literal),
            (true, false) => Self::EndsWith(literal),
        }
    }

    /// Whether the whole text matches; a folded pattern is given folded text.
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(literal) => text == literal,
            Self::Contains(literal) => text.contains(literal.as_str()),
            Self::StartsWith(literal) => text.starts_with(literal.as_str()),
            Self::EndsWith(literal) => text.ends_with(literal.as_str()),
            Self::Anything => true,
            Self::Glob(tokens) => glob(tokens, text),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(literal) => write!(f, "is {literal:?}"),
            Self::Contains(literal) => write!(f, "contains {literal:?}"),
            Self::StartsWith(literal) => write!(f, "starts with {literal:?}"),
            Self::EndsWith(literal) => write!(f, "ends with {literal:?}"),
            Self::Anything => f.write_str("is anything"),
            Self::Glob(tokens) => {
                f.write_str("is like \"")?;
                for token in tokens {
                    match token {
                        Token::Literal(character) => write!(f, "{}", character.escape_debug())?,
                        Token::Many => f.write_str("*")?,
                        Token::One => f.write_str("?")?,
                        Token::Dash => f.write_str("[-/–—―]")?,
                    }
                }
                f.write_str("\"")
            }
        }
    }
}

fn fold_tokens(tokens: &[Token]) -> Vec<Token> {
    let mut folded = Vec::with_capacity(tokens.len());
    for token in tokens {
        match token {
            Token::Literal(c) => folded.extend(fold_character(*c).map(Token::Literal)),
            other => folded.push(*other),
        }
    }
    folded
}

/// Matches with one place to go back to: in time at most pattern times text.
pub(crate) fn glob(tokens: &[Token], text: &str) -> bool {
    let mut rest = text;
    let mut place = 0;
    let mut back: Option<(usize, &str)> = None;
    loop {
        let first = rest.chars().next();
        match (tokens.get(place), first) {
            (Some(Token::Many), _) => {
                place += 1;
                back = Some((place, rest));
                continue;
            }
            (Some(token), Some(character)) if takes(*token, character) => {
                place += 1;
                rest = &rest[character.len_utf8()..];
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        let Some((again, from)) = back else { return false };
        let Some(skipped) = from.chars().next() else { return false };
        rest = &from[skipped.len_utf8()..];
        place = again;
        back = Some((again, rest));
    }
}

fn takes(token: Token, character: char) -> bool {
    match token {
        Token::Literal(literal) => literal == character,
        Token::One => true,
        Token::Dash => DASHES.contains(&character),
        Token::Many => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, text: &str, expect: bool) {
        let pattern = Pattern::new(&read(pattern), false);
        assert_eq!(pattern.matches(&fold(text)), expect, "{pattern:?} on {text}");
    }

    #[test]
    fn wildcards_and_escapes_follow_the_specification() {
        check("abc", "ABC", true);
        check("a*c", "abbbc", true);
        check("a*c", "abbbd", false);
        check("a?c", "abc", true);
        check("a?c", "ac", false);
        check("*b*", "abc", true);
        check(r"a\*c", "a*c", true);
        check(r"a\*c", "abc", false);
        check(r"C:\Windows\*", r"c:\windows\system32", false);
        check(r"C:\Windows\\*", r"c:\windows\system32", true);
        check(r"\\\\server\share", r"\\server\share", true);
        check(r"*\cmd.exe", r"C:\cmd.exe", true);
        check("*a*b*c*", "xxaxxbxxc", true);
        check("*a*b*c*", "xxaxxcxxb", false);
        check("", "", true);
        check("", "a", false);
        check("*", "", true);
    }

    #[test]
    fn dashes_widen_only_where_an_option_begins() {
        let mut tokens = read("a -enc x-y");
        widen_dashes(&mut tokens);
        let pattern = Pattern::new(&tokens, false);
        assert!(pattern.matches("a /enc x-y"));
        assert!(pattern.matches("a \u{2013}enc x-y"));
        assert!(!pattern.matches("a -enc x/y"));
    }
}
