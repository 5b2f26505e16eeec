//! What rules may come to: a small text can ask for large automata and long conditions.

use super::error::Reason;

/// Most that the rules of one file may come to, in about the bytes that they take up.
pub(crate) const FILE_COST_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a part of a condition takes up, beside its text.
pub(crate) const PART_COST_BYTES: usize = 96;

/// What is left for the rules of a file.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
}

impl Budget {
    /// So many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { left: bytes }
    }

    /// What is left, in bytes.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Takes a part's cost.
    ///
    /// # Errors
    /// [`Reason::TooCostly`] where not so much is left; then nothing is.
    pub(crate) fn spend(&mut self, bytes: usize) -> Result<(), Reason> {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(0);
        left.map(|_| ()).ok_or(Reason::TooCostly)
    }
}
