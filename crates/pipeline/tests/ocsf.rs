//! What leaves is OCSF: every event and finding, held to OCSF's own schema with its types, enumerations and constraints.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/ocsf.rs"]
mod ocsf;

use detection::{RawEvent, SourceKind};
use ocsf::faults;
use pipeline::record::Record;
use pipeline::transform::{Outputs, TransformConfig};
use serde_json::{Value, json};
use std::path::Path;

const NOW_MS: u64 = 1_795_467_600_000;

/// What `normalise` without settings makes of a line, as sinks are told it.
fn told(source: SourceKind, line: &str) -> Value {
    let raw = RawEvent { source, received_ms: NOW_MS, position: None, bytes: line.to_owned().into() };
    let config: TransformConfig = toml::from_str("type = 'normalise'").unwrap();
    let mut out = Outputs::default();
    config.open(Path::new(".")).unwrap().apply(Record::from(raw), &mut out);
    let refused: Vec<String> = out.refused.iter().map(|(_, refusal)| refusal.to_string()).collect();
    let [(_, record)] = &out.passed[..] else { panic!("{line}: {refused:?}") };
    serde_json::from_str(&record.notice("platform").body).unwrap()
}

#[track_caller]
fn check(source: SourceKind, lines: impl IntoIterator<Item = String>) {
    let mut found = Vec::new();
    for line in lines {
        let event = told(source, &line);
        found.extend(faults(&event).into_iter().map(|fault| format!("{fault}\n    {line}\n    {event}")));
    }
    found.truncate(20);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The platform's actions, and some that it may come to know.
const ACTIONS: [&str; 34] = [
    "login",
    "login.failed",
    "logout",
    "session.refused",
    "record.view",
    "record.query",
    "record.put",
    "record.patch",
    "record.delete",
    "transaction",
    "conflict.view",
    "request.replay",
    "tenant.create",
    "tenant.update",
    "table.create",
    "user.create",
    "user.update",
    "user.password",
    "user.lock",
    "role.grant",
    "role.revoke",
    "denied",
    "audit.view",
    "audit.anchor",
    "incident.update",
    "alert.raised",
    "ingest",
    "archive.expire",
    "archive.full",
    "config.update",
    "cluster.bootstrap",
    "replication.silence",
    "something",
    "x.y",
];

#[test]
fn entries_of_the_audit_log_are_ocsf_whoever_did_whatever_from_wherever() {
    let mut lines = Vec::new();
    for action in ACTIONS {
        for outcome in ["success", "failure", "denied"] {
            let least = json!({"v": 1, "time_ms": NOW_MS, "region": "eu", "node": "eu-1", "group": 0, "action": action,
                "outcome": outcome});
            let mut most = least.clone();
            for (name, value) in [
                ("reason", json!("password")),
                ("tenant", json!("acme")),
                ("user", json!("ann")),
                ("session", json!("s-1")),
                ("address", json!("203.0.113.9")),
                ("resource", json!("tenants/acme/users/ann")),
                ("fields", json!(["a", "b"])),
                ("request_id", json!("r-1")),
                ("detail_digest", json!("00ff")),
            ] {
                let mut some = least.clone();
                some[name] = value.clone();
                most[name] = value;
                lines.push(some.to_string());
            }
            lines.extend([least.to_string(), most.to_string()]);
        }
    }
    check(SourceKind::Audit, lines);
}

#[test]
fn syslog_is_ocsf_also_where_it_names_nobody() {
    let lines = [
        "<38>Jun 15 02:04:59 h sshd[1]: Failed password for ann from 203.0.113.9 port 4 ssh2",
        "<38>Jun 15 02:04:59 h sshd[1]: Accepted publickey for ann from gate.example port 4 ssh2",
        "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: authentication failure; logname= uid=0 euid=0 tty=NODEVssh ruser= rhost=218.188.2.4 ",
        "Jun 14 15:16:02 combo sshd(pam_unix)[19937]: check pass; user unknown",
        "Jun 15 04:06:18 combo su(pam_unix)[21416]: session opened for user cyrus by (uid=0)",
        "Jun 15 04:06:19 combo su(pam_unix)[21416]: session closed for user cyrus",
        "Jun 15 04:06:20 combo logrotate: ALERT exited abnormally with [1]",
        "Jun 15 04:06:20 combo a[b]: no number",
        "Jun 15 04:06:20 combo 1",
        "<165>1 2003-10-11T22:14:15.003Z m.example.com evntslog 8710 ID47 [exampleSDID@32473 iut=\"3\"] An event",
        "<165>1 - - - - - - nothing",
    ];
    check(SourceKind::Syslog, lines.map(str::to_owned));
}

#[test]
fn every_line_of_a_server_s_real_log_is_ocsf() {
    let path = Path::new("../../../shared/data/loghub/Linux_2k.log");
    let Ok(text) = std::fs::read(path) else {
        eprintln!("skipped: {} is not here", path.display());
        return;
    };
    check(SourceKind::Syslog, String::from_utf8_lossy(&text).lines().map(str::to_owned));
}

#[test]
fn badges_and_records_of_services_are_ocsf() {
    let badge = json!({"time_ms": 9, "badge": "00-12", "person": "ann", "person_kind": "visitor", "door": "D4",
        "site": "Berlin", "region": "eu", "direction": "in", "outcome": "denied", "reason": "expired", "host": "bob",
        "other": {"floor": "3"}});
    let least = json!({"time_ms": 9, "badge": "00-12"});
    check(SourceKind::Badge, [badge.to_string(), least.to_string()]);
    let record = json!({"time_unix_nano": 1_795_467_600_123_456_789_u64, "severity_number": 17, "severity_text": "ERROR",
        "body": "login failed", "trace_id": "5b8a", "event_name": "login",
        "attributes": {"enduser.id": "ann", "client.address": "203.0.113.9"},
        "resource": {"service.name": "shop", "host.name": "h1", "os.type": "linux", "k8s": {"pod": "p"}},
        "scope": {"name": "auth"}});
    let attributes = json!({"client.address": "gate.example", "process.executable.name": "x"});
    let odd = json!({"body": {"a": 1}, "attributes": attributes});
    for record in [record, odd, json!({"body": "x"})] {
        let mut faults = faults(&told(SourceKind::Otlp, &record.to_string()));
        // What an application calls its own keeps its name.
        faults.retain(|fault| !fault.ends_with(": is not in the schema"));
        assert_eq!(faults, Vec::<String>::new(), "{record}");
    }
}
