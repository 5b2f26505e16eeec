//! The grammar that all conditions share: `and`, `or`, `not` and parentheses. What stands between them is the caller's.

use super::DEPTH_MAX;
use super::error::Reason;

/// Most bytes of a condition.
const CONDITION_BYTES_MAX: usize = 64 * 1024;
/// Most names of a condition that are told.
const NAMES_MAX: usize = 1_024;

/// What a condition is read into.
pub(super) trait Formula: Sized {
    /// All of them hold.
    fn all(parts: Vec<Self>) -> Self;
    /// One of them holds.
    fn any(parts: Vec<Self>) -> Self;
    /// It does not hold.
    fn not(part: Self) -> Self;
}

/// Reads a condition whose smallest parts `leaf` reads: it takes its words, or says where it is stuck.
pub(super) fn read<F: Formula>(text: &str, leaf: impl FnMut(&mut Words<'_>) -> Result<F, Reason>) -> Result<F, Reason> {
    if text.len() > CONDITION_BYTES_MAX {
        return Err(Reason::TooLong);
    }
    let words = split(text);
    let mut parser = Parser { words: Words { words: &words, place: 0 }, leaf };
    let formula = parser.any(0)?;
    if parser.words.next().is_none() { Ok(formula) } else { Err(parser.words.stuck()) }
}

/// The names in a condition, each once, in their order.
pub(super) fn names(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for word in split(text.get(..CONDITION_BYTES_MAX).unwrap_or(text)) {
        if !is_key(word) && names.len() <= NAMES_MAX && !names.iter().any(|name| name == word) {
            names.push(word.to_owned());
        }
    }
    names
}

/// Whether a word is not a name.
fn is_key(word: &str) -> bool {
    ["and", "or", "not", "of", "(", ")"].iter().any(|key| word.eq_ignore_ascii_case(key))
}

/// The words of a condition, and the next one.
pub(super) struct Words<'a> {
    words: &'a [&'a str],
    place: usize,
}

impl<'a> Words<'a> {
    /// The next word.
    pub(super) fn next(&self) -> Option<&'a str> {
        self.ahead(0)
    }

    /// The word that far behind the next one.
    pub(super) fn ahead(&self, count: usize) -> Option<&'a str> {
        self.words.get(self.place + count).copied()
    }

    /// Goes on by so many words.
    pub(super) fn pass(&mut self, count: usize) {
        self.place += count;
    }

    /// The next word, which is no keyword and no parenthesis.
    pub(super) fn name(&self) -> Result<&'a str, Reason> {
        self.next().filter(|word| !is_key(word)).ok_or_else(|| self.stuck())
    }

    /// What to say where the next word does not fit.
    pub(super) fn stuck(&self) -> Reason {
        Reason::BadCondition { at: self.next().unwrap_or("its end").to_owned() }
    }

    fn take(&mut self, word: &str) -> bool {
        let taken = self.next().is_some_and(|next| next.eq_ignore_ascii_case(word));
        self.place += usize::from(taken);
        taken
    }
}

/// Words and parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let mut rest = word;
        while let Some(place) = rest.find(['(', ')']) {
            if place > 0 {
                words.push(&rest[..place]);
            }
            words.push(&rest[place..=place]);
            rest = &rest[place + 1..];
        }
        if !rest.is_empty() {
            words.push(rest);
        }
    }
    words
}

struct Parser<'a, L> {
    words: Words<'a>,
    leaf: L,
}

impl<F: Formula, L: FnMut(&mut Words<'_>) -> Result<F, Reason>> Parser<'_, L> {
    fn any(&mut self, depth: usize) -> Result<F, Reason> {
        let mut parts = vec![self.all(depth)?];
        while self.words.take("or") {
            parts.push(self.all(depth)?);
        }
        Ok(single_or(parts, F::any))
    }

    fn all(&mut self, depth: usize) -> Result<F, Reason> {
        let mut parts = vec![self.one(depth)?];
        while self.words.take("and") {
            parts.push(self.one(depth)?);
        }
        Ok(single_or(parts, F::all))
    }

    fn one(&mut self, depth: usize) -> Result<F, Reason> {
        if depth > DEPTH_MAX {
            return Err(Reason::TooDeep);
        }
        if self.words.take("not") {
            return Ok(F::not(self.one(depth + 1)?));
        }
        if self.words.take("(") {
            let inner = self.any(depth + 1)?;
            return if self.words.take(")") { Ok(inner) } else { Err(self.words.stuck()) };
        }
        (self.leaf)(&mut self.words)
    }
}

fn single_or<F>(mut parts: Vec<F>, many: impl Fn(Vec<F>) -> F) -> F {
    if parts.len() == 1 { parts.swap_remove(0) } else { many(parts) }
}
