//! `holdfast detection`: how detection on a running cluster does, and the rules its nodes have read.

use super::remote::Remote;
use super::show::{plain, print, query, rows, short, span, table, text, time};
use clap::Subcommand;
use serde_json::{Value, json};

/// Rules of one page.
const PAGE: usize = 500;
/// Rules that are asked for at most: as many as there may be.
const RULES_MAX: usize = 50_000;

/// How detection on a running cluster does.
#[derive(Subcommand)]
#[command(after_help = "Any node of a region answers for the region.\n\n  \
    holdfast detection status\n  \
    holdfast detection rules\n  \
    holdfast detection rules --json | jq '.rules[] | select(.status != \"in charge\")'\n\n\
    Questions about a folder of rules, without a cluster: holdfast rules.")]
#[allow(missing_docs, reason = "what is flattened is described at its type")]
pub enum DetectionCommand {
    /// The shards: who has each, how far behind it is, what is on trial and what may have been missed; tenants' quotas.
    Status {
        #[command(flatten)]
        remote: Remote,
    },
    /// The rules that the node that answers has read, and how each stands.
    Rules {
        #[command(flatten)]
        remote: Remote,
    },
}

/// Carries out a command.
pub async fn run(command: &DetectionCommand) -> anyhow::Result<()> {
    match command {
        DetectionCommand::Status { remote } => {
            print(remote, &remote.connect().await?.get("/v1/detection").await?, status)
        }
        DetectionCommand::Rules { remote } => {
            let client = remote.connect().await?;
            let (mut all, mut token) = (Vec::new(), String::new());
            loop {
                let page = client.get(&format!("/v1/detection/rules?limit={PAGE}{token}")).await?;
                all.extend(page["rules"].as_array().into_iter().flatten().cloned());
                match page["next_page_token"].as_str() {
                    Some(next) if all.len() < RULES_MAX => token = format!("&page_token={}", query(next)),
                    _ => break,
                }
            }
            print(remote, &json!({ "rules": all }), list)
        }
    }
}

fn list(found: &Value) -> String {
    let row = |one: &Value| {
        let whose = if one["tenant"].is_null() { &one["audience"] } else { &one["tenant"] };
        let raises = if one["alerts"] == true { "alerts" } else { "feeds others" };
        [&one["id"], &one["title"], &one["level"], &one["kind"], whose, &Value::from(raises), &one["status"]].map(text)
    };
    let shown = rows(&found["rules"], row);
    match shown.is_empty() {
        true => "There are no rules.".into(),
        false => table(["rule", "title", "level", "kind", "whose", "raises", "status"], shown).to_string(),
    }
}

fn status(found: &Value) -> String {
    let known = &found["rules"];
    let mut parts = vec![format!(
        "{} of region {} has read {} rules and {} correlations ({}).",
        plain(&text(&found["node"])),
        plain(&text(&found["region"])),
        text(&known["rules"]),
        text(&known["correlations"]),
        short(&known["set"]),
    )];
    let header = ["shard", "node", "rules", "set", "phase", "events", "alerts", "held", "keys", "late spans", "behind"];
    parts.push(table(header, rows(&found["shards"], shard)).to_string());
    let notes = found["shards"].as_array().into_iter().flatten().flat_map(notes);
    parts.extend(notes.map(|note| plain(&note)));
    let tenants = rows(&found["tenants"], |one| {
        let name = if one["tenant"].is_null() { "(all others)".to_owned() } else { text(&one["tenant"]) };
        let own = format!("{} of {}", text(&one["own"]), text(&one["rules_max"]));
        [name, text(&one["rules"]), own, text(&one["alerts_per_rule_hour"])]
    });
    if !tenants.is_empty() {
        parts.push(table(["tenant", "rules", "own", "alerts of a rule and hour"], tenants).to_string());
    }
    parts.join("\n")
}

