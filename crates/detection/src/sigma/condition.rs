//! Conditions: `and`, `or`, `not`, parentheses, `1 of name*`, `all of them`.

use super::DEPTH_MAX;
use super::error::Reason;
use super::matcher::{Node, Selection};
use super::pipeline::name_pattern;
use super::view::fold;
use std::sync::Arc;

/// Most characters of a condition.
const CONDITION_CHARACTERS_MAX: usize = 64 * 1024;

/// The selections of a rule, in the order they are written.
pub(super) type Selections = Vec<Arc<Selection>>;

/// Reads a condition over selections.
pub(super) fn read(text: &str, selections: &Selections) -> Result<Node, Reason> {
    if text.len() > CONDITION_CHARACTERS_MAX {
        return Err(Reason::TooDeep);
    }
    if text.contains('|') {
        return Err(Reason::Unsupported { what: "aggregation in a condition (use a correlation)".to_owned() });
    }
    let words = split(text);
    let mut parser = Parser { words: &words, place: 0, selections };
    let node = parser.any(0)?;
    match parser.words.get(parser.place) {
        None => Ok(node),
        Some(_) => Err(parser.stuck()),
    }
}

pub(super) fn split(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let mut rest = word;
        while let Some(place) = rest.find(['(', ')']) {
            if place > 0 {
                words.push(&rest[..place]);
            }
            words.push(&rest[place..=place]);
            rest = &rest[place + 1..];
        }
        if !rest.is_empty() {
            words.push(rest);
        }
    }
    words
}

struct Parser<'a> {
    words: &'a [&'a str],
    place: usize,
    selections: &'a Selections,
}

impl Parser<'_> {
    fn stuck(&self) -> Reason {
        Reason::BadCondition { at: self.words.get(self.place).map_or("its end", |word| word).to_owned() }
    }

    fn take(&mut self, word: &str) -> bool {
        let taken = self.words.get(self.place).is_some_and(|next| next.eq_ignore_ascii_case(word));
        self.place += usize::from(taken);
        taken
    }

    fn any(&mut self, depth: usize) -> Result<Node, Reason> {
        let mut nodes = vec![self.all(depth)?];
        while self.take("or") {
            nodes.push(self.all(depth)?);
        }
        Ok(single_or(nodes, Node::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Node, Reason> {
        let mut nodes = vec![self.negation(depth)?];
        while self.take("and") {
            nodes.push(self.negation(depth)?);
        }
        Ok(single_or(nodes, Node::All))
    }

    fn negation(&mut self, depth: usize) -> Result<Node, Reason> {
        if depth > DEPTH_MAX {
            return Err(Reason::TooDeep);
        }
        if self.take("not") {
            return Ok(Node::Not(Box::new(self.negation(depth + 1)?)));
        }
        if self.take("(") {
            let node = self.any(depth + 1)?;
            return if self.take(")") { Ok(node) } else { Err(self.stuck()) };
        }
        self.named()
    }

    fn named(&mut self) -> Result<Node, Reason> {
        let Some(word) = self.words.get(self.place).copied() else { return Err(self.stuck()) };
        let followed_by_of = self.words.get(self.place + 1).is_some_and(|next| next.eq_ignore_ascii_case("of"));
        if followed_by_of {
            let Some(name) = self.words.get(self.place + 2).copied() else {
                self.place += 2;
                return Err(self.stuck());
            };
            let nodes = self.selected(name)?;
            let node = match word.to_ascii_lowercase().as_str() {
                "all" => Node::All(nodes),
                "1" | "any" => Node::Any(nodes),
                other => match other.parse::<usize>() {
                    Ok(count) => return Err(Reason::Unsupported { what: format!("{count} of") }),
                    Err(_) => return Err(self.stuck()),
                },
            };
            self.place += 3;
            return Ok(node);
        }
        if matches!(word, ")" | "(") || ["and", "or", "not", "of"].iter().any(|key| word.eq_ignore_ascii_case(key)) {
            return Err(self.stuck());
        }
        let selection = self.selections.iter().find(|selection| selection.name == word);
        let selection = selection.ok_or_else(|| Reason::UnknownSelection { name: word.to_owned() })?;
        self.place += 1;
        Ok(Node::Selection(Arc::clone(selection)))
    }

    fn selected(&self, name: &str) -> Result<Vec<Node>, Reason> {
        let them = name.eq_ignore_ascii_case("them");
        let pattern = name_pattern(name);
        let nodes: Vec<Node> = self
            .selections
            .iter()
            .filter(|selection| {
                let name = &selection.name;
                if them { !name.starts_with('_') } else { pattern.matches(&fold(name)) }
            })
            .map(|selection| Node::Selection(Arc::clone(selection)))
            .collect();
        if nodes.is_empty() { Err(Reason::UnknownSelection { name: name.to_owned() }) } else { Ok(nodes) }
    }
}

fn single_or(mut nodes: Vec<Node>, many: impl Fn(Vec<Node>) -> Node) -> Node {
    if nodes.len() == 1 { nodes.swap_remove(0) } else { many(nodes) }
}
