//! Incidents as people read them on the command line.

use super::super::show::{self, plain, rows, short, text, time};
use crate::world::SystemClock;
use model::time::Clock as _;
use serde_json::{Value, json};

pub(super) fn list_table(found: &Value) -> String {
    let now_ms = SystemClock::new().wall_ms();
    let row = |one: &Value| {
        let age = one["opened_ms"].as_u64().map(|at_ms| show::span(now_ms.saturating_sub(at_ms)));
        [
            short(&one["id"]),
            text(&one["severity"]),
            text(&one["priority"]),
            text(&one["risk"]),
            text(&one["status"]),
            age.unwrap_or_default(),
            show::left(&one["due_ms"], now_ms),
            text(&one["assignee"]),
            text(&one["tenant"]),
            text(&one["alert_count"]),
            text(&one["title"]),
        ]
    };
    let header =
        ["id", "severity", "priority", "risk", "status", "age", "report", "assignee", "tenant", "alerts", "title"];
    let rows: Vec<_> = found["incidents"].as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return "No incidents.".into();
    }
    let (shown, total) = (rows.len() as u64, found["total"].as_u64().unwrap_or_default());
    let more = if total > shown { format!("\n{shown} of {total}") } else { String::new() };
    format!("{}{more}", show::table(header, rows))
}

/// A section with a table; nothing where there are no rows.
fn section<const N: usize>(title: &str, header: [&str; N], rows: Vec<[String; N]>) -> String {
    if rows.is_empty() { String::new() } else { format!("\n{title}\n{}\n", show::table(header, rows)) }
}

pub(super) fn whole(one: &Value) -> String {
    let now_ms = SystemClock::new().wall_ms();
    let list = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
    let mut said = format!(
        "{}\n{}\n\nid {}  status {}  severity {}  priority {}  risk {} ({})\nopened {}  first event {}  last event {}\n",
        plain(&text(&one["title"])),
        list_table(&json!({"incidents": [one]})),
        text(&one["id"]),
        text(&one["status"]),
        text(&one["severity"]),
        text(&one["priority"]),
        text(&one["risk"]),
        text(&one["risk_parts"]["level"]),
        time(&one["opened_ms"]),
        time(&one["first_ms"]),
        time(&one["last_ms"]),
    );
    if !one["merged_into"].is_null() {
        said.push_str(&format!("went up in {}\n", text(&one["merged_into"])));
    }
    if let Some(until_ms) = one["quiet_until_ms"].as_u64() {
        said.push_str(&format!("nobody is called until {}\n", time(&until_ms.into())));
    }
    let attack = &one["attack"];
    said.push_str(&format!(
        "ATT&CK {}: {}; {}\n",
        text(&attack["version"]),
        list(&attack["tactics"]),
        list(&attack["techniques"])
    ));
    let points = |value: &Value| format!("{:.1}", value.as_f64().unwrap_or_default() / 1_000.0);
    let parts = one["risk_parts"]["rules"].as_object().cloned().unwrap_or_default();
    let parts = parts.iter().map(|(rule, value)| [rule.clone(), points(value)]).collect();
    said.push_str(&section("Risk by rule, before factors", ["rule", "points"], parts));
    let entity = |one: &Value| [text(&one["kind"]), text(&one["name"]), text(&one["alerts"]), text(&one["risk"])];
    said.push_str(&section("Entities", ["kind", "name", "alerts", "risk"], rows(&one["graph"]["entities"], entity)));
    let edge = |one: &Value| [text(&one["one"]), text(&one["other"]), text(&one["alerts"])];
    said.push_str(&section("Joined by", ["one", "other", "alerts"], rows(&one["graph"]["edges"], edge)));
    let clock = |one: &Value| {
        let left = match text(&one["state"]).as_str() {
            "running" | "overdue" => show::left(&one["due_ms"], now_ms),
            _ => String::new(),
        };
        let reference = text(&one["reference"]);
        [text(&one["clock"]), text(&one["subject"]), text(&one["state"]), time(&one["due_ms"]), left, reference]
    };
    let header = ["clock", "to or about", "state", "due", "left", "reference"];
    said.push_str(&section("Clocks", header, rows(&one["clocks"], clock)));
    let alert = |one: &Value| [time(&one["time_ms"]), text(&one["severity"]), text(&one["title"]), text(&one["id"])];
    said.push_str(&section("Alerts", ["time", "severity", "title", "id"], rows(&one["alerts"], alert)));
    if let Some(post_mortem) = one["post_mortem"].as_str() {
        let lines: Vec<String> = post_mortem.lines().map(plain).collect();
        said.push_str(&format!("\nPost-mortem\n{}\n", lines.join("\n")));
    }
    said.push_str("\nHistory\n");
    for one in one["history"].as_array().into_iter().flatten() {
        said.push_str(&note(one));
        said.push('\n');
    }
    said
}

/// One line of the history.
pub(super) fn note(one: &Value) -> String {
    let because = one["why"].as_str().map(|why| format!(" because {why}")).unwrap_or_default();
    let void = one["void"].as_str().map(|void| format!(" [void: {void}]")).unwrap_or_default();
    let said = format!("{} {} {}{because}{void}", text(&one["actor"]), text(&one["act"]), text(&one["text"]));
    format!("{}  {}  ({})", time(&one["time_ms"]), plain(&said), text(&one["id"]))
}

pub(super) fn moments(found: &Value) -> String {
    let mut said = String::new();
    for one in found["moments"].as_array().into_iter().flatten() {
        let line = match text(&one["kind"]).as_str() {
            "event" => format!("event  {}", plain(&text(&one["text"]))),
            "alert" => format!("ALERT  {} [{}]", plain(&text(&one["title"])), text(&one["severity"])),
            _ => format!("act    {}", note(&one["note"]).split_once("  ").map(|(_, rest)| rest).unwrap_or_default()),
        };
        said.push_str(&format!("{}  {line}\n", time(&one["time_ms"])));
    }
    match found["left_out"].as_u64() {
        Some(count) if count > 0 => format!("{said}and {count} more events"),
        _ => said.trim_end().to_owned(),
    }
}

pub(super) fn mutes(found: &Value) -> String {
    let row = |one: &Value| {
        let about = [&one["entity"], &one["rule"]].map(text).concat();
        [short(&one["id"]), about, text(&one["tenant"]), time(&one["until_ms"]), text(&one["by"]), text(&one["why"])]
    };
    let found = rows(&found["mutes"], row);
    match found.is_empty() {
        true => "Nothing rests: people are called about everything.".into(),
        false => show::table(["id", "about", "tenant", "until", "by", "why"], found).to_string(),
    }
}
