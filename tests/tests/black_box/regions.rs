//! Two regions that both take writes: reading what one wrote in the other, conflicts, durability, logout.

use crate::bed::{Bed, until};
use crate::client::Client;
use crate::people::{self, Tenant, record};
use reqwest::Method;
use serde_json::{Value, json};

/// A tenant's agent in both regions.
struct Pair {
    admin: Client,
    eu: Client,
    us: Client,
}

async fn pair(bed: &Bed) -> Pair {
    let admin = people::first(bed, &bed.client("eu-1")).await;
    let eu = Tenant::create(&admin, "acme").await.agent;
    let us = bed.client("us-1").with(eu.token.as_deref().unwrap());
    until("the tenant is known in us", async || {
        (us.get("/v1/tenants/acme/tables/contacts").await.status == 200).then_some(())
    })
    .await;
    Pair { admin, eu, us }
}

/// Waits until both regions hold the same, and gives it.
async fn same(pair: &Pair, key: &str, holds: impl Fn(&Value) -> bool) -> Value {
    until("the regions agree", async || {
        let eu = pair.eu.get(&record("acme", key)).await.is(200).json();
        let us = pair.us.get(&record("acme", key)).await;
        let us: Value = (us.status == 200).then(|| us.json())?;
        (eu == us && holds(&eu["fields"])).then_some(eu)
    })
    .await
}

#[tokio::test]
async fn both_regions_take_writes_and_agree() {
    let Some(bed) = Bed::start("eu,us", "1").await else { return };
    let pair = pair(&bed).await;

    // What a session has seen in one region it sees in the other.
    for round in 0..5 {
        let path = record("acme", &format!("seen-{round}"));
        let written = pair.eu.put(&path, json!({"fields": {"name": "a"}})).await.is(201);
        let token = written.header("holdfast-session").to_owned();
        let read = pair.us.ask(Method::GET, &format!("{path}?level=session")).header("holdfast-session", &token);
        read.send().await.is(200);
    }
    pair.us.get(&format!("{}?level=session", record("acme", "seen-0"))).await.problem(422, "invalid");

    // Different fields at once: both survive. The same field at once: one wins, the other is listed.
    let mut listed = Vec::new();
    for round in 0..20 {
        let key = format!("both-{round}");
        let path = record("acme", &key);
        pair.eu.put(&path, json!({"fields": {"name": "a", "city": "a", "visits": 0}})).await.is(201);
        same(&pair, &key, |_| true).await;
        let here = json!({"set": {"name": "of eu"}, "increment": {"visits": 1}});
        let there = json!({"set": {"city": "of us", "name": "of us"}, "increment": {"visits": 10}});
        let (one, two) = tokio::join!(pair.eu.patch(&path, here), pair.us.patch(&path, there));
        one.is(200);
        two.is(200);
        let merged = same(&pair, &key, |fields| fields["visits"] == 11).await;
        assert_eq!(merged["fields"]["city"], "of us");
        let conflicts = pair.eu.get("/v1/tenants/acme/conflicts").await.is(200).json();
        let of_key = |one: &&Value| one["key"] == key.as_str() && one["field"] == "name";
        if let Some(conflict) = conflicts["conflicts"].as_array().unwrap().iter().find(of_key) {
            listed.push((merged["fields"]["name"].clone(), conflict.clone()));
            break;
        }
    }
    let (winner, conflict) = listed.first().expect("twenty writes at once are concurrent at least once");
    assert_eq!(&conflict["won"], winner, "{conflict:#}");
    let loser = if winner == "of eu" { "of us" } else { "of eu" };
    assert_eq!(conflict["lost"], loser);
    assert_ne!(conflict["won_region"], conflict["lost_region"]);

    // Equal vectors have equal hashes, and both regions get there.
    let us_admin = bed.client("us-1").with(pair.admin.token.as_deref().unwrap());
    until("the hashes are equal", async || {
        let partitions =
            async |client: &Client| client.get("/v1/cluster/convergence").await.is(200).json()["partitions"].clone();
        (partitions(&pair.admin).await == partitions(&us_admin).await).then_some(())
    })
    .await;
    bed.assert_no_panic();
}

