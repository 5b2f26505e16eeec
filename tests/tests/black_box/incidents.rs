//! What a SOC does with incidents: over the API and from the command line.

use crate::bed::{Bed, holdfast, said, until};
use crate::client::Client;
use crate::people;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// Two rules on events of a laboratory: what happens there is what a test sends.
const RULES: &str = "title: A door was forced
id: 3f0c7a52-7f0c-4a4e-9a3e-0c7c4b1f2d01
logsource: {product: laboratory}
detection: {selection: {kind: forced}, condition: selection}
level: medium
tags: [attack.initial-access, attack.t1086]
---
title: A log was wiped
id: 3f0c7a52-7f0c-4a4e-9a3e-0c7c4b1f2d02
logsource: {product: laboratory}
detection: {selection: {kind: wiped}, condition: selection}
level: high
tags: [attack.impact]
";

pub struct Laboratory {
    pub bed: Bed,
    pub soc: Client,
    _rules: tempfile::TempDir,
}

impl Laboratory {
    pub async fn start(nodes: &str) -> Option<Self> {
        Self::start_changed(nodes, |_| {}).await
    }

    pub async fn start_changed(nodes: &str, change: impl Fn(&Bed)) -> Option<Self> {
        let rules = tempfile::TempDir::new().expect("there is room for a folder");
        std::fs::write(rules.path().join("laboratory.yml"), RULES).expect("a rule can be written");
        let path = rules.path().to_str().expect("the path is text");
        let bed = Bed::start_changed(&["--regions", "eu", "--nodes", nodes, "--rules", path], change).await?;
        let soc = people::first(&bed, &bed.client("eu-1")).await;
        Some(Self { bed, soc, _rules: rules })
    }

    /// This SOC at another node.
    pub fn client(&self, name: &str) -> Client {
        self.bed.client(name).with(self.soc.token.as_deref().expect("the SOC is logged in"))
    }

    /// Something happens.
    pub async fn happens(&self, kind: &str, user: &str) {
        let event = json!({"product": "laboratory", "kind": kind, "user": {"name": user}, "message": format!("{kind} by {user}")});
        self.soc.ask(Method::POST, "/v1/events").body("application/x-ndjson", event.to_string()).send().await.is(202);
    }

    /// The incident that concerns a user, once it has so many alerts.
    pub async fn incident(&self, user: &str, alerts: u64) -> Value {
        let path = format!("/v1/incidents?entity=user:{user}");
        until(&format!("an incident of {user}"), async || {
            let found = self.soc.get(&path).await.is(200).json();
            found["incidents"].as_array()?.iter().find(|one| one["alert_count"] == alerts).cloned()
        })
        .await
    }

    pub async fn act(&self, id: &str, act: &str, body: Value) -> Value {
        self.soc.post(&format!("/v1/incidents/{id}/{act}"), body).await.is(200).json()
    }

    /// A command of the program, as this SOC.
    pub fn command(&self, arguments: &[&str]) -> (bool, String) {
        let token = self.soc.token.clone().expect("the SOC is logged in");
        let reach = ["--api", self.soc.base(), "--ca", &self.bed.path("ca.pem"), "--token", &token].map(str::to_owned);
        let all: Vec<&str> = arguments.iter().copied().chain(reach.iter().map(String::as_str)).collect();
        let output = holdfast(&all);
        (output.status.success(), said(&output))
    }
}

pub fn id_of(incident: &Value) -> String {
    incident["id"].as_str().expect("an incident has an id").to_owned()
}

pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The last change of a kind in the history.
fn change(incident: &Value, act: &str) -> String {
    let history = incident["history"].as_array().expect("an incident has a history");
    let found = history.iter().rev().find(|note| note["act"] == act).unwrap_or_else(|| panic!("{act}: {incident:#}"));
    found["id"].as_str().expect("a change has an id").to_owned()
}

