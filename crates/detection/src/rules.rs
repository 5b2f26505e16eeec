//! Rule sets: rules read from files, correlations tied to the rules they name.
//!
//! A rule that is wrong is left out and reported with file, line and reason; the others are loaded.

mod shard;

use crate::id::{Digest, SemanticHash};
use crate::program::Program;
use crate::sigma::{
    Correlation, CorrelationKind, Document, FieldNames, Filter, FilterTarget, Header, Pipeline, Reason, Rule,
    RuleError, parse_with,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most files that one folder of rules may hold.
pub const FILES_MAX: usize = 10_000;
/// Most rules, correlations and filters of one set.
pub const RULES_MAX: usize = 50_000;
/// Most folders within each other that [`load_tree`] reads.
const FOLDERS_DEEP_MAX: usize = 16;

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
#[derive(Clone, Debug)]
pub struct RuleSet {
    pub(crate) names: FieldNames,
    pub(crate) rules: Vec<Rule>,
    /// Whether each rule raises alerts of its own.
    pub(crate) rule_alerts: Vec<bool>,
    /// In an order in which each comes after those it is about.
    pub(crate) correlations: Vec<Arc<CorrelationPlan>>,
    pub(crate) program: Arc<Program>,
}

impl Default for RuleSet {
    fn default() -> Self {
        let names = FieldNames::default();
        let program = Arc::new(Program::compile(&[], &names));
        Self { names, rules: Vec::new(), rule_alerts: Vec::new(), correlations: Vec::new(), program }
    }
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
    /// The rules on single events, compiled.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }
    /// Whether each rule on single events raises alerts of its own, or only feeds correlations.
    pub fn raises_alerts(&self, rule: usize) -> bool {
        self.rule_alerts.get(rule).copied().unwrap_or(false)
    }
    /// The field names that rules use.
    pub fn names(&self) -> &FieldNames {
        &self.names
    }
}

/// Reads the `.yml` and `.yaml` files of a folder (not of folders in it), in the order of their names.
pub fn load_dir(path: &Path) -> (RuleSet, Vec<RuleError>) {
    load(path, false, &Pipeline::default())
}

/// Reads the rule files of a folder and all folders in it, through a pipeline.
pub fn load_tree(path: &Path, pipeline: &Pipeline) -> (RuleSet, Vec<RuleError>) {
    load(path, true, pipeline)
}

fn load(path: &Path, nested: bool, pipeline: &Pipeline) -> (RuleSet, Vec<RuleError>) {
    let (mut files, mut texts, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    find_files(path, if nested { FOLDERS_DEEP_MAX } else { 0 }, &mut files, &mut errors);
    files.sort();
    for file in files {
        match std::fs::read_to_string(&file) {
            Ok(text) => {
                let name = file.strip_prefix(path).unwrap_or(&file).to_string_lossy().into_owned();
                texts.push((name, text));
            }
            Err(error) => errors.push(unreadable(&file, &error)),
        }
    }
    let (rules, more) = load_texts_with(texts, pipeline);
    errors.extend(more);
    (rules, errors)
}

fn unreadable(file: &Path, error: &std::io::Error) -> RuleError {
    let reason = Reason::Unreadable { cause: error.to_string() };
    RuleError { file: file.display().to_string().into(), line: 1, reason }
}

fn find_files(folder: &Path, deeper: usize, files: &mut Vec<PathBuf>, errors: &mut Vec<RuleError>) {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return errors.push(unreadable(folder, &error)),
    };
    let mut entries: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).take(FILES_MAX).collect();
    entries.sort();
    for path in entries {
        let is_rule = path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
        if path.is_dir() && !path.is_symlink() && deeper > 0 {
            find_files(&path, deeper - 1, files, errors);
        } else if path.is_file() && is_rule && files.len() < FILES_MAX {
            files.push(path);
        }
    }
}

/// Reads rule files given as name and text.
pub fn load_texts(files: Vec<(String, String)>) -> (RuleSet, Vec<RuleError>) {
    load_texts_with(files, &Pipeline::default())
}

