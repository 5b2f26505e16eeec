//! Lists on disk, read whole and made ready to be looked up in.

use super::Matches;
use crate::transform::BadTransform;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::time::SystemTime;

/// Most rows of a list.
const ROWS_MAX: usize = 1_000_000;
/// Most bytes of a list.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The values of a row, by their columns.
type Row = Vec<(Box<str>, Value)>;

/// Says what is wrong with a column's value, if anything is.
pub(super) type Check = fn(&str, &Value) -> Result<(), String>;

/// The columns that rows of a list may add.
pub(super) type Columns = BTreeSet<String>;

/// A list, ready.
#[derive(Debug)]
pub(super) enum List {
    Folded(BTreeMap<Box<str>, Row>),
    Exact(BTreeMap<Box<str>, Row>),
    /// Rows by the length of their prefix, longest first, and by its bits. IPv4 is held as IPv6 holds it.
    Networks(BTreeMap<std::cmp::Reverse<u8>, BTreeMap<u128, Row>>),
}

/// By which it is known whether a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    size_bytes: u64,
}

impl Stamp {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::metadata(path)?;
        Ok(Self { modified: found.modified().ok(), size_bytes: found.len() })
    }
}

impl List {
    pub(super) fn read(
        path: &Path,
        key: &str,
        columns: &[String],
        matches: Matches,
        check: Check,
    ) -> Result<(Self, Columns, Stamp), BadTransform> {
        let file = |error| BadTransform::File { path: path.display().to_string(), error };
        let bad = |(line, why)| BadTransform::Line { path: path.display().to_string(), line, why };
        let stamp = Stamp::of(path).map_err(file)?;
        if stamp.size_bytes > BYTES_MAX {
            return Err(bad((1, format!("larger than {BYTES_MAX} bytes"))));
        }
        let text = std::fs::read_to_string(path).map_err(file)?;
        let is_toml = path.extension().is_some_and(|ending| ending == "toml");
        let (list, of_all) = Self::parse(&text, is_toml, key, columns, matches, check).map_err(bad)?;
        Ok((list, of_all, stamp))
    }

    /// A list's text; where it is wrong the line, and why.
    fn parse(
        text: &str,
        is_toml: bool,
        key: &str,
        columns: &[String],
        matches: Matches,
        check: Check,
    ) -> Result<(Self, Columns), (u64, String)> {
        let rows = if is_toml { toml_rows(text) } else { csv_rows(text, key) }?;
        let mut list = match matches {
            Matches::Same => Self::Folded(BTreeMap::new()),
            Matches::Exactly => Self::Exact(BTreeMap::new()),
            Matches::Network => Self::Networks(BTreeMap::new()),
        };
        let mut of_all = Columns::new();
        for (line, row) in rows {
            let wanted = row.keys().filter(|column| *column != key && is_wanted(column, columns));
            of_all.extend(wanted.filter(|column| !of_all.contains(column.as_str())).cloned().collect::<Vec<_>>());
            list.add(row, key, columns, check).map_err(|why| (line, why))?;
        }
        Ok((list, of_all))
    }

    fn add(&mut self, mut row: Map<String, Value>, key: &str, columns: &[String], check: Check) -> Result<(), String> {
        let key = match row.remove(key) {
            Some(Value::String(text)) => text,
            Some(Value::Number(number)) => number.to_string(),
            _ => return Err(no_column(key)),
        };
        let is_empty = |value: &Value| value.as_str() == Some("");
        let row = row.into_iter().filter(|(column, value)| is_wanted(column, columns) && !is_empty(value));
        let row: Row = row.map(|(column, value)| (column.into_boxed_str(), value)).collect();
        row.iter().try_for_each(|(column, value)| check(column, value))?;
        let earlier = match self {
            Self::Folded(rows) => rows.insert(fold(&key).into(), row),
            Self::Exact(rows) => rows.insert(key.as_str().into(), row),
            Self::Networks(rows) => {
                let (bits, length) = network(&key).ok_or_else(|| format!("'{key}' is no address and no network"))?;
                rows.entry(std::cmp::Reverse(length)).or_default().insert(bits, row)
            }
        };
        if earlier.is_some() { Err(format!("'{key}' is there twice")) } else { Ok(()) }
    }

    /// Whether no row says anything.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Folded(rows) | Self::Exact(rows) => rows.values().all(Vec::is_empty),
            Self::Networks(rows) => rows.values().flat_map(BTreeMap::values).all(Vec::is_empty),
        }
    }

    pub(super) fn find(&self, value: &str) -> Option<&Row> {
        match self {
            Self::Folded(rows) => rows.get(fold(value).as_str()),
            Self::Exact(rows) => rows.get(value),
            Self::Networks(rows) => {
                let bits = bits(value.parse().ok()?);
                rows.iter().find_map(|(length, rows)| rows.get(&(bits & mask(length.0))))
            }
        }
    }
}