#[tokio::test]
async fn incidents_are_merged_split_and_parted_again() {
    let Some(laboratory) = Laboratory::start("1").await else { return };
    laboratory.happens("forced", "ann").await;
    laboratory.happens("wiped", "bob").await;
    let (ann, bob) = (laboratory.incident("ann", 1).await, laboratory.incident("bob", 1).await);
    let (ann, bob) = (id_of(&ann), id_of(&bob));
    let merged = laboratory.act(&ann, "merge", json!({"incidents": [bob], "why": "one night"})).await;
    assert_eq!((merged["alert_count"].clone(), merged["severity"].clone()), (json!(2), json!("high")));
    assert_eq!(merged["attack"]["renamed"][0], json!({"written": "T1086", "now": "T1059.001", "since": 7}));
    assert_eq!(laboratory.soc.get("/v1/incidents").await.json()["total"], 1, "one is under the other");
    let gone = laboratory.soc.get(&format!("/v1/incidents/{bob}")).await.is(200).json();
    assert_eq!(gone["merged_into"], json!(ann));

    let undo = json!({"change": change(&merged, "merged"), "why": "two nights"});
    let parted = laboratory.act(&ann, "undo", undo.clone()).await;
    assert_eq!(parted["alert_count"], 1);
    laboratory.soc.post(&format!("/v1/incidents/{ann}/undo"), undo).await.problem(409, "conflict");
    let again = laboratory.act(&ann, "merge", json!({"incidents": [bob]})).await;
    let wiped = again["alerts"].as_array().unwrap().iter().find(|alert| alert["severity"] == "high").unwrap();
    let split = laboratory.act(&ann, "split", json!({"alerts": [wiped["id"]]})).await;
    assert_eq!((split["alert_count"].clone(), split["severity"].clone()), (json!(1), json!("medium")));
    assert_eq!(laboratory.soc.get("/v1/incidents").await.json()["total"], 2);
    let whole = laboratory.act(&ann, "undo", json!({"change": change(&split, "split"), "why": "no"})).await;
    assert_eq!(whole["alert_count"], 2);

    let timeline = laboratory.soc.get(&format!("/v1/incidents/{ann}/timeline")).await.is(200).json();
    let moments = timeline["moments"].as_array().unwrap();
    assert!(moments.is_sorted_by_key(|moment| moment["time_ms"].as_u64()));
    for kind in ["event", "alert", "act"] {
        assert!(moments.iter().any(|moment| moment["kind"] == kind), "{kind}: {timeline:#}");
    }
    for nonsense in ["nonsense", &"0".repeat(32)] {
        laboratory.soc.get(&format!("/v1/incidents/{nonsense}")).await.problem(404, "not-found");
        laboratory
            .soc
            .post(&format!("/v1/incidents/{nonsense}/acknowledge"), json!({}))
            .await
            .problem(404, "not-found");
    }
    laboratory
        .soc
        .post(&format!("/v1/incidents/{ann}/merge"), json!({"incidents": [ann]}))
        .await
        .problem(409, "conflict");
    laboratory.bed.assert_no_panic();
}

#[tokio::test]
async fn what_is_suppressed_still_becomes_riskier() {
    let Some(laboratory) = Laboratory::start("1").await else { return };
    let until_ms = now_ms() + 3_600_000;
    let soc = &laboratory.soc;
    let mute = json!({"entity": "user:ann", "until_ms": until_ms, "why": "a drill"});
    let mute = soc.post("/v1/mutes", mute).await.is(201).json();
    soc.post("/v1/mutes", json!({"entity": "ann", "until_ms": until_ms, "why": "x"})).await.problem(422, "invalid");
    soc.post("/v1/mutes", json!({"rule": "r", "until_ms": 5, "why": "x"})).await.problem(422, "invalid");
    laboratory.happens("forced", "ann").await;
    let first = laboratory.incident("ann", 1).await;
    assert_eq!(first["quiet_until_ms"], until_ms);
    laboratory.happens("wiped", "ann").await;
    let second = laboratory.incident("ann", 2).await;
    assert_eq!(second["quiet_until_ms"], until_ms);
    assert!(second["risk"].as_u64() > first["risk"].as_u64(), "{first:#} {second:#}");
    let whole = soc.get(&format!("/v1/incidents/{}", id_of(&second))).await.json();
    let ann = whole["graph"]["entities"].as_array().unwrap().iter().find(|one| one["name"] == "ann").unwrap();
    assert_eq!(ann["risk"], whole["risk"]);
    let path = format!("/v1/mutes/{}", mute["id"].as_str().unwrap());
    soc.ask(Method::DELETE, &path).send().await.is(204);
    assert_eq!(laboratory.incident("ann", 2).await["quiet_until_ms"], Value::Null);

    let rest = laboratory.act(&id_of(&second), "suppress", json!({"until_ms": until_ms, "why": "known"})).await;
    assert_eq!(rest["quiet_until_ms"], until_ms);
    // Risk fades while we look: silence must not change it, a moment may take a point.
    let points = |of: &Value| of["risk"].as_u64().expect("a risk is a number");
    assert!(points(&rest).abs_diff(points(&whole)) <= 1, "{rest:#} {whole:#}");
}

