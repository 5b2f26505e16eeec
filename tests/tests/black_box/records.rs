//! Records: versions, preconditions, retries, pages, transactions, masks.

use crate::bed::Bed;
use crate::client::Client;
use crate::people::{self, Tenant, record};
use reqwest::Method;
use serde_json::json;

const TRANSACTIONS: &str = "/v1/tenants/acme/transactions";
const RECORDS: &str = "/v1/tenants/acme/tables/contacts/records";

async fn acme(bed: &Bed) -> Tenant {
    Tenant::create(&people::first(bed, &bed.client("eu-1")).await, "acme").await
}

#[tokio::test]
async fn a_record_changes_only_for_who_says_what_they_saw() {
    let Some(bed) = Bed::start("eu", "1").await else { return };
    let agent = acme(&bed).await.agent;
    let path = record("acme", "grace");
    let created = agent.put(&path, json!({"fields": {"name": "Grace", "city": "Bern"}})).await.is(201);
    let first = created.header("etag").to_owned();
    assert_eq!(agent.get(&path).await.is(200).header("etag"), first);
    let again = json!({"fields": {"name": "Other"}});
    agent.put(&path, again.clone()).await.problem(428, "precondition-required");
    agent
        .ask(Method::PATCH, &path)
        .json(&json!({"set": {"city": "Basel"}}))
        .send()
        .await
        .problem(428, "precondition-required");
    agent.ask(Method::DELETE, &path).send().await.problem(428, "precondition-required");
    agent
        .ask(Method::PUT, &path)
        .header("if-none-match", "*")
        .json(&again)
        .send()
        .await
        .problem(412, "precondition-failed");
    let patched = agent.ask(Method::PATCH, &path).header("if-match", &first);
    let second = patched.json(&json!({"set": {"city": "Basel"}, "increment": {"visits": 3}})).send().await.is(200);
    let second = second.header("etag").to_owned();
    assert_ne!(first, second);
    agent.ask(Method::DELETE, &path).header("if-match", &first).send().await.problem(412, "precondition-failed");
    let read = agent.get(&path).await.is(200).json();
    assert_eq!(read["fields"], json!({"name": "Grace", "city": "Basel", "visits": 3}));
    agent.ask(Method::GET, &path).header("if-none-match", &second).send().await.is(304);
    agent.ask(Method::DELETE, &path).header("if-match", &second).send().await.is(204);
    agent.get(&path).await.problem(404, "not-found");
    // What was deleted does not come back with the next record of this key.
    agent.put(&path, json!({"fields": {"name": "Hopper"}})).await.is(201);
    assert_eq!(agent.get(&path).await.is(200).json()["fields"], json!({"name": "Hopper"}));
}

#[tokio::test]
async fn what_does_not_fit_the_table_is_refused_with_every_reason() {
    let Some(bed) = Bed::start("eu", "1").await else { return };
    let agent = acme(&bed).await.agent;
    let wrong = json!({"fields": {"name": 5, "visits": "many", "nothing": true}});
    let refused = agent.put(&record("acme", "k"), wrong).await.problem(422, "invalid").json();
    let at: Vec<&str> = refused["violations"].as_array().unwrap().iter().filter_map(|one| one["at"].as_str()).collect();
    assert_eq!(at, ["fields.name", "fields.nothing", "fields.visits"]);
    agent.get(&record("acme", "k")).await.problem(404, "not-found");
    let long = json!({"fields": {"name": "x".repeat(65 * 1024)}});
    agent.put(&record("acme", "k"), long).await.problem(422, "invalid");
    agent.put(&record("acme", &"k".repeat(513)), json!({"fields": {"name": "a"}})).await.problem(422, "invalid");
}

#[tokio::test]
async fn a_request_with_a_key_happens_once() {
    let Some(bed) = Bed::start("eu", "1").await else { return };
    let agent = acme(&bed).await.agent;
    let path = record("acme", "counted");
    agent.put(&path, json!({"fields": {"visits": 0}})).await.is(201);
    let once = async |by: i64| {
        let ask = agent.ask(Method::PATCH, &path).header("if-match", "*").header("idempotency-key", "order-7");
        ask.json(&json!({"increment": {"visits": by}})).send().await
    };
    let first = once(1).await.is(200);
    assert_eq!(first.header("idempotency-replayed"), "");
    let second = once(1).await.is(200);
    assert_eq!(second.header("idempotency-replayed"), "true");
    assert_eq!(first.header("etag"), second.header("etag"));
    once(2).await.problem(409, "idempotency-reuse");
    assert_eq!(agent.get(&path).await.is(200).json()["fields"]["visits"], 1);
}

