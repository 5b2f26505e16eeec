//! Step 4: detection. Attacks on the platform's own API, and a replayed log; alerts become incidents.

use super::{Tour, log};
use crate::access::attempt;
use crate::client::{Call, Client};
use crate::report::date;
use crate::tenancy::AGENT;
use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// The attacker's address: not the clients' own, which must stay free to log in.
const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66));
const TRIED: [&str; 9] = ["ines", "jonas", "karla", "liam", "mira", "nils", "otto", "paula", "quirin"];
/// How long detection may take, and how long nothing new means that it is done.
const DETECTED_WITHIN: Duration = Duration::from_secs(25);
const QUIET: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(250);
/// Incidents and events of each that are shown; the report has all of them.
const SHOWN: usize = 8;
const EVENTS_SHOWN: usize = 2;
/// Letters of an event's line.
const LINE_MAX: usize = 150;

pub(super) async fn step(tour: &mut Tour) -> Result<()> {
    attack(tour).await?;
    let began = Instant::now();
    let (path, lines) = log::replay(tour).await?;
    tour.say(format!(
        "replayed {} as syslog over TCP: {lines} lines in {:.1} s",
        path.display(),
        began.elapsed().as_secs_f64()
    ));
    let incidents = settle(tour).await?;
    let (ours, theirs): (Vec<&Value>, Vec<&Value>) = incidents.iter().partition(|one| is_ours(one));
    tour.say(format!("{} incidents from our own API, {} from the log", ours.len(), theirs.len()));
    for (what, part) in [("the failed logins", &ours), ("the log", &theirs)] {
        if part.is_empty() {
            tour.fall_short(format!("no incident came of {what}"));
        }
    }
    let shown: Vec<Value> =
        ours.iter().take(SHOWN / 2).chain(theirs.iter().take(SHOWN / 2)).map(|one| (*one).clone()).collect();
    for incident in &shown {
        show(tour, incident);
    }
    if incidents.len() > shown.len() {
        tour.say(format!("and {} more", incidents.len() - shown.len()));
    }
    acknowledge(tour, &incidents).await?;
    let titles = incidents.iter().fold(BTreeMap::<String, u64>::new(), |mut count, one| {
        *count.entry(one["title"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        count
    });
    tour.measured("lines", lines);
    tour.measured("incidents_by_title", titles);
    tour.measured("incidents", incidents);
    Ok(())
}

/// Wrong passwords for many accounts from one address, then the right one for one.
async fn attack(tour: &mut Tour) -> Result<()> {
    let client = Client::new(&tour.lab.authority()?, Some(ATTACKER))?;
    let door = tour.site.front().clone();
    for login in TRIED {
        let answer = attempt(&client, &door, login, "Wrong-Guess-0815!", None).await?;
        if answer.status != 401 {
            tour.fall_short(format!("a wrong password for {login} was answered with {}", answer.problem()));
        }
        tour.keep(answer.request, &["login.failed"], "failure", None);
    }
    let answer = attempt(&client, &door, AGENT.login, AGENT.password, None).await?;
    tour.say(format!("{} failed logins from {ATTACKER} against {}, then one that succeeded", TRIED.len(), door.base));
    if answer.is_success() {
        tour.keep_login(answer.request);
    } else {
        tour.fall_short(format!("the right password was refused: {}", answer.problem()));
    }
    Ok(())
}

/// The incidents once no new ones come, each with its alerts and events.
async fn settle(tour: &mut Tour) -> Result<Vec<Value>> {
    let began = Instant::now();
    let (mut known, mut changed) = (Value::Null, Instant::now());
    loop {
        let call = Call::new(Method::GET, "/v1/incidents?limit=500", &tour.site.admin.token);
        let answer = tour.site.client.must(tour.site.front(), &call).await?;
        let now = answer.body["incidents"].clone();
        if now != known {
            (known, changed) = (now, Instant::now());
        }
        let is_some = known.as_array().is_some_and(|list| !list.is_empty());
        if (is_some && changed.elapsed() >= QUIET) || began.elapsed() >= DETECTED_WITHIN {
            tour.measured("detected_within_ms", (changed - began).as_millis());
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let mut incidents = Vec::new();
    for incident in known.as_array().into_iter().flatten() {
        let path = format!("/v1/incidents/{}", incident["id"].as_str().unwrap_or_default());
        let answer =
            tour.site.client.must(tour.site.front(), &Call::new(Method::GET, path, &tour.site.admin.token)).await?;
        incidents.push(answer.body);
    }
    incidents.sort_by_key(|one| std::cmp::Reverse(gravity(one)));
    Ok(incidents)
}

fn gravity(incident: &Value) -> usize {
    let order = ["informational", "low", "medium", "high", "critical"];
    order.iter().position(|name| incident["severity"] == *name).unwrap_or(0)
}

/// Whether an incident is about the platform's own API.
fn is_ours(incident: &Value) -> bool {
    !incident["title"].as_str().unwrap_or_default().contains("SSH")
}

fn show(tour: &mut Tour, incident: &Value) {
    let text = |name: &str| incident[name].as_str().unwrap_or("?").to_owned();
    let events = incident["events"].as_array().cloned().unwrap_or_default();
    let alerts = incident["alert_count"].as_u64().unwrap_or(0);
    let group = incident["alerts"][0]["group"].to_string();
    tour.say(format!(
        "{:<8} {} {group}: {alerts} alerts, {} events kept",
        text("severity"),
        text("title"),
        events.len()
    ));
    for event in events.iter().take(EVENTS_SHOWN) {
        tour.say(format!("           {}", line(event)));
    }
}

/// An event in a line: what was said, who, from where.
fn line(event: &Value) -> String {
    let entities = event["entities"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = |kind: &str| {
        let found = entities.iter().find(|one| one["kind"] == kind)?;
        Some(format!("{kind} {}", found["name"].as_str()?))
    };
    let said = event["text"].as_str().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let kind = || format!("class {}, activity {}", event["class_uid"], event["activity_id"]);
    let time_s = event["time_ms"].as_u64().unwrap_or(0) / 1_000;
    let (hour, minute, second) = (time_s / 3_600 % 24, time_s / 60 % 60, time_s % 60);
    let mut parts = vec![format!("{} {hour:02}:{minute:02}:{second:02}", date(time_s))];
    parts.extend(["user", "address", "host", "node"].into_iter().filter_map(named));
    parts.push(said.filter(|said| !said.is_empty()).unwrap_or_else(kind));
    parts.join(", ").chars().take(LINE_MAX).collect()
}

/// Somebody looks at the gravest one.
async fn acknowledge(tour: &mut Tour, incidents: &[Value]) -> Result<()> {
    let Some(id) = incidents.first().and_then(|one| one["id"].as_str()) else { return Ok(()) };
    for (act, body) in [("acknowledge", None), ("assign", Some(json!({"assignee": "ada"})))] {
        let mut call = Call::new(Method::POST, format!("/v1/incidents/{id}/{act}"), &tour.site.admin.token);
        if let Some(body) = &body {
            call = call.json(body);
        }
        let answer = tour.site.client.must(tour.site.front(), &call).await?;
        tour.keep(answer.request, &["incident."], "success", None);
    }
    tour.say("ada acknowledged the gravest one and took it");
    Ok(())
}
