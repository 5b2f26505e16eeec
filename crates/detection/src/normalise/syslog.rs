//! Syslog lines as OCSF: logins by sshd, su, sudo and pam as Authentication, all else as base events.

use super::{Draft, OCSF_VERSION, UNKNOWN, class};
use crate::event::{LogSource, RejectReason};
use crate::source::syslog::{self, Syslog};
use std::net::IpAddr;
use std::sync::Arc;

/// Programs whose lines Sigma rules also look for under the service `auth`.
const AUTH_PROGRAMS: [&str; 6] = ["sshd", "su", "sudo", "login", "gdm", "ftpd"];

const LOGON: u32 = 1;
const LOGOFF: u32 = 2;
const OTHER: u32 = 99;

pub(super) fn draft(bytes: &[u8], received_ms: u64) -> Result<Draft, RejectReason> {
    let line = syslog::parse(bytes, received_ms)?;
    let mut draft = Draft {
        time_ms: line.time_ms.unwrap_or(received_ms),
        // Syslog's severities run the other way round.
        severity_id: match line.severity {
            Some(0) => 6,
            Some(1 | 2) => 5,
            Some(3) => 4,
            Some(4) => 3,
            Some(5) => 2,
            Some(_) => 1,
            None => 0,
        },
        logsource: log_source(&line),
        ..Draft::default()
    };
    draft.set("metadata.version", OCSF_VERSION);
    draft.set("metadata.log_name", "syslog");
    draft.set("metadata.product.name", "syslog");
    draft.text("message", Some(&line.message));
    draft.device("device.hostname", line.host.as_deref());
    draft.text("process.name", line.program.as_deref());
    match line.process_id.as_deref().map(|id| (id, id.parse::<u32>())) {
        Some((_, Ok(id))) => draft.set("process.pid", id),
        Some((id, Err(_))) => draft.text("process.uid", Some(id)),
        // OCSF wants to know which process it is.
        None => draft.text("process.uid", line.program.as_deref()),
    }
    draft.text("metadata.event_code", line.message_id.as_deref());
    if let (Some(facility), Some(severity)) = (line.facility, line.severity) {
        draft.set("unmapped.syslog.facility", facility);
        draft.set("unmapped.syslog.severity", severity);
    }
    for (element, parameter, value) in &line.parameters {
        draft.set(&format!("unmapped.{element}.{parameter}"), value.as_str());
    }
    if let Some(login) = login(&line) {
        draft.text("service.name", line.program.as_deref());
        login.write(&mut draft);
    }
    Ok(draft)
}

/// `sshd` of `sshd(pam_unix)` and of `/usr/sbin/sshd`.
fn base_program(line: &Syslog) -> &str {
    let program = line.program.as_deref().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default();
    program.split(['(', '-']).next().unwrap_or_default()
}

fn log_source(line: &Syslog) -> LogSource {
    let program = base_program(line);
    let mut services: Vec<Arc<str>> = vec!["syslog".into()];
    if !program.is_empty() {
        services.push(program.into());
    }
    if AUTH_PROGRAMS.contains(&program) {
        services.push("auth".into());
    }
    LogSource { product: Some("linux".into()), category: None, services }
}

/// What a line says about a login.
struct Login<'a> {
    activity_id: u32,
    succeeded: Option<bool>,
    user: Option<&'a str>,
    by: Option<&'a str>,
    from: Option<&'a str>,
    method: Option<&'a str>,
}

impl Login<'_> {
    fn write(&self, draft: &mut Draft) {
        draft.class_uid = class::AUTHENTICATION;
        draft.activity_id = self.activity_id;
        if let Some(succeeded) = self.succeeded {
            draft.set("status_id", if succeeded { 1 } else { 2 });
            draft.set("status", if succeeded { "Success" } else { "Failure" });
            draft.severity_id = draft.severity_id.max(if succeeded { 1 } else { 2 });
        }
        draft.text("user.name", self.user);
        if !draft.fields.contains_key("user.name") {
            draft.text("user.uid", Some(UNKNOWN));
        }
        draft.text("actor.user.name", self.by);
        draft.text("auth_protocol", self.method);
        if let Some(from) = self.from.filter(|from| !from.is_empty()) {
            draft.text("src_endpoint.name", Some(from));
            if from.parse::<IpAddr>().is_ok() {
                draft.text("src_endpoint.ip", Some(from));
            }
        }
    }
}

fn login(line: &Syslog) -> Option<Login<'_>> {
    let program = base_program(line);
    if !AUTH_PROGRAMS.contains(&program) {
        return None;
    }
    let message = line.message.as_str();
    // Newer lines name the pam module in the message: there sshd writes a line of its own for each attempt.
    let (message, told_twice) = match message.strip_prefix("pam_unix(") {
        Some(rest) => (rest.split_once("): ")?.1, program == "sshd"),
        None => (message, false),
    };
    pam(message, told_twice).or_else(|| sshd(message))
}

