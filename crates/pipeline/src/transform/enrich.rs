//! Enrich: adds to an event what a list says about one of its values: whose host this is, who the user is, where the
//! network lies.
//!
//! Lists are CSV with a header, or TOML with `[[row]]`. A list that has changed is read again; where the new one is
//! wrong the old one stays.

mod list;

use super::{BadTransform, Outputs, Transform};
use crate::record::Record;
use arc_swap::ArcSwap;
use detection::RejectReason;
use detection::event::FIELDS_MAX;
use list::{Columns, List, Stamp};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What is looked up, and where.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrichConfig {
    /// The list: a `.csv` or `.toml` file.
    list: PathBuf,
    /// The column that is compared.
    key: String,
    /// The field whose value is looked up.
    field: String,
    /// The other columns become fields under this name.
    into: String,
    /// Which of them; all by default.
    #[serde(default)]
    columns: Vec<String>,
    /// How they are compared.
    #[serde(default)]
    matches: Matches,
}

/// How a value is looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matches {
    /// The same text; case is ignored.
    #[default]
    Same,
    /// The same text and case.
    Exactly,
    /// The key is a network or an address; the longest prefix that holds the value counts.
    Network,
}

impl EnrichConfig {
    pub(super) fn open(&self, folder: &Path) -> Result<Enrich, BadTransform> {
        let path = folder.join(&self.list);
        let read = List::read(&path, &self.key, &self.columns, self.matches, |_, _| Ok(()))?;
        let config = self.clone();
        Ok(Enrich { config, path, list: ArcSwap::from_pointee(read) })
    }
}

/// The column that says where an address is.
const COUNTRY: &str = "country";
/// Most bytes of what stands there.
const COUNTRY_BYTES_MAX: usize = 64;

/// Adds what a list says.
pub struct Enrich {
    config: EnrichConfig,
    path: PathBuf,
    list: ArcSwap<(List, Columns, Stamp)>,
}

impl Transform for Enrich {
    fn apply(&self, mut record: Record, out: &mut Outputs) {
        let loaded = self.list.load();
        let (list, columns, _) = &**loaded;
        let values = match record.fields().get(&self.config.field) {
            Some(Value::String(text)) => list.find(text),
            // Of several values the first that is in the list counts.
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).find_map(|text| list.find(text)),
            Some(Value::Number(number)) => list.find(&number.to_string()),
            _ => None,
        };
        let name = |column: &str| format!("{}.{column}", self.config.into);
        let found: Vec<(String, Value)> =
            values.into_iter().flatten().map(|(column, value)| (name(column), value.clone())).collect();
        if let Some(fields) = &mut record.fields {
            // Only the list says what it is there to say, also where it says nothing.
            for name in columns.iter().map(|column| name(column)).filter(|name| *name != self.config.field) {
                fields.remove(&name);
            }
        }
        if record.fields().len() + found.len() > FIELDS_MAX {
            return out.refused.push((record, RejectReason::TooManyFields.into()));
        }
        if !found.is_empty() {
            record.fields.get_or_insert_default().extend(found);
        }
        out.pass(record);
    }

    fn reload(&self) -> Result<bool, BadTransform> {
        if Stamp::of(&self.path).is_ok_and(|stamp| stamp == self.list.load().2) {
            return Ok(false);
        }
        let config = &self.config;
        let read = List::read(&self.path, &config.key, &config.columns, config.matches, |_, _| Ok(()))?;
        self.list.store(std::sync::Arc::new(read));
        Ok(true)
    }
}

/// Where addresses are: a list with the columns `network` and `country`.
pub struct Addresses {
    path: PathBuf,
    list: ArcSwap<(List, Stamp)>,
}

