//! What must have come of the doors that were forced. Pure.

use super::receiver::Told;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Events that raise an alert: the rule's threshold.
pub(super) const FORCINGS: usize = 5;

/// What was told of a door, and how that was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Door {
    /// When its events happened that were taken.
    pub(super) taken: BTreeSet<u64>,
    /// And of those nobody knows of, however often they were told.
    pub(super) unknown: BTreeSet<u64>,
}

impl Door {
    /// How many alerts there may be.
    fn expected(&self) -> std::ops::RangeInclusive<usize> {
        let least = usize::from(self.taken.len() >= FORCINGS);
        let most = usize::from(self.taken.len() + self.unknown.len() >= FORCINGS);
        least..=most
    }
}

/// Everything that is wrong, in words.
pub(super) fn judge(doors: &BTreeMap<String, Door>, alerts: &[Value], told: &BTreeMap<String, Told>) -> Vec<String> {
    let mut findings = Vec::new();
    let (mut raised, mut events) = (BTreeMap::<&str, usize>::new(), BTreeMap::<String, String>::new());
    let stored: BTreeSet<String> =
        alerts.iter().map(|alert| format!("alert/{}", alert["id"].as_str().unwrap_or_default())).collect();
    for alert in alerts.iter().filter(|alert| alert["rule"] == "doors_forced") {
        let text = |name: &str| alert[name].as_str().unwrap_or_default();
        let (id, door) = (text("id"), alert["group"]["door"].as_str().unwrap_or_default());
        *raised.entry(door).or_default() += 1;
        if alert["incident"].as_str().is_none() {
            findings.push(format!("alert {id} is under no incident"));
        }
        match (told.get(&format!("alert/{id}")), doors.get(door)) {
            (None, _) => findings.push(format!("alert {id} was told to nobody")),
            (Some(told), Some(of)) => findings.extend(evidence(id, of, told, &mut events)),
            (Some(_), None) => findings.push(format!("{door}: an alert of a door that nobody forced")),
        }
    }
    for (name, door) in doors {
        let count = raised.get(name.as_str()).copied().unwrap_or(0);
        if !door.expected().contains(&count) {
            let (taken, unknown) = (door.taken.len(), door.unknown.len());
            findings.push(format!("{name}: {count} alerts of {taken} events and {unknown} unknown"));
        }
    }
    for key in told.keys().filter(|key| !stored.contains(*key)) {
        findings.push(format!("{key} was told, and is not stored"));
    }
    findings
}

/// The events under an alert are those of its door, each once, and under no other alert.
fn evidence(id: &str, door: &Door, told: &Told, events: &mut BTreeMap<String, String>) -> Vec<String> {
    let mut findings = Vec::new();
    if told.differs {
        findings.push(format!("alert {id} was told in two ways"));
    }
    let list = told.body["evidences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let times: BTreeSet<u64> = list.iter().filter_map(|event| event["data"]["time"].as_u64()).collect();
    let all: BTreeSet<u64> = door.taken.union(&door.unknown).copied().collect();
    if list.len() != FORCINGS || times.len() != FORCINGS || !times.is_subset(&all) {
        findings.push(format!("alert {id} is about events at {times:?}, {} in all; told were {all:?}", list.len()));
    }
    for event in list {
        let event = event["data"]["uid"].as_str().unwrap_or_default().to_owned();
        if let Some(other) = events.insert(event.clone(), id.to_owned()) {
            findings.push(format!("event {event} is under alert {other} and under {id}"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn doors(taken: u64, unknown: u64) -> BTreeMap<String, Door> {
        let door = Door { taken: (0..taken).collect(), unknown: (taken..taken + unknown).collect() };
        BTreeMap::from([("a".to_owned(), door)])
    }

    fn alert(id: &str) -> Value {
        json!({"rule": "doors_forced", "id": id, "incident": "i", "group": {"door": "a"}})
    }

    fn of_events(events: &[(&str, u64)]) -> Told {
        let list: Vec<Value> = events.iter().map(|(id, time)| json!({"data": {"uid": id, "time": time}})).collect();
        Told { times: 1, differs: false, body: json!({"evidences": list}) }
    }

    fn well_told() -> BTreeMap<String, Told> {
        BTreeMap::from([("alert/1".into(), of_events(&[("p", 0), ("q", 1), ("r", 2), ("s", 3), ("t", 4)]))])
    }

    #[test]
    fn too_many_and_too_few_alerts_are_found_and_unknown_events_leave_room() {
        let none = BTreeMap::new();
        assert_eq!(judge(&doors(5, 0), &[alert("1")], &well_told()), Vec::<String>::new());
        assert_eq!(judge(&doors(5, 0), &[], &none).len(), 1);
        assert_eq!(judge(&doors(4, 0), &[], &none).len(), 0);
        assert_eq!(judge(&doors(4, 1), &[], &none).len(), 0);
        assert_eq!(judge(&doors(4, 1), &[alert("1")], &well_told()).len(), 0);
        let mut twice = well_told();
        twice.insert("alert/2".into(), of_events(&[("u", 0), ("v", 1), ("w", 2), ("x", 3), ("y", 4)]));
        assert_eq!(judge(&doors(5, 0), &[alert("1"), alert("2")], &twice).len(), 1);
        assert!(!judge(&BTreeMap::new(), &[alert("1")], &well_told()).is_empty());
        let unfiled = json!({"rule": "doors_forced", "id": "1", "group": {"door": "a"}});
        assert_eq!(judge(&doors(5, 0), &[unfiled], &well_told()).len(), 1);
    }

    #[test]
    fn an_event_that_counts_twice_is_found() {
        // A door that was forced four times, and one of them is in the log twice.
        let told = [("p", 0), ("q", 1), ("r", 2), ("s", 3), ("again", 3)];
        let findings = judge(&doors(4, 0), &[alert("1")], &BTreeMap::from([("alert/1".into(), of_events(&told))]));
        assert!(findings.iter().any(|finding| finding.starts_with("a: 1 alerts of 4 events")), "{findings:?}");
        // And where the door was forced often enough, the events under the alert say so.
        let findings = judge(&doors(5, 0), &[alert("1")], &BTreeMap::from([("alert/1".into(), of_events(&told))]));
        assert!(findings.iter().any(|finding| finding.contains("is about events at")), "{findings:?}");
    }

    #[test]
    fn what_is_told_twice_is_told_in_one_way_and_of_what_is_stored() {
        assert_eq!(judge(&doors(5, 0), &[alert("1")], &BTreeMap::new()).len(), 1, "told to nobody");
        let mut told = well_told();
        told.get_mut("alert/1").unwrap().times = 9;
        assert_eq!(judge(&doors(5, 0), &[alert("1")], &told).len(), 0);
        told.get_mut("alert/1").unwrap().differs = true;
        assert_eq!(judge(&doors(5, 0), &[alert("1")], &told).len(), 1);
        let mut told = well_told();
        told.insert("alert/9".into(), Told::default());
        assert_eq!(judge(&doors(5, 0), &[alert("1")], &told).len(), 1, "told, and not stored");
    }
}
