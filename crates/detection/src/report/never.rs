//! Rules that can never match: no answers to their questions lead to yes, or only answers that contradict each other.
//!
//! It takes every field to have one value. It says a rule can match whenever it is not sure.

use crate::program::flat::{NO, Steps, YES};
use crate::program::predicate::Predicates;
use crate::sigma::Rule;
use crate::sigma::view::FieldId;
use std::collections::{BTreeMap, BTreeSet};

/// Most steps followed before a rule is taken to be able to match.
const STEPS_MAX: usize = 20_000;
/// Most steps after one another, each a call within the one before.
const DEPTH_MAX: usize = 1_000;

/// Whether a rule can match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Can,
    /// Its conditions contradict each other.
    Contradiction,
}

/// Whether a rule can match events that have none of the `absent` fields.
pub(super) fn verdict(rule: &Rule, absent: &BTreeSet<FieldId>) -> Verdict {
    let mut predicates = Predicates::default();
    let mut steps = Steps::default();
    let entry = steps.flatten(&rule.conditions, &mut predicates);
    let mut search =
        Search { steps: &steps, predicates: &predicates, absent, answers: BTreeMap::new(), left: STEPS_MAX };
    if search.reaches(entry, 0) { Verdict::Can } else { Verdict::Contradiction }
}

struct Search<'a> {
    steps: &'a Steps,
    predicates: &'a Predicates,
    absent: &'a BTreeSet<FieldId>,
    answers: BTreeMap<u32, bool>,
    left: usize,
}

impl Search<'_> {
    /// Whether answers that do not contradict each other lead from here to yes.
    fn reaches(&mut self, at: u32, depth: usize) -> bool {
        if at == YES || at == NO {
            return at == YES;
        }
        if self.left == 0 || depth >= DEPTH_MAX {
            return true;
        }
        self.left -= 1;
        let step = self.steps.get(at);
        if let Some(answer) = self.answers.get(&step.predicate) {
            return self.reaches(if *answer { step.yes } else { step.no }, depth + 1);
        }
        for (answer, next) in [(true, step.yes), (false, step.no)] {
            if next == NO {
                continue;
            }
            self.answers.insert(step.predicate, answer);
            if self.is_consistent(step.predicate) && self.reaches(next, depth + 1) {
                return true;
            }
            self.answers.remove(&step.predicate);
        }
        false
    }

    /// Whether one value of the field can give all answers about it.
    fn is_consistent(&self, newest: u32) -> bool {
        let field = self.predicates.get(newest).field();
        if self.absent.contains(&field) && self.answers[&newest] != self.predicates.get(newest).needs_absence() {
            return false;
        }
        if field == FieldId::ANY {
            return true;
        }
        let about: Vec<_> = self
            .answers
            .iter()
            .map(|(place, answer)| (self.predicates.get(*place), *answer))
            .filter(|(predicate, _)| predicate.field() == field)
            .collect();
        let is_absent = about.iter().any(|(predicate, answer)| *answer && predicate.needs_absence());
        let has_value = about.iter().any(|(predicate, answer)| *answer && predicate.only().is_some());
        if is_absent && has_value {
            return false;
        }
        let Some(texts) = about.iter().find_map(|(predicate, answer)| predicate.only().filter(|_| *answer)) else {
            return true;
        };
        texts
            .iter()
            .any(|text| about.iter().all(|(predicate, answer)| predicate.takes(text).is_none_or(|t| t == *answer)))
    }
}