impl Addresses {
    /// Reads the list.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(path: &Path) -> Result<Self, BadTransform> {
        Ok(Self { path: path.to_owned(), list: ArcSwap::from_pointee(Self::read(path)?) })
    }

    fn read(path: &Path) -> Result<(List, Stamp), BadTransform> {
        let (list, _, stamp) = List::read(path, "network", &[COUNTRY.to_owned()], Matches::Network, is_country)?;
        if list.is_empty() {
            let (path, why) = (path.display().to_string(), format!("no row has a '{COUNTRY}'"));
            return Err(BadTransform::Line { path, line: 1, why });
        }
        Ok((list, stamp))
    }

    /// The country of an address, as the list writes it.
    pub fn country(&self, address: &str) -> Option<String> {
        let loaded = self.list.load();
        loaded.0.find(address)?.iter().find_map(|(_, value)| value.as_str().map(str::to_owned))
    }

    /// Reads the list again if it has changed; whether it had.
    ///
    /// # Errors
    /// What is wrong with the new one; the old one stays.
    pub fn reload(&self) -> Result<bool, BadTransform> {
        if Stamp::of(&self.path).is_ok_and(|stamp| stamp == self.list.load().1) {
            return Ok(false);
        }
        self.list.store(std::sync::Arc::new(Self::read(&self.path)?));
        Ok(true)
    }
}

fn is_country(_: &str, value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(text) if text.len() <= COUNTRY_BYTES_MAX => Ok(()),
        _ => Err(format!("a {COUNTRY} is a text of at most {COUNTRY_BYTES_MAX} bytes, such as \"DE\"")),
    }
}

