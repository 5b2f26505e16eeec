//! Another tenant's data: every route, with every name, and nothing comes out.

use crate::bed::Bed;
use crate::client::Client;
use crate::people::{self, Tenant, record};
use reqwest::Method;
use serde_json::{Value, json};

const SECRET: &str = "the-secret-of-acme";

/// A body that fits the operation, so that nothing but the names can be what is refused.
fn body(path: &str, method: &str) -> Option<Value> {
    match (path.rsplit('/').next()?, method) {
        ("transactions", _) => Some(json!({"operations": [
            {"op": "patch", "table": "contacts", "key": "k", "set": {"name": "stolen"}}]})),
        ("tables", "post") => Some(json!({"name": "other", "fields": [{"name": "a", "kind": "text"}]})),
        ("{key}", "put") => Some(json!({"fields": {"name": "stolen"}})),
        ("{key}", "patch") => Some(json!({"set": {"name": "stolen"}})),
        _ => None,
    }
}

/// Asks for every operation of the document on a tenant's names.
async fn probe(who: &Client, tenant: &str, seen: &str) -> Vec<(String, u16, String)> {
    let document: Value = serde_json::from_str(include_str!("../../../crates/api/openapi.json")).unwrap();
    let mut found = Vec::new();
    for (path, operations) in
        document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.contains("{tenant}"))
    {
        for method in operations.as_object().unwrap().keys() {
            let filled = path.replace("{tenant}", tenant).replace("{table}", "contacts").replace("{key}", "k");
            let verb = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let mut ask = who.ask(verb.clone(), &filled);
            if path.ends_with("/durability") {
                ask = ask.header("holdfast-session", seen);
            }
            if path.ends_with("{key}") && verb != Method::GET {
                ask = ask.header("if-match", "*");
            }
            if let Some(body) = body(path, method) {
                ask = ask.json(&body);
            }
            let answer = ask.send().await;
            let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
            assert!(!answer.text.contains(SECRET), "{verb} {filled}: {}", answer.text);
            found.push((format!("{verb} {path}"), answer.status.as_u16(), detail));
        }
    }
    found
}

#[tokio::test]
async fn another_tenants_names_are_not_there() {
    let Some(bed) = Bed::start("eu", "1").await else { return };
    let admin = people::first(&bed, &bed.client("eu-1")).await;
    let acme = Tenant::create(&admin, "acme").await;
    let bolt = Tenant::create(&admin, "bolt").await;
    let path = record("acme", "k");
    let written = acme.agent.put(&path, json!({"fields": {"name": SECRET}})).await.is(201);
    let acme_seen = written.header("holdfast-session").to_owned();
    let own = bolt.agent.put(&record("bolt", "k"), json!({"fields": {"name": "own"}})).await.is(201);
    let bolt_seen = own.header("holdfast-session").to_owned();

    for (name, who) in [("agent", &bolt.agent), ("tenant-admin", &bolt.admin)] {
        let theirs = probe(who, "acme", &bolt_seen).await;
        let nobodys = probe(who, "nosuch", &bolt_seen).await;
        assert!(theirs.len() >= 10, "{theirs:?}");
        for (one, other) in theirs.iter().zip(&nobodys) {
            assert_eq!(one, other, "{name} can tell another's names from nobody's");
            assert_eq!(one.1, 404, "{name}: {one:?}");
        }
    }
    // Who runs the platform sees that the tenant is there, and nothing in it.
    for (operation, status, _) in probe(&admin, "acme", &bolt_seen).await {
        assert!(status == 404 || operation == "GET /v1/tenants/{tenant}", "{operation}: {status}");
    }

    // Lists hold one's own only.
    for (who, list) in [(&bolt.agent, "/v1/tenants"), (&bolt.admin, "/v1/tenants"), (&bolt.admin, "/v1/users")] {
        let text = who.get(list).await.is(200).text;
        assert!(!text.contains("acme"), "{list}: {text}");
    }
    // Nor does anything of acme's work in bolt's place.
    let at_bolt = bolt.agent.ask(Method::GET, &format!("{}?level=session", record("bolt", "k")));
    at_bolt.header("holdfast-session", &acme_seen).send().await.problem(422, "invalid");
    let user = json!({"login": "acme-spy", "person": "S", "tenant": "acme", "password": people::GIVEN, "grants": [{"role": "agent"}]});
    let status = bolt.admin.post("/v1/users", user).await.status.as_u16();
    assert!([403, 404].contains(&status), "{status}");

    let kept = acme.agent.get(&path).await.is(200).json();
    assert_eq!(kept["fields"], json!({"name": SECRET}));
    let tables = acme.admin.get("/v1/tenants/acme/tables").await.is(200).json();
    assert_eq!(tables["tables"].as_array().map(Vec::len), Some(1), "{tables}");
    // Every attempt is in the audit log.
    let denied = admin.get("/v1/audit/entries?action=denied&actor=bolt-ann").await.is(200).json();
    assert!(denied["entries"].as_array().is_some_and(|entries| entries.len() >= 10), "{denied:#}");
    bed.assert_no_panic();
}

#[tokio::test]
async fn page_tokens_and_idempotency_keys_do_not_cross_tenants() {
    let Some(bed) = Bed::start("eu", "1").await else { return };
    let admin = people::first(&bed, &bed.client("eu-1")).await;
    let acme = Tenant::create(&admin, "acme").await;
    let bolt = Tenant::create(&admin, "bolt").await;
    for tenant in [("acme", &acme), ("bolt", &bolt)] {
        for key in ["a", "b", "c"] {
            let put = tenant
                .1
                .agent
                .ask(Method::PUT, &record(tenant.0, key))
                .header("idempotency-key", &format!("once-{key}"));
            let answer = put.json(&json!({"fields": {"name": tenant.0}})).send().await.is(201);
            assert_eq!(answer.header("idempotency-replayed"), "");
        }
    }
    let page = acme.agent.get("/v1/tenants/acme/tables/contacts/records?limit=1").await.is(200).json();
    let token = page["next_page_token"].as_str().unwrap();
    let theirs = format!("/v1/tenants/bolt/tables/contacts/records?limit=1&page_token={token}");
    bolt.agent.get(&theirs).await.problem(422, "invalid");
}
