//! The document: as committed, with security everywhere, and true.

use crate::client::Client;
use serde_json::Value;
use std::collections::BTreeSet;

/// Operations that need no session: each line is a decision.
const OPEN: [(&str, &str); 5] = [
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/v1/endpoints"),
    ("get", "/v1/openapi.json"),
    ("post", "/v1/sessions"),
];

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            found.push((method.clone(), path.clone(), operation.clone()));
        }
    }
    found
}

fn document() -> Value {
    serde_json::to_value(api::document()).unwrap()
}

#[test]
fn the_document_is_the_committed_one() {
    let path = "openapi.json";
    let text = format!("{}\n", serde_json::to_string_pretty(&document()).unwrap());
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == text, "the API changed: look at it, then run the test again with UPDATE_OPENAPI=1");
}

#[test]
fn every_operation_says_who_may_call_it() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for (method, path, operation) in operations(&document) {
        let security = operation["security"].as_array().unwrap_or_else(|| panic!("{method} {path} says nothing"));
        let is_open = OPEN.contains(&(method.as_str(), path.as_str()));
        let wanted = if is_open { serde_json::json!([{}]) } else { serde_json::json!([{"session": []}]) };
        assert_eq!(Value::from(security.clone()), wanted, "{method} {path}");
        assert!(operation["responses"]["default"].is_object(), "{method} {path} has problems");
        assert!(operation["summary"].is_string(), "{method} {path} has a summary");
    }
}

#[test]
fn operations_have_names_of_their_own() {
    let names: Vec<_> = operations(&document()).into_iter().map(|(_, _, o)| o["operationId"].to_string()).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}

#[tokio::test]
async fn every_operation_but_the_open_ones_refuses_callers_without_a_session() {
    let mut client = Client::new();
    client.bearer = None;
    for (method, path, _) in operations(&document()) {
        let place = path.replace("{*path}", "0/000").replace(['{', '}'], "");
        let answer = client.send(&method.to_uppercase(), &place, &[], "").await;
        if OPEN.contains(&(method.as_str(), path.as_str())) {
            assert_ne!(answer.status, 401, "{method} {path}");
        } else {
            assert_eq!((answer.status.as_u16(), answer.kind().as_str()), (401, "session-missing"), "{method} {path}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
}

#[tokio::test]
async fn the_document_is_served() {
    let mut client = Client::new();
    client.bearer = None;
    let answer = client.get("/v1/openapi.json").await;
    assert_eq!(answer.json(), document());
}
