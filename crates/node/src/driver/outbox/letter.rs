//! Notices that a sink refused for good: kept as records, by sink and key, until somebody has them told again or drops
//! them.
//!
//! A letter does not hold the notice but says of which record it is: the record is there as long as the letter.

use super::queue::{Item, Source};
use crate::core::stored::{put, transact};
use crate::driver::record::note;
use crate::machine::command::{Act, ActChange, Must, Transact};
use crate::machine::control::platform;
use crate::machine::note::Note;
use crate::node::Node;
use api::core::Answer;
use detection::Severity;
use model::RegionId;
use pipeline::sink::Topic;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the stored form that is written.
const VERSION: u32 = 1;
/// Letters of one sink that are kept: the oldest goes for a further one, and is counted as lost.
const LETTERS_MAX: usize = 10_000;
/// Characters of a subject and of a reason.
const TEXT_CHARACTERS_MAX: usize = 300;

/// A notice that was refused for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Letter {
    version: u32,
    pub(crate) sink: String,
    /// The notice's key.
    pub(crate) key: String,
    pub(crate) source: Source,
    /// Whose outbox it is in.
    pub(crate) region: RegionId,
    pub(crate) topic: Topic,
    pub(crate) tenant: String,
    pub(crate) severity: Severity,
    pub(crate) subject: String,
    /// When what it tells came about.
    pub(crate) at_ms: u64,
    pub(crate) refused_ms: u64,
    pub(crate) reason: String,
    /// Somebody wants it told again.
    pub(crate) is_asked_for: bool,
}

impl Letter {
    pub(super) fn of(node: &Node, sink: &str, item: &Item) -> Self {
        let cut = |text: &str| text.chars().take(TEXT_CHARACTERS_MAX).collect();
        let notice = &item.notice;
        Self {
            version: VERSION,
            sink: sink.to_owned(),
            key: notice.key.clone(),
            source: item.source.clone(),
            region: node.region.id,
            topic: notice.topic,
            tenant: cut(&notice.tenant),
            severity: notice.severity,
            subject: cut(&notice.subject),
            at_ms: notice.at_ms,
            refused_ms: node.now_ms(),
            reason: cut(&item.reason),
            is_asked_for: false,
        }
    }

    /// As somebody wants it told again.
    pub(crate) fn asked_for(&self) -> Self {
        Self { is_asked_for: true, ..self.clone() }
    }

    pub(crate) fn record_key(sink: &str, key: &str) -> String {
        format!("{sink}/{key}")
    }

    /// The name of it in the audit log.
    pub(crate) fn resource(sink: &str, key: &str) -> String {
        format!("sinks/{sink}/{key}")
    }

    /// Its writing.
    pub(crate) fn put(&self) -> Answer<Act> {
        let key = Self::record_key(&self.sink, &self.key);
        put(platform::REFUSED, key, Must::Nothing, self, Self::resource(&self.sink, &self.key))
    }

    /// Its end.
    pub(crate) fn delete(sink: &str, key: &str) -> Act {
        Act {
            table: platform::REFUSED,
            key: Self::record_key(sink, key),
            must: Must::Nothing,
            seen: None,
            change: ActChange::Delete,
            resource: Self::resource(sink, key),
            names: BTreeMap::new(),
        }
    }
}

impl Node {
    /// The letters of a sink, or of all.
    pub(crate) fn letters(&self, sink: Option<&str>) -> Answer<Vec<Letter>> {
        let prefix = sink.map(|sink| format!("{sink}/")).unwrap_or_default();
        let found = self.json_records::<Letter>(platform::REFUSED, &prefix)?;
        Ok(found.into_iter().map(|(_, _, letter)| letter).collect())
    }
}

/// What is stored because a notice was refused for good: the letter, and in the audit log the reason.
pub(super) fn refused(node: &Node, sink: &str, item: &Item) -> Answer<Vec<Transact>> {
    let letter = Letter::of(node, sink, item);
    let mut writes = Vec::new();
    let known = node.letters(Some(sink))?;
    if known.len() >= LETTERS_MAX
        && let Some(oldest) = known.iter().min_by_key(|letter| letter.refused_ms)
    {
        tracing::error!(sink, key = oldest.key, "too many notices were refused: the oldest is lost");
        node.metrics.notices.with_label_values(&[sink, "lost"]).inc();
        let why = Some(format!("more than {LETTERS_MAX} were refused"));
        let note = Note { refused: why, ..note(node, "notice.refused", String::new()) };
        writes.push(transact(vec![Letter::delete(sink, &oldest.key)], note));
    }
    let action = if letter.topic == Topic::Page { "call.refused" } else { "notice.refused" };
    let note = Note { refused: Some(letter.reason.clone()), ..note(node, action, String::new()) };
    writes.push(transact(vec![letter.put()?], note));
    Ok(writes)
}
