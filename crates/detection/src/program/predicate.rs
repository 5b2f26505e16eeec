//! Predicates: what conditions ask of one field, each known once however many rules ask it.

use super::literal;
use super::slots::Slots;
use crate::sigma::FieldId;
use crate::sigma::matcher::{Matcher, Part, Test};
use crate::sigma::pattern::{Pattern, Token};
use aho_corasick::{AhoCorasick, AhoCorasickKind};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// From how many literals on one automaton looks for all of them.
const AUTOMATON_LITERALS_MIN: usize = 6;

/// A question about one field, true or false of an event.
#[derive(Clone, Debug)]
pub(crate) struct Predicate {
    field: FieldId,
    /// Whether any of its tests looks at folded text.
    folds: bool,
    /// Whether any looks at the text as it is.
    reads: bool,
    other: Option<FieldId>,
    test: Question,
}

#[derive(Clone, Debug)]
enum Question {
    Null,
    Exists(bool),
    /// Another field of the same event.
    Reference(FieldId, Part, bool),
    /// Any value takes any of these.
    Any(Box<Choices>),
}

/// Matchers of which one is enough, sorted by how they are looked for.
#[derive(Clone, Debug, Default)]
struct Choices {
    exact: Vec<Box<str>>,
    exact_many: FxHashSet<Box<str>>,
    starts: Vec<Box<str>>,
    ends: Vec<Box<str>>,
    contains: Vec<Box<str>>,
    contains_many: Option<Arc<AhoCorasick>>,
    /// A pattern, and a literal without which it does not match.
    globs: Vec<(Box<str>, Vec<Token>)>,
    others: Vec<Matcher>,
}

/// All predicates of a program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Predicates {
    all: Vec<Predicate>,
    known: FxHashMap<(FieldId, String), u32>,
}

impl Predicates {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Forgets how they were found; none is added after.
    pub(crate) fn seal(&mut self) {
        self.known = FxHashMap::default();
        self.all.shrink_to_fit();
    }

    pub(crate) fn get(&self, place: u32) -> &Predicate {
        &self.all[place as usize]
    }

    /// The predicates that make up a test of which one matcher is enough: usually one.
    pub(crate) fn intern(&mut self, test: &Test) -> Vec<u32> {
        let (alone, together): (Vec<&Matcher>, Vec<&Matcher>) = test.matchers.iter().partition(|matcher| {
            matches!(matcher, Matcher::Null | Matcher::Exists(_) | Matcher::FieldReference { .. })
        });
        let mut places: Vec<u32> = Vec::new();
        for matcher in alone {
            let question = match matcher {
                Matcher::Null => Question::Null,
                Matcher::Exists(wanted) => Question::Exists(*wanted),
                Matcher::FieldReference { other, part, cased } => Question::Reference(*other, *part, *cased),
                _ => continue,
            };
            places.push(self.place(test.field, &[matcher], || question));
        }
        if !together.is_empty() {
            places.push(self.place(test.field, &together, || Question::Any(Box::new(Choices::new(&together)))));
        }
        places
    }

    fn place(&mut self, field: FieldId, matchers: &[&Matcher], question: impl FnOnce() -> Question) -> u32 {
        let mut texts: Vec<String> = matchers.iter().map(|matcher| format!("{matcher:?}")).collect();
        texts.sort_unstable();
        texts.dedup();
        let key = (field, texts.join("\n"));
        if let Some(place) = self.known.get(&key) {
            return *place;
        }
        let place = u32::try_from(self.all.len()).expect("rule files are bounded, so are their predicates");
        let other = matchers
            .iter()
            .find_map(|matcher| if let Matcher::FieldReference { other, .. } = matcher { Some(*other) } else { None });
        let folds = matchers.iter().any(|matcher| matcher.is_folded());
        let reads = matchers.iter().any(|matcher| !matcher.is_folded());
        self.all.push(Predicate { field, folds, reads, other, test: question() });
        self.known.insert(key, place);
        place
    }
}

impl Choices {
    fn new(matchers: &[&Matcher]) -> Self {
        let mut choices = Self::default();
        for matcher in matchers {
            match matcher {
                Matcher::Folded(Pattern::Exact(text)) => choices.exact.push(text.as_str().into()),
                Matcher::Folded(Pattern::StartsWith(text)) => choices.starts.push(text.as_str().into()),
                Matcher::Folded(Pattern::EndsWith(text)) => choices.ends.push(text.as_str().into()),
                Matcher::Folded(Pattern::Contains(text)) => choices.contains.push(text.as_str().into()),
                Matcher::Folded(Pattern::Glob(tokens)) => {
                    let literal = literal::of_glob(tokens).unwrap_or_default();
                    choices.globs.push((literal.into(), tokens.clone()));
                }
                other => choices.others.push((*other).clone()),
            }
        }
        if choices.exact.len() >= AUTOMATON_LITERALS_MIN {
            choices.exact_many = std::mem::take(&mut choices.exact).into_iter().collect();
        }
        if choices.contains.len() >= AUTOMATON_LITERALS_MIN {
            let literals = choices.contains.iter().map(|literal| literal.as_bytes());
            let automaton = AhoCorasick::builder().kind(Some(AhoCorasickKind::ContiguousNFA)).build(literals);
            if let Ok(automaton) = automaton {
                choices.contains_many = Some(Arc::new(automaton));
                choices.contains.clear();
            }
        }
        choices
    }

