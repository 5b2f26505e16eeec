//! Why a rule matched an event, or did not: selection by selection, with the values of the fields it looked at.

use crate::event::{Event, LogSource};
use crate::rules::RuleSet;
use crate::sigma::matcher::{Node, Test};
use crate::sigma::view::View;
use crate::sigma::{FieldId, FieldNames, LogSourceFilter, Rule};
use serde::Serialize;

/// Most values and patterns that are listed of one field.
const LISTED_MAX: usize = 24;
/// Most characters of a value that are shown.
const CHARACTERS_MAX: usize = 200;

/// Why one rule matched one event, or did not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The rule's id.
    pub rule: String,
    /// Its title.
    pub title: String,
    /// Whether it matches: its log source and one of its conditions.
    pub matches: bool,
    /// The events it is for.
    pub wanted_source: LogSourceFilter,
    /// What the event is.
    pub source: LogSource,
    /// Whether the event is one of those.
    pub source_fits: bool,
    /// Its conditions, of which one is enough.
    pub conditions: Vec<ConditionExplained>,
    /// What they are made of.
    pub selections: Vec<SelectionExplained>,
    /// Titles of filters that its conditions must meet as well.
    pub filters: Vec<String>,
}

/// A condition and whether it holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConditionExplained {
    /// As the rule writes it.
    pub condition: String,
    /// Whether it holds, filters included.
    pub holds: bool,
    /// Whether it would hold if its filters did; differs where a filter took the match away.
    pub holds_unfiltered: bool,
}

/// A selection and whether it holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SelectionExplained {
    /// Its name.
    pub name: String,
    /// Whether it holds.
    pub holds: bool,
    /// Why.
    pub part: Part,
}

/// A part of a selection.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Part {
    /// All of them must hold.
    All {
        /// Whether they do.
        holds: bool,
        /// The parts.
        parts: Vec<Part>,
    },
    /// One of them must hold.
    Any {
        /// Whether one does.
        holds: bool,
        /// The parts.
        parts: Vec<Part>,
    },
    /// It must not hold.
    Not {
        /// Whether it does not.
        holds: bool,
        /// What must not.
        part: Box<Part>,
    },
    /// A field must have such a value.
    Field(FieldExplained),
}

/// What is asked of a field, and what it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldExplained {
    /// Whether the values are as asked for.
    pub holds: bool,
    /// The field; `any field` for keywords.
    pub field: String,
    /// Whether all that is asked must hold, not only one.
    pub all: bool,
    /// What is asked and holds.
    pub met: Vec<String>,
    /// What is asked and does not hold.
    pub unmet: Vec<String>,
    /// The values the event has; not told for keywords.
    pub values: Vec<String>,
    /// Whether there is more than these lists tell.
    pub shortened: bool,
}

/// Explains one rule of a set on one event; `rule` is its place in [`RuleSet::rules`].
pub fn explain(rules: &RuleSet, rule: usize, event: &Event) -> Option<Explanation> {
    let view = View::new(rules.names(), event);
    rules.rules().get(rule).map(|rule| one(rule, rules.names(), event, &view))
}

/// Explains every rule that an id or name means, or every rule that matches where none is given.
pub fn explain_all(rules: &RuleSet, key: Option<&str>, event: &Event) -> Vec<Explanation> {
    let view = View::new(rules.names(), event);
    let wanted = |rule: &&Rule| match key {
        Some(key) => &*rule.header.reference.id == key || rule.header.name.as_deref() == Some(key),
        None => rule.source.admits(&event.logsource) && rule.matches(&view),
    };
    rules.rules().iter().filter(wanted).map(|rule| one(rule, rules.names(), event, &view)).collect()
}

fn one(rule: &Rule, names: &FieldNames, event: &Event, view: &View<'_>) -> Explanation {
    let source_fits = rule.source.admits(&event.logsource);
    let conditions: Vec<ConditionExplained> = rule
        .texts
        .iter()
        .zip(&rule.conditions)
        .map(|(text, node)| ConditionExplained {
            condition: text.clone(),
            holds: node.holds(view),
            holds_unfiltered: unfiltered(node, rule.filters.len()).holds(view),
        })
        .collect();
    let selections = rule.selections.iter().map(|selection| SelectionExplained {
        name: selection.name.clone(),
        holds: selection.node.holds(view),
        part: part(&selection.node, names, view),
    });
    Explanation {
        rule: rule.header.reference.id.to_string(),
        title: rule.header.reference.title.to_string(),
        matches: source_fits && conditions.iter().any(|condition| condition.holds),
        wanted_source: rule.source.clone(),
        source: event.logsource.clone(),
        source_fits,
        conditions,
        selections: selections.collect(),
        filters: rule.filters.iter().map(ToString::to_string).collect(),
    }
}

/// The condition below so many filters.
fn unfiltered(node: &Node, filters: usize) -> &Node {
    match node {
        Node::All(nodes) if filters > 0 && nodes.len() == 2 => unfiltered(&nodes[0], filters - 1),
        node => node,
    }
}

fn part(node: &Node, names: &FieldNames, view: &View<'_>) -> Part {
    let parts = |nodes: &[Node]| nodes.iter().map(|node| part(node, names, view)).collect();
    match node {
        Node::All(nodes) => Part::All { holds: node.holds(view), parts: parts(nodes) },
        Node::Any(nodes) => Part::Any { holds: node.holds(view), parts: parts(nodes) },
        Node::Not(inner) => Part::Not { holds: node.holds(view), part: Box::new(part(inner, names, view)) },
        Node::Selection(selection) => part(&selection.node, names, view),
        Node::Field(test) => Part::Field(field(test, names, view)),
    }
}

fn field(test: &Test, names: &FieldNames, view: &View<'_>) -> FieldExplained {
    let (met, unmet): (Vec<_>, Vec<_>) = test.matchers.iter().partition(|matcher| matcher.holds(test.field, view));
    let list = |matchers: &[&crate::sigma::matcher::Matcher]| -> Vec<String> {
        matchers.iter().take(LISTED_MAX).map(|matcher| short(&matcher.to_string())).collect()
    };
    let items = if test.field == FieldId::ANY { &[][..] } else { view.items(test.field) };
    FieldExplained {
        holds: test.holds(view),
        field: names.name(test.field).to_owned(),
        all: test.all,
        met: list(&met),
        unmet: list(&unmet),
        values: items
            .iter()
            .take(LISTED_MAX)
            .map(|item| if item.is_null { "null".to_owned() } else { short(&item.text) })
            .collect(),
        shortened: met.len().max(unmet.len()).max(items.len()) > LISTED_MAX,
    }
}

fn short(text: &str) -> String {
    let mut short: String = text.chars().take(CHARACTERS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
