//! `holdfast alerts`: what rules said about which events, over the API of a running node.

use super::remote::{Client, Remote};
use super::show::{self, plain, print, query, rows, short, table, text, time};
use crate::world::SystemClock;
use anyhow::bail;
use clap::{Args, Subcommand};
use model::time::Clock as _;
use serde_json::Value;

/// What rules said about which events.
#[derive(Subcommand)]
#[command(after_help = "Examples:\n  \
    holdfast alerts list --severity high --since 24h\n  \
    holdfast alerts list --entity user:ann --rule api_brute_force\n  \
    holdfast alerts show 9c41e07b\n\n\
    Ids may be cut short as long as one alert of the newest 500 begins so. A tenant's own SOC sees the alerts of the\n\
    tenant's rules, the platform's sees all. Say how to reach a node by HOLDFAST_API, HOLDFAST_CA and HOLDFAST_TOKEN,\n\
    or by --api, --ca and --login.")]
pub enum AlertsCommand {
    /// List alerts, newest first.
    List(List),
    /// One alert: its rule, whom it concerns, and the events that satisfied the rule.
    Show(Show),
}

/// Which alerts.
#[derive(Args)]
pub struct List {
    #[command(flatten)]
    remote: Remote,
    /// Only of the rule with this id.
    #[arg(long)]
    rule: Option<String>,
    /// Only so grave or graver.
    #[arg(long, value_parser = ["informational", "low", "medium", "high", "critical"])]
    severity: Option<String>,
    /// Only of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Only those that concern this entity, such as user:ann or address:203.0.113.9.
    #[arg(long)]
    entity: Option<String>,
    /// Only those of the last while, such as 90m, 24h or 7d.
    #[arg(long, conflicts_with = "from")]
    since: Option<String>,
    /// Only those from this time on, such as 2026-03-02T09:00:00Z.
    #[arg(long)]
    from: Option<String>,
    /// Only those before this time.
    #[arg(long)]
    to: Option<String>,
    /// Those too that no longer stand, because an event that came late changed them.
    #[arg(long)]
    superseded: bool,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
}

/// One alert.
#[derive(Args)]
pub struct Show {
    #[command(flatten)]
    remote: Remote,
    /// The alert: its id, or enough of its beginning.
    id: String,
}

impl List {
    /// The address of what is asked for.
    fn path(&self, now_ms: u64) -> anyhow::Result<String> {
        let from_ms = match (&self.since, &self.from) {
            (Some(span), _) => Some(now_ms.saturating_sub(show::parse_span(span)?)),
            (None, from) => from.as_deref().map(show::parse_time).transpose()?,
        };
        let to_ms = self.to.as_deref().map(show::parse_time).transpose()?;
        let named = [
            ("rule", self.rule.clone()),
            ("severity", self.severity.clone()),
            ("tenant", self.tenant.clone()),
            ("entity", self.entity.clone()),
            ("from_ms", from_ms.map(|ms| ms.to_string())),
            ("to_ms", to_ms.map(|ms| ms.to_string())),
            ("superseded", self.superseded.then(|| "true".to_owned())),
        ];
        let mut path = format!("/v1/alerts?limit={}", self.limit);
        for (name, value) in named.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            path.push_str(&format!("&{name}={}", query(&value)));
        }
        Ok(path)
    }
}

/// Carries out a command.
pub async fn run(command: &AlertsCommand) -> anyhow::Result<()> {
    match command {
        AlertsCommand::List(list) => {
            let path = list.path(SystemClock::new().wall_ms())?;
            print(&list.remote, &list.remote.connect().await?.get(&path).await?, list_table)
        }
        AlertsCommand::Show(one) => {
            let client = one.remote.connect().await?;
            let id = find(&client, &one.id).await?;
            print(&one.remote, &client.get(&format!("/v1/alerts/{}", query(&id))).await?, whole)
        }
    }
}

