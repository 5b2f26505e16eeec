//! Rules on single events, and the filters that narrow them.

use super::budget::Budget;
use super::condition::{self, Selections};
use super::document::{Failure, at, missing, selections, wrong};
use super::effect::Effect;
use super::error::RuleError;
use super::matcher::{Node, Selection};
use super::modifier::Reading;
use super::pipeline::Pipeline;
use super::view::{FieldNames, View};
use super::{Header, LogSourceFilter, scan};
use crate::id::{Digest, SemanticHash};
use serde_yaml_ng::Mapping;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A rule on single events, compiled.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it says of itself.
    pub header: Header,
    /// Which events it is for.
    pub source: LogSourceFilter,
    /// The conditions, what was added to it included; one that holds is enough.
    pub(crate) conditions: Vec<Node>,
    /// The conditions as they are written.
    pub(crate) texts: Vec<String>,
    /// What conditions are made of.
    pub(crate) selections: Selections,
    /// What must hold as well.
    pub(crate) extras: Vec<Extra>,
    /// How its author names things.
    pub(crate) taxonomy: Taxonomy,
    /// What it comes to, in about the bytes that it takes up.
    pub(crate) cost_bytes: usize,
    /// What of an event it matches travels to correlations that look across regions; nothing where none does.
    pub(crate) carries: Option<Arc<BTreeSet<String>>>,
}

/// How a rule's author names things: the log source as it is written, and the pipeline that the rule was read through.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taxonomy {
    pub(crate) source: LogSourceFilter,
    pub(crate) pipeline: Arc<Pipeline>,
}

impl Taxonomy {
    /// What events call a field of the rule: one name, or several of which any may hold it.
    pub(crate) fn forth(&self, field: &str) -> Vec<String> {
        self.pipeline.forth(&self.source, field)
    }

    /// What the rule calls a field of events.
    pub(crate) fn back(&self, field: &str) -> Vec<String> {
        self.pipeline.back(&self.source, field)
    }

    /// Whether rules are read alike under both.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pipeline, &other.pipeline) && self.source == other.source
    }
}

/// What a rule's conditions must meet besides themselves.
#[derive(Clone, Debug)]
pub(crate) struct Extra {
    pub(crate) kind: ExtraKind,
    pub(crate) selection: Arc<Selection>,
}

/// Who asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExtraKind {
    Pipeline,
    Filter,
}

impl Rule {
    /// Whether the rule's condition holds for an event; its logsource is the caller's to check.
    pub fn matches(&self, view: &View<'_>) -> bool {
        self.conditions.iter().any(|node| node.holds(view))
    }

    /// A condition without what was added to it.
    pub(crate) fn own<'a>(&self, condition: &'a Node) -> &'a Node {
        match condition {
            Node::All(parts) if !self.extras.is_empty() => &parts[0],
            own => own,
        }
    }

    /// Adds a condition to its own, beside those that were added before: however many there are, they nest no deeper.
    pub(super) fn add(&mut self, extra: Extra) {
        let node = Node::Selection(Arc::clone(&extra.selection));
        for condition in &mut self.conditions {
            match condition {
                Node::All(parts) if !self.extras.is_empty() => parts.push(node.clone()),
                own => {
                    let own_node = std::mem::replace(own, Node::Any(Vec::new()));
                    *own = Node::All(vec![own_node, node.clone()]);
                }
            }
        }
        self.extras.push(extra);
    }

    /// Adds a filter's condition, as it is for this rule, to its own.
    pub(crate) fn narrow(&mut self, filter: &Filter, condition: Arc<Selection>) {
        self.add(Extra { kind: ExtraKind::Filter, selection: condition });
        let mut hash = Digest::new("holdfast sigma rule filtered 1");
        hash.part(self.header.reference.semantic_hash.as_bytes());
        hash.part(filter.header.reference.semantic_hash.as_bytes());
        self.header.reference.semantic_hash = SemanticHash::of(hash);
    }

    /// How many filters narrow it.
    pub(crate) fn filters(&self) -> usize {
        self.extras.iter().filter(|extra| extra.kind == ExtraKind::Filter).count()
    }
}

/// A filter: a condition that the rules it is for must meet besides their own.
#[derive(Clone, Debug)]
pub struct Filter {
    /// What it says of itself.
    pub header: Header,
    /// Only rules whose log source lies within this one are filtered.
    pub source: LogSourceFilter,
    /// Which rules it is for.
    pub target: FilterTarget,
    pub(super) body: Arc<Body>,
}

/// Which rules a filter is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterTarget {
    /// Every rule for its log source.
    Every,
    /// The rules of those ids or names.
    Rules(Vec<String>),
}

/// A filter as it is written: each rule is filtered in its own terms.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) fields: Mapping,
    pub(super) text: String,
}

impl Filter {
    /// Whether rules are filtered that are for such events, in the author's words or in those of events.
    pub(crate) fn is_for(&self, rule: &Rule) -> bool {
        self.source.contains(&rule.taxonomy.source) || self.source.contains(&rule.source)
    }

    /// Its condition for rules that are read so.
    ///
    /// # Errors
    /// What is wrong with it, with file and line.
    pub(crate) fn condition(
        &self,
        taxonomy: &Taxonomy,
        names: &mut FieldNames,
        budget: &mut Budget,
    ) -> Result<Arc<Selection>, RuleError> {
        let name = self.header.reference.title.to_string();
        match self.read(&mut Reading { names, taxonomy: taxonomy.clone(), budget, effect: Effect::default() }) {
            Ok(node) => Ok(Arc::new(Selection { name, node })),
            Err((key, reason)) => {
                let line = self.header.line;
                let line = key.map_or(line, |key| scan::line_of(&self.body.text, line, &key));
                Err(RuleError { file: self.header.file.clone(), line, reason })
            }
        }
    }

    fn read(&self, reading: &mut Reading<'_>) -> Result<Node, Failure> {
        let selections = selections("filter", &self.body.fields, &["rules"], reading)?;
        let text = self.body.fields.get("condition").ok_or_else(|| missing("condition"))?;
        let text = text.as_str().ok_or_else(|| wrong("condition", "a text"))?;
        condition::read(text, &selections, reading.budget).map_err(at("condition"))
    }
}