#[tokio::test]
async fn an_incident_with_an_open_duty_is_not_closed_and_an_update_is_not_lost() {
    let Some(laboratory) = Laboratory::start("1").await else { return };
    laboratory.happens("forced", "ann").await;
    let id = id_of(&laboratory.incident("ann", 1).await);
    let at = format!("/v1/incidents/{id}");
    let seen = laboratory.soc.get(&at).await.is(200);
    let started = laboratory.act(&id, "clocks", json!({"clock": "gdpr_authority", "subject": "CNIL"})).await;
    assert_eq!((started["clocks"][0]["state"].clone(), started["priority"].clone()), (json!("running"), json!("high")));
    let processor = json!({"clock": "processor_notice", "subject": "acme", "limit_hours": 12});
    let due_ms = laboratory.act(&id, "clocks", processor).await["due_ms"].as_u64().unwrap();
    assert!(due_ms <= now_ms() + 12 * 3_600_000);
    let too_long = json!({"clock": "nis2_early_warning", "subject": "CSIRT", "limit_hours": 48});
    laboratory.soc.post(&format!("{at}/clocks"), too_long).await.problem(422, "invalid");

    let close = json!({"cause": "a drill", "actions": "told them"});
    laboratory.soc.post(&format!("{at}/close"), close.clone()).await.problem(409, "conflict");
    let met = json!({"clock": "gdpr_authority", "subject": "CNIL", "reference": "CNIL-7"});
    assert_eq!(laboratory.act(&id, "clocks/met", met).await["clocks"][0]["reference"], "CNIL-7");
    let stopped = json!({"clock": "processor_notice", "subject": "acme", "why": "no data of theirs"});
    laboratory.act(&id, "clocks/stopped", stopped).await;
    let as_seen = |tag: String| {
        let ask = laboratory.soc.ask(Method::POST, &format!("{at}/close")).header("if-match", &tag);
        ask.json(&close).send()
    };
    as_seen(seen.header("etag").to_owned()).await.problem(412, "precondition-failed");
    let now = laboratory.soc.get(&at).await.header("etag").to_owned();
    assert_eq!(as_seen(now).await.is(200).json()["status"], "closed");
    let reopened = laboratory.soc.post(&format!("{at}/status"), json!({"status": "in_progress"})).await;
    reopened.problem(422, "invalid");
    laboratory.act(&id, "status", json!({"status": "in_progress", "why": "it goes on"})).await;
}

#[tokio::test]
async fn an_incident_is_worked_on_from_the_command_line() {
    let Some(laboratory) = Laboratory::start("1").await else { return };
    laboratory.happens("forced", "ann").await;
    laboratory.happens("wiped", "bob").await;
    let (ann, bob) = (laboratory.incident("ann", 1).await, laboratory.incident("bob", 1).await);
    let (ann, bob) = (id_of(&ann), id_of(&bob));
    let run = |arguments: &[&str]| {
        let (done, text) = laboratory.command(&[&["incidents"], arguments].concat());
        assert!(done, "{arguments:?}: {text}");
        text
    };
    let (done, screen) = laboratory.command(&["soc", "--once"]);
    assert!(
        done && screen.contains("2 incidents: open, by priority") && screen.contains("A log was wiped"),
        "{screen}"
    );
    let (done, screen) = laboratory.command(&["soc", "--once", "--incident", &ann[..8]]);
    assert!(done && screen.contains("A door was forced") && screen.contains("nobody has seen it"), "{screen}");
    let list = run(&["list", "--sort", "severity"]);
    assert!(list.contains("A log was wiped") && list.contains(&ann[..8]), "{list}");
    run(&["ack", &ann[..8]]);
    run(&["assign", &ann[..8], "eve"]);
    run(&["comment", &ann[..8], "seen before"]);
    run(&["severity", &ann, "critical", "--why", "it is the vault"]);
    run(&["status", &ann, "on_hold"]);
    run(&["merge", &ann[..8], &bob[..8]]);
    let shown: Value = serde_json::from_str(&run(&["show", &ann, "--json"])).expect("--json prints JSON");
    run(&["undo", &ann, &change(&shown, "merged"), "--why", "not the same"]);
    run(&["clock", "start", &ann, "nis2_early_warning", "CSIRT", "--aware", "2020-01-01T00:00:00Z"]);
    assert!(run(&["list"]).contains("OVERDUE"));
    run(&["clock", "met", &ann, "nis2_early_warning", "CSIRT", "--reference", "C-1"]);
    run(&["suppress", &ann, "--for", "2h", "--why", "known"]);
    run(&["suppress", "--entity", "user:bob", "--for", "30m", "--why", "a drill"]);
    assert!(run(&["suppressed"]).contains("user:bob"));
    assert!(run(&["timeline", &ann]).contains("seen before"));
    run(&["close", &ann, "--cause", "a drill", "--actions", "none"]);
    let shown = run(&["show", &ann]);
    for expect in ["closed", "critical", "eve", "met_late", "Cause: a drill", "T1059.001"] {
        assert!(shown.contains(expect), "{expect}: {shown}");
    }
    let (done, text) = laboratory.command(&["incidents", "show", "zz"]);
    assert!(!done && text.contains("no incident's id begins with"), "{text}");
}
