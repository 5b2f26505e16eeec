//! Other rules for a running detector, between two of its steps: what means the same goes on with its state.

use super::{Detector, late};
use crate::correlation::Correlator;
use crate::correlation::rows::Name;
use crate::rules::RuleSet;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a reload came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Correlations that go on with their state.
    pub carried: usize,
    /// Group keys of those.
    pub keys: usize,
    /// Correlations that begin without state: they are new or mean something else now.
    pub begun: usize,
    /// Correlations whose state is gone: they are no more, or meant something else.
    pub dropped: usize,
}

impl Detector {
    /// A detector for other rules that goes on beside this one, taking in the same: it knows the streams as this one
    /// does, and has its state of the correlations that both have.
    #[must_use]
    pub fn beside(&self, rules: impl Into<Arc<RuleSet>>) -> Self {
        let mut other = Self::new(rules, self.options.clone());
        other.streams = self.streams.clone();
        other.tuples = None;
        other.swept_ms = self.swept_ms;
        for own in &mut other.correlators {
            let known = self.correlators.iter().find(|known| known.name() == own.name());
            if let Some(known) = known {
                let plan = std::mem::replace(own, known.clone()).plan;
                own.replan(plan);
            }
        }
        other.held = other.correlators.iter().map(Correlator::held).sum();
        other
    }

    /// Goes on with other rules. A correlation of the same id and meaning keeps its state, whatever its title or level.
    pub fn reload(&mut self, rules: impl Into<Arc<RuleSet>>) -> Reloaded {
        self.exchange(rules, None)
    }

    /// As [`Self::reload`]; correlations that are new here go on with the state that one [`Self::beside`] this has.
    pub fn exchange(&mut self, rules: impl Into<Arc<RuleSet>>, beside: Option<&Self>) -> Reloaded {
        let rules: Arc<RuleSet> = rules.into();
        // Correlations know streams by their numbers.
        let offered: BTreeMap<Name, &Correlator> = beside
            .filter(|other| other.streams.numbers_as(&self.streams))
            .into_iter()
            .flat_map(|other| &other.correlators)
            .map(|correlator| (correlator.name(), correlator))
            .collect();
        let mut reloaded = Reloaded::default();
        let before = std::mem::take(&mut self.correlators);
        let ids: Vec<Arc<str>> = before.iter().map(|known| known.plan.header.reference.id.clone()).collect();
        let mut known: BTreeMap<Name, Correlator> =
            before.into_iter().map(|correlator| (correlator.name(), correlator)).collect();
        let mut places: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for (place, plan) in rules.correlations.iter().enumerate() {
            let fresh = Correlator::new(plan.clone(), self.options.tenant.clone(), self.options.keys_max);
            let take_over = || {
                let mut other = (*offered.get(&fresh.name())?).clone();
                other.begin_storing();
                Some(other)
            };
            self.correlators.push(match known.remove(&fresh.name()).or_else(take_over) {
                Some(mut old) => {
                    reloaded.carried += 1;
                    reloaded.keys += old.key_count();
                    places.insert(plan.header.reference.id.clone(), place);
                    old.replan(plan.clone());
                    old
                }
                None => {
                    reloaded.begun += 1;
                    fresh
                }
            });
        }
        reloaded.dropped = known.len();
        self.foreign_rows.extend(known.into_values().flat_map(Correlator::into_stored_rows));
        // Spans to be read again go on with their correlations.
        let lanes = std::mem::take(&mut self.lanes).into_iter();
        let moved = lanes
            .filter_map(|((place, group, from_ms), lane)| Some(((*places.get(&ids[place])?, group, from_ms), lane)));
        self.lanes = moved.collect();
        self.held = self.correlators.iter().map(Correlator::held).sum();
        self.feeds = rules.feeds();
        self.reaches = late::reaches(&rules);
        self.worker = rules.program.worker();
        self.rules = rules;
        reloaded
    }
}
