//! Rule sets: rules read from files, correlations tied to the rules they name.
//!
//! A rule that is wrong is left out and reported with file, line and reason; the others are loaded.

mod bitmap;
mod build;
mod files;
mod fingerprint;
mod regions;
mod shard;
mod tenancy;

pub use build::{load_texts, load_texts_with};
pub use files::{load_dir, load_tree};
pub use tenancy::TENANT_FIELD;

pub(crate) use build::{Builder, Group};
pub(crate) use files::{read_file, read_folder};
pub(crate) use tenancy::{Tenancy, View};

use crate::correlation::Shape;
use crate::id::{Digest, SemanticHash};
use crate::program::Program;
use crate::sigma::{Correlation, FieldNames, Header, Reason, Rule, RuleError};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Most files that one folder of rules may hold.
pub const FILES_MAX: usize = 10_000;
/// Most rules, correlations and filters of one set.
pub const RULES_MAX: usize = 50_000;
/// Most filters of one rule.
pub const FILTERS_OF_RULE_MAX: usize = 256;
/// Most that all rules of a set may come to, in about the bytes that they take up.
const COST_BYTES_MAX: usize = 1024 * 1024 * 1024;

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
    /// Its number within the correlation; all rules, but not correlations, share one where they are counted together.
    pub(crate) slot: u32,
    /// For each field of the group key, the fields of this rule's events it is taken from: the first that is there.
    pub(crate) group_fields: Vec<Vec<String>>,
    /// Fields whose values must be distinct, each as those are.
    pub(crate) value_fields: Vec<Vec<String>>,
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
    /// What is odd about its aliases.
    pub(crate) odd_aliases: Vec<String>,
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
    /// The filters that were read, and how many rules each narrows.
    pub(crate) filters: Vec<(Header, usize)>,
}

impl Default for RuleSet {
    fn default() -> Self {
        let names = FieldNames::default();
        let program = Arc::new(Program::compile(&[], &names));
        let (rules, rule_alerts, correlations, tenancy, filters) = Default::default();
        Self { names, rules, rule_alerts, correlations, program, tenancy, filters }
    }
}

