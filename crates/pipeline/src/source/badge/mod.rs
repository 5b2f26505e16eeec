//! Badge readers' and visitors' records as CSV files.

use super::file;
use crate::resource::Invalid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a column says, as rules know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Column {
    /// When the door was used.
    Time,
    /// The badge's number.
    Badge,
    /// Who carries it: a login name where there is one.
    Person,
    /// Whether they are employees, contractors or visitors.
    PersonKind,
    /// Who they visit.
    Host,
    /// The door or reader.
    Door,
    /// The building or place.
    Site,
    /// The platform's region the site is in.
    Region,
    /// `in` or `out`.
    Direction,
    /// Whether the door opened: `granted` or `denied`.
    Outcome,
    /// Why it did not.
    Reason,
}

/// Badge records as the topology file describes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BadgeConfig {
    /// Patterns such as `/srv/badges/*.csv`.
    pub paths: Vec<PathBuf>,
    /// Which header holds what; `time` and one of `badge` and `person` must be among them.
    pub columns: BTreeMap<Column, String>,
    /// What stands between fields.
    #[serde(default = "comma")]
    pub delimiter: char,
    /// How times are written, as for strftime; without it RFC 3339, or `2026-11-24 08:15:00`.
    #[serde(default)]
    pub time_format: Option<String>,
    /// The zone of times that name none, such as `Europe/Berlin`.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// How often files are looked at.
    #[serde(default = "file::poll_milliseconds")]
    pub poll_milliseconds: u64,
}

fn comma() -> char {
    ','
}

fn utc() -> String {
    "UTC".to_owned()
}

impl BadgeConfig {
    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        let mut problems = file::problems(&self.paths, self.poll_milliseconds);
        if !self.columns.contains_key(&Column::Time) {
            problems.push(Invalid::new("columns", "say which header holds the time: columns.time = \"…\""));
        }
        if !self.columns.contains_key(&Column::Badge) && !self.columns.contains_key(&Column::Person) {
            problems.push(Invalid::new("columns", "say which header holds `badge`, `person`, or both"));
        }
        if !self.delimiter.is_ascii() || matches!(self.delimiter, '"' | '\n' | '\r') {
            problems.push(Invalid::new("delimiter", "write one ASCII character, such as \",\" or \";\""));
        }
        if jiff::tz::TimeZone::get(&self.time_zone).is_err() {
            problems.push(Invalid::new("time_zone", "name a zone of the IANA database, such as \"Europe/Berlin\""));
        }
        problems
    }
}
