//! What of an event travels between regions: which rule matched it, when it happened, whom it concerns, and the fields
//! that correlations reckon with. The event itself stays where it is.

use crate::alert::entity_fields;
use crate::engine::text_of;
use crate::event::Event;
use crate::id::EventId;
use crate::rules::TENANT_FIELD;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the audit log calls it that a tuple was sent; such an entry is not sent in its turn.
pub const SENT: &str = "tuple.sent";
/// The field that says which rule matched.
pub(crate) const RULE_FIELD: &str = "unmapped.matched_rule";

/// An event that a rule matched, as much of it as travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuple {
    /// The rule's id.
    pub rule: Arc<str>,
    /// The event's id, where it is and wherever this is read.
    pub event: EventId,
    /// Its place in the stream it came in, for the order of events of one moment.
    pub sequence: u64,
    /// When it happened, as far as its clock is believed.
    pub time_ms: u64,
    /// Its OCSF class.
    pub class_uid: u32,
    /// Its OCSF activity.
    pub activity_id: u32,
    /// Whom it concerns, and what is grouped by, counted or reckoned with.
    pub fields: BTreeMap<String, String>,
}

impl Tuple {
    /// What travels of an event; `text` is what an alert may say of it.
    pub(crate) fn of(rule: &Arc<str>, event: &Event, carries: &BTreeSet<String>, text: &str) -> Self {
        let field = |name: &str| Some((name.to_owned(), text_of(&event.fields, name)?));
        let mut fields: BTreeMap<String, String> = carries.iter().filter_map(|name| field(name)).collect();
        fields.extend(entity_fields().chain([TENANT_FIELD]).filter_map(field));
        if !text.is_empty() {
            fields.entry("message".to_owned()).or_insert_with(|| text.to_owned());
        }
        Self {
            rule: Arc::clone(rule),
            event: event.id,
            sequence: event.position.as_ref().map_or(0, |position| position.sequence),
            time_ms: event.time_ms,
            class_uid: event.class_uid,
            activity_id: event.activity_id,
            fields,
        }
    }
}