fn is_wanted(column: &String, columns: &[String]) -> bool {
    columns.is_empty() || columns.contains(column)
}

fn no_column(key: &str) -> String {
    format!("there is no column '{key}'")
}

fn fold(text: &str) -> String {
    text.trim().to_lowercase()
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => Ipv6Addr::to_bits(address),
    }
}

fn mask(length: u8) -> u128 {
    if length == 0 { 0 } else { u128::MAX << (128 - u32::from(length)) }
}

/// A network's bits and how many of them count.
fn network(text: &str) -> Option<(u128, u8)> {
    let (address, length) = match text.trim().split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u8>().ok()?)),
        None => (text.trim(), None),
    };
    let address: IpAddr = address.parse().ok()?;
    let (before, most) = if address.is_ipv4() { (96, 32) } else { (0, 128) };
    let length = length.unwrap_or(most);
    (length <= most).then(|| (bits(address) & mask(before + length), before + length))
}

type Rows = Vec<(u64, Map<String, Value>)>;

fn csv_rows(text: &str, key: &str) -> Result<Rows, (u64, String)> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(text.as_bytes());
    let line_of = |error: &csv::Error| error.position().map_or(1, csv::Position::line);
    let header = reader.headers().map_err(|error| (1, error.to_string()))?.clone();
    if !header.iter().any(|column| column == key) {
        return Err((1, no_column(key)));
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| (line_of(&error), "has not as many columns as the header".to_owned()))?;
        let line = record.position().map_or(1, csv::Position::line);
        if rows.len() >= ROWS_MAX {
            return Err((line, format!("more than {ROWS_MAX} rows")));
        }
        let row = header.iter().zip(&record).map(|(column, value)| (column.to_owned(), Value::from(value)));
        rows.push((line, row.collect()));
    }
    Ok(rows)
}

fn toml_rows(text: &str) -> Result<Rows, (u64, String)> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[serde(default)]
        row: Vec<toml::Spanned<Map<String, Value>>>,
    }
    let line_at = |place: usize| {
        text.as_bytes()[..place.min(text.len())].iter().filter(|byte| **byte == b'\n').count() as u64 + 1
    };
    let file: File = toml::from_str(text)
        .map_err(|error| (error.span().map_or(1, |span| line_at(span.start)), error.message().to_owned()))?;
    if file.row.len() > ROWS_MAX {
        return Err((1, format!("more than {ROWS_MAX} rows")));
    }
    Ok(file.row.into_iter().map(|row| (line_at(row.span().start), row.into_inner())).collect())
}

/// A door for fuzzing: a list's text in both forms and for each way to look up, and then a value.
#[cfg(fuzzing)]
pub(super) fn fuzz(text: &str, value: &str) {
    for matches in [Matches::Same, Matches::Exactly, Matches::Network] {
        for is_toml in [false, true] {
            if let Ok((list, _)) = List::parse(text, is_toml, "key", &[], matches, |_, _| Ok(())) {
                let _ = list.find(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
            let _ = csv_rows(&text, "a");
            let _ = toml_rows(&text);
            let _ = network(&text);
        }
        #[test]
        fn the_longest_prefix_is_what_trying_all_of_them_finds(
            networks in proptest::collection::btree_map((0..4_u8, 8..33_u8), any::<u8>(), 1..20),
            address in any::<[u8; 4]>(),
        ) {
            let mut list = List::Networks(BTreeMap::new());
            let mut best: Option<(u8, u8)> = None;
            let address = IpAddr::from([address[0] % 4, address[1], address[2], address[3]]);
            for ((first, length), name) in &networks {
                let text = format!("{first}.0.0.0/{length}");
                let row = Map::from_iter([("k".to_owned(), text.clone().into()), ("n".to_owned(), (*name).into())]);
                prop_assert_eq!(list.add(row, "k", &[], |_, _| Ok(())), Ok(()));
                let holds = bits(address) & mask(96 + length) == network(&text).unwrap().0;
                if holds && best.is_none_or(|(found, _)| *length > found) {
                    best = Some((*length, *name));
                }
            }
            let found = list.find(&address.to_string()).map(|row| row[0].1.as_u64().unwrap());
            prop_assert_eq!(found, best.map(|(_, name)| u64::from(name)));
        }
    }
}
