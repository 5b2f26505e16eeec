//! Conditions: `and`, `or`, `not`, parentheses, `1 of name*`, `all of them`.

use super::budget::{Budget, PART_COST_BYTES};
use super::error::Reason;
use super::grammar::{self, Formula, Words};
use super::matcher::{Node, Selection};
use super::pipeline::name_pattern;
use super::view::fold;
use std::sync::Arc;

/// The selections of a rule, in the order they are written.
pub(super) type Selections = Vec<Arc<Selection>>;

/// Reads a condition over selections.
pub(super) fn read(text: &str, selections: &Selections, budget: &mut Budget) -> Result<Node, Reason> {
    if text.contains('|') {
        return Err(Reason::Unsupported { what: "aggregation in a condition (use a correlation)".to_owned() });
    }
    grammar::read(text, |words| named(words, selections, budget))
}

impl Formula for Node {
    fn all(parts: Vec<Self>) -> Self {
        Self::All(parts)
    }
    fn any(parts: Vec<Self>) -> Self {
        Self::Any(parts)
    }
    fn not(part: Self) -> Self {
        Self::Not(Box::new(part))
    }
}

/// A selection by its name, or some of them by a pattern.
fn named(words: &mut Words<'_>, selections: &Selections, budget: &mut Budget) -> Result<Node, Reason> {
    let Some(word) = words.next() else { return Err(words.stuck()) };
    if words.ahead(1).is_some_and(|next| next.eq_ignore_ascii_case("of")) {
        let Some(name) = words.ahead(2) else {
            words.pass(2);
            return Err(words.stuck());
        };
        let nodes = selected(name, selections)?;
        budget.spend(nodes.len() * PART_COST_BYTES)?;
        let node = match word.to_ascii_lowercase().as_str() {
            "all" => Node::All(nodes),
            "1" | "any" => Node::Any(nodes),
            other => match other.parse::<usize>() {
                Ok(count) => return Err(Reason::Unsupported { what: format!("{count} of") }),
                Err(_) => return Err(words.stuck()),
            },
        };
        words.pass(3);
        return Ok(node);
    }
    let name = words.name()?;
    let selection = selections.iter().find(|selection| selection.name == name);
    let selection = selection.ok_or_else(|| Reason::UnknownSelection { name: name.to_owned() })?;
    budget.spend(PART_COST_BYTES)?;
    words.pass(1);
    Ok(Node::Selection(Arc::clone(selection)))
}

fn selected(name: &str, selections: &Selections) -> Result<Vec<Node>, Reason> {
    let them = name.eq_ignore_ascii_case("them");
    let pattern = name_pattern(name);
    let nodes: Vec<Node> = selections
        .iter()
        .filter(|selection| {
            let name = &selection.name;
            if them { !name.starts_with('_') } else { pattern.matches(&fold(name)) }
        })
        .map(|selection| Node::Selection(Arc::clone(selection)))
        .collect();
    if nodes.is_empty() { Err(Reason::UnknownSelection { name: name.to_owned() }) } else { Ok(nodes) }
}
