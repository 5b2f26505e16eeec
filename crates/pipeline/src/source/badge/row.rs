//! From a row of a table to a use of a badge.
//!
//! Pure. Every row becomes a use of a badge or says which column it lacks, and on which line.

use super::{BadgeConfig, Column};
use detection::RejectReason;
use detection::source::badge::{BadgeUse, Direction, Outcome};
use jiff::Timestamp;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

/// Most columns that are kept though nobody gave them a meaning.
const OTHER_MAX: usize = 64;
/// Most columns of a table.
const COLUMNS_MAX: usize = 256;

/// How tables are read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    names: BTreeMap<Column, String>,
    delimiter: u8,
    time_format: Option<String>,
    time_zone: TimeZone,
}

/// A table's first row, understood.
#[derive(Debug)]
pub(super) struct Header {
    places: BTreeMap<Column, usize>,
    other: Vec<(usize, String)>,
    row: csv::StringRecord,
}

impl Reading {
    pub(super) fn of(config: &BadgeConfig) -> Result<Self, jiff::Error> {
        Ok(Self {
            names: config.columns.clone(),
            delimiter: config.delimiter as u8,
            time_format: config.time_format.clone(),
            time_zone: TimeZone::get(&config.time_zone)?,
        })
    }

    /// Understands a table's first row.
    pub(super) fn header(&self, bytes: &[u8]) -> Result<Header, RejectReason> {
        let row = self.row(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes), 1)?;
        let plain = |text: &str| text.trim().to_lowercase();
        let mut places = BTreeMap::new();
        for (column, name) in &self.names {
            let place = row.iter().position(|found| plain(found) == plain(name));
            let lacks = || RejectReason::BadRow { line: 1, column: name.clone() };
            places.insert(*column, place.ok_or_else(lacks)?);
        }
        let taken: Vec<usize> = places.values().copied().collect();
        let other = row.iter().enumerate().filter(|(place, name)| !taken.contains(place) && !name.trim().is_empty());
        let other = other.take(OTHER_MAX).map(|(place, name)| (place, plain(name))).collect();
        Ok(Header { places, other, row })
    }

    /// Reads a row; `None` for a header that is repeated.
    pub(super) fn read(&self, header: &Header, bytes: &[u8], line: u64) -> Result<Option<BadgeUse>, RejectReason> {
        let row = self.row(bytes, line)?;
        if row == header.row {
            return Ok(None);
        }
        let bad = |column: Column| RejectReason::BadRow { line, column: self.names[&column].clone() };
        let text = |column| {
            let place = header.places.get(&column)?;
            row.get(*place).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let word = |column| text(column).map(|text| text.to_lowercase());
        let time_ms = text(Column::Time).and_then(|text| self.time_ms(&text)).ok_or_else(|| bad(Column::Time))?;
        let direction = match word(Column::Direction).as_deref() {
            None => None,
            Some("in" | "entry" | "enter" | "entered") => Some(Direction::In),
            Some("out" | "exit" | "left") => Some(Direction::Out),
            Some(_) => return Err(bad(Column::Direction)),
        };
        let outcome = match word(Column::Outcome).as_deref() {
            None => None,
            Some("granted" | "allowed" | "success" | "ok" | "yes" | "true" | "1") => Some(Outcome::Granted),
            Some("denied" | "refused" | "rejected" | "failure" | "no" | "false" | "0") => Some(Outcome::Denied),
            Some(_) => return Err(bad(Column::Outcome)),
        };
        let used = BadgeUse {
            time_ms,
            badge: text(Column::Badge),
            person: text(Column::Person),
            person_kind: word(Column::PersonKind),
            host: text(Column::Host),
            door: text(Column::Door),
            site: text(Column::Site),
            region: text(Column::Region),
            direction,
            outcome,
            reason: text(Column::Reason),
            other: header
                .other
                .iter()
                .filter_map(|(place, name)| Some((name.clone(), row.get(*place)?.into())))
                .collect(),
        };
        if used.badge.is_none() && used.person.is_none() {
            let named = if self.names.contains_key(&Column::Badge) { Column::Badge } else { Column::Person };
            return Err(bad(named));
        }
        Ok(Some(used))
    }

    fn row(&self, bytes: &[u8], line: u64) -> Result<csv::StringRecord, RejectReason> {
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(self.delimiter).from_reader(bytes);
        let mut row = csv::StringRecord::new();
        let malformed = || RejectReason::BadRow { line, column: "all".to_owned() };
        match reader.read_record(&mut row) {
            Ok(true) if row.len() <= COLUMNS_MAX => Ok(row),
            Ok(_) => Err(malformed()),
            Err(error) if matches!(error.kind(), csv::ErrorKind::Utf8 { .. }) => Err(RejectReason::NotUtf8),
            Err(_) => Err(malformed()),
        }
    }

    /// Milliseconds since 1970 of a time as the table writes it.
    fn time_ms(&self, text: &str) -> Option<u64> {
        let local = |time: jiff::civil::DateTime| self.time_zone.to_timestamp(time).ok();
        let time = match &self.time_format {
            Some(format) => {
                let parsed = BrokenDownTime::parse(format, text).ok()?;
                match parsed.offset() {
                    Some(_) => parsed.to_timestamp().ok()?,
                    None => local(parsed.to_datetime().ok()?)?,
                }
            }
            None => match text.parse::<Timestamp>() {
                Ok(time) => time,
                Err(_) => local(text.parse().ok()?)?,
            },
        };
        u64::try_from(time.as_millisecond()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reading(more: &str) -> Reading {
        let config = format!(
            "paths = ['x.csv']\ncolumns = {{ time = 'When', person = 'Who', badge = 'No', outcome = 'Result' }}\n{more}"
        );
        Reading::of(&toml::from_str::<BadgeConfig>(&config).unwrap()).unwrap()
    }

    #[test]
    fn quoted_fields_and_unknown_columns_are_read() {
        let reading = reading("");
        let header = reading.header(b"\xef\xbb\xbfwhen, WHO ,No,Result,Floor").unwrap();
        let row = b"2026-11-24 08:15:00,\"Lovelace, \"\"Ada\"\"\",7,Denied,\"3\nnorth\"";
        let used = reading.read(&header, row, 2).unwrap().unwrap();
        assert_eq!(used.time_ms, 1_795_508_100_000);
        assert_eq!((used.person.as_deref(), used.badge.as_deref()), (Some("Lovelace, \"Ada\""), Some("7")));
        assert_eq!((used.outcome, used.other["floor"].as_str()), (Some(Outcome::Denied), "3\nnorth"));
        assert_eq!(reading.read(&header, b"when, WHO ,No,Result,Floor", 9).unwrap(), None);
    }

    #[test]
    fn times_are_of_the_zone_unless_they_name_one() {
        let reading = reading("time_zone = 'Europe/Berlin'\ntime_format = '%d.%m.%Y %H:%M'");
        assert_eq!(reading.time_ms("24.11.2026 09:15"), Some(1_795_508_100_000));
        assert_eq!(reading.time_ms("24.13.2026 09:15"), None);
        let reading = self::reading("time_zone = 'Europe/Berlin'");
        assert_eq!(reading.time_ms("2026-11-24T09:15:00"), Some(1_795_508_100_000));
        assert_eq!(reading.time_ms("2026-11-24T08:15:00Z"), Some(1_795_508_100_000));
        assert_eq!(reading.time_ms("1960-11-24T08:15:00Z"), None);
    }

    #[test]
    fn a_bad_row_says_its_line_and_its_column() {
        let reading = reading("");
        let header = reading.header(b"When,Who,No,Result").unwrap();
        let bad = |row: &[u8], column: &str| {
            let expect = RejectReason::BadRow { line: 5, column: column.to_owned() };
            assert_eq!(reading.read(&header, row, 5).unwrap_err(), expect);
        };
        bad(b"yesterday,ann,7,granted", "When");
        bad(b"2026-11-24 08:15:00,,,granted", "No");
        bad(b"2026-11-24 08:15:00,ann,7,perhaps", "Result");
        bad(b"2026-11-24", "No");
        assert_eq!(reading.read(&header, b"\xff,ann", 5).unwrap_err(), RejectReason::NotUtf8);
        assert_eq!(reading.header(b"When,Who").unwrap_err(), RejectReason::BadRow { line: 1, column: "No".into() });
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(head: Vec<u8>, row: Vec<u8>) {
            let reading = reading("");
            let _ = reading.header(&head);
            let header = reading.header(b"When,Who,No,Result").unwrap();
            let _ = reading.read(&header, &row, 2);
        }
        #[test]
        fn arbitrary_times_never_panic(text in "\\PC{0,40}|[0-9:. T+-]{0,40}", format in "\\PC{0,20}|(%[a-zA-Z]){1,8}") {
            let _ = reading("").time_ms(&text);
            let reading = Reading { time_format: Some(format), ..reading("") };
            let _ = reading.time_ms(&text);
        }
    }
}
