//! One entry of the audit log: who did what to what, from where, with what outcome.
//!
//! The leaf is compact JSON with its members in a fixed order, readable without this program.
//! Old and new values are not in it: the leaf holds the digest of a [`Detail`] stored beside it, so a value can be
//! erased and every proof still holds. A leaf must never exceed [`LEAF_SIZE_BYTES_MAX`] and never hold a value.

mod action;
mod detail;

pub use action::Action;
pub use detail::{Detail, DetailDigest, Salt};

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Bytes in the largest leaf: one less than a bundle's length prefix can say.
pub const LEAF_SIZE_BYTES_MAX: usize = 65_534;
/// Bytes of a resource kept in a leaf. Longer ones are cut and marked.
pub const RESOURCE_SIZE_BYTES_MAX: usize = 2_048;
/// Bytes of every other text kept in a leaf. Longer ones are cut and marked.
pub const TEXT_SIZE_BYTES_MAX: usize = 256;
/// Bytes of all names of fields kept in a leaf. Further ones are counted in a marker.
pub const FIELDS_SIZE_BYTES_MAX: usize = 4_096;
/// Names of fields kept in a leaf. Further ones are counted in a marker.
pub const FIELDS_MAX: usize = 256;
/// What stands at the end of a text that was cut, and before the number of names left out.
pub const CUT_MARKER: char = '…';

/// How the action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was allowed and did not succeed.
    Failure,
    /// It was not allowed.
    Denied,
}

/// The version of a leaf's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Version(());

/// An entry of the audit log. Texts longer than the bounds of this module are cut when it is encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditEvent {
    /// The version of this form.
    #[serde(rename = "v")]
    pub version: Version,
    /// When, in milliseconds since 1970 on the clock of the node that did it.
    pub time_ms: u64,
    /// The region that did it, by name.
    pub region: String,
    /// The node that did it, by name.
    pub node: String,
    /// The Raft group whose log this is.
    pub group: u16,
    /// What was done or tried.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it ended so: a stable identifier, not prose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The tenant it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Who: the account, or the name that was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The session's identifier, never its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The address of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// To what: `tables/<table>/records/<key>` and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The names of the fields seen or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// The request it was part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The digest of the old and new values kept beside the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail_digest: Option<DetailDigest>,
    /// How many records were seen, where one act sees several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// Why bytes are not a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// Longer than a leaf may be.
    #[error("leaf of {size_bytes} bytes")]
    TooLong {
        /// Its length.
        size_bytes: usize,
    },
    /// Not the JSON of an audit event of a known version.
    #[error("not an audit event")]
    NotAnEvent,
    /// An audit event, but not in its only form.
    #[error("not the canonical form of its event")]
    NotCanonical,
}

impl AuditEvent {
    /// An event without anything that not every event has.
    pub fn new(
        time_ms: u64,
        region: impl Into<String>,
        node: impl Into<String>,
        group: u16,
        action: Action,
        outcome: Outcome,
    ) -> Self {
        Self {
            version: Version::default(),
            time_ms,
            region: region.into(),
            node: node.into(),
            group,
            action,
            outcome,
            reason: None,
            tenant: None,
            user: None,
            session: None,
            address: None,
            resource: None,
            fields: Vec::new(),
            request_id: None,
            detail_digest: None,
            count: None,
        }
    }

    /// The leaf: compact JSON, at most [`LEAF_SIZE_BYTES_MAX`] bytes whatever the event holds.
    pub fn encode(&self) -> Vec<u8> {
        let bounded = if self.is_bounded() { Cow::Borrowed(self) } else { Cow::Owned(self.bounded()) };
        let leaf = serde_json::to_vec(&*bounded).expect("an event has text keys only, and memory does not fail");
        assert!(leaf.len() <= LEAF_SIZE_BYTES_MAX, "the bounds of texts add up to less than a leaf");
        leaf
    }

