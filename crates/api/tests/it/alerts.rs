//! Lists of alerts, rules and dead letters: what may be asked, and what a page token is of.

use crate::client::Client;
use http::StatusCode;
use serde_json::{Value, json};

#[tokio::test]
async fn a_page_token_of_alerts_is_of_what_was_asked() {
    let client = Client::new();
    let page = client.get("/v1/alerts?limit=1&severity=high").await.json();
    let token = page["next_page_token"].as_str().unwrap();
    let next = client.get(&format!("/v1/alerts?limit=1&severity=high&page_token={token}")).await;
    assert_eq!((next.status, next.json()["next_page_token"].is_null()), (StatusCode::OK, true));
    let other = client.get(&format!("/v1/alerts?limit=1&severity=low&page_token={token}")).await;
    assert_eq!(other.status, 422, "a token of another question");
}

#[tokio::test]
async fn an_alert_is_found_by_its_id_and_a_wrong_question_is_told() {
    let client = Client::new();
    let whole = client.get("/v1/alerts/a1").await.json();
    assert_eq!((whole["rule"].as_str(), whole["events"][0]["id"].as_str()), (Some("r"), Some("e1")));
    assert_eq!(client.get("/v1/alerts/a2").await.status, 404);
    for wrong in ["entity=ann", "severity=grave", "from_ms=yesterday", "superseded=maybe", "what=ever", "limit=501"] {
        let answer = client.get(&format!("/v1/alerts?{wrong}")).await;
        assert!(answer.status == 400 || answer.status == 422, "{wrong}: {}", answer.status);
    }
    let long = "x".repeat(600);
    assert_eq!(client.get(&format!("/v1/alerts?rule={long}")).await.status, 422);
}

#[tokio::test]
async fn rules_are_listed_page_by_page() {
    let client = Client::new();
    let first = client.get("/v1/detection/rules?limit=2").await.json();
    assert_eq!((first["rules"].as_array().unwrap().len(), &first["total"]), (2, &3.into()));
    let token = first["next_page_token"].as_str().unwrap();
    let last = client.get(&format!("/v1/detection/rules?limit=2&page_token={token}")).await.json();
    assert_eq!((last["rules"][0]["id"].as_str(), last["next_page_token"].is_null()), (Some("r2"), true));
    assert_eq!(client.get(&format!("/v1/alerts?limit=2&page_token={token}")).await.status, 422, "of another list");
    for wrong in ["limit=0", "limit=501", "tenant=acme"] {
        let answer = client.get(&format!("/v1/detection/rules?{wrong}")).await;
        assert!(answer.status == 400 || answer.status == 422, "{wrong}: {}", answer.status);
    }
}

#[tokio::test]
async fn how_detection_does_is_told() {
    let client = Client::new();
    let told = client.get("/v1/detection").await.json();
    assert_eq!((&told["rules"]["rules"], &told["shards"][0]["streams"][0]["behind_ms"]), (&2.into(), &7.into()));
    assert!(client.get("/v1/detection?shard=0").await.status.is_client_error());
}

#[tokio::test]
async fn dead_letters_are_chosen_or_all_are_and_never_by_saying_nothing() {
    let client = Client::new();
    let post = async |body: Value| {
        let act = "/v1/pipeline/dead-letters/replay";
        client.send("POST", act, &[("content-type", "application/json")], body.to_string()).await
    };
    for (body, status) in [
        (json!({"node": "eu-1", "ids": ["1-2", "1-3"]}), 200),
        (json!({"node": "eu-1", "component": "fields", "code": "not_json"}), 200),
        (json!({"node": "eu-1", "all": true}), 200),
        (json!({"node": "eu-1"}), 422),
        (json!({"node": "eu-1", "all": true, "component": "fields"}), 422),
        (json!({"node": "eu-1", "ids": []}), 422),
        (json!({"node": "", "all": true}), 422),
    ] {
        assert_eq!(post(body.clone()).await.status, status, "{body}");
    }
    let page = client.get("/v1/pipeline/dead-letters?component=fields").await.json();
    let token = page["next_page_token"].as_str().unwrap();
    let next = client.get(&format!("/v1/pipeline/dead-letters?component=fields&page_token={token}")).await;
    assert_eq!((next.status, next.json()["next_page_token"].is_null()), (StatusCode::OK, true));
    assert_eq!(client.get(&format!("/v1/pipeline/dead-letters?page_token={token}")).await.status, 422);
}