#[tokio::test]
async fn durability_elsewhere_is_waited_for_and_told() {
    let Some(mut bed) = Bed::start("eu,us", "1").await else { return };
    let pair = pair(&bed).await;
    let put = async |key: &str| {
        let ask = pair.eu.ask(Method::PUT, &record("acme", key)).header("holdfast-durability", "remote:1");
        ask.json(&json!({"fields": {"name": "a"}})).send().await
    };
    let told = async |token: &str| {
        let ask = pair.eu.ask(Method::GET, "/v1/tenants/acme/durability").header("holdfast-session", token);
        ask.send().await.is(200).json()
    };
    let written = put("safe").await.is(201);
    assert_eq!(written.json()["durable"], "as_asked");
    assert_eq!(told(written.header("holdfast-session")).await, json!({"durable_in": ["us"], "pending_in": []}));
    // It is there before the answer: a kill of the region it was written in would not lose it.
    pair.us.get(&format!("{}?level=local", record("acme", "safe"))).await.is(200);
    let impossible = pair.eu.ask(Method::PUT, &record("acme", "x")).header("holdfast-durability", "remote:2");
    impossible.json(&json!({"fields": {"name": "a"}})).send().await.problem(422, "invalid");

    bed.kill("us-1");
    let waiting = put("alone").await.is(202);
    assert_eq!(waiting.json()["durable"], "locally");
    assert_eq!(waiting.header("location"), "/v1/tenants/acme/durability");
    let token = waiting.header("holdfast-session").to_owned();
    assert_eq!(told(&token).await, json!({"durable_in": [], "pending_in": ["us"]}));
    // Data needs no other region; the control plane needs a majority of all nodes.
    pair.eu.put(&record("acme", "more"), json!({"fields": {"name": "a"}})).await.is(201);
    pair.eu.get(&record("acme", "more")).await.is(200);

    bed.restart("us-1").await;
    until("the region has caught up", async || (told(&token).await["durable_in"] == json!(["us"])).then_some(())).await;
    until("the record is there", async || (pair.us.get(&record("acme", "alone")).await.status == 200).then_some(()))
        .await;
    bed.assert_no_panic();
}

#[tokio::test]
async fn a_session_is_valid_in_every_region_and_so_is_its_end() {
    let Some(bed) = Bed::start("eu,us", "1").await else { return };
    let pair = pair(&bed).await;
    pair.us.get("/v1/me").await.is(200);
    pair.eu.ask(Method::DELETE, "/v1/sessions/current").send().await.is(204);
    pair.eu.get("/v1/me").await.problem(401, "session-revoked");
    until("the end has arrived", async || (pair.us.get("/v1/me").await.kind() == "session-revoked").then_some(()))
        .await;
}

#[tokio::test]
async fn a_tenant_stays_in_its_regions() {
    let Some(bed) = Bed::start("eu,us", "1").await else { return };
    let admin = people::first(&bed, &bed.client("eu-1")).await;
    admin.post("/v1/tenants", json!({"name": "pinned", "allowed_regions": ["mars"]})).await.problem(422, "invalid");
    admin.post("/v1/tenants", json!({"name": "pinned", "allowed_regions": ["eu"]})).await.is(201);
    let runs = people::person(&admin, "pinned-tina", "pinned", json!([{"role": "tenant-admin"}])).await;
    let table = json!({"name": "contacts", "fields": [{"name": "name", "kind": "text"}]});
    runs.post("/v1/tenants/pinned/tables", table).await.is(201);
    let eu = people::person(&runs, "pinned-ann", "pinned", json!([{"role": "agent"}])).await;
    eu.put(&record("pinned", "k"), json!({"fields": {"name": "stays"}})).await.is(201);
    let us = bed.client("us-1").with(eu.token.as_deref().unwrap());
    until("the tenant is known in us", async || (us.get("/v1/me").await.status == 200).then_some(())).await;
    let refused = until("the refusal", async || {
        let answer = us.get(&record("pinned", "k")).await;
        (answer.status == 403).then_some(answer)
    });
    let refused = refused.await.problem(403, "forbidden");
    assert!(refused.text.contains("eu") && !refused.text.contains("stays"), "{}", refused.text);
    // Nor do its events lie anywhere else.
    let soc = people::person(&runs, "pinned-sam", "pinned", json!([{"role": "soc"}])).await;
    let send = |who: &Client| {
        let ask = who.ask(Method::POST, "/v1/events");
        ask.body("application/x-ndjson", json!({"message": "stays"}).to_string()).send()
    };
    send(&soc).await.is(202);
    let there = bed.client("us-1").with(soc.token.as_deref().unwrap());
    until("the person is known in us", async || (there.get("/v1/me").await.status == 200).then_some(())).await;
    let refused = send(&there).await.problem(403, "forbidden");
    assert!(refused.text.contains("use eu"), "{}", refused.text);
}