/// A door for fuzzing: the text of a list whose column `key` is looked up, and a value.
#[cfg(fuzzing)]
pub fn fuzz(text: &str, value: &str) {
    list::fuzz(text, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use detection::{RawEvent, SourceKind};
    use serde_json::json;

    fn look_up(enrich: &Enrich, field: &str, value: Value) -> Value {
        let raw = Default::default();
        let mut record =
            Record { source: SourceKind::Syslog, received_ms: 0, position: None, tenant: None, raw, fields: None };
        record.set(field, value);
        let mut out = Outputs::default();
        enrich.apply(record, &mut out);
        let mut fields = out.passed.pop().unwrap().1.fields.unwrap();
        fields.remove(field);
        json!(fields)
    }

    fn open(folder: &Path, config: &str) -> Result<Enrich, BadTransform> {
        toml::from_str::<EnrichConfig>(config).unwrap().open(folder)
    }

    #[test]
    fn the_longest_network_counts() {
        let folder = tempfile::tempdir().unwrap();
        let text = "net,site,owner\n10.0.0.0/8,all,it\n10.1.0.0/16,berlin,\"ops, night\"\n10.1.2.3,door,\n2001:db8::/32,v6,net\n";
        std::fs::write(folder.path().join("nets.csv"), text).unwrap();
        let config = "list = 'nets.csv'\nkey = 'net'\nfield = 'ip'\ninto = 'src'\nmatches = 'network'";
        let enrich = open(folder.path(), config).unwrap();
        assert_eq!(look_up(&enrich, "ip", json!("10.9.9.9")), json!({"src.site": "all", "src.owner": "it"}));
        assert_eq!(look_up(&enrich, "ip", json!("10.1.9.9")), json!({"src.site": "berlin", "src.owner": "ops, night"}));
        assert_eq!(look_up(&enrich, "ip", json!("10.1.2.3")), json!({"src.site": "door"}));
        assert_eq!(look_up(&enrich, "ip", json!("2001:db8::5")), json!({"src.site": "v6", "src.owner": "net"}));
        assert_eq!(
            look_up(&enrich, "ip", json!("::ffff:10.1.9.9")),
            json!({"src.site": "berlin", "src.owner": "ops, night"})
        );
        for unknown in [json!("192.0.2.1"), json!("no address"), json!(null)] {
            assert_eq!(look_up(&enrich, "ip", unknown), json!({}));
        }
    }

    #[test]
    fn nobody_says_of_themselves_what_the_list_is_there_to_say() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("people.csv"), "login,kind,team\nann,employee,\n").unwrap();
        let config = "list = 'people.csv'\nkey = 'login'\nfield = 'login'\ninto = 'person'";
        let enrich = open(folder.path(), config).unwrap();
        let forged = |login: &str| {
            let raw =
                RawEvent { source: SourceKind::Ndjson, received_ms: 0, position: None, bytes: Default::default() };
            let mut record = Record::from(raw);
            for (field, value) in [("login", login), ("person.kind", "admin"), ("person.team", "red"), ("a", "b")] {
                record.set(field, value);
            }
            let mut out = Outputs::default();
            enrich.apply(record, &mut out);
            json!(out.passed.pop().unwrap().1.fields.unwrap())
        };
        assert_eq!(forged("ann"), json!({"login": "ann", "person.kind": "employee", "a": "b"}));
        assert_eq!(forged("mallory"), json!({"login": "mallory", "a": "b"}));
    }

    #[test]
    fn a_changed_list_is_read_again_and_a_broken_one_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        std::fs::write(&path, "[[row]]\nlogin = 'ann'\nlevel = 3\n").unwrap();
        let config = "list = 'users.toml'\nkey = 'login'\nfield = 'user.name'\ninto = 'user.hr'";
        let enrich = open(folder.path(), config).unwrap();
        assert_eq!(look_up(&enrich, "user.name", json!("ANN")), json!({"user.hr.level": 3}));
        assert!(!enrich.reload().unwrap());
        std::fs::write(&path, "[[row]]\nlogin = 'ann'\nlevel = 12\nteam = 'red'\n").unwrap();
        assert!(enrich.reload().unwrap());
        assert_eq!(look_up(&enrich, "user.name", json!("ann")), json!({"user.hr.level": 12, "user.hr.team": "red"}));
        std::fs::write(&path, "[[row]]\nnobody = 'x'\n").unwrap();
        assert!(enrich.reload().is_err());
        assert_eq!(
            look_up(&enrich, "user.name", json!(["bob", "ann"])),
            json!({"user.hr.level": 12, "user.hr.team": "red"})
        );
    }

    #[test]
    fn a_list_that_cannot_be_meant_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(folder.path().join("l.csv"), text).unwrap();
        let reason = |matches: &str| {
            let config = format!("list = 'l.csv'\nkey = 'k'\nfield = 'f'\ninto = 'i'\nmatches = '{matches}'");
            open(folder.path(), &config).err().map(|error| error.to_string().split("l.csv").last().unwrap().to_owned())
        };
        write("a,b\n1,2\n");
        assert_eq!(reason("same").unwrap(), ":1: there is no column 'k'");
        write("k,b\nx,1\nX,2\n");
        assert_eq!(reason("same").unwrap(), ":3: 'X' is there twice");
        assert_eq!(reason("exactly"), None);
        write("k,b\n10.0.0.0/33,1\n");
        assert_eq!(reason("network").unwrap(), ":2: '10.0.0.0/33' is no address and no network");
        write("k,b\nx\n");
        assert!(reason("same").unwrap().starts_with(":2: "));
    }

    #[test]
    fn a_list_of_addresses_says_where_they_are_or_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("addresses.csv");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("country,network,site\nDE,198.51.100.0/24,x\n,198.51.100.8/32,y\n");
        let list = Addresses::open(&path).unwrap();
        let of = |address| list.country(address);
        assert_eq!(
            (of("198.51.100.7").as_deref(), of("198.51.100.8"), of("192.0.2.1"), of("x")),
            (Some("DE"), None, None, None)
        );
        assert!(!list.reload().unwrap());
        let long = format!("network,country\n198.51.100.0/24,{}\n", "x".repeat(65));
        for wrong in
            ["network,land\n198.51.100.0/24,FR\n", "network,country\n", "network,country\n192.0.2.1,\n", &long, "", "x"]
        {
            write(wrong);
            assert!(list.reload().is_err() && Addresses::open(&path).is_err(), "{wrong}");
            assert_eq!(of("198.51.100.7").as_deref(), Some("DE"));
        }
        write("network,country\n198.51.100.0/24,FRA\n");
        assert!(list.reload().unwrap());
        assert_eq!(of("198.51.100.7").as_deref(), Some("FRA"));
        let toml = folder.path().join("addresses.toml");
        std::fs::write(&toml, "[[row]]\nnetwork = '192.0.2.0/24'\ncountry = 276\n").unwrap();
        assert!(matches!(Addresses::open(&toml), Err(BadTransform::Line { line: 1, .. })));
    }
}
