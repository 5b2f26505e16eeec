//! Rule sets put together: one group of files after another, each for the platform, for tenants or for one of them.
//!
//! A group's names are its own. A tenant's rules may name those it sees of others, and never change them: where its
//! filter narrows such a rule, the tenant gets a copy and all others keep theirs.

use super::bitmap::Bitmap;
use super::tenancy::TENANT_FIELD;
use super::{COST_BYTES_MAX, FILTERS_OF_RULE_MAX, Origin, RULES_MAX, RuleSet, Tenancy, error_at, keys_of, resolve};
use crate::id::{Digest, SemanticHash};
use crate::program::Program;
use crate::sigma::budget::{Budget, FILE_COST_BYTES_MAX, PART_COST_BYTES};
use crate::sigma::matcher::Selection;
use crate::sigma::{
    Audience, Correlation, Document, Filter, FilterTarget, Header, Pipeline, Reason, RuleError, Taxonomy, parse_with,
};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Names and ids, and what they mean; nothing yet for a correlation that is not tied.
pub(super) type Taken = BTreeMap<Arc<str>, Option<Origin>>;

/// Reads rule files given as name and text.
pub fn load_texts(files: Vec<(String, String)>) -> (RuleSet, Vec<RuleError>) {
    load_texts_with(files, &Pipeline::default())
}

/// Reads rule files given as name and text, through a pipeline.
pub fn load_texts_with(files: Vec<(String, String)>, pipeline: &Pipeline) -> (RuleSet, Vec<RuleError>) {
    let mut builder = Builder::default();
    builder.add(files, &Arc::new(pipeline.clone()), RULES_MAX);
    builder.finish(Tenancy::default())
}

/// What came of a group of files.
#[derive(Debug)]
pub(crate) struct Group {
    taken: Taken,
    pub(crate) rules: Range<usize>,
    correlations: Range<usize>,
}

/// A rule set in the making.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    set: RuleSet,
    pub(crate) errors: Vec<RuleError>,
    count: usize,
    cost_bytes: usize,
}

/// What a group's documents are, besides rules.
#[derive(Default)]
struct Others {
    correlations: Vec<Correlation>,
    filters: Vec<Filter>,
}

impl Builder {
    /// Adds a group of files for the platform.
    pub(crate) fn add(&mut self, files: Vec<(String, String)>, pipeline: &Arc<Pipeline>, rules_max: usize) -> Group {
        let (rules, correlations) = (self.set.rules.len(), self.set.correlations.len());
        let mut taken = Taken::new();
        let others = self.read(files, pipeline, &mut taken, rules_max);
        for filter in &others.filters {
            let places = self.targets(filter, &taken, rules..self.set.rules.len());
            self.narrow(filter, pipeline, places);
        }
        self.set.rule_alerts.resize(self.set.rules.len(), true);
        resolve(&mut self.set, others.correlations, &mut taken, &mut self.errors);
        Group { taken, rules: rules..self.set.rules.len(), correlations: correlations..self.set.correlations.len() }
    }

    /// Makes a group one for tenants: each tenant's events are counted apart from others'.
    pub(crate) fn give(&mut self, group: &Group, audience: &Audience, owner: &str) {
        for rule in &mut self.set.rules[group.rules.clone()] {
            rule.header.audience = audience.clone();
        }
        for plan in &mut self.set.correlations[group.correlations.clone()] {
            let plan = Arc::make_mut(plan);
            if std::mem::take(&mut plan.header.across_regions) {
                let what = "across_regions in rules for tenants: it stays in each region".to_owned();
                self.errors.push(error_at(&plan.header, Reason::Unsupported { what }));
            }
            plan.header.audience = audience.clone();
            plan.group_by.insert(0, TENANT_FIELD.to_owned());
            plan.feeds.iter_mut().for_each(|feed| feed.group_fields.insert(0, vec![TENANT_FIELD.to_owned()]));
            let mut hash = Digest::new("holdfast sigma correlation for tenants 1");
            hash.part(plan.header.reference.semantic_hash.as_bytes()).part(owner.as_bytes());
            plan.header.reference.semantic_hash = SemanticHash::of(hash);
        }
    }

    /// Lets a group count what it would raise, without alerts.
    pub(crate) fn shadow(&mut self, group: &Group) {
        self.set.rules[group.rules.clone()].iter_mut().for_each(|rule| rule.header.shadow = true);
        let plans = &mut self.set.correlations[group.correlations.clone()];
        plans.iter_mut().for_each(|plan| Arc::make_mut(plan).header.shadow = true);
    }