    /// Reads a leaf, which must be exactly what [`AuditEvent::encode`] makes of the event.
    pub fn decode(leaf: &[u8]) -> Result<Self, LeafError> {
        if leaf.len() > LEAF_SIZE_BYTES_MAX {
            return Err(LeafError::TooLong { size_bytes: leaf.len() });
        }
        let event: Self = serde_json::from_slice(leaf).map_err(|_| LeafError::NotAnEvent)?;
        if event.encode() == leaf { Ok(event) } else { Err(LeafError::NotCanonical) }
    }

    fn texts(&self) -> [Option<&str>; 8] {
        [
            Some(&self.region),
            Some(&self.node),
            self.reason.as_deref(),
            self.tenant.as_deref(),
            self.user.as_deref(),
            self.session.as_deref(),
            self.address.as_deref(),
            self.request_id.as_deref(),
        ]
    }

    fn is_bounded(&self) -> bool {
        self.texts().into_iter().flatten().all(|text| text.len() <= TEXT_SIZE_BYTES_MAX)
            && self.resource.as_ref().is_none_or(|text| text.len() <= RESOURCE_SIZE_BYTES_MAX)
            && fields_are_bounded(&self.fields)
    }

    fn bounded(&self) -> Self {
        let optional = |text: &Option<String>| text.as_deref().map(|text| cut(text, TEXT_SIZE_BYTES_MAX));
        Self {
            region: cut(&self.region, TEXT_SIZE_BYTES_MAX),
            node: cut(&self.node, TEXT_SIZE_BYTES_MAX),
            action: self.action.clone(),
            reason: optional(&self.reason),
            tenant: optional(&self.tenant),
            user: optional(&self.user),
            session: optional(&self.session),
            address: optional(&self.address),
            resource: self.resource.as_deref().map(|text| cut(text, RESOURCE_SIZE_BYTES_MAX)),
            fields: bounded_fields(&self.fields),
            request_id: optional(&self.request_id),
            ..*self
        }
    }
}

impl TryFrom<u8> for Version {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        if number == 1 { Ok(Self(())) } else { Err("unknown version") }
    }
}

impl From<Version> for u8 {
    fn from(_: Version) -> Self {
        1
    }
}

/// The text, or as much of its head as fits with the marker.
fn cut(text: &str, size_bytes_max: usize) -> String {
    if text.len() <= size_bytes_max {
        return text.to_owned();
    }
    let mut end = size_bytes_max - CUT_MARKER.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{CUT_MARKER}", &text[..end])
}

fn fields_are_bounded(fields: &[String]) -> bool {
    fields.len() <= FIELDS_MAX && fields.iter().map(String::len).sum::<usize>() <= FIELDS_SIZE_BYTES_MAX
}

