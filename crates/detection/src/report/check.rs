//! Whether rules are right: what was wrong with their files, and which of them can never match.

use super::fed;
use super::never::{self, Verdict};
use crate::event::{Event, LogSource};
use crate::normalise::OWN_PRODUCT;
use crate::program::ProgramSize;
use crate::rules::RuleSet;
use crate::sigma::matcher::{Matcher, Node};
use crate::sigma::view::FieldId;
use crate::sigma::{Header, LogSourceFilter, Rule, RuleError};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Most log sources that are learnt of events.
const SOURCES_MAX: usize = 10_000;

/// What is known of the events at hand; an empty list means that nothing is known of it.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The log sources that events come from.
    pub sources: Vec<LogSource>,
    /// The fields that events of a log source have.
    pub schemas: Vec<Schema>,
    /// Fields that events of the past had, by log source.
    pub samples: Vec<(LogSource, BTreeSet<String>)>,
}

/// The fields of events.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// Which events; rules for no others are held to it.
    pub source: LogSourceFilter,
    /// All fields that they can have. A name that ends with `.*` stands for all that begin so.
    pub fields: BTreeSet<String>,
}

/// The fields of the platform's own events.
const OWN_FIELDS: [&str; 38] = [
    "activity_id",
    "actor.app_name",
    "actor.session.uid",
    "actor.user.name",
    "api.operation",
    "api.request.uid",
    "category_uid",
    "class_uid",
    "cloud.provider",
    "cloud.region",
    "count",
    "database.name",
    "database.type_id",
    "metadata.log_name",
    "metadata.product.name",
    "metadata.tenant_uid",
    "metadata.version",
    "privileges",
    "resources.name",
    "service.name",
    "session.uid",
    "severity_id",
    "src_endpoint.ip",
    "src_endpoint.location.country",
    "src_endpoint.name",
    "src_endpoint.svc_name",
    "status",
    "status_detail",
    "status_id",
    "time",
    "type_uid",
    "unmapped.detail_digest",
    "unmapped.fields",
    "unmapped.group",
    "unmapped.node",
    "user.name",
    "user.uid",
    "unmapped.*",
];

impl Known {
    /// What is known of the platform's own events.
    pub fn platform() -> Self {
        let source = LogSourceFilter { product: Some(OWN_PRODUCT.into()), ..LogSourceFilter::default() };
        let fields = OWN_FIELDS.map(str::to_owned).into();
        Self { sources: Vec::new(), schemas: vec![Schema { source, fields }], samples: Vec::new() }
    }

    /// Besides what is known already, what events of the past say: their log sources, and the fields of each.
    #[must_use]
    pub fn and_of<'a>(mut self, events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut fields: BTreeMap<LogSource, BTreeSet<String>> = BTreeMap::new();
        for event in events {
            if fields.len() < SOURCES_MAX || fields.contains_key(&event.logsource) {
                fields.entry(event.logsource.clone()).or_default().extend(event.fields.keys().cloned());
            }
        }
        // The platform's own events come whether or not there were any.
        let own = LogSource { product: Some(OWN_PRODUCT.into()), category: None, services: vec!["audit".into()] };
        self.sources = std::iter::once(own).chain(fields.keys().cloned()).collect();
        self.samples = fields.into_iter().collect();
        self
    }
}

/// What is to be said about rule files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Rules on single events that were taken.
    pub rules: usize,
    /// Correlations that were taken.
    pub correlations: usize,
    /// Filters that were taken.
    pub filters: usize,
    /// Documents that were not taken.
    pub errors: Vec<Problem>,
    /// What is odd about those that were.
    pub findings: Vec<Finding>,
    /// What the rules compile to.
    pub program: ProgramSize,
}

impl CheckReport {
    /// Whether there is nothing to be said.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty() && self.findings.is_empty()
    }
}

/// A document that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// Why.
    pub reason: String,
}

/// Something odd about a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's id.
    pub rule: String,
    /// The file.
    pub file: String,
    /// The line its document begins at.
    pub line: u32,
    /// What is odd.
    #[serde(flatten)]
    pub kind: FindingKind,
}

/// What is odd about a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "finding")]
pub enum FindingKind {
    /// Its conditions contradict each other, unless a field is a list.
    Contradiction,
    /// No known log source is its own.
    UnmatchedSource {
        /// The log source it wants.
        source: LogSourceFilter,
    },
    /// It asks for a field that its events do not have.
    UnknownField {
        /// The field.
        field: String,
        /// Whether without such fields it never matches; otherwise only a part of it does not.
        never: bool,
    },
    /// A correlation of which too few rules ever match.
    NeverFed,
    /// A correlation with bounds that no number meets.
    EmptyBounds,
    /// An alias of a correlation that does nothing, or not for all of its rules.
    OddAlias {
        /// What is odd about it.
        why: String,
    },
    /// A filter that narrows no rule.
    NarrowsNothing,
    /// It has no text that must be there, so it is evaluated for every event of its log source.
    EvaluatedAlways,
}