    /// Adds a tenant's own files; `sees` are the groups it sees, and `view` the rules it has of them, which becomes
    /// all that it has.
    pub(crate) fn add_for_tenant(
        &mut self,
        (files, pipeline): (Vec<(String, String)>, &Arc<Pipeline>),
        tenant: &str,
        sees: &[&Group],
        view: &mut Bitmap,
        rules_max: usize,
    ) {
        let (rules, correlations) = (self.set.rules.len(), self.set.correlations.len());
        let mut taken: Taken = sees.iter().flat_map(|group| group.taken.clone()).collect();
        let others = self.read(files, pipeline, &mut taken, rules_max);
        let own = rules..self.set.rules.len();
        self.set.rule_alerts.resize(self.set.rules.len(), true);
        let mut copies: BTreeMap<usize, usize> = BTreeMap::new();
        for filter in &others.filters {
            let seen: Vec<usize> = (0..rules).filter(|place| view.has(*place)).collect();
            let mut narrowed = Vec::new();
            for place in self.targets(filter, &taken, seen.into_iter().chain(own.clone())) {
                if own.contains(&place) {
                    narrowed.push(place);
                    continue;
                }
                // A rule that it does without stays away.
                if !view.has(place) {
                    continue;
                }
                if !copies.contains_key(&place) {
                    if own.len() + copies.len() >= rules_max {
                        self.errors.push(error_at(&filter.header, Reason::OverQuota { max: rules_max }));
                        break;
                    }
                    copies.insert(place, self.set.rules.len());
                    self.set.rules.push(self.set.rules[place].clone());
                    self.set.rule_alerts.push(self.set.rule_alerts[place]);
                }
                narrowed.push(copies[&place]);
            }
            self.narrow(filter, pipeline, narrowed);
        }
        self.replace(&copies, &mut taken, sees, view);
        // What it says of others' rules holds for its own alerts, not for theirs.
        let alerts: Vec<bool> = self.set.rule_alerts[..rules].to_vec();
        let told: Vec<bool> = self.set.correlations.iter().map(|plan| plan.alerts).collect();
        resolve(&mut self.set, others.correlations, &mut taken, &mut self.errors);
        self.set.rule_alerts[..rules].copy_from_slice(&alerts);
        for (plan, told) in self.set.correlations.iter_mut().zip(told).filter(|(plan, told)| plan.alerts != *told) {
            Arc::make_mut(plan).alerts = told;
        }
        own.for_each(|place| view.set(place, true));
        let group = Group {
            taken,
            rules: rules..self.set.rules.len(),
            correlations: correlations..self.set.correlations.len(),
        };
        self.give(&group, &Audience::Tenant(tenant.into()), tenant);
    }

    /// Lets copies stand where a tenant saw the rules they were made of, also in the correlations about those.
    fn replace(&mut self, copies: &BTreeMap<usize, usize>, taken: &mut Taken, sees: &[&Group], view: &mut Bitmap) {
        for (place, copy) in copies {
            view.set(*place, false);
            view.set(*copy, true);
        }
        let copy_of = |origin| match origin {
            Origin::Rule(place) => copies.get(&place).map(|copy| Origin::Rule(*copy)),
            Origin::Correlation(_) => None,
        };
        for origin in taken.values_mut().flatten() {
            *origin = copy_of(*origin).unwrap_or(*origin);
        }
        for place in sees.iter().flat_map(|group| group.correlations.clone()) {
            let feeds = &self.set.correlations[place].feeds;
            let more: Vec<_> =
                feeds.iter().filter_map(|f| Some(super::Feed { origin: copy_of(f.origin)?, ..f.clone() })).collect();
            if !more.is_empty() {
                Arc::make_mut(&mut self.set.correlations[place]).feeds.extend(more);
            }
        }
    }

    /// The rule set, and what was wrong with its files.
    pub(crate) fn finish(mut self, tenancy: Tenancy) -> (RuleSet, Vec<RuleError>) {
        self.set.program = Arc::new(Program::compile(&self.set.rules, &self.set.names));
        self.set.tenancy = tenancy;
        (self.set, self.errors)
    }

    /// Takes a rule out of what is seen of groups, by its id or name; whether there is such a rule or correlation.
    pub(crate) fn disable(&self, id: &str, sees: &[&Group], view: &mut Bitmap) -> bool {
        let origin = sees.iter().find_map(|group| *group.taken.get(id)?);
        if let Some(Origin::Rule(place)) = origin {
            view.set(place, false);
        }
        origin.is_some()
    }

