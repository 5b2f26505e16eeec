//! Events of the past: kept for each tenant, found by search and hunt, seen by nobody else.

use crate::bed::{Bed, holdfast, said, until};
use crate::client::{Answer, Client};
use crate::people::{self, person};
use reqwest::Method;
use serde_json::{Value, json};

/// The cluster's own rule pack.
fn rules() -> String {
    std::fs::canonicalize("../cluster/rules").expect("the pack is in the repository").display().to_string()
}

async fn send(who: &Client, event: Value) -> Answer {
    who.ask(Method::POST, "/v1/events").body("application/x-ndjson", event.to_string()).send().await
}

/// The rows of a search, once there are any.
async fn rows(who: &Client, body: Value) -> Vec<Value> {
    until("a search that finds", async || {
        let job = who.post("/v1/events/search", body.clone()).await.is(200).json();
        assert_eq!(job["state"], "done", "{job:#}");
        let rows = job["rows"].as_array().cloned().unwrap_or_default();
        (!rows.is_empty()).then_some(rows)
    })
    .await
}

#[tokio::test]
async fn each_tenants_events_are_found_by_its_own_people_only() {
    let Some(bed) = Bed::start_with(&["--regions", "eu", "--nodes", "1", "--rules", &rules()]).await else { return };
    let admin = people::first(&bed, &bed.client("eu-1")).await;
    for tenant in ["acme", "bolt"] {
        admin.post("/v1/tenants", json!({"name": tenant})).await.is(201);
    }
    let soc = json!([{"role": "soc"}, {"role": "auditor"}]);
    let acme = person(&admin, "acme-sam", "acme", soc.clone()).await;
    let bolt = person(&admin, "bolt-sue", "bolt", soc).await;
    let reader = person(&admin, "acme-rob", "acme", json!([{"role": "reader"}])).await;
    // An event that says it is another tenant's is not taken.
    let posed = json!({"user": {"name": "Zoe"}, "message": "opened the vault", "metadata": {"tenant_uid": "bolt"}});
    send(&acme, posed).await.problem(422, "invalid");
    send(&acme, json!({"user": {"name": "Zoe"}, "message": "opened the vault"})).await.is(202);
    send(&bolt, json!({"user": {"name": "Zoe"}, "message": "closed the vault"})).await.is(202);

    let found = rows(&acme, json!({"query": "user:zoe"})).await;
    assert_eq!((found.len(), &found[0]["message"]), (1, &json!("opened the vault")), "{found:#?}");
    let found = rows(&bolt, json!({"sql": "SELECT message, tenant FROM events WHERE user_name = 'zoe'"})).await;
    assert_eq!(found, [json!({"message": "closed the vault", "tenant": "bolt"})]);
    // Of the platform's people its SOC sees both, but nobody who runs the platform, and each tenant is told.
    let pat = person(&admin, "pat", "platform", json!([{"role": "soc"}])).await;
    let both = json!({"query": "vault user:zoe", "tenant": "*"});
    admin.post("/v1/events/search", both.clone()).await.problem(403, "forbidden");
    admin.post("/v1/events/search", json!({"query": "", "tenant": "acme"})).await.problem(403, "forbidden");
    admin.post("/v1/events/hunt", json!({"tenant": "*"})).await.problem(403, "forbidden");
    assert_eq!(rows(&pat, both).await.len(), 2);
    for own in [&acme, &bolt] {
        let list = own.get("/v1/audit/entries?action=events.search&limit=500").await.is(200).json();
        let by_pat = list["entries"].as_array().unwrap().iter().filter(|entry| entry["event"]["user"] == "pat");
        let told: Vec<&Value> = by_pat.map(|entry| &entry["detail"]["new"]).collect();
        assert!(!told.is_empty() && told.iter().all(|new| new["tenant"] == "*" && new["query"].is_null()), "{told:?}");
    }
    // The audit log is for those who may read it, whoever else searches.
    let eve = person(&admin, "acme-eve", "acme", json!([{"role": "soc"}])).await;
    let leaves = json!({"sql": "SELECT count(*) AS n FROM events WHERE source = 'audit'"});
    for who in [&eve, &pat] {
        assert_eq!(rows(who, leaves.clone()).await, [json!({"n": 0})]);
    }
    // Its own audit log is among a tenant's events.
    let logins = rows(&acme, json!({"query": "operation:login user:acme-sam"})).await;
    assert!(logins.iter().all(|row| row["tenant"] == "acme"));

    acme.post("/v1/events/search", json!({"query": "", "tenant": "bolt"})).await.problem(404, "not-found");
    acme.post("/v1/events/search", json!({"query": "", "tenant": "*"})).await.problem(404, "not-found");
    acme.post("/v1/events/hunt", json!({"tenant": "bolt"})).await.problem(404, "not-found");
    reader.post("/v1/events/search", json!({"query": ""})).await.problem(403, "forbidden");
    reader.get("/v1/events/archive").await.problem(403, "forbidden");
    for sql in ["DROP TABLE events", "SELECT * FROM information_schema.tables", "SELECT * FROM '/etc/passwd'"] {
        acme.post("/v1/events/search", json!({"sql": sql})).await.problem(422, "invalid");
    }

    // A job is its owner's, and goes when it is told to.
    let job = acme.post("/v1/events/search", json!({"query": "user:zoe"})).await.is(200).json();
    let path = format!("/v1/events/jobs/{}", job["id"].as_str().unwrap());
    assert_eq!(acme.get(&path).await.is(200).json()["rows"].as_array().unwrap().len(), 1);
    bolt.get(&path).await.problem(404, "not-found");
    bolt.ask(Method::DELETE, &path).send().await.problem(404, "not-found");
    acme.ask(Method::DELETE, &path).send().await.is(204);
    acme.get(&path).await.problem(404, "not-found");

    // Who searched for what is on record, also for whom was searched.
    let list = acme.get("/v1/audit/entries?action=events.search&limit=500").await.is(200).json();
    let entries = list["entries"].as_array().unwrap();
    assert!(entries.iter().any(|entry| entry["detail"]["new"]["query"] == "user:zoe"), "{list:#}");
    assert!(entries.iter().all(|entry| entry["event"]["tenant"] == "acme"));
    bed.assert_no_panic();
}

