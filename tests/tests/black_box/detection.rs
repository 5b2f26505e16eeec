//! From events to an incident that people work on.

use crate::bed::{Bed, holdfast, said, until};
use crate::people::{self, Tenant, record};
use reqwest::Method;
use serde_json::{Value, json};

/// The cluster's own rule pack.
/// Tests run in their package's folder; the program does not.
fn rules() -> String {
    std::fs::canonicalize("../cluster/rules").expect("the pack is in the repository").display().to_string()
}

#[tokio::test]
async fn failed_logins_become_an_incident_that_is_worked_on() {
    let Some(bed) = Bed::start_with(&["--regions", "eu", "--nodes", "1", "--rules", &rules()]).await else { return };
    let anyone = bed.client("eu-1");
    let admin = people::first(&bed, &anyone).await;
    for _ in 0..6 {
        let wrong = json!({"login": "mallory", "password": "Not-The-Password-1"});
        anyone.post("/v1/sessions", wrong).await.problem(401, "credentials-refused");
    }
    let incident: Value = until("an incident", async || {
        let list = admin.get("/v1/incidents").await.is(200).json();
        list["incidents"].get(0).cloned()
    })
    .await;
    let id = incident["id"].as_str().unwrap();
    assert_eq!(incident["status"], "new");
    let alerts = admin.get("/v1/alerts").await.is(200).json();
    let burst = |alert: &Value| alert["rule"] == "api_brute_force" && alert["incident"] == id;
    let burst = alerts["alerts"].as_array().unwrap().iter().find(|alert| burst(alert));
    let burst = burst.unwrap_or_else(|| panic!("{alerts:#}"));
    let whole = admin.get(&format!("/v1/alerts/{}", burst["id"].as_str().unwrap())).await.is(200).json();
    assert!(whole["events"].as_array().is_some_and(|events| events.len() >= 5), "{whole:#}");
    assert!(whole["entities"].as_array().unwrap().contains(&json!("user:mallory")), "{whole:#}");
    for (filter, is_there) in [
        ("entity=user:Mallory&severity=medium&rule=api_brute_force", true),
        ("entity=user:somebody", false),
        ("from_ms=99999999999999", false),
        ("tenant=acme", false),
    ] {
        let found = admin.get(&format!("/v1/alerts?{filter}")).await.is(200).json();
        let has = found["alerts"].as_array().unwrap().iter().any(|alert| alert["id"] == burst["id"]);
        assert_eq!(has, is_there, "{filter}: {found:#}");
    }
    admin.get("/v1/alerts/0011").await.problem(404, "not-found");
    let at = format!("/v1/incidents/{id}");
    let found = admin.get(&at).await.is(200).json();
    assert!(found["events"].as_array().is_some_and(|events| !events.is_empty()), "{found:#}");

    admin.ask(Method::POST, &format!("{at}/acknowledge")).send().await.is(200);
    admin.post(&format!("{at}/assign"), json!({"assignee": bed.first.login})).await.is(200);
    admin.post(&format!("{at}/comments"), json!({"text": "seen before"})).await.is(200);
    admin.post(&format!("{at}/close"), json!({"cause": "a forgotten script"})).await.problem(422, "invalid");
    let closed = admin
        .post(&format!("{at}/close"), json!({"cause": "a forgotten script", "actions": "stopped"}))
        .await
        .is(200)
        .json();
    assert_eq!(closed["status"], "closed");
    let acts: Vec<&str> =
        closed["history"].as_array().unwrap().iter().filter_map(|note| note["act"].as_str()).collect();
    for act in ["acknowledged", "assigned", "commented", "closed"] {
        assert!(acts.contains(&act), "{act}: {acts:?}");
    }
    bed.assert_no_panic();
}

#[tokio::test]
async fn who_probes_another_tenant_raises_an_alert() {
    let Some(bed) = Bed::start_with(&["--regions", "eu", "--nodes", "1", "--rules", &rules()]).await else { return };
    let admin = people::first(&bed, &bed.client("eu-1")).await;
    Tenant::create(&admin, "acme").await;
    let bolt = Tenant::create(&admin, "bolt").await;
    for number in 0..10 {
        bolt.agent.get(&record("acme", &format!("k{number}"))).await.problem(404, "not-found");
    }
    until("the alert", async || {
        let list = admin.get("/v1/alerts").await.is(200).json();
        list["alerts"].as_array()?.iter().any(|alert| alert["rule"] == "cross_tenant_probe").then_some(())
    })
    .await;
    bed.assert_no_panic();
}