    /// Adds a filter's condition to rules, in the words of each.
    fn narrow(&mut self, filter: &Filter, pipeline: &Arc<Pipeline>, places: Vec<usize>) {
        let own = Taxonomy { source: filter.source.clone(), pipeline: Arc::clone(pipeline) };
        let mut read: Vec<(Taxonomy, Arc<Selection>)> = Vec::new();
        let mut narrowed = 0;
        let mut places: Vec<Option<usize>> = places.into_iter().map(Some).collect();
        if places.is_empty() {
            // It is read all the same: what is wrong with it is told.
            places.push(None);
        }
        for place in places {
            let taxonomy = place.map_or(&own, |place| &self.set.rules[place].taxonomy).clone();
            let known = read.iter().find(|(known, _)| known.is_same(&taxonomy)).map(|(_, known)| Arc::clone(known));
            let mut budget = Budget::new(FILE_COST_BYTES_MAX.min(COST_BYTES_MAX - self.cost_bytes));
            let before = budget.left();
            let condition = match known {
                Some(known) => known,
                None => match filter.condition(&taxonomy, &mut self.set.names, &mut budget) {
                    Ok(condition) => {
                        read.push((taxonomy, Arc::clone(&condition)));
                        condition
                    }
                    Err(error) => {
                        self.errors.push(error);
                        break;
                    }
                },
            };
            self.cost_bytes += before - budget.left();
            let Some(place) = place else { break };
            // Compiled, the condition is there once for each rule.
            let cost_bytes = condition.node.size() * PART_COST_BYTES;
            let is_full = self.set.rules[place].filters() >= FILTERS_OF_RULE_MAX;
            if is_full || self.cost_bytes + cost_bytes > COST_BYTES_MAX {
                self.errors.push(error_at(&filter.header, Reason::TooCostly));
                break;
            }
            self.cost_bytes += cost_bytes;
            self.set.rules[place].narrow(filter, condition);
            narrowed += 1;
        }
        self.set.filters.push((filter.header.clone(), narrowed));
    }

    fn read(
        &mut self,
        files: Vec<(String, String)>,
        pipeline: &Arc<Pipeline>,
        taken: &mut Taken,
        rules_max: usize,
    ) -> Others {
        let mut others = Others::default();
        let mut own = 0;
        for (file, text) in files {
            let (documents, wrong) = parse_with(&file.into(), &text, &mut self.set.names, pipeline);
            self.errors.extend(wrong);
            for document in documents {
                self.count += 1;
                own += 1;
                let header = header_of(&document);
                let keys = keys_of(header);
                let cost_bytes = if let Document::Rule(rule) = &document { rule.cost_bytes } else { 0 };
                let reason = if self.count > RULES_MAX {
                    Some(Reason::TooMany)
                } else if self.cost_bytes + cost_bytes > COST_BYTES_MAX {
                    Some(Reason::TooCostly)
                } else if own > rules_max {
                    Some(Reason::OverQuota { max: rules_max })
                } else {
                    let name = keys.iter().find(|key| taken.contains_key(*key));
                    name.map(|name| Reason::Duplicate { name: name.to_string() })
                };
                if let Some(reason) = reason {
                    self.errors.push(error_at(header, reason));
                    continue;
                }
                self.cost_bytes += cost_bytes;
                let origin = match document {
                    Document::Rule(rule) => {
                        self.set.rules.push(rule);
                        Some(Origin::Rule(self.set.rules.len() - 1))
                    }
                    Document::Correlation(correlation) => {
                        others.correlations.push(correlation);
                        None
                    }
                    Document::Filter(filter) => {
                        others.filters.push(filter);
                        continue;
                    }
                };
                taken.extend(keys.into_iter().map(|key| (key, origin)));
            }
        }
        others
    }

    /// The rules that a filter is for; those that it names and are not there are errors.
    fn targets(&mut self, filter: &Filter, taken: &Taken, every: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut places: Vec<usize> = match &filter.target {
            FilterTarget::Every => every.collect(),
            FilterTarget::Rules(names) => {
                let mut places = Vec::new();
                for name in names {
                    let reason = match taken.get(name.as_str()) {
                        Some(Some(Origin::Rule(place))) => {
                            places.push(*place);
                            continue;
                        }
                        // What a correlation is made of is filtered at its rules.
                        Some(_) => Reason::NotFilterable { name: name.clone() },
                        None => Reason::UnknownRule { name: name.clone() },
                    };
                    self.errors.push(error_at(&filter.header, reason));
                }
                places.sort_unstable();
                places.dedup();
                places
            }
        };
        places.retain(|place| filter.is_for(&self.set.rules[*place]));
        places
    }
}

fn header_of(document: &Document) -> &Header {
    match document {
        Document::Rule(rule) => &rule.header,
        Document::Correlation(correlation) => &correlation.header,
        Document::Filter(filter) => &filter.header,
    }
}