#[tokio::test]
async fn a_hunt_finds_the_alerts_that_were_raised_and_files_hold() {
    let Some(mut bed) = Bed::start_with(&["--regions", "eu", "--nodes", "1", "--rules", &rules()]).await else {
        return;
    };
    let anyone = bed.client("eu-1");
    let first = people::first(&bed, &anyone).await;
    // Whoever runs the platform does not look through what others did on it.
    let admin = person(&first, "pat", "platform", json!([{"role": "soc"}, {"role": "auditor"}])).await;
    for _ in 0..6 {
        let wrong = json!({"login": "mallory", "password": "Not-The-Password-1"});
        anyone.post("/v1/sessions", wrong).await.problem(401, "credentials-refused");
    }
    let of_burst = |alert: &&Value| alert["rule"] == "api_brute_force" || alert["rule"]["id"] == "api_brute_force";
    let live = until("an alert", async || {
        let list = admin.get("/v1/alerts").await.is(200).json();
        list["alerts"].as_array()?.iter().find(of_burst).cloned()
    })
    .await;
    let hunted = until("a hunt that finds", async || {
        let job = admin.post("/v1/events/hunt", json!({"tenant": "*"})).await.is(200).json();
        assert_eq!(job["state"], "done", "{job:#}");
        job["rows"].as_array()?.iter().find(of_burst).cloned()
    })
    .await;
    assert_eq!(hunted["id"], live["id"]);
    let sent = "title: mine\nid: mine\nlogsource: {product: holdfast}\ndetection:\n  s: {api.operation: login.failed}\n  condition: s\n";
    let job = admin.post("/v1/events/hunt", json!({"tenant": "*", "rules": sent})).await.is(200).json();
    assert_eq!(job["rows"].as_array().unwrap().len(), 6, "{job:#}");
    admin.post("/v1/events/hunt", json!({"rules": "title: broken\n"})).await.problem(422, "invalid");

    // Killed and started again, nothing is there twice.
    let count = json!({"tenant": "*", "sql": "SELECT count(*) AS n FROM events WHERE operation = 'login.failed'"});
    let before = rows(&admin, count.clone()).await;
    bed.kill("eu-1");
    bed.restart("eu-1").await;
    until("the same number", async || (rows(&admin, count.clone()).await == before).then_some(())).await;
    let data = bed.path("nodes/eu-1/data");
    let checked = holdfast(&["events", "check", &data]);
    assert!(checked.status.success(), "{}", said(&checked));
    bed.assert_no_panic();
}
