//! Tuples of events that rules matched, also in other regions: events again, of which no more is known.

use super::{Draft, OWN_PRODUCT, json};
use crate::event::{Event, LogSource, Position, RawEvent, RejectReason};
use crate::tuple::{RULE_FIELD, Tuple};

/// The service of tuples, for rules' `logsource`.
pub(crate) const SERVICE: &str = "tuple";
/// Above it no class and no activity is.
const UID_MAX: u32 = 1_000_000;

/// The event that a tuple was made of: the same id wherever it is read, and the same place among those of one moment.
pub(super) fn event(raw: &RawEvent) -> Result<Event, RejectReason> {
    let bad = |field: &str| RejectReason::BadField { field: field.to_owned() };
    let tuple: Tuple = serde_json::from_value(json::parse(&raw.bytes)?.into()).map_err(|_| bad("tuple"))?;
    for (field, uid) in [("class_uid", tuple.class_uid), ("activity_id", tuple.activity_id)] {
        if uid > UID_MAX {
            return Err(bad(field));
        }
    }
    let mut draft = Draft {
        time_ms: tuple.time_ms,
        class_uid: tuple.class_uid,
        activity_id: tuple.activity_id,
        logsource: LogSource { product: Some(OWN_PRODUCT.into()), category: None, services: vec![SERVICE.into()] },
        ..Draft::default()
    };
    for (field, value) in &tuple.fields {
        draft.set(field, value.as_str());
    }
    draft.set(RULE_FIELD, &*tuple.rule);
    let place = |position: &Position| Position { sequence: tuple.sequence, ..position.clone() };
    let position = raw.position.as_ref().map(place);
    Ok(Event { id: tuple.event, position, ..draft.finish(raw)? })
}
