//! The audit log is complete: everything acknowledged is in it, and nothing twice.

use super::Finding;
use serde::Serialize;
use std::collections::BTreeMap;

/// An entry of the audit log, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its log.
    pub log: String,
    /// Its index in the log.
    pub index: u64,
    /// What was done.
    pub action: String,
    /// `success`, `failure` or `denied`.
    pub outcome: String,
    /// To what.
    pub resource: String,
    /// The request it was part of.
    pub request: String,
}

/// Something a client did that must be in the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Expected {
    /// The server's number of the request.
    pub request: String,
    /// Beginnings of the action's name that are right, such as `record.`.
    pub actions: &'static [&'static str],
    /// The outcome it had.
    pub outcome: &'static str,
    /// The end of the resource's name, if it is known.
    pub resource: Option<String>,
}

/// Judges the logs of all regions together.
pub fn check(expected: &[Expected], entries: &[Entry]) -> Finding {
    let mut finding = Finding::new("audit complete");
    let mut requests: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    let mut places: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    for entry in entries {
        requests.entry(&entry.request).or_default().push(entry);
        *places.entry((&entry.log, entry.index)).or_default() += 1;
    }
    for wanted in expected {
        finding.examined += 1;
        let of_request = requests.get(wanted.request.as_str()).map(Vec::as_slice).unwrap_or_default();
        let matching = of_request.iter().filter(|entry| matches(wanted, entry)).count();
        if matching == 0 {
            let there: Vec<&str> = of_request.iter().map(|entry| entry.action.as_str()).collect();
            finding.violate(|| {
                format!(
                    "request {} ({:?}, {}) is not in the log: {there:?}",
                    wanted.request, wanted.actions, wanted.outcome
                )
            });
        } else if matching > 1 && wanted.resource.is_some() {
            finding.violate(|| format!("request {} is in the log {matching} times", wanted.request));
        }
    }
    for ((log, index), count) in places.iter().filter(|(_, count)| **count > 1) {
        finding.violate(|| format!("entry {index} of {log} was given {count} times"));
    }
    finding
}

fn matches(wanted: &Expected, entry: &Entry) -> bool {
    wanted.actions.iter().any(|begin| entry.action.starts_with(begin))
        && entry.outcome == wanted.outcome
        && wanted.resource.as_ref().is_none_or(|end| entry.resource.ends_with(end.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, request: &str, action: &str, outcome: &str) -> Entry {
        Entry {
            log: "eu-0".into(),
            index,
            action: action.into(),
            outcome: outcome.into(),
            resource: "tables/orders/records/o-1".into(),
            request: request.into(),
        }
    }
    fn expected(request: &str) -> Expected {
        let resource = Some("/records/o-1".to_owned());
        Expected { request: request.into(), actions: &["record.put", "record.patch"], outcome: "success", resource }
    }

    #[test]
    fn a_complete_log_holds() {
        let entries = [entry(0, "r1", "record.put", "success"), entry(1, "r2", "record.patch", "success")];
        assert!(check(&[expected("r1"), expected("r2")], &entries).holds());
    }

    #[test]
    fn a_dropped_entry_is_rejected() {
        assert!(!check(&[expected("r1"), expected("r2")], &[entry(0, "r1", "record.put", "success")]).holds());
    }

    #[test]
    fn an_entry_of_another_act_outcome_or_record_is_rejected() {
        assert!(!check(&[expected("r1")], &[entry(0, "r1", "record.view", "success")]).holds());
        assert!(!check(&[expected("r1")], &[entry(0, "r1", "record.put", "denied")]).holds());
        let other = Entry { resource: "tables/orders/records/o-2".into(), ..entry(0, "r1", "record.put", "success") };
        assert!(!check(&[expected("r1")], &[other]).holds());
    }

    #[test]
    fn an_act_recorded_twice_is_rejected() {
        let entries = [entry(0, "r1", "record.put", "success"), entry(1, "r1", "record.put", "success")];
        assert!(!check(&[expected("r1")], &entries).holds());
        let forked = [entry(0, "r1", "record.put", "success"), entry(0, "r2", "record.put", "success")];
        assert!(!check(&[expected("r1"), expected("r2")], &forked).holds(), "two entries at one place");
    }
}
