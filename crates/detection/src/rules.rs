//! Rule sets: rules read from files, correlations tied to the rules they name.
//!
//! A rule that is wrong is left out and reported with file, line and reason; the others are loaded.

mod bitmap;
mod build;
mod files;
mod shard;
mod tenancy;

pub use build::{load_texts, load_texts_with};
pub use files::{load_dir, load_tree};
pub use tenancy::TENANT_FIELD;

pub(crate) use build::{Builder, Group};
pub(crate) use files::read_folder;
pub(crate) use tenancy::{Tenancy, View};

use crate::correlation::Shape;
use crate::id::{Digest, SemanticHash};
use crate::program::Program;
use crate::sigma::{Correlation, FieldNames, Header, Reason, Rule, RuleError};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most files that one folder of rules may hold.
pub const FILES_MAX: usize = 10_000;
/// Most rules, correlations and filters of one set.
pub const RULES_MAX: usize = 50_000;

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
    /// How far behind the watermark its entries may come: they are windows judged when the watermark has passed them.
    pub(crate) delay_ms: u64,
}

impl CorrelationPlan {
    /// Whether it raises alerts of its own, or only feeds other correlations.
    pub fn raises_alerts(&self) -> bool {
        self.alerts
    }
    /// Whether it waits for the watermark to say anything.
    pub(crate) fn closes(&self) -> bool {
        self.shape.is_closed() || self.delay_ms > 0
    }
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
    /// Which tenant's events meet which rules.
    pub(crate) tenancy: Tenancy,
}

impl Default for RuleSet {
    fn default() -> Self {
        let names = FieldNames::default();
        let program = Arc::new(Program::compile(&[], &names));
        let (rules, rule_alerts, correlations, tenancy) = Default::default();
        Self { names, rules, rule_alerts, correlations, program, tenancy }
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
    /// What all its rules mean, whatever their order: two sets of the same fingerprint raise the same alerts, as far
    /// as rules go; quotas and who sees what are not part of it.
    pub fn fingerprint(&self) -> SemanticHash {
        let rules = self.rules.iter().map(|rule| &rule.header.reference);
        let all = rules.chain(self.correlations.iter().map(|plan| &plan.header.reference));
        let mut parts: Vec<(&str, &[u8; 32])> = all.map(|r| (&*r.id, r.semantic_hash.as_bytes())).collect();
        parts.sort_unstable();
        let mut hash = Digest::new("holdfast rule set 1");
        for (id, meaning) in parts {
            hash.part(id.as_bytes()).part(meaning);
        }
        SemanticHash::of(hash)
    }
    /// The same rules, all in shadow.
    #[must_use]
    pub fn in_shadow(&self) -> Self {
        self.with_shadow(true)
    }
    /// The same rules, none in shadow.
    #[must_use]
    pub fn out_of_shadow(&self) -> Self {
        self.with_shadow(false)
    }
    fn with_shadow(&self, shadow: bool) -> Self {
        let mut set = self.clone();
        set.rules.iter_mut().for_each(|rule| rule.header.shadow = shadow);
        set.correlations.iter_mut().for_each(|plan| Arc::make_mut(plan).header.shadow = shadow);
        set
    }
    /// The field names that rules use.
    pub fn names(&self) -> &FieldNames {
        &self.names
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
    let slot_of = |place: usize| {
        let first = origins.iter().position(|origin| *origin == origins[place]).unwrap_or(place);
        if kind.is_about_rules() { u32::try_from(first).unwrap_or(u32::MAX) } else { 0 }
    };
    let slots: Vec<u32> = (0..origins.len()).map(slot_of).collect();
    let shape = Shape::of(&kind, &slots).map_err(|reason| error_at(&header, reason))?;
    let values = kind.fields();
    let delay = |origin: &Origin| match origin {
        Origin::Rule(_) => 0,
        Origin::Correlation(place) => {
            let other = &set.correlations[*place];
            other.delay_ms.saturating_add(if other.shape.is_closed() { other.timespan_ms } else { 0 })
        }
    };
    let delay_ms = origins.iter().map(delay).max().unwrap_or(0);
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
    let (alerts, feeds_others) = (true, false);
    Ok(CorrelationPlan { header, shape, timespan_ms, group_by, feeds, slots, alerts, feeds_others, delay_ms })
}
