//! The pipeline of a running node, and what the command line says of topologies and dead letters.

use crate::bed::{Bed, binary, holdfast, said, until};
use crate::people;
use serde_json::{Value, json};

fn example(name: &str) -> String {
    std::fs::canonicalize(format!("../deploy/pipeline/{name}")).unwrap().display().to_string()
}

#[test]
fn topologies_are_checked_drawn_and_tested_from_the_command_line() {
    if binary().is_none() {
        return;
    }
    for name in ["syslog.toml", "application.toml", "outbound.toml"] {
        for question in ["check", "graph", "test"] {
            let output = holdfast(&["pipeline", question, &example(name)]);
            assert!(output.status.success(), "{question} {name}: {}", said(&output));
        }
    }
    let drawn = holdfast(&["pipeline", "graph", &example("syslog.toml"), "--format", "mermaid"]);
    assert!(said(&drawn).contains("n_firewall --> n_firewall-fields"), "{}", said(&drawn));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    let text = std::fs::read_to_string(example("syslog.toml")).unwrap();
    std::fs::write(&path, text.replace("[\"firewall\"]\nformat", "[\"firewal\"]\nformat")).unwrap();
    let path = path.display().to_string();
    let checked = holdfast(&["pipeline", "check", &path, "--json"]);
    assert!(!checked.status.success());
    let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let problem = report["findings"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("did you mean 'firewall'"), "{report:#}");
    std::fs::write(&path, text.replace("activity_id = 5, \"src", "activity_id = 6, \"src")).unwrap();
    let tested = holdfast(&["pipeline", "test", &path]);
    assert!(!tested.status.success());
    assert!(said(&tested).contains("activity_id is 5, expected 6"), "{}", said(&tested));
}

const TOPOLOGY: &str = r#"
[sources.lines]
type = "file"
paths = ["lines.log"]
format = "syslog"
poll_milliseconds = 50

[sources.objects]
type = "file"
paths = ["objects.log"]
format = "ndjson"
poll_milliseconds = 50

[transforms.fields]
type = "parse"
inputs = ["objects"]
format = "json"

[sinks.detector]
inputs = ["lines", "fields"]

[sinks.alarms]
type = "directory"
inputs = ["alerts"]
folder = "alarms"
"#;

const AUDITED: &str = r#"
[sinks.auditors]
type = "directory"
inputs = ["audit"]
folder = "told-NODE"
"#;

/// The keys of what a node told, in their order.
fn keys(bed: &Bed, node: &str) -> Vec<String> {
    let text = written(&bed.path(&format!("told-{node}/event")));
    let line = |line: &str| Some(serde_json::from_str::<Value>(line).ok()?["key"].as_str()?.to_owned());
    text.lines().filter_map(line).collect()
}

#[tokio::test]
async fn the_audit_stream_goes_on_at_another_node_where_it_was() {
    let bed = Bed::start_changed(&["--regions", "eu", "--nodes", "3"], |bed| {
        for (_, node) in bed.cluster.nodes() {
            let path = bed.path(&format!("{}.toml", node.name));
            std::fs::write(&path, AUDITED.replace("NODE", &node.name)).unwrap();
            let config = bed.config(&node.name);
            let text = std::fs::read_to_string(&config).unwrap();
            std::fs::write(&config, format!("{text}\n[detection]\npipeline = \"{path}\"\n")).unwrap();
        }
    });
    let Some(mut bed) = bed.await else { return };
    let nodes = ["eu-1", "eu-2", "eu-3"];
    let knock = async |bed: &Bed, node: &str| {
        bed.client(node).post("/v1/sessions", json!({"login": "mallory", "password": "Not-The-Password-1"})).await;
    };
    let told = |bed: &Bed, nodes: &[&'static str]| nodes.iter().copied().find(|node| !keys(bed, node).is_empty());
    let teller = until("one that tells", async || told(&bed, &nodes)).await;
    // Told the second time in one log, the place after the first time is stored.
    for _ in 0..2 {
        let before = keys(&bed, teller).len();
        knock(&bed, teller).await;
        until("the next entry", async || (keys(&bed, teller).len() > before).then_some(())).await;
    }
    let first = keys(&bed, teller).remove(0);
    bed.kill(teller);
    let others: Vec<&str> = nodes.into_iter().filter(|node| *node != teller).collect();
    let after = until("another that tells", async || {
        knock(&bed, others[0]).await;
        told(&bed, &others)
    })
    .await;
    assert!(!keys(&bed, after).contains(&first), "the beginning is not told again");
    bed.assert_no_panic();
}

/// Everything in the files of a folder.
fn written(folder: &str) -> String {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).collect()
}