/// Reads rule files given as name and text, through a pipeline.
pub fn load_texts_with(files: Vec<(String, String)>, pipeline: &Pipeline) -> (RuleSet, Vec<RuleError>) {
    let mut set = RuleSet::default();
    let (mut correlations, mut filters, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    let mut taken: BTreeMap<Arc<str>, Option<Origin>> = BTreeMap::new();
    let mut count = 0;
    for (file, text) in files {
        let (documents, wrong) = parse_with(&file.into(), &text, &mut set.names, pipeline);
        errors.extend(wrong);
        for document in documents {
            let header = match &document {
                Document::Rule(rule) => &rule.header,
                Document::Correlation(correlation) => &correlation.header,
                Document::Filter(filter) => &filter.header,
            };
            count += 1;
            if count > RULES_MAX {
                errors.push(error_at(header, Reason::TooMany));
                continue;
            }
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
                Document::Filter(filter) => {
                    filters.push(filter);
                    continue;
                }
            };
            taken.extend(keys.into_iter().map(|key| (key, origin)));
        }
    }
    for filter in &filters {
        narrow(&mut set, filter, &taken, &mut errors);
    }
    set.rule_alerts = vec![true; set.rules.len()];
    resolve(&mut set, correlations, &mut taken, &mut errors);
    set.program = Arc::new(Program::compile(&set.rules, &set.names));
    (set, errors)
}

/// Adds a filter to the rules it is for; those that it names and are not there are errors.
fn narrow(set: &mut RuleSet, filter: &Filter, taken: &BTreeMap<Arc<str>, Option<Origin>>, errors: &mut Vec<RuleError>) {
    let places: Vec<usize> = match &filter.target {
        FilterTarget::Every => (0..set.rules.len()).collect(),
        FilterTarget::Rules(names) => {
            let mut places = Vec::new();
            for name in names {
                match taken.get(name.as_str()) {
                    Some(Some(Origin::Rule(place))) => places.push(*place),
                    // What a correlation is made of is filtered at its rules.
                    Some(_) => errors.push(error_at(&filter.header, Reason::NotFilterable { name: name.clone() })),
                    None => errors.push(error_at(&filter.header, Reason::UnknownRule { name: name.clone() })),
                }
            }
            places.sort_unstable();
            places.dedup();
            places
        }
    };
    for place in places {
        let rule = &mut set.rules[place];
        if filter.source.contains(&rule.source) {
            rule.narrow(filter);
        }
    }
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
                    let keys = keys_of(&correlation.header);
                    match plan(set, correlation, &origins) {
                        Ok(plan) => {
                            let origin = Origin::Correlation(set.correlations.len());
                            taken.extend(keys.into_iter().map(|key| (key, Some(origin))));
                            set.correlations.push(Arc::new(plan));
                        }
                        Err(error) => errors.push(error),
                    }
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

fn plan(set: &mut RuleSet, correlation: Correlation, origins: &[Origin]) -> Result<CorrelationPlan, RuleError> {
    let Correlation { mut header, kind, rules, group_by, aliases, timespan_ms, generate } = correlation;
    let (shape, values) = match kind {
        CorrelationKind::EventCount { at_least } => (Shape::Count { at_least }, Vec::new()),
        CorrelationKind::ValueCount { fields, at_least } => (Shape::Distinct { at_least }, fields),
        CorrelationKind::Temporal { at_least } => (Shape::Distinct { at_least }, Vec::new()),
        CorrelationKind::TemporalOrdered => (Shape::Ordered, Vec::new()),
        CorrelationKind::Count { .. } | CorrelationKind::Value { .. } | CorrelationKind::Expression { .. } => {
            // These are parsed and checked, but the engine has no operator for them.
            return Err(error_at(&header, Reason::Unsupported { what: kind.name().to_owned() }));
        }
    };
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
    Ok(CorrelationPlan { header, shape, timespan_ms, group_by, feeds, slots, alerts: true, feeds_others: false })
}
