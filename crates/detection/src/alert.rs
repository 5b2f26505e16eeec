//! Alerts: what a rule said about which events, and whom they concern.
//!
//! Pure data. An alert's id is a function of what it says, so that a replay writes the same record again.

use crate::event::Event;
use crate::id::{AlertId, Digest, EventId, SemanticHash};
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher as _;
use std::sync::Arc;

/// Most characters of a field's text kept in a summary.
pub const SUMMARY_TEXT_CHARACTERS_MAX: usize = 256;

/// Places for entities that were named lately.
const LATELY_MAX: usize = 1_024;

/// How grave a rule's finding is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Of interest only beside others.
    #[default]
    Informational,
    /// Notable.
    Low,
    /// To be looked at.
    Medium,
    /// To be looked at now.
    High,
    /// An incident for certain.
    Critical,
}

impl Severity {
    /// Its name in lower case, as rules write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
    /// The severity of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Informational, Self::Low, Self::Medium, Self::High, Self::Critical]
            .into_iter()
            .find(|severity| severity.name() == name)
    }
}

/// What kind of thing an entity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntityKind {
    /// A login name.
    User,
    /// A network address, or the name a log gives for one.
    Address,
    /// A session.
    Session,
    /// A host that wrote logs.
    Host,
    /// A tenant.
    Tenant,
    /// A node of the platform.
    Node,
    /// A region of the platform.
    Region,
    /// A badge of a person or visitor.
    Badge,
}

/// Someone or something an alert concerns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entity {
    /// What it is.
    pub kind: EntityKind,
    /// Its name, in lower case for users, addresses and hosts.
    pub name: Arc<str>,
}

/// Which field names which kind of entity, in the order a summary shows them.
const ENTITY_FIELDS: [(&str, EntityKind); 11] = [
    ("user.name", EntityKind::User),
    ("actor.user.name", EntityKind::User),
    ("src_endpoint.ip", EntityKind::Address),
    ("src_endpoint.name", EntityKind::Address),
    ("actor.session.uid", EntityKind::Session),
    ("session.uid", EntityKind::Session),
    ("unmapped.badge", EntityKind::Badge),
    ("device.hostname", EntityKind::Host),
    ("metadata.tenant_uid", EntityKind::Tenant),
    ("unmapped.node", EntityKind::Node),
    ("cloud.region", EntityKind::Region),
];

/// The fields that name whom an event concerns.
pub(crate) fn entity_fields() -> impl Iterator<Item = &'static str> {
    ENTITY_FIELDS.iter().map(|(field, _)| *field)
}

/// Entities that events named lately: most name the same few, which are kept once.
#[derive(Debug, Default)]
pub struct Lately(Vec<Option<(Box<str>, Entity)>>);

impl Lately {
    /// Whom an event concerns.
    pub fn entities(&mut self, event: &Event) -> BTreeSet<Entity> {
        let named = ENTITY_FIELDS.iter().filter_map(|&(field, kind)| {
            let text = event.text(field).filter(|text| !text.is_empty())?;
            Some(self.entity(kind, text))
        });
        named.collect()
    }

    /// The entity of that kind which a text names.
    fn entity(&mut self, kind: EntityKind, text: &str) -> Entity {
        if text.len() > SUMMARY_TEXT_CHARACTERS_MAX {
            return entity(kind, text);
        }
        self.0.resize(LATELY_MAX, None);
        let hash = FxBuildHasher.hash_one((kind, text));
        let place = &mut self.0[hash as usize % LATELY_MAX];
        match place {
            Some((known, entity)) if entity.kind == kind && **known == *text => entity.clone(),
            _ => place.insert((text.into(), entity(kind, text))).1.clone(),
        }
    }
}

fn entity(kind: EntityKind, text: &str) -> Entity {
    let text: String = text.chars().take(SUMMARY_TEXT_CHARACTERS_MAX).collect();
    let name = match kind {
        EntityKind::User | EntityKind::Address | EntityKind::Host => text.to_lowercase(),
        _ => text,
    };
    Entity { kind, name: name.into() }
}

/// An event in brief, as an alert and an incident list it.
///
/// This is all of an event that travels with its alert. Where the tenant's events must stay where they are, `text` is
/// left out ([`EventSummary::tuple`]): what remains are the tuples that matched, and never a raw event's own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSummary {
    /// The event.
    pub id: EventId,
    /// When it happened.
    pub time_ms: u64,
    /// Its OCSF class.
    pub class_uid: u32,
    /// Its OCSF activity.
    pub activity_id: u32,
    /// One line on it: the message, or operation and outcome.
    pub text: String,
    /// Whom it concerns.
    pub entities: BTreeSet<Entity>,
}

