//! A use of a badge at a door, as sources hand it over: one JSON object, whatever the readers' own form was.
//!
//! Pure data: what its columns were called is the source's matter.

use crate::event::RejectReason;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Whether a door opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did.
    Granted,
    /// It did not.
    Denied,
}

/// Which way somebody went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Into the place.
    In,
    /// Out of it.
    Out,
}

/// A use of a badge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BadgeUse {
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// The badge's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub badge: Option<String>,
    /// Who carries it: a login name where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// Whether they are an employee, a contractor, a visitor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person_kind: Option<String>,
    /// Who they visit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The door or its reader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub door: Option<String>,
    /// The building or place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The platform's region that the site is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Which way they went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Whether the door opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Columns that nobody gave a meaning, by their headers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, String>,
}

/// Parses a use of a badge.
pub fn parse(bytes: &[u8]) -> Result<BadgeUse, RejectReason> {
    let badge: BadgeUse = serde_json::from_slice(bytes).map_err(|error| match error.is_data() {
        true => RejectReason::BadField { field: error.to_string().split('`').nth(1).unwrap_or("value").to_owned() },
        false => RejectReason::NotJson { column: error.column() as u64 },
    })?;
    if badge.badge.is_none() && badge.person.is_none() {
        return Err(RejectReason::BadField { field: "badge".to_owned() });
    }
    Ok(badge)
}
