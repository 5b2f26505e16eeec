//! When two rule sets are the same: in what they mean, or in everything that was compiled.

use super::bitmap::Bitmap;
use super::{Origin, RuleSet, View};
use crate::id::{Digest, SemanticHash};
use crate::sigma::{Audience, Header};

impl RuleSet {
    /// What all its rules mean, whatever their order: two sets of the same fingerprint raise the same alerts, as far
    /// as rules go; quotas, who sees what and in which words are not part of it.
    pub fn fingerprint(&self) -> SemanticHash {
        let mut parts: Vec<(&str, &[u8; 32])> =
            self.headers().map(|header| (&*header.reference.id, header.reference.semantic_hash.as_bytes())).collect();
        parts.sort_unstable();
        let mut hash = Digest::new("holdfast rule set 1");
        for (id, meaning) in parts {
            hash.part(id.as_bytes()).part(meaning);
        }
        SemanticHash::of(hash)
    }

    /// Everything that a detector's effects depend on: where two sets have the same fingerprint and differ here, one
    /// can take the other's place at once, for their rules mean the same.
    pub fn identity(&self) -> SemanticHash {
        let mut hash = Digest::new("holdfast rule set in whole 1");
        hash.part(self.fingerprint().as_bytes());
        for header in self.headers() {
            add_header(&mut hash, header);
        }
        let alerts = self.rule_alerts.iter().copied().chain(self.correlations.iter().map(|plan| plan.alerts));
        hash.part(&alerts.map(u8::from).collect::<Vec<u8>>());
        let views = self.tenancy.named.iter().map(|(name, view)| (&**name, view));
        for (tenant, view) in views.chain(self.tenancy.others.as_ref().map(|view| ("", view))) {
            let View { rules, silent, alerts_max, rules_max: _, shows_text } = view;
            hash.part(b"tenant").part(tenant.as_bytes());
            hash.part(&alerts_max.to_le_bytes()).part(&[u8::from(*shows_text)]);
            hash.part(&places(rules, self.rules.len()));
            silent.iter().for_each(|rule| {
                hash.part(rule.as_bytes());
            });
        }
        SemanticHash::of(hash)
    }

    /// What of this set another does not have: rules and correlations that are new or mean something else, with all
    /// that those are about. So that it can run beside the other without doing the same work twice.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Self {
        let known: std::collections::BTreeSet<(&str, SemanticHash)> = other.headers().map(key_of).collect();
        let is_new = |header: &Header| !known.contains(&key_of(header));
        let mut rules: Vec<bool> = self.rules.iter().map(|rule| is_new(&rule.header)).collect();
        let mut correlations: Vec<bool> = self.correlations.iter().map(|plan| is_new(&plan.header)).collect();
        // Each comes after those it is about.
        for place in (0..correlations.len()).rev() {
            if !correlations[place] {
                continue;
            }
            for feed in &self.correlations[place].feeds {
                match feed.origin {
                    Origin::Rule(rule) => rules[rule] = true,
                    Origin::Correlation(below) => correlations[below] = true,
                }
            }
        }
        self.only(&rules, &correlations)
    }

    fn headers(&self) -> impl Iterator<Item = &Header> {
        let rules = self.rules.iter().map(|rule| &rule.header);
        rules.chain(self.correlations.iter().map(|plan| &plan.header))
    }
}

fn key_of(header: &Header) -> (&str, SemanticHash) {
    (&header.reference.id, header.reference.semantic_hash)
}

/// Where it stands in its file is not what it says.
fn add_header(hash: &mut Digest, header: &Header) {
    let Header {
        reference,
        name,
        severity,
        always_alerts,
        shadow,
        runbook,
        is_experimental,
        across_regions,
        audience,
        file: _,
        line: _,
    } = header;
    hash.part(b"rule").part(reference.id.as_bytes()).part(reference.semantic_hash.as_bytes());
    hash.part(reference.title.as_bytes()).part(severity.name().as_bytes());
    for text in [name, runbook] {
        hash.part(text.as_deref().unwrap_or_default().as_bytes());
    }
    hash.part(&[always_alerts, shadow, is_experimental, across_regions].map(|flag| u8::from(*flag)));
    match audience {
        Audience::Platform => hash.part(b"platform"),
        Audience::Tenants => hash.part(b"tenants"),
        Audience::Tenant(tenant) => hash.part(b"tenant").part(tenant.as_bytes()),
    };
    for tag in &reference.tags {
        hash.part(tag.as_bytes());
    }
}

/// One bit for each of so many places, however long the set is.
fn places(set: &Bitmap, count: usize) -> Vec<u8> {
    let byte = |first: usize| (0..8).fold(0, |byte, bit| byte | u8::from(set.has(first + bit)) << bit);
    (0..count).step_by(8).map(byte).collect()
}