impl EventSummary {
    /// The summary of an event whose words must not travel.
    pub fn tuple(event: &Event, lately: &mut Lately) -> Self {
        Self {
            id: event.id,
            time_ms: event.time_ms,
            class_uid: event.class_uid,
            activity_id: event.activity_id,
            text: String::new(),
            entities: lately.entities(event),
        }
    }

    /// The summary of an event.
    pub fn of(event: &Event, lately: &mut Lately) -> Self {
        let text = event.text("message").map_or_else(
            || {
                ["api.operation", "status", "status_detail", "resources.name"]
                    .iter()
                    .filter_map(|field| event.text(field))
                    .collect::<Vec<_>>()
                    .join(" ")
            },
            str::to_owned,
        );
        Self { text: text.chars().take(SUMMARY_TEXT_CHARACTERS_MAX).collect(), ..Self::tuple(event, lately) }
    }
}

/// The rule an alert is of, as alerts and incidents name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReference {
    /// The rule's id, or its name where it has none.
    pub id: Arc<str>,
    /// Its title.
    pub title: Arc<str>,
    /// What it means, hashed.
    pub semantic_hash: SemanticHash,
    /// Its tags, such as `attack.t1110`.
    pub tags: Vec<Arc<str>>,
}

/// What a rule said about a set of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// A function of tenant, rule, meaning, group key and events.
    pub id: AlertId,
    /// Whose rules these are.
    pub tenant: Arc<str>,
    /// The rule.
    pub rule: RuleReference,
    /// From the rule's level.
    pub severity: Severity,
    /// The fields the rule groups by and their values; empty for a rule on single events.
    pub group_key: BTreeMap<String, String>,
    /// Whom its events concern.
    pub entities: BTreeSet<Entity>,
    /// The minimal satisfying set of events, by time; there may be thousands, and others hold them too.
    pub events: Vec<Arc<EventSummary>>,
    /// When the first of them happened.
    pub first_ms: u64,
    /// When the last of them happened.
    pub last_ms: u64,
    /// Whether an event came later than the allowed lateness.
    pub late: bool,
    /// Whether the clock of an event's source was too far ahead, so that the time of receipt stands for its own.
    #[serde(default)]
    pub clamped: bool,
    /// Events that are not listed because the record would be too large.
    #[serde(default)]
    pub events_left_out: u64,
    /// Entities that are not listed, for the same reason.
    #[serde(default)]
    pub entities_left_out: u64,
}

impl Alert {
    /// The alert of a rule on a set of events; `events` must not be empty.
    pub fn new(
        tenant: Arc<str>,
        rule: RuleReference,
        severity: Severity,
        group_key: BTreeMap<String, String>,
        events: impl IntoIterator<Item = impl Into<Arc<EventSummary>>>,
    ) -> Self {
        let events: Vec<Arc<EventSummary>> = events.into_iter().map(Into::into).collect();
        let mut hash = Digest::new("holdfast alert 1");
        hash.part(tenant.as_bytes()).part(rule.id.as_bytes()).part(rule.semantic_hash.as_bytes());
        for (field, value) in &group_key {
            hash.part(field.as_bytes()).part(value.as_bytes());
        }
        let mut ids: Vec<EventId> = events.iter().map(|event| event.id).collect();
        ids.sort_unstable();
        ids.dedup();
        hash.part(b"events");
        for id in &ids {
            hash.part(id.as_bytes());
        }
        Self {
            id: AlertId::of(hash),
            tenant,
            rule,
            severity,
            group_key,
            entities: distinct(&events),
            first_ms: events.iter().map(|event| event.time_ms).min().unwrap_or_default(),
            last_ms: events.iter().map(|event| event.time_ms).max().unwrap_or_default(),
            events,
            late: false,
            clamped: false,
            events_left_out: 0,
            entities_left_out: 0,
        }
    }
}

/// Whom events concern.
fn distinct(events: &[Arc<EventSummary>]) -> BTreeSet<Entity> {
    let mut entities = Vec::new();
    let mut before: Option<&BTreeSet<Entity>> = None;
    for event in events {
        // Most concern whom the one before does.
        let others = event.entities.iter().filter(|entity| before.is_none_or(|before| !before.contains(entity)));
        entities.extend(others.cloned());
        before = Some(&event.entities);
    }
    // Sorted once, which is quicker than to keep them sorted.
    BTreeSet::from_iter(entities)
}
