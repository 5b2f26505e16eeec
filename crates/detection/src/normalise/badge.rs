//! Uses of badges as OCSF. OCSF has no class for doors, so they are base events of product `badge`, service `access`.
//!
//! `user.name` is who carries the badge, `unmapped.badge` its number, `device.name` the door, `device.location.desc`
//! the site: rules that compare where somebody is with where they log in join on `user.name`.

use super::{Draft, OCSF_VERSION, UNKNOWN, class};
use crate::event::{LogSource, RejectReason};
use crate::source::badge::{self, BadgeUse, Direction, Outcome};

/// The product of badge events, for rules' `logsource`.
const PRODUCT: &str = "badge";
const SERVICE: &str = "access";

pub(super) fn draft(bytes: &[u8]) -> Result<Draft, RejectReason> {
    let used = badge::parse(bytes)?;
    let is_denied = used.outcome == Some(Outcome::Denied);
    let mut draft = Draft {
        time_ms: used.time_ms,
        class_uid: class::BASE,
        severity_id: if is_denied { 2 } else { 1 },
        logsource: LogSource { product: Some(PRODUCT.into()), category: None, services: vec![SERVICE.into()] },
        ..Draft::default()
    };
    draft.set("metadata.version", OCSF_VERSION);
    draft.set("metadata.log_name", PRODUCT);
    draft.set("metadata.product.name", PRODUCT);
    draft.text("message", Some(&message(&used)));
    if let Some(outcome) = used.outcome {
        let (id, name) = match outcome {
            Outcome::Granted => (1, "Success"),
            Outcome::Denied => (2, "Failure"),
        };
        draft.set("status_id", id);
        draft.set("status", name);
    }
    draft.text("status_detail", used.reason.as_deref());
    draft.text("user.name", used.person.as_deref());
    draft.text("user.type", used.person_kind.as_deref());
    draft.text("unmapped.badge", used.badge.as_deref());
    draft.text("unmapped.visited", used.host.as_deref());
    draft.device("device.name", used.door.as_deref());
    draft.device("device.location.desc", used.site.as_deref());
    if used.site.is_some() {
        // OCSF has no place without one.
        draft.text("device.location.region", Some(used.region.as_deref().unwrap_or(UNKNOWN)));
    }
    draft.region(used.region.as_deref());
    draft.text("unmapped.direction", used.direction.map(word));
    for (column, value) in &used.other {
        draft.text(&format!("unmapped.{column}"), Some(value));
    }
    Ok(draft)
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::In => "in",
        Direction::Out => "out",
    }
}

/// One line for people.
fn message(used: &BadgeUse) -> String {
    let who = used.person.as_deref().or(used.badge.as_deref()).unwrap_or("somebody");
    let outcome = match used.outcome {
        Some(Outcome::Denied) => "denied",
        _ => "used",
    };
    let place = [used.door.as_deref(), used.site.as_deref(), used.direction.map(word)];
    let place: Vec<&str> = place.into_iter().flatten().collect();
    format!("badge of {who} {outcome}: {}", place.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denied_visitor_is_a_failure_at_a_door_of_a_site() {
        let line = br#"{"time_ms":9,"badge":"00-12","person":"ann","person_kind":"visitor","door":"D4","site":"Berlin",
            "region":"eu","direction":"in","outcome":"denied","reason":"expired","other":{"floor":"3"}}"#;
        let draft = draft(line).unwrap();
        assert_eq!((draft.time_ms, draft.class_uid, draft.severity_id), (9, 0, 2));
        assert_eq!(draft.logsource.product.as_deref(), Some("badge"));
        for (field, value) in [
            ("user.name", "ann"),
            ("unmapped.badge", "00-12"),
            ("device.location.desc", "Berlin"),
            ("status", "Failure"),
            ("unmapped.floor", "3"),
            ("message", "badge of ann denied: D4, Berlin, in"),
        ] {
            assert_eq!(draft.fields.get(field).and_then(|value| value.as_str()), Some(value), "{field}");
        }
    }

    #[test]
    fn nobody_is_no_use_of_a_badge() {
        assert_eq!(draft(br#"{"time_ms":9}"#).unwrap_err(), RejectReason::BadField { field: "badge".into() });
    }
}
