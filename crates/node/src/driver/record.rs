//! What the detector found, as records of the platform.

use crate::machine::Defect;
use crate::machine::command::{Act, ActChange, Must, Transact};
use crate::machine::control::platform;
use crate::machine::note::Note;
use crate::node::Node;
use detection::engine::Effect;
use detection::{Alert, Tuple};
use model::{FieldId, Merge, TableId, TenantId, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The JSON of an alert, or of an incident's change.
pub const ONLY: FieldId = FieldId::new(1);
/// The alert that covers the events of one that no longer stands.
pub const SUPERSEDED_BY: FieldId = FieldId::new(2);
/// Satisfying events of a burst that goes on, and when the last of them happened.
pub const COUNT: FieldId = FieldId::new(3);
/// See [`COUNT`].
pub const LAST_MS: FieldId = FieldId::new(4);

/// Bytes of an alert's JSON: what a field can hold, with room to spare.
const ALERT_BYTES_MAX: usize = model::limit::VALUE_BYTES_MAX - 1024;
/// Of an alert that is too large, as many events and entities are kept before more is cut.
const EVENTS_MIN: usize = 16;
/// See [`EVENTS_MIN`].
const ENTITIES_MIN: usize = 64;
/// Characters of one text of an alert that is too large; a text that is cut ends in its hash.
const TEXT_CHARACTERS_MAX: usize = 128;
/// Tags and fields of the group key of an alert that is too large.
const NAMES_MAX: usize = 16;

/// The record that an effect becomes.
pub(crate) fn written(node: &Node, effect: Effect) -> Option<Transact> {
    let (alert, must, set, action) = match effect {
        Effect::Alert(alert) => return raised(node, &alert),
        Effect::Superseded { old, by } => {
            let by = Value::Text(by.to_string());
            (old, Must::Exist, vec![(SUPERSEDED_BY, Merge::Lww, by)], "alert.superseded")
        }
        Effect::Extended { alert, count, last_ms } => {
            let number = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
            let set = vec![(COUNT, Merge::Max, number(count)), (LAST_MS, Merge::Max, number(last_ms))];
            (alert, Must::Exist, set, "alert.extended")
        }
    };
    Some(record(platform::ALERTS, alert.to_string(), must, set, note(node, action, format!("alerts/{alert}"))))
}

/// The record of an alert.
pub(crate) fn raised(node: &Node, alert: &Alert) -> Option<Transact> {
    let note = note(node, "alert.raised", format!("alerts/{}", alert.id));
    let set = vec![(ONLY, Merge::Lww, Value::Text(fitting(alert)?))];
    Some(record(platform::ALERTS, alert.id.to_string(), Must::BeAbsent, set, note))
}

/// The record of a tuple: one, also where all regions see the event, as in the control plane's log.
pub(crate) fn sent(node: &Node, tuple: &Tuple) -> Option<Transact> {
    if node.home().machine.has(Defect::TupleLost) && tuple.event.as_bytes()[0].is_multiple_of(2) {
        return None;
    }
    let json = serde_json::to_string(tuple).ok()?;
    let key = format!("{}-{}", tuple.event, &blake3::hash(tuple.rule.as_bytes()).to_hex()[..16]);
    let note = note(node, detection::tuple::SENT, format!("tuples/{key}"));
    Some(record(platform::TUPLES, key, Must::BeAbsent, vec![(ONLY, Merge::Lww, Value::Text(json))], note))
}

/// A transaction on one record of the platform.
pub(crate) fn record(
    table: TableId,
    key: String,
    must: Must,
    set: Vec<(FieldId, Merge, Value)>,
    note: Note,
) -> Transact {
    let resource = note.resource.clone().unwrap_or_else(|| format!("platform/{}/{key}", table.get()));
    let change = ActChange::Upsert { set, increment: Vec::new() };
    let act = Act { table, key, must, seen: None, change, resource, names: BTreeMap::new() };
    Transact { tenant: TenantId::PLATFORM, schema_version: 1, acts: vec![act], idempotency: None, note, trace: None }
}

pub(crate) fn note(node: &Node, action: &str, resource: String) -> Note {
    Note {
        action: action.into(),
        tenant: Some("platform".into()),
        user: Some("detector".into()),
        resource: Some(resource),
        node: node.place.id,
        ..Note::default()
    }
}

/// The JSON of an alert, never longer than a field can hold. Where it would be, first events in its middle go, for
/// what began it and what completed it stay, then entities, then the ends of long texts; what went is counted.
fn fitting(alert: &Alert) -> Option<String> {
    let mut alert = alert.clone();
    loop {
        let json = match serde_json::to_string(&alert) {
            Ok(json) => json,
            Err(error) => {
                tracing::error!(%error, alert = %alert.id, "an alert has no JSON");
                return None;
            }
        };
        if json.len() <= ALERT_BYTES_MAX {
            return Some(json);
        }
        let (events, entities) = (alert.events.len(), alert.entities.len());
        if events > EVENTS_MIN {
            drop_events(&mut alert, (events / 4).max(EVENTS_MIN / 2));
        } else if entities > ENTITIES_MIN {
            drop_entities(&mut alert, (entities / 2).max(ENTITIES_MIN));
        } else if cut_texts(&mut alert) {
        } else if events > 2 {
            drop_events(&mut alert, 1);
        } else if entities > 0 {
            drop_entities(&mut alert, entities / 2);
        } else if alert.events.iter().any(|event| !event.entities.is_empty()) {
            alert.events.iter_mut().for_each(|event| Arc::make_mut(event).entities.clear());
        } else {
            tracing::error!(alert = %alert.id, "an alert is too large to be stored");
            return None;
        }
    }
}

/// Keeps so many of the first and of the last events.
fn drop_events(alert: &mut Alert, keep: usize) {
    let count = alert.events.len();
    alert.events.drain(keep..count - keep);
    alert.events_left_out += (count - alert.events.len()) as u64;
}

fn drop_entities(alert: &mut Alert, keep: usize) {
    let count = alert.entities.len();
    while alert.entities.len() > keep {
        alert.entities.pop_last();
    }
    alert.entities_left_out += (count - alert.entities.len()) as u64;
}

/// Cuts what is long or many in what an alert says; whether there was something to cut.
fn cut_texts(alert: &mut Alert) -> bool {
    let before = alert.clone();
    let group_key = std::mem::take(&mut alert.group_key).into_iter().take(NAMES_MAX);
    alert.group_key = group_key.map(|(field, value)| (cut(&field), cut(&value))).collect();
    alert.rule.title = cut(&alert.rule.title).into();
    alert.rule.id = cut(&alert.rule.id).into();
    alert.rule.tags.truncate(NAMES_MAX);
    alert.rule.tags.iter_mut().for_each(|tag| *tag = cut(tag).into());
    for event in &mut alert.events {
        let event = Arc::make_mut(event);
        event.text = cut(&event.text);
    }
    *alert != before
}

fn cut(text: &str) -> String {
    if text.chars().nth(TEXT_CHARACTERS_MAX).is_none() {
        return text.to_owned();
    }
    let hash = blake3::hash(text.as_bytes()).to_hex();
    let kept: String = text.chars().take(TEXT_CHARACTERS_MAX - 18).collect();
    format!("{kept}…#{}", &hash.as_str()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use detection::alert::RuleReference;
    use detection::{Entity, EntityKind, EventId, EventSummary, SemanticHash, Severity};
    use proptest::prelude::*;

    fn alert(events: usize, name: &str, value: &str, title: &str) -> Alert {
        let event = |number: usize| EventSummary {
            id: EventId::from_bytes((number as u128).to_be_bytes()),
            time_ms: number as u64,
            class_uid: 0,
            activity_id: 0,
            text: String::new(),
            entities: [Entity { kind: EntityKind::User, name: format!("{number}-{name}").into() }].into(),
        };
        let rule = RuleReference {
            id: "rule".into(),
            title: title.into(),
            semantic_hash: SemanticHash::from_bytes([7; 32]),
            tags: vec![title.into()],
        };
        let key = BTreeMap::from([("user".to_owned(), value.to_owned())]);
        Alert::new("platform".into(), rule, Severity::High, key, (0..events).map(event))
    }

    fn stored(alert: &Alert) -> Alert {
        let json = fitting(alert).unwrap();
        assert!(json.len() <= ALERT_BYTES_MAX);
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn an_alert_of_thousands_of_users_is_stored_and_counts_those_it_leaves_out() {
        let large = alert(1_200, "a-rather-long-name@of-a-user.example.org", "x", "t");
        let stored = stored(&large);
        assert_eq!((stored.id, stored.first_ms, stored.last_ms), (large.id, large.first_ms, large.last_ms));
        assert_eq!(stored.events.len() as u64 + stored.events_left_out, 1_200);
        assert_eq!(stored.entities.len() as u64 + stored.entities_left_out, 1_200);
        assert!(stored.events.len() >= EVENTS_MIN && stored.entities.len() >= ENTITIES_MIN);
    }

    #[test]
    fn nobody_hides_an_alert_behind_a_long_name() {
        let one = stored(&alert(3, "ann", &"a".repeat(200_000), "t"));
        let other = stored(&alert(3, "ann", &("a".repeat(199_999) + "b"), "t"));
        assert_ne!(one.group_key, other.group_key, "what is cut is told apart by its hash");
        assert_eq!(one.events.len(), 3);
    }

    #[test]
    fn an_alert_that_fits_is_left_as_it_is() {
        let small = alert(100, "ann", "x", "t");
        assert_eq!(stored(&small), small);
    }

    proptest! {
        #[test]
        fn every_alert_fits_into_its_field(
            events in 1..2_000_usize,
            name in "[a\u{1}]{0,250}",
            value in (0..300_000_usize, "[b\u{1}\"]"),
            title in (0..300_000_usize, "[c\u{1}]"),
        ) {
            stored(&alert(events, &name, &value.1.repeat(value.0), &title.1.repeat(title.0)));
        }
    }
}
