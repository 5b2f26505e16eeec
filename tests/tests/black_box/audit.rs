//! The audit log: who did what, with old and new values, and proof that it holds.

use crate::bed::{Bed, holdfast, said};
use crate::client::Client;
use crate::people::{self, Tenant, record};
use reqwest::Method;
use serde_json::{Value, json};

/// Entries that a filter lets through, newest first.
async fn entries(auditor: &Client, query: &str) -> Vec<Value> {
    let list = auditor.get(&format!("/v1/audit/entries?limit=500&{query}")).await.is(200).json();
    list["entries"].as_array().unwrap().clone()
}

#[tokio::test]
async fn everything_that_happened_is_in_the_log_and_verifies() {
    let Some(bed) = Bed::start("eu", "1").await else { return };
    let anyone = bed.client("eu-1");
    let admin = people::first(&bed, &anyone).await;
    let acme = Tenant::create(&admin, "acme").await;
    let path = record("acme", "k");
    acme.agent.put(&path, json!({"fields": {"name": "Grace", "city": "Bern"}})).await.is(201);
    acme.agent.patch(&path, json!({"set": {"city": "Basel"}})).await.is(200);
    acme.agent.get(&path).await.is(200);
    acme.agent.get(&format!("{path}?level=local")).await.is(200);
    acme.agent.get(&record("acme", "none")).await.problem(404, "not-found");
    acme.agent.ask(Method::DELETE, &path).header("if-match", "*").send().await.is(204);
    acme.agent.get("/v1/audit/entries").await.problem(403, "forbidden");
    acme.agent.ask(Method::DELETE, "/v1/sessions/current").send().await.is(204);
    anyone.post("/v1/sessions", json!({"login": "acme-ann", "password": "Wrong-Horse-7-Battery"})).await.is(401);

    let of_record = entries(&admin, "tenant=acme&key=k").await;
    let acts: Vec<(&str, &Value)> =
        of_record.iter().rev().map(|entry| (entry["event"]["action"].as_str().unwrap(), &entry["detail"])).collect();
    let names: Vec<&str> = acts.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["record.put", "record.patch", "record.view", "record.view", "record.delete"], "{of_record:#?}");
    assert_eq!(acts[0].1["new"], json!({"name": "Grace", "city": "Bern"}));
    assert_eq!((&acts[1].1["old"], &acts[1].1["new"]), (&json!({"city": "Bern"}), &json!({"city": "Basel"})));
    assert_eq!(acts[4].1["old"], json!({"name": "Grace", "city": "Basel"}));
    for entry in &of_record {
        let event = &entry["event"];
        assert_eq!((event["user"].as_str(), event["address"].as_str()), (Some("acme-ann"), Some("127.0.0.1")));
        assert!(event["session"].is_string() && event["request_id"].is_string(), "{event}");
    }
    let count = async |query: &str| entries(&admin, query).await.len();
    assert_eq!(count("tenant=acme&key=none&action=record.view").await, 1, "a view of nothing is a view");
    assert_eq!(count("actor=acme-ann&action=login").await, 2);
    assert_eq!(count("actor=acme-ann&action=logout").await, 1);
    assert_eq!(count("actor=acme-ann&action=login.failed").await, 1);
    assert_eq!(count("actor=acme-ann&action=denied").await, 1);
    for made in ["tenant.create", "user.create", "table.create", "user.password", "cluster.bootstrap"] {
        assert!(count(&format!("action={made}")).await >= 1, "{made}");
    }
    let whole = entries(&admin, "").await.iter().map(Value::to_string).collect::<String>();
    for secret in [&bed.first.password, &bed.first.totp, people::GIVEN, people::CHOSEN] {
        assert!(!whole.contains(secret), "a secret is in the audit log");
    }

    let base = anyone.base();
    let authority = bed.path("ca.pem");
    let token = admin.token.clone().unwrap();
    let verified = holdfast(&["audit", "verify", "--api", base, "--ca", &authority, "--token", &token, "--json"]);
    assert!(verified.status.success(), "{}", said(&verified));
    let report: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(report["verified"], true);
    assert_eq!(report["logs"].as_array().map(Vec::len), Some(3), "two groups and the control plane: {report:#}");
    let refused = holdfast(&["audit", "verify", "--api", base, "--ca", &authority, "--token", "nonsense"]);
    assert!(!refused.status.success() && said(&refused).contains("401"), "{}", said(&refused));
}

#[tokio::test]
async fn an_auditor_of_a_tenant_sees_its_entries_only() {
    let Some(bed) = Bed::start("eu", "1").await else { return };
    let admin = people::first(&bed, &bed.client("eu-1")).await;
    let acme = Tenant::create(&admin, "acme").await;
    let bolt = Tenant::create(&admin, "bolt").await;
    for (name, tenant) in [("acme", &acme), ("bolt", &bolt)] {
        tenant.agent.put(&record(name, "k"), json!({"fields": {"name": name}})).await.is(201);
    }
    let auditor = people::person(&bolt.admin, "bolt-otto", "bolt", json!([{"role": "auditor"}])).await;
    let seen = entries(&auditor, "").await;
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|entry| entry["event"]["tenant"] == "bolt"), "{seen:#?}");
    assert!(entries(&auditor, "tenant=acme").await.is_empty());
    assert_eq!(
        auditor.get("/v1/audit/logs").await.status,
        403,
        "leaves of all tenants are for the platform's auditors"
    );
    assert_eq!(auditor.get("/v1/audit/logs/eu-0/tile/entries/000.p/1").await.status, 403);
}

#[tokio::test]
async fn the_files_of_a_log_are_what_tile_clients_expect() {
    let Some(bed) = Bed::start("eu", "1").await else { return };
    let admin = people::first(&bed, &bed.client("eu-1")).await;
    let logs = admin.get("/v1/audit/logs").await.is(200).json();
    // One that has entries: a group without tenants has nothing to tell.
    let log = logs["logs"].as_array().unwrap().iter().max_by_key(|log| log["size"].as_u64()).unwrap();
    let (name, origin) = (log["name"].as_str().unwrap(), log["origin"].as_str().unwrap());
    let checkpoint = admin.get(&format!("/v1/audit/logs/{name}/checkpoint")).await.is(200).text;
    let mut lines = checkpoint.lines();
    assert_eq!(lines.next(), Some(origin));
    let size: u64 = lines.next().unwrap().parse().unwrap();
    assert!(size >= 1);
    assert_eq!(checkpoint.lines().nth(3), Some(""));
    assert!(checkpoint.lines().nth(4).unwrap().starts_with(&format!("\u{2014} {origin} ")));
    let at = |path: &str| format!("/v1/audit/logs/{name}/tile/{path}");
    admin.get(&at(&format!("entries/000.p/{size}"))).await.is(200);
    admin.get(&at(&format!("0/000.p/{size}"))).await.is(200);
    for absent in ["entries/001", "0/000.p/0", "9/000", "0/../0", "entries/0"] {
        assert_eq!(admin.get(&at(absent)).await.status, 404, "{absent}");
    }
    admin.get("/v1/audit/logs/us-0/checkpoint").await.problem(404, "not-found");
}