/// As many names as fit with a last one that counts the rest.
fn bounded_fields(fields: &[String]) -> Vec<String> {
    /// Bytes that a marker with the largest count takes.
    const MARKER_SIZE_BYTES_MAX: usize = 3 + 20;
    if fields_are_bounded(fields) {
        return fields.to_vec();
    }
    let mut size_bytes = MARKER_SIZE_BYTES_MAX;
    let fits = |name: &&String| {
        size_bytes += name.len();
        size_bytes <= FIELDS_SIZE_BYTES_MAX
    };
    let mut kept: Vec<_> = fields.iter().take(FIELDS_MAX - 1).take_while(fits).cloned().collect();
    kept.push(format!("{CUT_MARKER}{}", fields.len() - kept.len()));
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn event() -> AuditEvent {
        let mut event = AuditEvent::new(1_700_000_000_123, "eu", "eu-1", 3, Action::RecordPatch, Outcome::Success);
        event.tenant = Some("acme".into());
        event.user = Some("ana".into());
        event.session = Some("00ff".into());
        event.address = Some("192.0.2.7".into());
        event.resource = Some("tables/orders/records/o-1".into());
        event.fields = vec!["state".into(), "total".into()];
        event.request_id = Some("r-1".into());
        event.detail_digest =
            Some(Detail { old: None, new: Some(serde_json::json!(1)), salt: Salt::from_bytes([1; 16]) }.digest());
        event
    }

    #[test]
    fn leaf_has_its_golden_form() {
        let leaf = String::from_utf8(event().encode()).unwrap();
        assert_eq!(
            leaf,
            concat!(
                r#"{"v":1,"time_ms":1700000000123,"region":"eu","node":"eu-1","group":3,"action":"record.patch","#,
                r#""outcome":"success","tenant":"acme","user":"ana","session":"00ff","address":"192.0.2.7","#,
                r#""resource":"tables/orders/records/o-1","fields":["state","total"],"request_id":"r-1","#,
                r#""detail_digest":"6c768ee8044cf9a403983a9294534fb8f9fbf981406f75436487e675c7173607"}"#
            )
        );
        assert_eq!(AuditEvent::decode(leaf.as_bytes()), Ok(event()));
    }

    #[test]
    fn least_event_has_its_golden_form() {
        let event = AuditEvent::new(1, "eu", "eu-1", 0, Action::Login, Outcome::Denied);
        let leaf = r#"{"v":1,"time_ms":1,"region":"eu","node":"eu-1","group":0,"action":"login","outcome":"denied"}"#;
        assert_eq!(event.encode(), leaf.as_bytes());
    }

    #[test]
    fn other_forms_of_an_event_are_refused() {
        let leaf = String::from_utf8(event().encode()).unwrap();
        let check = |changed: String, error| assert_eq!(AuditEvent::decode(changed.as_bytes()), Err(error));
        check(leaf.replace(":1,", ": 1,"), LeafError::NotCanonical);
        check(leaf.replace("\"v\":1", "\"v\":2"), LeafError::NotAnEvent);
        check(leaf.replace("\"tenant\"", "\"tenancy\""), LeafError::NotAnEvent);
        check(" ".repeat(LEAF_SIZE_BYTES_MAX + 1), LeafError::TooLong { size_bytes: LEAF_SIZE_BYTES_MAX + 1 });
    }

    #[test]
    fn the_worst_event_still_fits() {
        let worst = || "\u{1}".repeat(100_000);
        let mut event =
            AuditEvent::new(u64::MAX, worst(), worst(), u16::MAX, Action::parse(&worst()), Outcome::Success);
        for text in [&mut event.reason, &mut event.tenant, &mut event.user, &mut event.session, &mut event.address] {
            *text = Some(worst());
        }
        event.resource = Some(worst());
        event.request_id = Some(worst());
        event.detail_digest = self::event().detail_digest;
        for fields in [vec!["\u{1}".repeat(16); 10_000], vec!["\u{1}".repeat(15); 256], vec![worst()]] {
            event.fields = fields;
            let leaf = event.encode();
            let read = AuditEvent::decode(&leaf).unwrap();
            assert!(read.user.unwrap().ends_with(CUT_MARKER));
        }
        assert_eq!(AuditEvent::decode(&event.encode()).unwrap().fields, ["…1"]);
    }

    #[test]
    fn names_left_out_are_counted() {
        let fields: Vec<_> = (0..300).map(|number| format!("f{number}")).collect();
        let kept = bounded_fields(&fields);
        assert_eq!(kept.len(), FIELDS_MAX);
        assert_eq!(kept.last().unwrap(), "…45");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn every_event_fits_and_comes_back(
            texts in proptest::collection::vec(proptest::option::of(".{0,400}"), 8),
            fields in proptest::collection::vec(".{0,80}", 0..300),
        ) {
            let mut event = event();
            [event.reason, event.tenant, event.user, event.session, event.address, event.resource, event.request_id] =
                std::array::from_fn(|index| texts[index].clone());
            event.action = Action::parse(texts[7].as_deref().unwrap_or("login"));
            event.fields = fields;
            let leaf = event.encode();
            prop_assert!(leaf.len() <= LEAF_SIZE_BYTES_MAX);
            let read = AuditEvent::decode(&leaf).unwrap();
            prop_assert_eq!(read.encode(), leaf);
            if event.is_bounded() {
                prop_assert_eq!(read, event);
            }
        }

        #[test]
        fn arbitrary_leaves_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in any::<usize>()) {
            let _ = AuditEvent::decode(&bytes);
            let mut leaf = event().encode();
            let at = at % (leaf.len() * 8);
            leaf[at / 8] ^= 1 << (at % 8);
            let _ = AuditEvent::decode(&leaf);
        }
    }
}
