//! Rule sets: rules read from files, correlations tied to the rules they name.
//!
//! A rule that is wrong is left out and reported with file, line and reason; the others are loaded.

use crate::id::{Digest, SemanticHash};
use crate::sigma::{Correlation, CorrelationKind, Document, FieldNames, Header, Reason, Rule, RuleError, parse};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Most files that one folder of rules may hold.
pub const FILES_MAX: usize = 10_000;

/// Where a correlation's entries come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    Rule(usize),
    Correlation(usize),
}

/// One of the rules a correlation is about.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    pub(crate) origin: Origin,
    /// Its number within the correlation; all rules share one where they are counted together.
    pub(crate) slot: u32,
    /// For each field of the group key, the field of this rule's events it is taken from.
    pub(crate) group_fields: Vec<String>,
    /// Fields whose values must be distinct.
    pub(crate) value_fields: Vec<String>,
}

/// What a correlation waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Count { at_least: u32 },
    Distinct { at_least: u32 },
    Ordered,
}

/// A correlation tied to its rules.
#[derive(Clone, Debug)]
pub struct CorrelationPlan {
    /// What it says of itself; its semantic hash covers the rules it is about.
    pub header: Header,
    pub(crate) shape: Shape,
    pub(crate) timespan_ms: u64,
    pub(crate) group_by: Vec<String>,
    pub(crate) feeds: Vec<Feed>,
    /// For each step of a sequence, the number of its rule.
    pub(crate) slots: Vec<u32>,
    /// Whether it raises alerts itself, or only feeds others.
    pub(crate) alerts: bool,
    /// Whether other correlations are about it.
    pub(crate) feeds_others: bool,
}

/// Rules and correlations, ready for a [`crate::engine::Detector`].
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    pub(crate) names: FieldNames,
    pub(crate) rules: Vec<Rule>,
    /// Whether each rule raises alerts of its own.
    pub(crate) rule_alerts: Vec<bool>,
    /// In an order in which each comes after those it is about.
    pub(crate) correlations: Vec<Arc<CorrelationPlan>>,
}

impl RuleSet {
    /// The rules on single events.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
    /// The correlations.
    pub fn correlations(&self) -> &[Arc<CorrelationPlan>] {
        &self.correlations
    }
    /// The field names that rules use.
    pub fn names(&self) -> &FieldNames {
        &self.names
    }
}

/// Reads the `.yml` and `.yaml` files of a folder (not of folders in it), in the order of their names.
pub fn load_dir(path: &Path) -> (RuleSet, Vec<RuleError>) {
    let unreadable = |file: &Path, error: &std::io::Error| RuleError {
        file: file.display().to_string().into(),
        line: 1,
        reason: Reason::Unreadable { cause: error.to_string() },
    };
    let (mut texts, mut errors) = (Vec::new(), Vec::new());
    let files = match std::fs::read_dir(path) {
        Ok(files) => files,
        Err(error) => return (RuleSet::default(), vec![unreadable(path, &error)]),
    };
    let mut files: Vec<_> = files.filter_map(|file| Some(file.ok()?.path())).take(FILES_MAX).collect();
    files.retain(|file| {
        file.is_file() && file.extension().is_some_and(|extension| extension == "yml" || extension == "yaml")
    });
    files.sort();
    for file in files {
        match std::fs::read_to_string(&file) {
            Ok(text) => texts.push((file.file_name().unwrap_or_default().to_string_lossy().into_owned(), text)),
            Err(error) => errors.push(unreadable(&file, &error)),
        }
    }
    let (rules, more) = load_texts(texts);
    errors.extend(more);
    (rules, errors)
}

/// Reads rule files given as name and text.
pub fn load_texts(files: Vec<(String, String)>) -> (RuleSet, Vec<RuleError>) {
    let mut set = RuleSet::default();
    let (mut correlations, mut errors) = (Vec::new(), Vec::new());
    let mut taken: BTreeMap<Arc<str>, Option<Origin>> = BTreeMap::new();
    for (file, text) in files {
        let (documents, wrong) = parse(&file.into(), &text, &mut set.names);
        errors.extend(wrong);
        for document in documents {
            let header = match &document {
                Document::Rule(rule) => &rule.header,
                Document::Correlation(correlation) => &correlation.header,
            };
            let keys: Vec<Arc<str>> = keys_of(header);
            if let Some(name) = keys.iter().find(|key| taken.contains_key(*key)) {
                errors.push(error_at(header, Reason::Duplicate { name: name.to_string() }));
                continue;
            }
            let origin = match document {
                Document::Rule(rule) => {
                    set.rules.push(rule);
                    Some(Origin::Rule(set.rules.len() - 1))
                }
                Document::Correlation(correlation) => {
                    correlations.push(correlation);
                    None
                }
            };
            taken.extend(keys.into_iter().map(|key| (key, origin)));
        }
    }
    set.rule_alerts = vec![true; set.rules.len()];
    resolve(&mut set, correlations, &mut taken, &mut errors);
    (set, errors)
}

