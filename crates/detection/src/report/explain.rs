//! Why a rule matched an event, or did not: selection by selection, with the values of the fields it looked at.

use crate::event::{Event, LogSource};
use crate::rules::RuleSet;
use crate::sigma::matcher::{Node, Selection, Test};
use crate::sigma::view::View;
use crate::sigma::{ExtraKind, FieldId, FieldNames, LogSourceFilter, Rule, Taxonomy};
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
    /// What its conditions must meet as well.
    pub added: Vec<AddedExplained>,
}

/// A condition that was added to a rule's own, and whether it holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AddedExplained {
    /// Whether a filter adds it, or the pipeline that the rule was read through.
    pub is_filter: bool,
    /// What it is, a filter by its title.
    #[serde(flatten)]
    pub selection: SelectionExplained,
}

/// A condition and whether it holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConditionExplained {
    /// As the rule writes it.
    pub condition: String,
    /// Whether it holds, with what was added to it.
    pub holds: bool,
    /// Whether it holds as it is written; differs where what was added took the match away.
    pub holds_alone: bool,
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
    /// The field, as events call it; `any field` for keywords.
    pub field: String,
    /// What the rule calls it, where a pipeline changed the name; several where it makes one field of them.
    pub written: Vec<String>,
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
    let reader = Reader { names, view, taxonomy: &rule.taxonomy };
    let conditions: Vec<ConditionExplained> = rule
        .texts
        .iter()
        .zip(&rule.conditions)
        .map(|(text, node)| ConditionExplained {
            condition: text.clone(),
            holds: node.holds(view),
            holds_alone: rule.own(node).holds(view),
        })
        .collect();
    let added = rule.extras.iter().map(|extra| AddedExplained {
        is_filter: extra.kind == ExtraKind::Filter,
        selection: reader.selection(&extra.selection),
    });
    Explanation {
        rule: rule.header.reference.id.to_string(),
        title: rule.header.reference.title.to_string(),
        matches: source_fits && conditions.iter().any(|condition| condition.holds),
        wanted_source: rule.source.clone(),
        source: event.logsource.clone(),
        source_fits,
        conditions,
        selections: rule.selections.iter().map(|selection| reader.selection(selection)).collect(),
        added: added.collect(),
    }
}

/// What parts of one rule are explained with.
struct Reader<'a, 'e> {
    names: &'a FieldNames,
    view: &'a View<'e>,
    taxonomy: &'a Taxonomy,
}

impl Reader<'_, '_> {
    fn selection(&self, selection: &Selection) -> SelectionExplained {
        let holds = selection.node.holds(self.view);
        SelectionExplained { name: selection.name.clone(), holds, part: self.part(&selection.node) }
    }

    fn part(&self, node: &Node) -> Part {
        let holds = node.holds(self.view);
        let parts = |nodes: &[Node]| nodes.iter().map(|node| self.part(node)).collect();
        match node {
            Node::All(nodes) => Part::All { holds, parts: parts(nodes) },
            Node::Any(nodes) => Part::Any { holds, parts: parts(nodes) },
            Node::Not(inner) => Part::Not { holds, part: Box::new(self.part(inner)) },
            Node::Selection(selection) => self.part(&selection.node),
            Node::Field(test) => Part::Field(self.field(test)),
        }
    }

    fn field(&self, test: &Test) -> FieldExplained {
        let (met, unmet): (Vec<_>, Vec<_>) =
            test.matchers.iter().partition(|matcher| matcher.holds(test.field, self.view));
        let list = |matchers: &[&crate::sigma::matcher::Matcher]| -> Vec<String> {
            matchers.iter().take(LISTED_MAX).map(|matcher| short(&matcher.to_string())).collect()
        };
        let items = if test.field == FieldId::ANY { &[][..] } else { self.view.items(test.field) };
        let field = self.names.name(test.field).to_owned();
        let mut written = if test.field == FieldId::ANY { Vec::new() } else { self.taxonomy.back(&field) };
        written.retain(|name| *name != field);
        FieldExplained {
            holds: test.holds(self.view),
            field,
            written,
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
}

fn short(text: &str) -> String {
    let mut short: String = text.chars().take(CHARACTERS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