#[tokio::test]
async fn lines_of_a_file_become_alerts_outside_and_what_does_not_parse_a_dead_letter() {
    let rules = std::fs::canonicalize("../cluster/rules").unwrap().display().to_string();
    let arguments = ["--regions", "eu", "--nodes", "1", "--rules", &rules];
    let attack: String = (0..20)
        .map(|port| format!("<38>1 - h sshd 1 - - Failed password for root from 203.0.113.9 port {port} ssh2\n"))
        .collect();
    let bed = Bed::start_changed(&arguments, |bed| {
        std::fs::write(bed.path("pipeline.toml"), TOPOLOGY).unwrap();
        std::fs::write(bed.path("lines.log"), &attack).unwrap();
        std::fs::write(bed.path("objects.log"), "{\"a\":1}\nno object\n").unwrap();
        let config = bed.config("eu-1");
        let text = std::fs::read_to_string(&config).unwrap();
        let wired = format!("[detection]\npipeline = \"{}\"", bed.path("pipeline.toml"));
        std::fs::write(&config, text.replace("[detection]", &wired)).unwrap();
    });
    let Some(bed) = bed.await else { return };
    let admin = people::first(&bed, &bed.client("eu-1")).await;
    let alert: Value = until("an alert", async || {
        let list = admin.get("/v1/alerts").await.is(200).json();
        let of_lines = |alert: &&Value| alert["rule"].as_str().is_some_and(|rule| rule.starts_with("ssh"));
        list["alerts"].as_array()?.iter().find(of_lines).cloned()
    })
    .await;
    until("the alert outside", async || {
        written(&bed.path("alarms/alert")).contains(alert["id"].as_str()?).then_some(())
    })
    .await;
    for line in [
        "holdfast_pipeline_received_events_total{component=\"lines\"} 20",
        "holdfast_pipeline_dead_letter_events_total{component=\"fields\"} 1",
        "holdfast_pipeline_dropped_events_total{component=\"detector\"} 0",
    ] {
        until(line, async || bed.plain("eu-1", "/metrics").await?.1.contains(line).then_some(())).await;
    }
    let data = bed.path("nodes/eu-1/data");
    let list = || holdfast(&["pipeline", "dead-letters", "list", "--data", &data, "--json"]);
    let letters: Value = serde_json::from_slice(&list().stdout).unwrap();
    assert_eq!(
        (&letters[0]["letter"]["component"], &letters[0]["letter"]["code"]),
        (&"fields".into(), &"not_json".into())
    );
    let replayed = holdfast(&["pipeline", "dead-letters", "replay", "--data", &data, "--component", "fields"]);
    assert!(replayed.status.success(), "{}", said(&replayed));
    // It is no object this time either.
    until("the letter again", async || {
        let letters: Value = serde_json::from_slice(&list().stdout).ok()?;
        letters[0]["id"].as_str().filter(|id| *id == "1-2").map(|_| ())
    })
    .await;
    // The same over the API.
    let status = admin.get("/v1/pipeline").await.is(200).json();
    let of = |name: &str| status["components"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    assert_eq!((&of("lines")["counts"]["received"], &of("fields")["is_running"]), (&20.into(), &true.into()));
    let told = admin.get("/v1/pipeline/dead-letters?code=not_json").await.is(200).json();
    assert_eq!((&told["total"], &told["letters"][0]["id"]), (&1.into(), &"1-2".into()));
    let act = async |act: &str, body: Value| admin.post(&format!("/v1/pipeline/dead-letters/{act}"), body).await;
    act("replay", json!({"node": "eu-2", "all": true})).await.problem(422, "invalid");
    act("replay", json!({"node": "eu-1", "ids": ["9-9"]})).await.problem(404, "not-found");
    let done = act("replay", json!({"node": "eu-1", "ids": ["1-2"]})).await.is(200).json();
    assert_eq!((&done["count"], &done["stay"]), (&1.into(), &0.into()));
    until("the letter once more", async || {
        let told = admin.get("/v1/pipeline/dead-letters").await.is(200).json();
        told["letters"][0]["id"].as_str().filter(|id| *id == "1-3").map(|_| ())
    })
    .await;
    until("who replayed it", async || {
        let list = admin.get("/v1/audit/entries?action=dead_letters.replay").await.is(200).text;
        list.contains(&bed.first.login).then_some(())
    })
    .await;
    let dropped = holdfast(&["pipeline", "dead-letters", "drop", "--data", &data, "--all"]);
    assert!(dropped.status.success(), "{}", said(&dropped));
    assert_eq!(serde_json::from_slice::<Value>(&list().stdout).unwrap(), Value::Array(Vec::new()));
    until("both on record", async || {
        for action in ["dead_letters.drop", "dead_letters.replay"] {
            let list = admin.get(&format!("/v1/audit/entries?action={action}&limit=500")).await.is(200).text;
            list.contains(action).then_some(())?;
        }
        Some(())
    })
    .await;
    bed.assert_no_panic();
}
