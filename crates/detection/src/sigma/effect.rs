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

    /// Something stands for a placeholder.
    pub(super) fn filled(&mut self, placeholder: &str, by: &Filling<'_>) {
        match by {
            Filling::Values(values) => self.note("filled", placeholder, values.iter().map(String::as_str)),
            Filling::Anything => self.note("anything", placeholder, []),
            Filling::Nothing => {}
        }
    }

    /// Adds it to what a document means.
    pub(super) fn mix(&self, hash: &mut Digest) {
        for part in &self.0 {
            hash.part(part.as_bytes());
        }
    }
}

impl Reading<'_> {
    /// What events call a rule's field.
    pub(super) fn forth(&mut self, field: &str) -> Vec<String> {
        let names = self.taxonomy.forth(field);
        if names != [field] {
            self.effect.note("named", field, names.iter().map(String::as_str));
        }
        names
    }

    /// Whether a field is left out.
    pub(super) fn drops(&mut self, field: &str) -> bool {
        let drops = self.taxonomy.pipeline.drops(&self.taxonomy.source, field);
        if drops {
            self.effect.note("dropped", field, []);
        }
        drops
    }
}
