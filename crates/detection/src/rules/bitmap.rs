//! A set of places, one bit each.

/// The set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bitmap(Vec<u64>);

impl Bitmap {
    /// Whether a place is in it.
    pub(crate) fn has(&self, place: usize) -> bool {
        self.0.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    /// Puts a place in, or takes it out.
    pub(crate) fn set(&mut self, place: usize, is_in: bool) {
        if self.0.len() <= place / 64 {
            self.0.resize(place / 64 + 1, 0);
        }
        let word = &mut self.0[place / 64];
        *word = if is_in { *word | 1 << (place % 64) } else { *word & !(1 << (place % 64)) };
    }

    /// How many places are in it.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The set of those places that are marked, each under the number of marked places before it.
    pub(crate) fn only(&self, marks: &[bool]) -> Self {
        let mut part = Self::default();
        for (new, (place, _)) in marks.iter().enumerate().filter(|(_, mark)| **mark).enumerate() {
            part.set(new, self.has(place));
        }
        part
    }
}
