//! Alerts, acts and three regions that act at once.
#![allow(dead_code, reason = "each test file uses its own part")]

use detection::incident::{Act, Board, Change, Deed, Desk, Effect, Entry, Incident, Input, Options, Refusal};
use detection::{Alert, Entity, EntityKind, EventId, EventSummary, IncidentId, RuleReference, SemanticHash, Severity};
use model::RegionId;
use std::collections::BTreeMap;

pub const HOUR_MS: u64 = 3_600_000;
/// 2026-11-23 21:00:00 UTC.
pub const NOW_MS: u64 = 1_795_467_600_000;

pub fn entity(kind: EntityKind, name: &str) -> Entity {
    Entity { kind, name: name.into() }
}

pub fn tagged(number: u8, time_ms: u64, severity: Severity, entities: &[(EntityKind, &str)], tags: &[&str]) -> Alert {
    let entities = entities.iter().map(|(kind, name)| entity(*kind, name)).collect();
    let event = EventSummary {
        id: EventId::from_bytes([number; 16]),
        time_ms,
        class_uid: 3002,
        activity_id: 1,
        text: "login failed".into(),
        entities,
    };
    let rule = RuleReference {
        id: format!("rule{number}").into(),
        title: format!("Rule {number}").into(),
        semantic_hash: SemanticHash::from_bytes([number; 32]),
        tags: tags.iter().map(|tag| (*tag).into()).collect(),
    };
    Alert::new("platform".into(), rule, severity, BTreeMap::new(), vec![event])
}

pub fn alert(number: u8, time_ms: u64, severity: Severity, entities: &[(EntityKind, &str)]) -> Alert {
    tagged(number, time_ms, severity, entities, &[])
}

pub fn desk(region: u16) -> Desk {
    Desk::new(Options { region: RegionId::new(region), ..Options::default() })
}

/// One step that changes something: what stands after it, and its last change.
pub fn step(desk: &mut Desk, now_ms: u64, input: Input) -> (Incident, Entry) {
    let mut effects = Vec::new();
    desk.step(now_ms, input, &mut effects);
    match effects.pop() {
        Some(Effect::Changed { incident, change }) => (*incident, change),
        other => panic!("{other:?}"),
    }
}

pub fn act(desk: &mut Desk, now_ms: u64, incident: IncidentId, act: Act) -> Result<Entry, Refusal> {
    let mut effects = Vec::new();
    let why = Some("because".into());
    desk.step(now_ms, Input::Act { incident, by: "soc".into(), why, seen: None, act }, &mut effects);
    match effects.pop() {
        Some(Effect::Changed { change, .. }) => Ok(change),
        Some(Effect::Refused { reason, .. }) => Err(reason),
        None => panic!("no answer"),
    }
}

pub fn changes(effects: &[Effect]) -> Vec<Change> {
    let change = |effect: &Effect| match effect {
        Effect::Changed { change, .. } => Some((*change.change).clone()),
        Effect::Refused { .. } => None,
    };
    effects.iter().filter_map(change).collect()
}

pub fn board(changes: impl IntoIterator<Item = Change>) -> Board {
    let mut board = Board::new();
    board.extend(changes);
    board
}

pub fn all(board: &Board) -> Vec<Incident> {
    board.iter().cloned().collect()
}

/// What must hold of every board, whatever was done at once.
pub fn check_whole(board: &Board, changes: &[Change]) {
    let mut homes = BTreeMap::new();
    for incident in board.iter() {
        for alert in incident.alerts.keys() {
            assert_eq!(homes.insert(*alert, incident.id), None, "an alert in two incidents");
            assert_eq!(board.home(*alert), Some(incident.id));
        }
        if let Some(into) = incident.merged_into {
            assert!(incident.alerts.is_empty() && board.get(into).is_some());
        }
        assert!(board.survivor(incident.id).is_some());
    }
    for change in changes {
        if let Deed::Opened { alert, .. } | Deed::AlertJoined { alert, .. } = &change.deed {
            let home = board.home(*alert).and_then(|id| board.get(id)).expect("no alert is lost");
            assert!(home.alerts.contains_key(alert) || home.superseded.contains_key(alert));
        }
    }
}
