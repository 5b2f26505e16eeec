//! Requests no client of ours would send: each gets a problem, none a server error, and the node goes on.

use crate::bed::{Bed, until};
use crate::client::Client;
use crate::people::{self, Tenant, record};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use reqwest::Method;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// Drawn requests after those that somebody thought of.
const DRAWN: usize = 150;

/// A refusal: a problem of the client's making. No answer is allowed where HTTP itself is broken.
async fn refused(ask: crate::client::Ask, what: &str) {
    if let Ok(answer) = ask.try_send().await {
        assert!(answer.status.is_client_error(), "{what}: {} {}", answer.status, answer.text);
        if answer.status != 431 {
            assert_eq!(answer.header("content-type"), "application/problem+json", "{what}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn hostile_requests_get_problems_and_never_a_server_error() {
    let Some(bed) = Bed::start("eu", "1").await else { return };
    let admin = people::first(&bed, &bed.client("eu-1")).await;
    let agent = Tenant::create(&admin, "acme").await.agent;
    let path = record("acme", "k");
    let put = |client: &Client| client.ask(Method::PUT, &path);
    let deep = format!("{{\"fields\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("half an object", b"{\"fields\":{\"name\":".to_vec()),
        ("not UTF-8", b"{\"fields\":{\"name\":\"\xff\xfe\"}}".to_vec()),
        ("another shape", b"[1,2,3]".to_vec()),
        ("an unknown member", b"{\"fields\":{\"name\":\"a\"},\"admin\":true}".to_vec()),
        ("a member twice", b"{\"fields\":{\"name\":\"a\"},\"fields\":{\"name\":\"b\"}}".to_vec()),
        ("a number too large", b"{\"fields\":{\"visits\":1e400}}".to_vec()),
        ("a fraction", b"{\"fields\":{\"visits\":1.5}}".to_vec()),
        ("very deep", deep.into_bytes()),
        ("too large", vec![b' '; 3 * 1024 * 1024]),
        ("no fields", b"{\"fields\":{}}".to_vec()),
    ];
    for (what, body) in bodies {
        refused(put(&agent).body("application/json", body), what).await;
    }
    refused(put(&agent).body("text/plain", "{}"), "another type").await;
    refused(put(&agent).header("content-encoding", "gzip").body("application/json", "{}"), "an encoding").await;
    for (name, value) in [
        ("if-match", "grace"),
        ("if-match", "\""),
        ("holdfast-durability", "remote:0"),
        ("holdfast-durability", "all"),
        ("holdfast-durability", "remote:99"),
        ("holdfast-session", "nonsense"),
        ("idempotency-key", "a b"),
        ("idempotency-key", ""),
        ("x-large", &"x".repeat(40_000)),
    ] {
        let ask = put(&agent).header(name, value).json(&json!({"fields": {"name": "a"}}));
        refused(ask, &format!("{name}: {}", &value[..value.len().min(20)])).await;
    }
    for wrong in [
        "/v1/tenants/%2e%2e/tables",
        "/v1/tenants/acme%00/tables",
        "/v1/tenants/ACME",
        "/v1/tenants/%ff%fe",
        "//v1//me",
        "/v1/tenants/acme/tables/contacts/records/%ff",
        "/v1/me?x=1",
        "/v1/tenants/acme/tables/contacts/records?limit=0",
        "/v1/tenants/acme/tables/contacts/records?limit=-1",
        "/v1/tenants/acme/tables/contacts/records?level=strong",
        "/v1/tenants/acme/tables/contacts/records?from=b&from=c",
        "/v1/incidents/nonsense",
        "/v1/audit/logs/x/tile/9/9/9",
        "/v1/tenants/acme/tables/contacts/records?page_token=AAAA",
        "/v1/audit/entries?from_ms=soon",
    ] {
        refused(admin.ask(Method::GET, wrong), wrong).await;
    }
    refused(agent.ask(Method::from_bytes(b"BREW").unwrap(), &path), "an unknown method").await;
    refused(agent.ask(Method::POST, &path), "a method that is not here").await;
    let many: Vec<_> = (0..129).map(|n| json!({"op": "delete", "table": "contacts", "key": n.to_string()})).collect();
    refused(agent.ask(Method::POST, "/v1/tenants/acme/transactions").json(&json!({"operations": many})), "too many")
        .await;
    refused(
        agent.ask(Method::POST, "/v1/tenants/acme/transactions").json(&json!({"operations": [{"op": "steal"}]})),
        "an unknown operation",
    )
    .await;

    let mut runner = TestRunner::deterministic();
    let drawn = ("/v1/[a-z{}%/?&=.0-9]{0,60}", "\\PC{0,200}", 0..5_usize);
    for _ in 0..DRAWN {
        let (target, body, method) = drawn.new_tree(&mut runner).expect("a request can be drawn").current();
        let method = [Method::GET, Method::PUT, Method::POST, Method::PATCH, Method::DELETE][method].clone();
        if let Ok(answer) = agent.ask(method, &target).body("application/json", body).try_send().await {
            assert!(!answer.status.is_server_error(), "{target}: {}", answer.text);
        }
    }
    agent.get(&path).await.problem(404, "not-found");
    agent.put(&path, json!({"fields": {"name": "a"}})).await.is(201);
    bed.assert_no_panic();
}

#[tokio::test]
async fn garbage_on_every_port_disturbs_nobody() {
    let Some(bed) = Bed::start("eu", "1").await else { return };
    let (_, node) = bed.cluster.node_named("eu-1").unwrap();
    let noise: Vec<u8> = (0..4096_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    for address in [node.api, node.metrics] {
        for junk in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &noise, b"\x16\x03\x01\xff\xff", b"\0"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(junk).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let _ =
                tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("it ends");
        }
    }
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for length in [1, 20, 1200, 4096] {
        socket.send_to(&noise[..length], node.link).await.unwrap();
    }
    // Many that say nothing keep nobody out.
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(node.api).await.unwrap());
    }
    until("the node answers", async || (bed.client("eu-1").get("/readyz").await.status == 200).then_some(())).await;
    drop(silent);
    bed.assert_no_panic();
}
