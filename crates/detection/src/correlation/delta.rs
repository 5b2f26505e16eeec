//! What changed since it was last stored.

use std::collections::BTreeSet;

/// Keys that came and went. What came and went in between was never stored and leaves no trace.
#[derive(Clone, Debug)]
pub(crate) struct Delta<K> {
    fresh: BTreeSet<K>,
    gone: BTreeSet<K>,
}

impl<K> Default for Delta<K> {
    fn default() -> Self {
        Self { fresh: BTreeSet::new(), gone: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Delta<K> {
    /// A key came that was not there.
    pub(crate) fn put(&mut self, key: K) {
        self.fresh.insert(key);
    }

    /// A key that was there went.
    pub(crate) fn drop(&mut self, key: K) {
        if !self.fresh.remove(&key) {
            self.gone.insert(key);
        }
    }

    /// Whether a key came since.
    pub(crate) fn is_fresh(&self, key: &K) -> bool {
        self.fresh.contains(key)
    }

    /// Tells of every change, `true` for what came, and begins anew.
    pub(crate) fn take(&mut self, mut tell: impl FnMut(K, bool)) {
        for key in std::mem::take(&mut self.gone) {
            tell(key, false);
        }
        // A key that went and came again is told last of all as there.
        for key in std::mem::take(&mut self.fresh) {
            tell(key, true);
        }
    }
}