    fn take(&self, text: &str, folded: &str) -> bool {
        self.exact.iter().any(|exact| **exact == *folded)
            || !self.exact_many.is_empty() && self.exact_many.contains(folded)
            || self.ends.iter().any(|end| folded.ends_with(&**end))
            || self.starts.iter().any(|start| folded.starts_with(&**start))
            || self.contains.iter().any(|inner| memchr::memmem::find(folded.as_bytes(), inner.as_bytes()).is_some())
            || self.contains_many.as_ref().is_some_and(|automaton| automaton.is_match(folded))
            || self
                .globs
                .iter()
                .any(|(literal, tokens)| folded.contains(&**literal) && crate::sigma::pattern::glob(tokens, folded))
            || self.others.iter().any(|matcher| matcher.takes(text, folded))
    }
}

impl Predicate {
    /// Asks it of an event.
    pub(crate) fn holds(&self, slots: &mut Slots) -> bool {
        match &self.test {
            Question::Null => slots.is_null(self.field),
            Question::Exists(wanted) => slots.is_present(self.field) == *wanted,
            Question::Reference(other, part, cased) => {
                for field in [self.field, *other] {
                    if *cased { slots.ready(field) } else { slots.ready_folded(field) }
                }
                slots.texts(self.field).any(|(text, folded)| {
                    slots.texts(*other).any(|(other_text, other_folded)| {
                        if *cased { part.holds(text, other_text) } else { part.holds(folded, other_folded) }
                    })
                })
            }
            Question::Any(choices) => {
                if !slots.is_present(self.field) {
                    return false;
                }
                if self.folds {
                    slots.ready_folded(self.field);
                }
                if self.reads {
                    slots.ready(self.field);
                }
                slots.texts(self.field).any(|(text, folded)| choices.take(text, folded))
            }
        }
    }

    /// The field it asks.
    pub(crate) fn field(&self) -> FieldId {
        self.field
    }

    /// The only texts, folded, that it takes; nothing where it takes others too.
    pub(crate) fn only(&self) -> Option<Vec<&str>> {
        let Question::Any(choices) = &self.test else { return None };
        let Choices { starts, ends, contains, contains_many, globs, others, .. } = choices.as_ref();
        let is_exact = starts.is_empty()
            && ends.is_empty()
            && contains.is_empty()
            && contains_many.is_none()
            && globs.is_empty()
            && others.is_empty();
        is_exact.then(|| choices.exact.iter().chain(&choices.exact_many).map(AsRef::as_ref).collect())
    }

    /// Whether it takes a folded text; nothing where that depends on more than the folded text.
    pub(crate) fn takes(&self, folded: &str) -> Option<bool> {
        match &self.test {
            Question::Null => Some(false),
            Question::Exists(wanted) => Some(*wanted),
            Question::Reference(..) => None,
            Question::Any(choices) => match choices.take("", folded) {
                true if choices.others.is_empty() => Some(true),
                answer => choices.others.is_empty().then_some(answer),
            },
        }
    }

    /// Whether it holds only of events in which the field has no value.
    pub(crate) fn needs_absence(&self) -> bool {
        matches!(self.test, Question::Null | Question::Exists(false))
    }

    /// About how much it costs to ask, to ask the cheap first.
    pub(crate) fn cost(&self) -> u32 {
        let fields = if self.field == FieldId::ANY || self.other == Some(FieldId::ANY) { 40 } else { 1 };
        fields
            * match &self.test {
                Question::Null | Question::Exists(_) => 1,
                Question::Reference(..) => 6,
                Question::Any(choices) => {
                    let lists = choices.exact.len() + choices.ends.len() + choices.starts.len();
                    let searches = choices.contains.len() * 4 + choices.globs.len() * 8;
                    let automata = if choices.contains_many.is_some() { 24 } else { 0 };
                    let others = choices.others.len() * 30;
                    2 + u32::try_from(lists + searches + automata + others).unwrap_or(u32::MAX / 64)
                }
            }
    }
}
