//! Where files lie and what their names say: `tenant=<t>/day=YYYY-MM-DD/hour=HH/<epoch>-<rows>-<hash>.parquet`.
//!
//! The folder is the hour events happened in. Events that happened more than [`NEAR_MS`] before their receipt
//! lie in the hour they were received in, in files of their own (`stray-…`): a source with a broken clock can make
//! rows, but no folders.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An hour, in milliseconds.
pub const HOUR_MS: u64 = 3_600_000;
/// How long before its receipt an event may have happened to lie in the hour it happened in.
pub const NEAR_MS: u64 = 24 * HOUR_MS;
/// Hexadecimal digits of a file's content hash in its name.
const HASH_DIGITS: usize = 16;
/// Most bytes of a tenant's name.
const TENANT_BYTES_MAX: usize = 128;

/// A span of event time, in milliseconds since 1970: from the first on, up to but without the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first moment.
    pub from_ms: u64,
    /// The moment after the last.
    pub to_ms: u64,
}

impl Span {
    /// All of time that fits a timestamp.
    pub const ALL: Self = Self { from_ms: 0, to_ms: i64::MAX as u64 };
    /// Whether a moment lies in it.
    pub const fn contains(self, time_ms: u64) -> bool {
        self.from_ms <= time_ms && time_ms < self.to_ms
    }
    /// Whether it has a moment in common with another.
    pub const fn overlaps(self, other: Self) -> bool {
        self.from_ms < other.to_ms && other.from_ms < self.to_ms
    }
}

/// The folder of one tenant and hour.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partition {
    /// Whose events.
    pub tenant: Arc<str>,
    /// Hours since 1970.
    pub hour: u64,
}

impl Partition {
    /// The partition of an event, and whether it is a stray in it.
    pub fn of(tenant: &Arc<str>, time_ms: u64, received_ms: u64) -> (Self, bool) {
        let stray = time_ms.saturating_add(NEAR_MS) < received_ms;
        let at_ms = if stray { received_ms } else { time_ms };
        (Self { tenant: Arc::clone(tenant), hour: at_ms / HOUR_MS }, stray)
    }
    /// The moments its own events happened in; strays may be from any time.
    pub const fn span(&self) -> Span {
        Span { from_ms: self.hour * HOUR_MS, to_ms: (self.hour + 1) * HOUR_MS }
    }
    /// Its folder.
    pub fn folder(&self, root: &Path) -> PathBuf {
        root.join(format!("tenant={}", self.tenant))
            .join(format!("day={}", day_text(self.hour / 24)))
            .join(format!("hour={:02}", self.hour % 24))
    }
    /// The partition of a folder's three names.
    pub fn parse(tenant: &str, day: &str, hour: &str) -> Option<Self> {
        let tenant = tenant.strip_prefix("tenant=").filter(|name| is_tenant(name))?;
        let day = day_of(day.strip_prefix("day=")?)?;
        let hour = hour.strip_prefix("hour=").filter(|text| text.len() == 2)?.parse::<u64>().ok()?;
        (hour < 24).then(|| Self { tenant: tenant.into(), hour: day * 24 + hour })
    }
}

/// Whether a text may be a tenant's folder: it must never reach outside the archive.
pub fn is_tenant(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= TENANT_BYTES_MAX && !name.starts_with('.') && name.bytes().all(fits)
}

/// A day since 1970 as `YYYY-MM-DD`.
pub fn day_text(day: u64) -> String {
    let seconds = i64::try_from(day.saturating_mul(86_400)).unwrap_or(i64::MAX);
    // A timestamp ends in the year 9999; what is later cannot be written by a node whose clock works.
    let moment = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
    moment.strftime("%Y-%m-%d").to_string()
}

/// The day since 1970 of `YYYY-MM-DD`.
pub fn day_of(text: &str) -> Option<u64> {
    let midnight: jiff::Timestamp = format!("{text}T00:00:00Z").parse().ok()?;
    let day = u64::try_from(midnight.as_second()).ok()? / 86_400;
    (day_text(day) == text).then_some(day)
}

/// What a file's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName {
    /// Which commit of the archive made it.
    pub epoch: u64,
    /// How many events it holds.
    pub rows: u64,
    /// Whether its events happened long before their receipt.
    pub stray: bool,
    /// The beginning of the BLAKE3 hash of its bytes, in hexadecimal.
    pub hash: String,
}

impl FileName {
    /// The name.
    pub fn text(&self) -> String {
        let stray = if self.stray { "stray-" } else { "" };
        format!("{stray}{:012}-{}-{}.parquet", self.epoch, self.rows, self.hash)
    }
    /// What a name says; `None` for a file that is not ours.
    pub fn parse(text: &str) -> Option<Self> {
        let (stray, rest) = text.strip_prefix("stray-").map_or((false, text), |rest| (true, rest));
        let mut parts = rest.strip_suffix(".parquet")?.split('-');
        let (epoch, rows, hash) = (parts.next()?, parts.next()?, parts.next()?);
        let name = Self { epoch: epoch.parse().ok()?, rows: rows.parse().ok()?, stray, hash: hash.to_owned() };
        let is_hash = hash.len() == HASH_DIGITS && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        (parts.next().is_none() && is_hash && name.text() == text).then_some(name)
    }
    /// The hash of a file's bytes as names have it.
    pub fn hash_of(hash: &blake3::Hash) -> String {
        hash.to_hex()[..HASH_DIGITS].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_broken_clock_makes_rows_but_no_folders() {
        let tenant: Arc<str> = "acme".into();
        let now = 1_795_467_600_000;
        let (near, stray) = Partition::of(&tenant, now - HOUR_MS, now);
        assert_eq!((near.hour, stray), (now / HOUR_MS - 1, false));
        for time_ms in [0, 1, now - NEAR_MS - 1] {
            assert_eq!(Partition::of(&tenant, time_ms, now), (Partition { hour: now / HOUR_MS, ..near.clone() }, true));
        }
    }

    #[test]
    fn a_tenant_cannot_name_a_folder_outside() {
        for name in ["", "..", ".", "a/b", "../b", "a\0", ".hidden", "tenant=x"] {
            assert!(!is_tenant(name), "{name:?}");
        }
        assert!(is_tenant("acme-eu_1.test"));
    }

    proptest! {
        #[test]
        fn folders_and_names_are_read_back(hour in 0..70_000_000_u64, epoch: u64, rows: u64, stray: bool, bytes: [u8; 8]) {
            let partition = Partition { tenant: "acme".into(), hour };
            let folder = partition.folder(Path::new(""));
            let names: Vec<_> = folder.iter().map(|name| name.to_str().unwrap()).collect();
            prop_assert_eq!(Partition::parse(names[0], names[1], names[2]), Some(partition));
            let hash = FileName::hash_of(&blake3::hash(&bytes));
            let name = FileName { epoch, rows, stray, hash };
            prop_assert_eq!(FileName::parse(&name.text()), Some(name));
        }
        #[test]
        fn arbitrary_names_never_panic(text in "\\PC{0,40}", day in "\\PC{0,12}") {
            let _ = FileName::parse(&text);
            let _ = Partition::parse(&text, &format!("day={day}"), &text);
        }
    }
}