fn shard(one: &Value) -> [String; 11] {
    let (report, count) = (&one["report"], |name: &str| text(&one["report"]["counts"][name]));
    let behind: Vec<String> = one["streams"].as_array().into_iter().flatten().filter_map(behind).collect();
    [
        text(&one["shard"]),
        if one["node"].is_null() { "NOBODY".into() } else { text(&one["node"]) },
        format!("{} + {}", text(&report["rules"]), text(&report["correlations"])),
        short(&report["set"]),
        text(&report["phase"]),
        count("events"),
        count("alerts"),
        count("held"),
        text(&report["keys"]),
        text(&report["late_spans"]),
        if behind.is_empty() { "-".into() } else { behind.join(", ") },
    ]
}

fn behind(stream: &Value) -> Option<String> {
    let count = stream["behind"].as_u64().filter(|count| *count > 0)?;
    let since = stream["behind_ms"].as_u64().map(|ms| format!(", {}", span(ms))).unwrap_or_default();
    Some(format!("{}: {count}{since}", text(&stream["stream"])))
}

/// What of a shard is out of the ordinary.
fn notes(one: &Value) -> Vec<String> {
    let (name, report) = (format!("Shard {}", text(&one["shard"])), &one["report"]);
    let mut notes = Vec::new();
    if report.is_null() {
        return vec![format!("{name}: nobody has said yet how it does.")];
    }
    if report["has_same_rules"] == false {
        notes.push(format!("{name}: its node has read other rules than the node that answers."));
    }
    let trial = &report["trial"];
    if !trial.is_null() {
        let foretold = if trial["is_foretold"] == true { "" } else { ", and waits for its forecast" };
        notes.push(format!(
            "{name}: set {} with {} new rules is on trial ({}) since {}, saw {} events{foretold}.",
            short(&trial["set"]),
            text(&trial["new"]),
            text(&report["phase"]),
            time(&trial["since_ms"]),
            text(&trial["events"]),
        ));
        notes.extend(
            rows(&trial["rules"], |rule| [text(&rule["rule"]), text(&rule["alerts"]), text(&rule["allowed"])])
                .into_iter()
                .map(|[rule, alerts, allowed]| {
                    let allowed = if allowed.is_empty() { "not known yet how many".to_owned() } else { allowed };
                    format!("  {rule}: {alerts} alerts, allowed: {allowed}")
                }),
        );
    }
    let rejected = &report["rejected"];
    if !rejected.is_null() {
        notes.push(format!("{name}: the rules were rejected, and are not in charge: {}.", text(&rejected["why"])));
    }
    for of in report["shadows"].as_array().into_iter().flatten() {
        notes.push(format!("{name}: {} in shadow would have raised {} alerts.", text(&of["rule"]), text(&of["count"])));
    }
    for (what, count) in report["losses"].as_object().into_iter().flatten() {
        notes.push(format!("{name}: SOMETHING MAY HAVE BEEN MISSED: {what} {count}."));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_the_ordinary_is_told_in_words() {
        let found = json!({
            "region": "eu", "node": "eu-1",
            "rules": {"set": "0011223344", "rules": 2, "correlations": 1},
            "shards": [
                {"shard": 0, "node": "eu-2", "streams": [{"stream": "events/eu", "behind": 7, "behind_ms": 65_000}],
                 "report": {"rules": 2, "correlations": 1, "phase": "shadow", "has_same_rules": false,
                    "trial": {"set": "ab", "new": 1, "since_ms": 0, "events": 5, "is_foretold": false,
                        "rules": [{"rule": "noisy\u{1b}[2J", "alerts": 9, "allowed": null}]},
                    "rejected": null, "shadows": [{"rule": "quiet", "count": 3}], "losses": {"keys_evicted": 4}}},
                {"shard": 1, "node": null, "report": null, "streams": []},
            ],
            "tenants": [{"tenant": null, "rules": 3, "own": 0, "rules_max": 500, "alerts_per_rule_hour": 100}],
        });
        let told = status(&found);
        for expect in [
            "events/eu: 7, 1m 5s",
            "other rules than",
            "waits for its forecast",
            "9 alerts",
            "quiet in shadow",
            "keys_evicted 4",
            "NOBODY",
            "nobody has said",
            "(all others)",
            "0 of 500",
        ] {
            assert!(told.contains(expect), "{expect}: {told}");
        }
        assert!(!told.contains('\u{1b}'));
        assert_eq!(list(&json!({"rules": []})), "There are no rules.");
    }
}
