//! Questions as terms: `user:ann severity_id>=3 not status:failure "session opened"`.
//!
//! Terms stand side by side (`and`), with `or`, `not` and parentheses. A term is a field with `:`, `=`, `!=`, `<`,
//! `<=`, `>` or `>=` and a value, or a text that the raw event has. `*` is any text, `?` any character, `field:*` any
//! value at all; a network such as `10.0.0.0/8` fits its addresses. Case does not matter.
//! A question becomes an expression of the engine, never a text of SQL.

use super::functions;
use crate::ArchiveError;
use crate::row::{BLOOM, moment, schema};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::Like;
use datafusion::logical_expr::{Expr, lit, try_cast};
use datafusion::prelude::col;

/// Terms of a question.
const TERMS_MAX: usize = 200;
/// Parentheses and `not` within each other.
const DEPTH_MAX: usize = 32;

/// Short names of columns.
const ALIASES: [(&str, &str); 11] = [
    ("user", "user_name"),
    ("address", "src_address"),
    ("ip", "src_address"),
    ("src", "src_address"),
    ("class", "class_uid"),
    ("activity", "activity_id"),
    ("severity", "severity_id"),
    ("hostname", "host"),
    ("action", "operation"),
    ("api.operation", "operation"),
    ("device.hostname", "host"),
];

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
    Text { text: String },
    Field { name: String, op: Op, value: String, quoted: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Is,
    IsNot,
    Less,
    AtMost,
    More,
    AtLeast,
}

const OPS: [(&str, Op); 7] = [
    ("!=", Op::IsNot),
    ("<=", Op::AtMost),
    (">=", Op::AtLeast),
    (":", Op::Is),
    ("=", Op::Is),
    ("<", Op::Less),
    (">", Op::More),
];

fn no(why: impl Into<String>) -> ArchiveError {
    ArchiveError::Question(why.into())
}

/// The expression of a question; `None` for the empty one, which everything fits.
pub fn parse(text: &str) -> Result<Option<Expr>, ArchiveError> {
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Ok(None);
    }
    let mut parser = Parser { tokens: &tokens, depth: 0 };
    let expr = parser.either()?;
    match parser.tokens {
        [] => Ok(Some(expr)),
        [Token::Close, ..] => Err(no("a ) too many")),
        _ => Err(no("something is left over")),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, ArchiveError> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if tokens.len() >= TERMS_MAX {
            return Err(no(format!("more than {TERMS_MAX} terms")));
        }
        let token = match first {
            '(' => take(&mut rest, 1, Token::Open),
            ')' => take(&mut rest, 1, Token::Close),
            '"' => Token::Text { text: quoted(&mut rest)? },
            _ => word(&mut rest)?,
        };
        tokens.push(token);
        rest = rest.trim_start();
    }
    Ok(tokens)
}

fn take(rest: &mut &str, count: usize, token: Token) -> Token {
    *rest = &rest[count..];
    token
}

/// The text in quotation marks; `\"` and `\\` inside.
fn quoted(rest: &mut &str) -> Result<String, ArchiveError> {
    let mut text = String::new();
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                *rest = &rest[at + 1..];
                return Ok(text);
            }
            '\\' => match characters.next() {
                Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                Some((_, other)) => text.extend(['\\', other]),
                None => break,
            },
            other => text.push(other),
        }
    }
    Err(no("a \" is missing"))
}

fn ends_word(character: char) -> bool {
    character.is_whitespace() || matches!(character, '(' | ')' | '"')
}

fn word(rest: &mut &str) -> Result<Token, ArchiveError> {
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '@');
    let name_end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
    let (name, after) = rest.split_at(name_end);
    let op = OPS.iter().find(|(sign, _)| after.starts_with(sign)).filter(|_| !name.is_empty());
    if let Some((sign, op)) = op {
        *rest = &after[sign.len()..];
        let is_quoted = rest.starts_with('"');
        let value = if is_quoted { quoted(rest)? } else { bare(rest) };
        if value.is_empty() && !is_quoted {
            return Err(no(format!("what should {name} be?")));
        }
        return Ok(Token::Field { name: name.to_owned(), op: *op, value, quoted: is_quoted });
    }
    let word = bare(rest);
    Ok(match word.to_ascii_lowercase().as_str() {
        "and" => Token::And,
        "or" => Token::Or,
        "not" => Token::Not,
        _ => Token::Text { text: word },
    })
}

fn bare(rest: &mut &str) -> String {
    let (word, after) = rest.split_at(rest.find(ends_word).unwrap_or(rest.len()));
    *rest = after;
    word.to_owned()
}

struct Parser<'a> {
    tokens: &'a [Token],
    depth: usize,
}