#[tokio::test]
async fn pages_are_the_whole_list_in_order() {
    let Some(bed) = Bed::start("eu", "1").await else { return };
    let agent = acme(&bed).await.agent;
    let keys: Vec<String> = (0..130).map(|number| format!("k-{number:03}")).collect();
    for chunk in keys.chunks(65) {
        let put = |key: &String| json!({"op": "put", "table": "contacts", "key": key, "fields": {"name": key}});
        let operations: Vec<_> = chunk.iter().map(put).collect();
        agent.post(TRANSACTIONS, json!({"operations": operations})).await.is(200);
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = agent.get(&format!("{RECORDS}?limit=40{token}")).await.is(200).json();
        let records = page["records"].as_array().unwrap().clone();
        assert!(records.len() <= 40);
        seen.extend(records.iter().map(|record| record["key"].as_str().unwrap().to_owned()));
        match page["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => break,
        }
    }
    assert_eq!(seen, keys);
    let list = async |query: &str| {
        let page = agent.get(&format!("{RECORDS}?{query}")).await.is(200).json();
        page["records"].as_array().unwrap().len()
    };
    assert_eq!(list("prefix=k-01").await, 10);
    assert_eq!(list("from=k-120&to=k-125").await, 5);
    agent.get(&format!("{RECORDS}?limit=40&prefix=k-0{token}")).await.problem(422, "invalid");
    agent.get(&format!("{RECORDS}?limit=501")).await.problem(422, "invalid");
    agent.get(&format!("{RECORDS}?page_token=nonsense")).await.problem(422, "invalid");
}

#[tokio::test]
async fn a_transaction_happens_as_a_whole_or_not_at_all() {
    let Some(bed) = Bed::start("eu", "1").await else { return };
    let agent = acme(&bed).await.agent;
    let put =
        |key: &str, visits: i64| json!({"op": "put", "table": "contacts", "key": key, "fields": {"visits": visits}});
    agent.post(TRANSACTIONS, json!({"operations": [put("a", 10), put("b", 0)]})).await.is(200);
    let add = |key: &str, by: i64| json!({"op": "patch", "table": "contacts", "key": key, "increment": {"visits": by}});
    agent.post(TRANSACTIONS, json!({"operations": [add("a", -3), add("b", 3)]})).await.is(200);
    let broken =
        json!({"operations": [add("a", -3), {"op": "check", "table": "contacts", "key": "b", "if_none_match": "*"}]});
    let refused = agent.post(TRANSACTIONS, broken).await.problem(412, "precondition-failed").json();
    assert_eq!(refused["operation"], 1);
    agent.post(TRANSACTIONS, json!({"operations": [add("a", 1), add("none", 1)]})).await.problem(404, "not-found");
    agent.post(TRANSACTIONS, json!({"operations": [add("a", 1), add("a", 1)]})).await.problem(422, "invalid");
    agent.post(TRANSACTIONS, json!({"operations": []})).await.problem(422, "invalid");
    for (key, visits) in [("a", 7), ("b", 3)] {
        assert_eq!(agent.get(&record("acme", key)).await.is(200).json()["fields"]["visits"], visits, "{key}");
    }
}

#[tokio::test]
async fn a_field_that_is_not_granted_does_not_exist() {
    let Some(bed) = Bed::start("eu", "1").await else { return };
    let acme = acme(&bed).await;
    let grants = json!([{"role": "agent", "tables": {"contacts": ["name"]}}]);
    let masked: Client = people::person(&acme.admin, "acme-mia", "acme", grants).await;
    let path = record("acme", "k");
    acme.agent.put(&path, json!({"fields": {"name": "Grace", "city": "Bern"}})).await.is(201);
    let seen = masked.get(&path).await.is(200);
    assert_eq!(seen.json()["fields"], json!({"name": "Grace"}));
    let tag = seen.header("etag").to_owned();
    acme.agent.patch(&path, json!({"set": {"city": "Basel"}})).await.is(200);
    assert_eq!(masked.get(&path).await.is(200).header("etag"), tag, "a hidden change shows in the tag");
    masked.patch(&path, json!({"set": {"city": "Chur"}})).await.problem(422, "invalid");
    masked.get(&format!("{path}?fields=city")).await.problem(422, "invalid");
    masked.ask(Method::DELETE, &path).header("if-match", "*").send().await.problem(403, "forbidden");
    let table = masked.get("/v1/tenants/acme/tables/contacts").await.is(200).json();
    assert_eq!(table["fields"].as_array().map(Vec::len), Some(1));
    // A put replaces what it can see, and leaves the rest.
    let put = masked.ask(Method::PUT, &path).header("if-match", &tag).json(&json!({"fields": {"name": "Hopper"}}));
    put.send().await.is(200);
    assert_eq!(acme.agent.get(&path).await.is(200).json()["fields"], json!({"name": "Hopper", "city": "Basel"}));
}
