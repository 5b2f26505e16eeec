//! Shards: a rule set split so that rules which know of each other stay together.
//!
//! Where a rule goes depends only on the rules it is tied to, so that adding others moves nothing. A shard must never
//! hold a correlation without all that it is about.

use super::{Feed, Origin, RuleSet};
use crate::id::Digest;
use crate::program::Program;
use std::sync::Arc;

impl RuleSet {
    /// The rules of shard `number` (from 0) when the set is split into `of` shards; none where there is no such shard.
    ///
    /// Rules and correlations that name each other, directly or through others, go together, to the shard that the
    /// smallest of their ids hashes to.
    #[must_use]
    pub fn shard(&self, number: u32, of: u32) -> Self {
        let homes = self.homes(of.max(1));
        let rules: Vec<bool> = homes[..self.rules.len()].iter().map(|home| *home == number).collect();
        let correlations: Vec<bool> = homes[self.rules.len()..].iter().map(|home| *home == number).collect();
        self.only(&rules, &correlations)
    }

    /// The shard of each rule, then of each correlation.
    fn homes(&self, of: u32) -> Vec<u32> {
        let components = self.components();
        let ids = self.rules.iter().map(|rule| &rule.header.reference.id);
        let ids: Vec<&str> =
            ids.chain(self.correlations.iter().map(|c| &c.header.reference.id)).map(|i| &**i).collect();
        let mut smallest: Vec<Option<&str>> = vec![None; ids.len()];
        for (place, component) in components.iter().enumerate() {
            let known = &mut smallest[*component];
            *known = Some(known.map_or(ids[place], |known| known.min(ids[place])));
        }
        let home = |component: &usize| shard_of(smallest[*component].unwrap_or_default(), of);
        components.iter().map(home).collect()
    }

    /// For each rule, then each correlation, a number that it shares with all it is tied to.
    fn components(&self) -> Vec<usize> {
        let place = |origin: Origin| match origin {
            Origin::Rule(rule) => rule,
            Origin::Correlation(correlation) => self.rules.len() + correlation,
        };
        let mut parents: Vec<usize> = (0..self.rules.len() + self.correlations.len()).collect();
        for (number, correlation) in self.correlations.iter().enumerate() {
            for feed in &correlation.feeds {
                let one = root(&mut parents, place(Origin::Correlation(number)));
                let other = root(&mut parents, place(feed.origin));
                parents[one.max(other)] = one.min(other);
            }
        }
        (0..parents.len()).map(|place| root(&mut parents, place)).collect()
    }

    /// What one tenant's events meet: the rules that it sees, and the correlations about them.
    #[must_use]
    pub fn for_tenant(&self, tenant: &str) -> Self {
        let rules: Vec<bool> = (0..self.rules.len()).map(|place| self.is_for_tenant(place, tenant)).collect();
        let mut correlations: Vec<bool> = Vec::new();
        for plan in &self.correlations {
            let is_fed = plan.feeds.iter().any(|feed| match feed.origin {
                Origin::Rule(rule) => rules[rule],
                Origin::Correlation(before) => correlations[before],
            });
            correlations.push(is_fed && plan.header.audience.owner(&"".into(), &[tenant.to_owned()]).is_some());
        }
        self.only(&rules, &correlations)
    }

    /// The rules and correlations that are marked, and of what correlations are about, what is marked.
    pub(super) fn only(&self, rules: &[bool], correlations: &[bool]) -> Self {
        let new_places = |marks: &[bool]| -> Vec<usize> {
            let before = marks.iter().scan(0, |count, mark| {
                let place = *count;
                *count += usize::from(*mark);
                Some(place)
            });
            before.collect()
        };
        let (new_rules, new_correlations) = (new_places(rules), new_places(correlations));
        let moved = |feed: &Feed| Feed {
            origin: match feed.origin {
                Origin::Rule(rule) => Origin::Rule(new_rules[rule]),
                Origin::Correlation(correlation) => Origin::Correlation(new_correlations[correlation]),
            },
            ..feed.clone()
        };
        let tenancy = self.tenancy.only(rules);
        let is_marked = |feed: &&Feed| match feed.origin {
            Origin::Rule(rule) => rules[rule],
            Origin::Correlation(correlation) => correlations[correlation],
        };
        let (names, filters) = (self.names.clone(), self.filters.clone());
        let mut part = Self { names, tenancy, filters, ..Self::default() };
        for (place, rule) in self.rules.iter().enumerate().filter(|(place, _)| rules[*place]) {
            part.rules.push(rule.clone());
            part.rule_alerts.push(self.rule_alerts[place]);
        }
        for (_, plan) in self.correlations.iter().enumerate().filter(|(place, _)| correlations[*place]) {
            let mut plan = plan.as_ref().clone();
            plan.feeds = plan.feeds.iter().filter(is_marked).map(moved).collect();
            part.correlations.push(Arc::new(plan));
        }
        part.program = Arc::new(Program::compile(&part.rules, &part.names));
        part
    }
}

fn root(parents: &mut [usize], mut place: usize) -> usize {
    while parents[place] != place {
        // Each look halves the way to the root.
        parents[place] = parents[parents[place]];
        place = parents[place];
    }
    place
}

fn shard_of(id: &str, of: u32) -> u32 {
    let mut hash = Digest::new("holdfast rules shard 1");
    hash.part(id.as_bytes());
    let number = u64::from_le_bytes(hash.first_eight());
    u32::try_from(number % u64::from(of)).expect("it is less than a u32")
}