#[tokio::test]
async fn events_of_others_are_taken_all_or_none_and_judged() {
    let Some(bed) = Bed::start_with(&["--regions", "eu", "--nodes", "1", "--rules", &rules()]).await else { return };
    let admin = people::first(&bed, &bed.client("eu-1")).await;
    let send =
        async |body: String| admin.ask(Method::POST, "/v1/events").body("application/x-ndjson", body).send().await;
    let refused = send("{\"a\":1}\nnot json\n".into()).await.problem(422, "invalid").json();
    assert_eq!(refused["violations"][0]["at"], "line 2");
    assert_eq!(send("{\"a\":1}\n{\"b\":2}\n".into()).await.json()["accepted"], 2);
}

#[tokio::test]
async fn every_node_says_how_detection_does_and_which_rules_there_are() {
    let Some(bed) = Bed::start_with(&["--regions", "eu", "--nodes", "3", "--rules", &rules()]).await else { return };
    let admin = people::first(&bed, &bed.client("eu-1")).await;
    let token = admin.token.clone().unwrap();
    for name in ["eu-1", "eu-2", "eu-3"] {
        let base = bed.client(name).base().to_owned();
        let asked = |what: &str| {
            let output = holdfast(&[
                "detection",
                what,
                "--api",
                &base,
                "--ca",
                &bed.path("ca.pem"),
                "--token",
                &token,
                "--json",
            ]);
            assert!(output.status.success(), "{}", said(&output));
            serde_json::from_slice::<Value>(&output.stdout).unwrap()
        };
        // All shards are taken up, wherever they are.
        let told = until("every shard", async || {
            let told = asked("status");
            let is_well = |shard: &Value| shard["node"].is_string() && shard["report"]["has_same_rules"] == true;
            told["shards"].as_array().unwrap().iter().all(is_well).then_some(told)
        });
        let told = told.await;
        assert_eq!(told["node"], name);
        let list = asked("rules");
        let list = list["rules"].as_array().unwrap();
        let known = &told["rules"];
        let count = known["rules"].as_u64().unwrap() + known["correlations"].as_u64().unwrap();
        assert_eq!((list.len() as u64, list[0]["status"].as_str()), (count, Some("in charge")));
    }
    let looks = admin.get("/v1/audit/entries?action=view").await.is(200).json().to_string();
    assert!(looks.contains("detection/rules"), "who looks is in the audit log");
    bed.assert_no_panic();
}

#[tokio::test]
async fn what_is_spread_over_two_regions_is_seen_in_the_first() {
    let Some(bed) = Bed::start_with(&["--regions", "eu,us", "--nodes", "1", "--rules", &rules()]).await else { return };
    let admin = people::first(&bed, &bed.client("eu-1")).await;
    for node in ["eu-1", "us-1"] {
        for _ in 0..4 {
            let wrong = json!({"login": "mallory", "password": "Not-The-Password-1"});
            bed.client(node).post("/v1/sessions", wrong).await.problem(401, "credentials-refused");
        }
    }
    let of = |rule: &'static str| {
        let admin = &admin;
        async move || {
            let list = admin.get(&format!("/v1/alerts?rule={rule}")).await.is(200).json();
            list["alerts"].get(0).cloned()
        }
    };
    let alert: Value = until("the alert across regions", of("api_account_tried_in_regions")).await;
    let whole = admin.get(&format!("/v1/alerts/{}", alert["id"].as_str().unwrap())).await.is(200).json();
    let entities = whole["entities"].as_array().unwrap();
    for entity in ["user:mallory", "region:eu", "region:us"] {
        assert!(entities.contains(&json!(entity)), "{whole:#}");
    }
    let everywhere = admin.get("/v1/alerts?rule=api_account_tried_in_regions").await.is(200).json();
    assert_eq!(everywhere["alerts"].as_array().map(Vec::len), Some(1), "one alert, not one of each region");
    // Five from one address within five minutes would be a burst: neither region saw one.
    let burst = admin.get("/v1/alerts?rule=api_brute_force").await.is(200).json();
    assert_eq!(burst["alerts"].as_array().map(Vec::len), Some(0), "{burst:#}");
    bed.assert_no_panic();
}
