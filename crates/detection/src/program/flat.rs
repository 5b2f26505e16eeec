//! Flattened conditions: each predicate says which is asked next, up to yes or no.

use super::predicate::Predicates;
use crate::sigma::matcher::{Node, Test};

/// The condition holds.
pub(crate) const YES: u32 = u32::MAX;
/// The condition does not hold.
pub(crate) const NO: u32 = u32::MAX - 1;

/// One predicate, and where to go on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) predicate: u32,
    pub(crate) yes: u32,
    pub(crate) no: u32,
}

/// The steps of all rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps(Vec<Step>);

impl Steps {
    pub(crate) fn get(&self, place: u32) -> Step {
        self.0[place as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn seal(&mut self) {
        self.0.shrink_to_fit();
    }

    /// Adds conditions of which one is enough; the place to begin at.
    pub(crate) fn flatten(&mut self, conditions: &[Node], predicates: &mut Predicates) -> u32 {
        conditions.iter().rev().fold(NO, |no, node| {
            let ready = prepare(node, predicates);
            self.emit(&ready, YES, no)
        })
    }

    fn emit(&mut self, ready: &Ready, yes: u32, no: u32) -> u32 {
        match ready {
            Ready::Ask(predicate, _) => {
                let place = u32::try_from(self.0.len()).expect("rule files are bounded, so are their conditions");
                self.0.push(Step { predicate: *predicate, yes, no });
                place
            }
            Ready::Not(inner) => self.emit(inner, no, yes),
            // From the last to the first: each has to know where the next begins.
            Ready::All(parts, _) => parts.iter().rev().fold(yes, |yes, part| self.emit(part, yes, no)),
            Ready::Any(parts, _) => parts.iter().rev().fold(no, |no, part| self.emit(part, yes, no)),
        }
    }
}

/// A condition over predicates, with the cheap parts first.
enum Ready {
    Ask(u32, u32),
    Not(Box<Ready>),
    All(Vec<Ready>, u32),
    Any(Vec<Ready>, u32),
}

impl Ready {
    fn cost(&self) -> u32 {
        match self {
            Self::Ask(_, cost) | Self::All(_, cost) | Self::Any(_, cost) => *cost,
            Self::Not(inner) => inner.cost(),
        }
    }

    fn all(mut parts: Vec<Self>) -> Self {
        parts.sort_by_key(Self::cost);
        // Most rules fail at their first predicates.
        let cost = parts.iter().map(Self::cost).take(2).fold(0, u32::saturating_add);
        Self::All(parts, cost)
    }

    fn any(mut parts: Vec<Self>) -> Self {
        parts.sort_by_key(Self::cost);
        let cost = parts.iter().map(Self::cost).fold(0, u32::saturating_add);
        Self::Any(parts, cost)
    }
}

fn prepare(node: &Node, predicates: &mut Predicates) -> Ready {
    match node {
        Node::All(nodes) => Ready::all(nodes.iter().map(|node| prepare(node, predicates)).collect()),
        Node::Any(nodes) => Ready::any(nodes.iter().map(|node| prepare(node, predicates)).collect()),
        Node::Not(inner) => Ready::Not(Box::new(prepare(inner, predicates))),
        Node::Selection(selection) => prepare(&selection.node, predicates),
        Node::Field(test) if test.all => {
            let each = test.matchers.iter().map(|matcher| {
                let one = Test { field: test.field, all: false, matchers: vec![matcher.clone()] };
                ask(&one, predicates)
            });
            Ready::all(each.collect())
        }
        Node::Field(test) => ask(test, predicates),
    }
}

fn ask(test: &Test, predicates: &mut Predicates) -> Ready {
    let places = predicates.intern(test);
    Ready::any(places.into_iter().map(|place| Ready::Ask(place, predicates.get(place).cost())).collect())
}
