//! What is promised in writing: the OpenAPI document, the metrics, health and readiness.

use crate::bed::Bed;
use crate::people::{self, Tenant, record};
use serde_json::json;
use std::io::Write as _;
use std::process::{Command, Stdio};

#[tokio::test]
async fn the_document_is_served_as_it_is_committed() {
    let Some(bed) = Bed::start("eu", "1").await else { return };
    let committed = include_str!("../../../crates/api/openapi.json");
    let committed: serde_json::Value = serde_json::from_str(committed).unwrap();
    let served = bed.client("eu-1").get("/v1/openapi.json").await.is(200);
    assert_eq!(served.json(), committed);
    assert!(committed["openapi"].as_str().unwrap().starts_with("3.1"));
}

#[tokio::test]
async fn promtool_accepts_the_metrics_after_everything_was_used() {
    let Some(bed) = Bed::start("eu,us", "1").await else { return };
    let admin = people::first(&bed, &bed.client("eu-1")).await;
    let tenant = Tenant::create(&admin, "acme").await;
    tenant.agent.put(&record("acme", "k"), json!({"fields": {"name": "a"}})).await.is(201);
    tenant.agent.get("/v1/nowhere/at/all").await.problem(404, "not-found");
    admin.get("/v1/cluster/status").await.is(200);
    for node in ["eu-1", "us-1"] {
        let (_, text) = bed.plain(node, "/metrics").await.unwrap();
        assert!(text.contains("holdfast_commands_total"), "{text}");
        assert!(!text.contains("nowhere"), "a path became a label");
        let promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut promtool) = promtool else {
            eprintln!("skipped: no promtool (Debian package prometheus)");
            return;
        };
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", crate::bed::said(&output));
    }
}

#[tokio::test]
async fn health_and_readiness_are_told_on_both_addresses_without_a_session() {
    let Some(mut bed) = Bed::start("eu", "3").await else { return };
    let client = bed.client("eu-1");
    for path in ["/healthz", "/readyz"] {
        let told = client.get(path).await.is(200).json();
        assert_eq!((told["status"].as_str(), told["node"].as_str()), (Some("ok"), Some("eu-1")));
        assert_eq!(bed.plain("eu-1", path).await.unwrap().0, 200);
    }
    let endpoints = client.get("/v1/endpoints").await.is(200).json();
    assert_eq!(endpoints["regions"][0]["api"].as_array().map(Vec::len), Some(3));
    // Without a majority it lives, but is not ready, and says why.
    bed.kill("eu-2");
    bed.kill("eu-3");
    let told = crate::bed::until("the last node is not ready", async || {
        let told = client.get("/readyz").await;
        (told.status == 503).then_some(told)
    });
    told.await.problem(503, "no-quorum");
    client.get("/healthz").await.is(200);
}