fn keys_of(header: &Header) -> Vec<Arc<str>> {
    let mut keys = vec![header.reference.id.clone()];
    keys.extend(header.name.clone().filter(|name| *name != header.reference.id));
    keys
}

fn error_at(header: &Header, reason: Reason) -> RuleError {
    RuleError { file: header.file.clone(), line: header.line, reason }
}

/// Ties correlations to their rules, those first whose rules are tied already.
fn resolve(
    set: &mut RuleSet,
    mut waiting: Vec<Correlation>,
    taken: &mut BTreeMap<Arc<str>, Option<Origin>>,
    errors: &mut Vec<RuleError>,
) {
    loop {
        let before = waiting.len();
        let mut later = Vec::new();
        for correlation in waiting {
            let origins: Option<Vec<Origin>> =
                correlation.rules.iter().map(|name| taken.get(name.as_str()).copied().flatten()).collect();
            match origins {
                Some(origins) => {
                    let origin = Origin::Correlation(set.correlations.len());
                    taken.extend(keys_of(&correlation.header).into_iter().map(|key| (key, Some(origin))));
                    let plan = plan(set, correlation, &origins);
                    set.correlations.push(Arc::new(plan));
                }
                None => later.push(correlation),
            }
        }
        if later.is_empty() {
            return;
        }
        if later.len() == before {
            for correlation in &later {
                let unknown = correlation.rules.iter().find(|name| !taken.contains_key(name.as_str()));
                let reason = unknown.map_or(Reason::Circular, |name| Reason::UnknownRule { name: name.clone() });
                errors.push(error_at(&correlation.header, reason));
            }
            return;
        }
        waiting = later;
    }
}

fn plan(set: &mut RuleSet, correlation: Correlation, origins: &[Origin]) -> CorrelationPlan {
    let Correlation { mut header, kind, rules, group_by, aliases, timespan_ms, generate } = correlation;
    let mut hash = Digest::new("holdfast sigma correlation resolved 1");
    hash.part(header.reference.semantic_hash.as_bytes());
    for origin in origins {
        let part = match origin {
            Origin::Rule(place) => set.rules[*place].header.reference.semantic_hash,
            Origin::Correlation(place) => set.correlations[*place].header.reference.semantic_hash,
        };
        hash.part(part.as_bytes());
    }
    header.reference.semantic_hash = SemanticHash::of(hash);
    for origin in origins {
        match origin {
            Origin::Rule(place) => {
                set.rule_alerts[*place] &= generate || set.rules[*place].header.always_alerts;
            }
            Origin::Correlation(place) => {
                let other = Arc::make_mut(&mut set.correlations[*place]);
                other.alerts &= generate || other.header.always_alerts;
                other.feeds_others = true;
            }
        }
    }
    let (shape, values) = match kind {
        CorrelationKind::EventCount { at_least } => (Shape::Count { at_least }, Vec::new()),
        CorrelationKind::ValueCount { fields, at_least } => (Shape::Distinct { at_least }, fields),
        CorrelationKind::Temporal { at_least } => (Shape::Distinct { at_least }, Vec::new()),
        CorrelationKind::TemporalOrdered => (Shape::Ordered, Vec::new()),
    };
    let counted_together = matches!(shape, Shape::Count { .. }) || !values.is_empty();
    let slot_of = |place: usize| {
        let first = origins.iter().position(|origin| *origin == origins[place]).unwrap_or(place);
        if counted_together { 0 } else { u32::try_from(first).unwrap_or(u32::MAX) }
    };
    let slots: Vec<u32> = (0..origins.len()).map(slot_of).collect();
    let mut feeds: Vec<Feed> = Vec::with_capacity(origins.len());
    for (place, origin) in origins.iter().enumerate() {
        if feeds.iter().any(|feed| feed.origin == *origin) {
            continue;
        }
        let own_keys: Vec<Arc<str>> = match origin {
            Origin::Rule(rule) => keys_of(&set.rules[*rule].header),
            Origin::Correlation(other) => keys_of(&set.correlations[*other].header),
        };
        let field = |name: &String| {
            let fields = aliases.get(name);
            let named = fields.and_then(|fields| {
                fields.get(&rules[place]).or_else(|| own_keys.iter().find_map(|key| fields.get(key.as_ref())))
            });
            named.unwrap_or(name).clone()
        };
        feeds.push(Feed {
            origin: *origin,
            slot: slots[place],
            group_fields: group_by.iter().map(field).collect(),
            value_fields: values.iter().map(field).collect(),
        });
    }
    CorrelationPlan { header, shape, timespan_ms, group_by, feeds, slots, alerts: true, feeds_others: false }
}