/// Checks a rule set and what went wrong while it was read.
pub fn check(rules: &RuleSet, errors: &[RuleError], known: &Known) -> CheckReport {
    let mut report = CheckReport {
        rules: rules.rules().len(),
        correlations: rules.correlations().len(),
        filters: rules.filters.len(),
        program: rules.program().size(),
        ..CheckReport::default()
    };
    report.errors = errors
        .iter()
        .map(|error| Problem { file: error.file.to_string(), line: error.line, reason: error.reason.to_string() })
        .collect();
    let mut dead = Vec::with_capacity(rules.rules().len());
    for rule in rules.rules() {
        let before = report.findings.len();
        let mut find = |kind| report.findings.push(finding(&rule.header, kind));
        if never::verdict(rule, &BTreeSet::new()) == Verdict::Contradiction {
            find(FindingKind::Contradiction);
        }
        if !known.sources.is_empty() && !known.sources.iter().any(|source| rule.source.admits(source)) {
            find(FindingKind::UnmatchedSource { source: rule.source.clone() });
        }
        let unknown = unknown_fields(rule, rules, known);
        let ids = unknown.iter().filter_map(|name| rules.names().id(name)).collect();
        let never = !unknown.is_empty() && never::verdict(rule, &ids) != Verdict::Can;
        for field in unknown {
            find(FindingKind::UnknownField { field, never });
        }
        if crate::program::is_evaluated_always(rule) {
            find(FindingKind::EvaluatedAlways);
        }
        dead.push(report.findings[before..].iter().any(|finding| finding.kind.is_never()));
    }
    for (place, kind) in fed::findings(rules, known, &dead) {
        report.findings.push(finding(&rules.correlations()[place].header, kind));
    }
    let idle = rules.filters.iter().filter(|(_, narrowed)| *narrowed == 0);
    report.findings.extend(idle.map(|(header, _)| finding(header, FindingKind::NarrowsNothing)));
    report
}

impl FindingKind {
    /// Whether what it is told of never fires.
    pub fn is_never(&self) -> bool {
        match self {
            Self::Contradiction | Self::UnmatchedSource { .. } | Self::NeverFed | Self::EmptyBounds => true,
            Self::UnknownField { never, .. } => *never,
            Self::OddAlias { .. } | Self::NarrowsNothing | Self::EvaluatedAlways => false,
        }
    }
}

fn finding(header: &Header, kind: FindingKind) -> Finding {
    Finding { rule: header.reference.id.to_string(), file: header.file.to_string(), line: header.line, kind }
}

fn unknown_fields(rule: &Rule, rules: &RuleSet, known: &Known) -> Vec<String> {
    let Some(schema) = schema_of(rule, known) else { return Vec::new() };
    let mut fields = BTreeSet::new();
    rule.conditions.iter().for_each(|node| fields_of(node, &mut fields));
    fields.remove(&FieldId::ANY);
    let names = fields.into_iter().map(|field| rules.names().name(field));
    names.filter(|name| !is_known(&schema, name)).map(str::to_owned).collect()
}

/// The fields that a rule's events can have, as far as anything is known of them.
pub(super) fn schema_of(rule: &Rule, known: &Known) -> Option<Schema> {
    let samples: Vec<_> = known.samples.iter().filter(|(source, _)| rule.source.admits(source)).collect();
    match known.schemas.iter().find(|schema| schema.source.contains(&rule.source)) {
        Some(schema) => Some(schema.clone()),
        None if samples.is_empty() => None,
        None => Some(Schema {
            source: rule.source.clone(),
            fields: samples
                .iter()
                .map(|(_, fields)| fields)
                .chain(known.schemas.iter().filter(|s| rule.source.contains(&s.source)).map(|s| &s.fields))
                .flatten()
                .cloned()
                .collect(),
        }),
    }
}

/// Whether events can have a field.
pub(super) fn is_known(schema: &Schema, name: &str) -> bool {
    schema.fields.contains(name)
        || schema.fields.iter().any(|known| known.strip_suffix('*').is_some_and(|stem| name.starts_with(stem)))
}

fn fields_of(node: &Node, fields: &mut BTreeSet<FieldId>) {
    match node {
        Node::All(nodes) | Node::Any(nodes) => nodes.iter().for_each(|node| fields_of(node, fields)),
        Node::Not(inner) => fields_of(inner, fields),
        Node::Selection(selection) => fields_of(&selection.node, fields),
        Node::Field(test) => {
            fields.insert(test.field);
            fields.extend(test.matchers.iter().filter_map(|matcher| {
                if let Matcher::FieldReference { other, .. } = matcher { Some(*other) } else { None }
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{RawEvent, SourceKind};
    use crate::normalise::normalise;
    use serde_json::json;

    #[test]
    fn every_field_of_the_platform_s_own_events_is_known() {
        for action in
            ["login", "login.failed", "session.refused", "user.lock", "role.grant", "record.put", "denied", "x"]
        {
            for outcome in ["success", "failure", "denied"] {
                let body = json!({"action": action, "outcome": outcome, "time_ms": 5, "region": "eu", "node": "eu-1",
                    "group": 0, "tenant": "acme", "user": "ann", "session": "s", "resource": "users/bob", "count": 3,
                    "request_id": "r", "reason": "why", "fields": ["name"], "detail_digest": "d", "country": "DE"});
                let (received_ms, bytes) = (5, body.to_string().into());
                let raw = RawEvent { source: SourceKind::Audit, received_ms, position: None, bytes };
                let event = normalise(&raw).unwrap();
                let unknown: Vec<_> = event.fields.keys().filter(|name| !OWN_FIELDS.contains(&name.as_str())).collect();
                assert!(unknown.iter().all(|name| name.starts_with("unmapped.")), "{action}: {unknown:?}");
            }
        }
    }
}
