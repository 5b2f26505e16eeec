//! Badge readers' and visitors' records as CSV files, followed as log files are.
//!
//! The first row names the columns. A row's position is its place in its file; a row that cannot be read becomes a
//! dead letter that says its line and its column.

mod row;

use super::file::{self, Chunk, Cut, Follow};
use super::{Batch, Source, Surroundings};
use crate::resource::{Invalid, OpenError};
use detection::{Position, RawEvent, Reject, RejectReason, SourceKind};
use row::{Header, Reading};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

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
        let moment = jiff::Timestamp::UNIX_EPOCH.to_zoned_datetime(jiff::tz::TimeZone::UTC);
        if let Some(Err(error)) = self.time_format.as_ref().map(|format| jiff::fmt::strtime::format(format, &moment)) {
            problems
                .push(Invalid::new("time_format", format!("{error}; write it as for strftime: \"%d.%m.%Y %H:%M\"")));
        }
        problems
    }

    /// Reads what is kept of earlier runs.
    pub(super) fn open(&self, name: &str, around: &Surroundings) -> Result<Box<dyn Source>, OpenError> {
        let reading = Reading::of(self).map_err(|error| Invalid::new("time_zone", error.to_string()))?;
        let cut = Cut::Csv { delimiter: self.delimiter as u8 };
        let settings = file::settings(name, &self.paths, cut, false, around);
        let poll = Duration::from_millis(self.poll_milliseconds);
        Ok(Box::new(Follow::open(settings, poll, around, move |chunk, received_ms| {
            rows(&reading, chunk, received_ms)
        })?))
    }
}

/// Rows as uses of badges.
fn rows(reading: &Reading, chunk: Chunk, received_ms: u64) -> Batch {
    let header = chunk.header.as_ref().map_or_else(
        || Err(RejectReason::BadRow { line: 1, column: "all".to_owned() }),
        |header| reading.header(header),
    );
    let mut batch = Batch::default();
    // The first row of a file is its header.
    for record in chunk.records.into_iter().filter(|record| record.line > 1) {
        let position = Some(Position { stream: chunk.stream.clone(), sequence: record.offset });
        let bytes = record.bytes.clone().unwrap_or_default();
        let mut raw = RawEvent { source: SourceKind::Badge, received_ms, position, bytes };
        match record.bytes.and_then(|bytes| line(reading, &header, &bytes, record.line)) {
            Ok(Some(line)) => {
                raw.bytes = line.into();
                batch.events.push(raw);
            }
            Ok(None) => {}
            Err(reason) => batch.rejects.push(Reject::of(&raw, reason)),
        }
    }
    batch
}

#[cfg(fuzzing)]
pub(super) fn fuzz(file: &[u8]) {
    use std::sync::LazyLock;
    const TEXT: &str = "paths = ['x.csv']\ntime_zone = 'Europe/Berlin'\n\
        columns = { time = 'When', person = 'Who', badge = 'No', outcome = 'Result', direction = 'Way' }\n";
    static READINGS: LazyLock<[Reading; 2]> = LazyLock::new(|| {
        ["", "time_format = '%d.%m.%Y %H:%M'"].map(|more| {
            let config = toml::from_str(&format!("{TEXT}{more}")).expect("the description is sound");
            Reading::of(&config).expect("the zone is known")
        })
    });
    for reading in READINGS.iter() {
        let (mut rest, mut header, cut) = (file, None, Cut::Csv { delimiter: b',' });
        for number in 1.. {
            let Some(end) = cut.end(rest) else { break };
            let row;
            (row, rest) = rest.split_at(end);
            let header = header.get_or_insert_with(|| reading.header(row));
            let _ = line(reading, header, row, number);
        }
    }
}

/// A row as one line of JSON; `None` for a header that is repeated.
fn line(
    reading: &Reading,
    header: &Result<Header, RejectReason>,
    bytes: &[u8],
    line: u64,
) -> Result<Option<String>, RejectReason> {
    let used = reading.read(header.as_ref().map_err(Clone::clone)?, bytes, line)?;
    let json = used.map(|used| serde_json::to_string(&used)).transpose();
    json.map_err(|_| RejectReason::BadRow { line, column: "all".to_owned() })
}
