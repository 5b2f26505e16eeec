//! What a pipeline made of a rule: as much a part of what the rule means as its own words.

use super::modifier::Reading;
use super::pipeline::Filling;
use crate::id::{Digest, SemanticHash};
use std::collections::BTreeSet;

/// Everything that a pipeline changed while a rule was read; where it changed nothing, nothing is in it.
#[derive(Debug, Default)]
pub(super) struct Effect(BTreeSet<SemanticHash>);

impl Effect {
    fn note<'a>(&mut self, kind: &str, of: &str, parts: impl IntoIterator<Item = &'a str>) {
        let mut hash = Digest::new("holdfast sigma pipeline effect 1");
        hash.part(kind.as_bytes()).part(of.as_bytes());
        for part in parts {
            hash.part(part.as_bytes());
        }
        self.0.insert(SemanticHash::of(hash));
    }

    /// A condition was added.
    pub(super) fn added(&mut self, condition: &str) {
        self.note("added", condition, []);
    }

    /// Adds it to what a document means.
    pub(super) fn mix(&self, hash: &mut Digest) {
        for part in &self.0 {
            hash.part(part.as_bytes());
        }
    }
}

impl<'a> Reading<'a> {
    /// What events call a rule's field.
    pub(super) fn forth(&mut self, field: &str) -> Vec<String> {
        let names = self.pipeline.forth(&self.source, field);
        if names != [field] {
            self.effect.note("named", field, names.iter().map(String::as_str));
        }
        names
    }

    /// Whether a field is left out.
    pub(super) fn drops(&mut self, field: &str) -> bool {
        let drops = self.pipeline.drops(&self.source, field);
        if drops {
            self.effect.note("dropped", field, []);
        }
        drops
    }

    /// What stands for a placeholder.
    pub(super) fn fill(&mut self, placeholder: &str) -> Filling<'a> {
        let pipeline = self.pipeline;
        let filling = pipeline.fill(&self.source, placeholder);
        match filling {
            Filling::Values(values) => self.effect.note("filled", placeholder, values.iter().map(String::as_str)),
            Filling::Anything => self.effect.note("anything", placeholder, []),
            Filling::Nothing => {}
        }
        filling
    }
}