impl RuleSet {
    /// For each rule or correlation, the correlations it feeds and as which of their rules.
    pub(crate) fn feeds(&self) -> BTreeMap<Origin, Vec<(usize, usize)>> {
        let mut feeds: BTreeMap<Origin, Vec<(usize, usize)>> = BTreeMap::new();
        for (correlation, plan) in self.correlations.iter().enumerate() {
            for (place, feed) in plan.feeds.iter().enumerate() {
                feeds.entry(feed.origin).or_default().push((correlation, place));
            }
        }
        feeds
    }

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
    /// What raises alerts, by id: neither in shadow, nor only there for correlations.
    pub fn detecting(&self) -> BTreeSet<Arc<str>> {
        let rules = self.rules.iter().zip(&self.rule_alerts).map(|(rule, alerts)| (&rule.header, *alerts));
        let all = rules.chain(self.correlations.iter().map(|plan| (&plan.header, plan.alerts)));
        let of = all.filter(|(header, alerts)| *alerts && !header.shadow);
        of.map(|(header, _)| Arc::clone(&header.reference.id)).collect()
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
    waiting: Vec<Correlation>,
    taken: &mut BTreeMap<Arc<str>, Option<Origin>>,
    errors: &mut Vec<RuleError>,
) {
    let mut waiting: Vec<Option<Correlation>> = waiting.into_iter().map(Some).collect();
    // For each name, the correlations that wait for what is called so.
    let mut wanted: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut ready: VecDeque<usize> = (0..waiting.len()).collect();
    while let Some(place) = ready.pop_front() {
        let Some(correlation) = waiting[place].take() else { continue };
        let origin_of = |name: &String| taken.get(name.as_str()).copied().flatten();
        if let Some(name) = correlation.rules.iter().find(|name| origin_of(name).is_none()) {
            wanted.entry(name.clone()).or_default().push(place);
            waiting[place] = Some(correlation);
            continue;
        }
        let origins: Vec<Origin> = correlation.rules.iter().filter_map(origin_of).collect();
        let keys = keys_of(&correlation.header);
        match plan(set, correlation, &origins) {
            Ok(plan) => {
                let origin = Origin::Correlation(set.correlations.len());
                set.correlations.push(Arc::new(plan));
                for key in keys {
                    ready.extend(wanted.remove(&*key).unwrap_or_default());
                    taken.insert(key, Some(origin));
                }
            }
            Err(error) => errors.push(error),
        }
    }
    refuse(&waiting, wanted, taken, errors);
}

/// Says of correlations that are left why they cannot be tied: what they wait for is not there, or is refused, or waits
/// for them.
fn refuse(
    left: &[Option<Correlation>],
    mut wanted: BTreeMap<String, Vec<usize>>,
    taken: &BTreeMap<Arc<str>, Option<Origin>>,
    errors: &mut Vec<RuleError>,
) {
    let waits: BTreeSet<Arc<str>> = left.iter().flatten().flat_map(|waiting| keys_of(&waiting.header)).collect();
    let mut absent: VecDeque<String> = wanted.keys().filter(|name| !waits.contains(name.as_str())).cloned().collect();
    let mut told = BTreeSet::new();
    while let Some(name) = absent.pop_front() {
        let is_refused = taken.contains_key(name.as_str());
        for place in wanted.remove(&name).unwrap_or_default() {
            let Some(correlation) = &left[place] else { continue };
            let name = name.clone();
            let reason = if is_refused { Reason::RefusedRule { name } } else { Reason::UnknownRule { name } };
            errors.push(error_at(&correlation.header, reason));
            absent.extend(keys_of(&correlation.header).iter().map(ToString::to_string));
            told.insert(place);
        }
    }
    let in_circles = left.iter().enumerate().filter(|(place, _)| !told.contains(place));
    errors.extend(in_circles.filter_map(|(_, one)| Some(error_at(&one.as_ref()?.header, Reason::Circular))));
}

/// What is odd about the aliases of a correlation: those that it does not use, that do not know one of its rules, or
/// that know another.
fn odd_aliases(set: &RuleSet, correlation: &Correlation, origins: &[Origin]) -> Vec<String> {
    let mut odd = Vec::new();
    let used: Vec<String> = correlation.group_by.iter().cloned().chain(correlation.kind.fields()).collect();
    let keys: Vec<Vec<Arc<str>>> = origins
        .iter()
        .map(|origin| match origin {
            Origin::Rule(rule) => keys_of(&set.rules[*rule].header),
            Origin::Correlation(other) => keys_of(&set.correlations[*other].header),
        })
        .collect();
    for (alias, fields) in &correlation.aliases {
        if !used.contains(alias) {
            odd.push(format!("nothing uses the alias {alias}"));
            continue;
        }
        let is_of = |keys: &[Arc<str>], name: &str| keys.iter().any(|key| &**key == name);
        for (rule, keys) in correlation.rules.iter().zip(&keys) {
            if !fields.keys().any(|name| name == rule || is_of(keys, name)) {
                odd.push(format!("the alias {alias} does not say which field of {rule} it stands for"));
            }
        }
        for name in fields.keys() {
            if !correlation.rules.contains(name) && !keys.iter().any(|keys| is_of(keys, name)) {
                odd.push(format!("the alias {alias} tells a field of {name}, which is not among its rules"));
            }
        }
    }
    odd
}

fn plan(set: &mut RuleSet, correlation: Correlation, origins: &[Origin]) -> Result<CorrelationPlan, RuleError> {
    let odd_aliases = odd_aliases(set, &correlation, origins);
    let Correlation { mut header, kind, rules, group_by, aliases, timespan_ms, generate } = correlation;
    let slot_of = |place: usize| {
        let first = origins.iter().position(|origin| *origin == origins[place]).unwrap_or(place);
        let first = u32::try_from(first).unwrap_or(u32::MAX);
        match origins[place] {
            _ if kind.is_about_rules() => first,
            // An event that several rules match is one; windows of several correlations are not.
            Origin::Rule(_) => 0,
            Origin::Correlation(_) => first.saturating_add(1),
        }
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
            let name = named.unwrap_or(name);
            // In the words of the rule's author; a correlation's group key keeps the names it has.
            match origin {
                Origin::Rule(rule) => set.rules[*rule].taxonomy.forth(name),
                Origin::Correlation(_) => vec![name.clone()],
            }
        };
        feeds.push(Feed {
            origin: *origin,
            slot: slots[place],
            group_fields: group_by.iter().map(field).collect(),
            value_fields: values.iter().map(field).collect(),
        });
    }
    let mut hash = Digest::new("holdfast sigma correlation resolved 2");
    hash.part(header.reference.semantic_hash.as_bytes());
    for origin in origins {
        let part = match origin {
            Origin::Rule(place) => set.rules[*place].header.reference.semantic_hash,
            Origin::Correlation(place) => set.correlations[*place].header.reference.semantic_hash,
        };
        hash.part(part.as_bytes());
    }
    // What they call the fields is not in the document where a pipeline renames them.
    for feed in &feeds {
        for names in feed.group_fields.iter().chain(&feed.value_fields) {
            hash.part(&(names.len() as u64).to_be_bytes());
            for name in names {
                hash.part(name.as_bytes());
            }
        }
    }
    header.reference.semantic_hash = SemanticHash::of(hash);
    let (alerts, feeds_others) = (true, false);
    Ok(CorrelationPlan {
        header,
        shape,
        timespan_ms,
        group_by,
        feeds,
        slots,
        alerts,
        feeds_others,
        delay_ms,
        odd_aliases,
    })
}
