//! The ways of records through a plan, and the streams that they are where several lead to one sink.
//!
//! A way has the same name as long as the components on it have theirs: what is read again after a restart comes by
//! the same.

use crate::record::Record;
use detection::Position;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an output of a step adds to a way.
#[derive(Clone, Copy)]
pub(super) struct Mark(u64);

impl Mark {
    /// Of a step's name and its output's.
    pub(super) fn new(step: &str, output: &str) -> Self {
        let hash = blake3::hash(format!("{step}.{output}").as_bytes());
        Self(u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes")))
    }
}

/// The outputs that a record has come through, in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way(u64);

impl Way {
    pub(super) const BEGIN: Self = Self(0);

    pub(super) fn through(self, Mark(mark): Mark) -> Self {
        // Odd, so that no way is lost; turned first, so that the order counts.
        Self((self.0.rotate_left(23) ^ mark).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

/// Streams by the ways that they come.
#[derive(Default)]
pub(super) struct Streams(BTreeMap<(Way, Arc<str>), Arc<str>>);

impl Streams {
    /// The record, its place in the stream of its way.
    pub(super) fn by(&mut self, way: Way, mut record: Record) -> Record {
        if let Some(Position { stream, .. }) = &mut record.position {
            let own = self.0.entry((way, Arc::clone(stream)));
            let own = own.or_insert_with_key(|(Way(way), stream)| format!("{stream}#{way:016x}").into());
            *stream = Arc::clone(own);
        }
        record
    }
}