fn pam(message: &str, told_twice: bool) -> Option<Login<'_>> {
    let none = Login { activity_id: OTHER, succeeded: None, user: None, by: None, from: None, method: None };
    if let Some(rest) = message.strip_prefix("authentication failure;") {
        let value = |key: &str| rest.split(' ').find_map(|word| word.strip_prefix(key)).filter(|v| !v.is_empty());
        return Some(Login {
            activity_id: if told_twice { OTHER } else { LOGON },
            succeeded: Some(false),
            user: value("user="),
            by: value("ruser=").or_else(|| value("logname=")),
            from: value("rhost="),
            method: Some("pam"),
        });
    }
    if let Some(rest) = message.strip_prefix("session opened for user ") {
        let by = rest.split_once(" by ").and_then(|(_, by)| by.split('(').next());
        // A session follows the line on the accepted login where sshd writes one.
        let activity_id = if told_twice { OTHER } else { LOGON };
        let user = rest.split([' ', '(']).next();
        return Some(Login { activity_id, succeeded: Some(true), user, by, ..none });
    }
    if let Some(user) = message.strip_prefix("session closed for user ") {
        return Some(Login { activity_id: LOGOFF, succeeded: Some(true), user: user.split(' ').next(), ..none });
    }
    message.starts_with("check pass;").then_some(none)
}

/// `Failed password for invalid user ann from 203.0.113.9 port 22 ssh2`, and its like.
fn sshd(message: &str) -> Option<Login<'_>> {
    let (succeeded, rest) = match message.split_once(' ')? {
        ("Failed", rest) => (false, rest),
        ("Accepted", rest) => (true, rest),
        _ => return None,
    };
    let (method, rest) = rest.split_once(" for ")?;
    let rest = rest.strip_prefix("invalid user ").unwrap_or(rest);
    // The user's name is the attacker's to choose, and may hold " from ": the last one counts.
    let (user, rest) = rest.rsplit_once(" from ")?;
    let from = rest.split(' ').next();
    Some(Login {
        activity_id: LOGON,
        succeeded: Some(succeeded),
        user: Some(user),
        by: None,
        from,
        method: Some(method),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_795_467_600_000;

    #[track_caller]
    fn check(line: &str, class: u32, activity: u32, fields: &[(&str, &str)]) {
        let draft = draft(line.as_bytes(), NOW_MS).unwrap();
        assert_eq!((draft.class_uid, draft.activity_id), (class, activity), "{line}");
        for (field, value) in fields {
            assert_eq!(draft.fields.get(*field).and_then(|v| v.as_str()), Some(*value), "{field} of {line}");
        }
    }

    #[test]
    fn logins_are_found_in_lines_old_and_new() {
        let old = "Jun 15 02:04:59 combo sshd(pam_unix)[20882]: authentication failure; logname= uid=0 euid=0 tty=NODEVssh ruser= rhost=220-135-151-1.hinet-ip.hinet.net  user=root";
        check(
            old,
            3002,
            1,
            &[("user.name", "root"), ("src_endpoint.name", "220-135-151-1.hinet-ip.hinet.net"), ("status", "Failure")],
        );
        let invalid =
            "<38>Jun 15 02:04:59 h sshd[1]: Failed password for invalid user a from b from 203.0.113.9 port 4 ssh2";
        check(invalid, 3002, 1, &[("user.name", "a from b"), ("src_endpoint.ip", "203.0.113.9")]);
        let accepted =
            "<38>1 2026-06-15T02:04:59Z h sshd 1 - - Accepted publickey for ann from 2001:db8::1 port 4 ssh2";
        check(accepted, 3002, 1, &[("user.name", "ann"), ("src_endpoint.ip", "2001:db8::1"), ("status", "Success")]);
        let pam = "<38>Jun 15 02:04:59 h sshd[1]: pam_unix(sshd:auth): authentication failure; logname= uid=0 rhost=203.0.113.9  user=root";
        check(pam, 3002, 99, &[("user.name", "root")]);
        check(
            "Jun 15 04:06:18 combo su(pam_unix)[21416]: session opened for user cyrus by (uid=0)",
            3002,
            1,
            &[("user.name", "cyrus")],
        );
        check("Jun 15 04:06:19 combo su(pam_unix)[21416]: session closed for user cyrus", 3002, 2, &[]);
        check(
            "Jun 15 04:06:20 combo logrotate: ALERT exited abnormally with [1]",
            0,
            0,
            &[("process.name", "logrotate")],
        );
    }
}
