//! Rule sets of a cluster of several regions: correlations that look across them.
//!
//! Such a correlation is fed by tuples instead of events. In every region a rule that it is about sends what of an event
//! must travel ([`crate::Tuple`]); where the tuples are read, a twin of the rule matches them, and the correlation is
//! about the twin. So it is judged like any other, and events stay where they are.

use super::{Origin, RuleSet};
use crate::normalise::{OWN_PRODUCT, TUPLE_SERVICE};
use crate::program::Program;
use crate::sigma::{Document, FieldNames, Rule, parse};
use crate::tuple::RULE_FIELD;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a twin's id has behind the rule's.
const TWIN: &str = "@regions";

impl RuleSet {
    /// The same rules for a region of several: what looks across regions is about tuples.
    #[must_use]
    pub fn across_regions(mut self) -> Self {
        let mut wide: Vec<bool> = self.correlations.iter().map(|plan| plan.header.across_regions).collect();
        // What it is about looks across regions as well; each comes after those it is about.
        for place in (0..wide.len()).rev() {
            let feeds = if wide[place] { &self.correlations[place].feeds[..] } else { &[] };
            for feed in feeds {
                if let Origin::Correlation(below) = feed.origin {
                    wide[below] = true;
                }
            }
        }
        let mut twins: BTreeMap<usize, usize> = BTreeMap::new();
        for place in (0..wide.len()).filter(|place| wide[*place]) {
            let plan = Arc::make_mut(&mut self.correlations[place]);
            for feed in &mut plan.feeds {
                let Origin::Rule(rule) = feed.origin else { continue };
                let carried = feed.group_fields.iter().chain(&feed.value_fields).flatten().cloned();
                let carries = self.rules[rule].carries.get_or_insert_default();
                Arc::make_mut(carries).extend(carried);
                let next = self.rules.len();
                let twin = *twins.entry(rule).or_insert(next);
                if twin == next {
                    let twin = twin_of(&self.rules[rule], &mut self.names);
                    self.rules.push(twin);
                    self.rule_alerts.push(false);
                }
                feed.origin = Origin::Rule(twin);
            }
        }
        if !twins.is_empty() {
            self.program = Arc::new(Program::compile(&self.rules, &self.names));
        }
        self
    }
}

/// A rule that matches the tuples of another.
fn twin_of(rule: &Rule, names: &mut FieldNames) -> Rule {
    let header = &rule.header;
    let id = &header.reference.id;
    let literal: String =
        id.chars().flat_map(|one| ['\\', one].into_iter().skip(usize::from(!"\\*?".contains(one)))).collect();
    let document = serde_json::json!({
        "title": &*header.reference.title,
        "id": format!("{id}{TWIN}"),
        "logsource": {"product": OWN_PRODUCT, "service": TUPLE_SERVICE},
        "detection": {"tuple": {format!("{RULE_FIELD}|cased"): literal}, "condition": "tuple"},
        "level": header.severity.name(),
    });
    // JSON is YAML.
    let (documents, errors) = parse(&header.file, &document.to_string(), names);
    let Some(Document::Rule(mut twin)) = documents.into_iter().next() else {
        unreachable!("a rule of one condition is well formed: {errors:?}")
    };
    (twin.header.line, twin.header.shadow) = (header.line, header.shadow);
    twin.header.runbook.clone_from(&header.runbook);
    twin
}