/// The whole id of what begins so, among the newest; an id that is whole is taken as it is.
async fn find(client: &Client, id: &str) -> anyhow::Result<String> {
    if let Some(found) = client.find(&format!("/v1/alerts/{}", query(id))).await? {
        return Ok(text(&found["id"]));
    }
    let newest = client.get("/v1/alerts?limit=500&superseded=true").await?;
    let known = newest["alerts"].as_array().into_iter().flatten().map(|alert| text(&alert["id"]));
    let fits: Vec<String> = known.filter(|known| known.starts_with(id)).collect();
    match fits.as_slice() {
        [] => bail!("no alert is or begins with {id}"),
        [one] => Ok(one.clone()),
        several => bail!("{id} begins more than one: {}", several.join(", ")),
    }
}

fn list_table(answer: &Value) -> String {
    let header = ["alert", "completed", "severity", "rule", "group", "events", "tenant", "incident"];
    let rows = rows(&answer["alerts"], |alert| {
        let state = if alert["superseded_by"].is_null() { "" } else { " (superseded)" };
        [
            format!("{}{state}", short(&alert["id"])),
            time(&alert["time_ms"]),
            text(&alert["severity"]),
            text(&alert["rule"]),
            group(&alert["group"]),
            text(&alert["count"]),
            text(&alert["tenant"]),
            short(&alert["incident"]),
        ]
    });
    let count = rows.len();
    let more =
        if answer["next_page_token"].is_null() { "" } else { "; there are more: narrow the list or raise --limit" };
    format!("{}\n{count} alerts{more}", table(header, rows))
}

/// `ip=192.0.2.7 user=ann`.
fn group(values: &Value) -> String {
    let pairs = values.as_object().into_iter().flatten().map(|(name, value)| format!("{name}={}", text(value)));
    pairs.collect::<Vec<_>>().join(" ")
}

fn whole(alert: &Value) -> String {
    let list = |values: &Value| values.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
    let mut flags = Vec::new();
    for (field, flag) in [("late", "an event came late"), ("clamped", "a source's clock was ahead")] {
        if alert[field] == true {
            flags.push(flag.to_owned());
        }
    }
    if let Some(by) = alert["superseded_by"].as_str() {
        flags.push(format!("superseded by {by}"));
    }
    let facts = [
        ("alert", text(&alert["id"])),
        ("rule", format!("{} ({})", text(&alert["title"]), text(&alert["rule"]))),
        ("severity", text(&alert["severity"])),
        ("tenant", text(&alert["tenant"])),
        ("group", group(&alert["group"])),
        ("first event", time(&alert["first_ms"])),
        ("last event", time(&alert["last_ms"])),
        ("events", text(&alert["count"])),
        ("entities", list(&alert["entities"])),
        ("tags", list(&alert["tags"])),
        ("incident", text(&alert["incident"])),
        ("note", flags.join("; ")),
    ];
    let mut lines: Vec<String> = facts
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name:>12}  {}", plain(value)))
        .collect();
    let events =
        rows(&alert["events"], |event| [time(&event["time_ms"]), text(&event["text"]), list(&event["entities"])]);
    lines.push(table(["time", "event", "entities"], events).to_string());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        list: List,
    }

    #[test]
    fn what_is_asked_for_is_in_the_address() {
        let parse = |asked: &[&str]| {
            let node = ["x", "--api", "https://127.0.0.1:7401", "--ca", "ca.pem"];
            Arguments::try_parse_from(node.iter().chain(asked))
        };
        let asked = ["--since", "1h", "--entity", "user:ann b", "--superseded", "--severity", "high"];
        let list = parse(&asked).unwrap().list;
        let path = list.path(7_200_000).unwrap();
        assert_eq!(path, "/v1/alerts?limit=50&severity=high&entity=user%3Aann%20b&from_ms=3600000&superseded=true");
        assert!(parse(&["--since", "1h", "--from", "2026-03-02T09:00:00Z"]).is_err());
        assert!(parse(&["--limit", "501"]).is_err());
        assert!(parse(&["--since", "soon"]).unwrap().list.path(0).is_err());
    }

    #[test]
    fn texts_of_events_do_not_steer_the_terminal() {
        let alert = json!({"id": "a", "title": "t\u{1b}[2J", "events": [{"time_ms": 1, "text": "x\u{1b}]0;y\u{7}"}]});
        assert!(!whole(&alert).contains('\u{1b}'));
        let list = json!({"alerts": [{"id": "abc", "group": {"ip": "\u{1b}[1m"}}]});
        assert!(!list_table(&list).contains('\u{1b}'));
    }
}
