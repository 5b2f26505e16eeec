//! The load that is made here: audit events, syslog lines, values to be counted, and rules over them.

use super::raw;
use detection::{RawEvent, SourceKind};

/// When the first event happened: any moment will do.
pub(super) const BEGIN_MS: u64 = 1_795_467_600_000;
/// Events in a millisecond: two thousand a second.
pub(super) const EVENTS_PER_MS: u64 = 2;
/// Rules of [`audit_rules`].
pub(super) const AUDIT_RULES: usize = 300;

/// So many audit events.
pub(super) fn audit(count: u64) -> Vec<RawEvent> {
    (0..count).map(|number| raw(number, SourceKind::Audit, audit_event(number))).collect()
}

/// So many lines of sshd.
pub(super) fn syslog(count: u64) -> Vec<RawEvent> {
    (0..count).map(|number| raw(number, SourceKind::Syslog, syslog_line(number))).collect()
}

/// Both in turn.
pub(super) fn mixed(count: u64) -> Vec<RawEvent> {
    let one = |number: u64| match number % 2 {
        0 => raw(number, SourceKind::Audit, audit_event(number)),
        _ => raw(number, SourceKind::Syslog, syslog_line(number)),
    };
    (0..count).map(one).collect()
}

/// Rules as a customer writes them over audit events: on operations, people, places, resources and reasons.
pub(super) fn audit_rules() -> String {
    let rule = |number: usize| {
        let selection = match number % 6 {
            0 => format!("api.operation: [record.export{number}, record.purge{number}]\n    status_id: 1"),
            1 => format!("api.operation: record.view\n    actor.user.name|endswith: '@contractor{number}.example'"),
            2 => format!("api.operation|startswith: record.\n    resources.name|contains: /tables/secret{number}/"),
            3 => format!("src_endpoint.ip|cidr: 172.{}.{}.0/24\n    class_uid: 6005", 16 + number % 16, number % 250),
            4 => format!("status_detail|re: '^(quota|limit)_{number}[a-z]+$'\n    status: Failure"),
            _ => format!(
                "api.operation: login.failed\n    actor.user.name: [root{number}, admin{number}, oracle{number}]"
            ),
        };
        format!(
            "title: rule {number}\nlogsource: {{product: holdfast, service: audit}}\ndetection:\n  selection:\n    \
             {selection}\n  filter:\n    metadata.tenant_uid: test{number}\n  condition: selection and not filter\n"
        )
    };
    (0..AUDIT_RULES).map(rule).collect::<Vec<_>>().join("---\n")
}

/// One in twenty is a failed login, from few addresses; the rest is daily work of two hundred people.
fn audit_event(number: u64) -> String {
    let time_ms = BEGIN_MS + number / EVENTS_PER_MS;
    let user = number.wrapping_mul(2_654_435_761) % 200;
    let (action, outcome, reason) = match number % 20 {
        0 => ("login.failed", "failure", "\"credentials\""),
        1 => ("login", "success", "null"),
        2..=8 => ("record.put", "success", "null"),
        _ => ("record.view", "success", "null"),
    };
    let address = if number.is_multiple_of(20) { number / 20 % 10 } else { 10 + user };
    format!(
        "{{\"time_ms\":{time_ms},\"region\":\"eu\",\"node\":\"eu-1\",\"group\":1,\"action\":\"{action}\",\"outcome\":\"{outcome}\",\
         \"reason\":{reason},\"tenant\":\"customer{}\",\"user\":\"user{user}\",\"session\":\"{number:032x}\",\"address\":\"10.0.{}.{}\",\
         \"resource\":\"tenants/customer/tables/items/records/{number}\",\"fields\":[\"value\"],\"request_id\":\"{number:032x}\",\
         \"detail_digest\":\"{number:064x}\"}}",
        user % 20,
        address / 250,
        address % 250 + 1
    )
}

/// Half are refused passwords, from a hundred addresses; the rest sessions that open.
fn syslog_line(number: u64) -> String {
    let at = jiff::Timestamp::from_millisecond((BEGIN_MS + number / EVENTS_PER_MS).cast_signed()).unwrap_or_default();
    let (user, address) = (number.wrapping_mul(2_654_435_761) % 50, number % 100 + 1);
    let message = if number % 4 < 2 {
        format!(
            "Failed password for invalid user user{user} from 203.0.113.{address} port {} ssh2",
            1_024 + number % 60_000
        )
    } else {
        format!("Accepted password for user{user} from 198.51.100.{address} port {} ssh2", 1_024 + number % 60_000)
    };
    format!("<38>1 {at} host{} sshd {} - - {message}", number % 30, 1_000 + number % 30_000)
}