impl Parser<'_> {
    fn either(&mut self) -> Result<Expr, ArchiveError> {
        let mut expr = self.both()?;
        while let [Token::Or, rest @ ..] = self.tokens {
            self.tokens = rest;
            expr = expr.or(self.both()?);
        }
        Ok(expr)
    }

    fn both(&mut self) -> Result<Expr, ArchiveError> {
        let mut expr = self.one()?;
        loop {
            match self.tokens {
                [] | [Token::Or | Token::Close, ..] => return Ok(expr),
                [Token::And, rest @ ..] => self.tokens = rest,
                _ => {}
            }
            expr = expr.and(self.one()?);
        }
    }

    fn one(&mut self) -> Result<Expr, ArchiveError> {
        let [first, rest @ ..] = self.tokens else { return Err(no("a term is missing at the end")) };
        self.tokens = rest;
        match first {
            Token::Not | Token::Open if self.depth >= DEPTH_MAX => Err(no("nested too deep")),
            Token::Not => {
                self.depth += 1;
                let expr = self.one()?;
                self.depth -= 1;
                // What has no value does not have this one.
                Ok(expr.is_not_true())
            }
            Token::Open => {
                self.depth += 1;
                let expr = self.either()?;
                self.depth -= 1;
                let [Token::Close, rest @ ..] = self.tokens else { return Err(no("a ) is missing")) };
                self.tokens = rest;
                Ok(expr)
            }
            Token::Text { text } => Ok(like(col("raw"), &format!("*{text}*"))),
            Token::Field { name, op, value, quoted } => term(name, *op, value, *quoted),
            Token::And | Token::Or | Token::Close => Err(no("a term is missing")),
        }
    }
}

fn term(name: &str, op: Op, value: &str, quoted: bool) -> Result<Expr, ArchiveError> {
    if op == Op::IsNot {
        return term(name, Op::Is, value, quoted).map(Expr::is_not_true);
    }
    let column = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, column)| *column);
    let schema = schema();
    let Ok(field) = schema.field_with_name(column) else { return of_fields(name, op, value, quoted) };
    if value == "*" && !quoted && op == Op::Is {
        return Ok(col(column).is_not_null());
    }
    match field.data_type() {
        DataType::Utf8 => text_term(column, op, value),
        kind if *kind == moment() => {
            let time: jiff::Timestamp = value
                .parse()
                .map_err(|_| no(format!("{name}: '{value}' is not a moment like 2026-01-31T12:00:00Z")))?;
            let moment = ScalarValue::TimestampMillisecond(Some(time.as_millisecond()), Some("UTC".into()));
            Ok(compare(col(column), op, lit(moment)))
        }
        DataType::Int32 => {
            let number: i32 = value.parse().map_err(|_| no(format!("{name}: '{value}' is not a number")))?;
            Ok(compare(col(column), op, lit(number)))
        }
        _ => {
            let number: i64 = value.parse().map_err(|_| no(format!("{name}: '{value}' is not a number")))?;
            Ok(compare(col(column), op, lit(number)))
        }
    }
}

fn compare(left: Expr, op: Op, right: Expr) -> Expr {
    match op {
        Op::Is => left.eq(right),
        Op::IsNot => left.not_eq(right),
        Op::Less => left.lt(right),
        Op::AtMost => left.lt_eq(right),
        Op::More => left.gt(right),
        Op::AtLeast => left.gt_eq(right),
    }
}

fn text_term(column: &str, op: Op, value: &str) -> Result<Expr, ArchiveError> {
    if op != Op::Is {
        return Err(no(format!("{column} is a text: it can only be compared with : or !=")));
    }
    if column == "src_address" && value.contains('/') {
        return Ok(functions::in_network().call(vec![col(column), lit(value)]));
    }
    if value.contains(['*', '?']) {
        return Ok(like(col(column), value));
    }
    // These are kept in lower case, so that bloom filters can answer.
    if BLOOM.contains(&column) {
        return Ok(col(column).eq(lit(value.to_lowercase())));
    }
    Ok(like(col(column), value))
}

/// Compares without regard to case; `*` and `?` stand for what they do not say.
fn like(expr: Expr, pattern: &str) -> Expr {
    let mut sql = String::with_capacity(pattern.len());
    for character in pattern.chars() {
        match character {
            '*' => sql.push('%'),
            '?' => sql.push('_'),
            '%' | '_' | '\\' => sql.extend(['\\', character]),
            other => sql.push(other),
        }
    }
    Expr::Like(Like::new(false, Box::new(expr), Box::new(lit(sql)), None, true))
}

/// A field that is no column of its own.
fn of_fields(name: &str, op: Op, value: &str, quoted: bool) -> Result<Expr, ArchiveError> {
    let text = || functions::field().call(vec![col("fields"), lit(name)]);
    if op == Op::Is {
        if value == "*" && !quoted {
            return Ok(text().is_not_null());
        }
        return Ok(functions::matches().call(vec![col("fields"), lit(name), lit(value)]));
    }
    let number: f64 = value.parse().map_err(|_| no(format!("{name}: '{value}' is not a number")))?;
    Ok(compare(try_cast(text(), DataType::Float64), op, lit(number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn terms_stand_side_by_side() {
        let text = |query: &str| parse(query).unwrap().unwrap().to_string();
        assert_eq!(text("user:Ann"), r#"user_name = Utf8("ann")"#);
        assert_eq!(text("user:a or user:b severity>=3"), text("user:a or (user:b and severity>=3)"));
        assert_eq!(text("NOT user:a b"), text("(not user:a) and b"));
        assert_eq!(text("x:\"(a) \\\" b\""), r#"matches(fields, Utf8("x"), Utf8("(a) " b"))"#);
        assert!(parse("  ").unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for query in
            ["(", ")", "a)", "user:", "or a", "a or", "severity:high", "time>yesterday", "\"open", "user>3", "not"]
        {
            assert!(matches!(parse(query), Err(ArchiveError::Question(_))), "{query}");
        }
        assert!(parse(&"(".repeat(100)).is_err());
        assert!(parse(&"a ".repeat(1000)).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_questions_never_panic(query in "\\PC{0,60}", terms in "[a:()\"<>=!* notr]{0,40}") {
            let _ = parse(&query);
            let _ = parse(&terms);
        }
    }
}
