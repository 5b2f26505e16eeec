//! Requests to the API, over a core in memory: a line with method and path, headers, an empty line, the body. Whatever
//! comes, the answer is the client's fault, never a defect.
#![no_main]
#![allow(dead_code, reason = "the core is shared with the tests of the API, which look into it")]

#[path = "../../crates/api/tests/it/fake/mod.rs"]
mod fake;

use api::Peer;
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use fake::Fake;
use http_body_util::BodyExt as _;
use libfuzzer_sys::fuzz_target;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// Longer than any answer takes.
const SOON: Duration = Duration::from_secs(5);
/// Keys at which the core does what a test asked for.
const ASKED_FOR: [&str; 3] = ["panic", "forever", "held"];

struct World {
    core: Arc<Fake>,
    router: Router,
    bearer: String,
    runtime: Runtime,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let core = Arc::new(Fake::default());
    let bearer = format!("Bearer {}", core.token("alice", HOME));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("it needs no file");
    World { router: api::router(core.clone()), core, bearer, runtime }
});

/// The request that some bytes say, where they do.
fn request(bytes: &[u8]) -> Option<Request<Body>> {
    let end = bytes.windows(2).position(|two| two == b"\n\n").unwrap_or(bytes.len());
    let (head, body) = bytes.split_at(end);
    let mut lines = std::str::from_utf8(head).ok()?.lines();
    let (method, path) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).ok()?).uri(path);
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        request = request.header(name, value);
    }
    let headers = request.headers_ref()?;
    let (has_token, has_type) = (headers.contains_key("authorization"), headers.contains_key("content-type"));
    if !has_token {
        request = request.header("authorization", &WORLD.bearer);
    }
    if !has_type {
        request = request.header("content-type", "application/json");
    }
    let body = body.get(2..).unwrap_or_default().to_vec();
    request.extension(Peer(HOME)).body(body.into()).ok()
}

fuzz_target!(|bytes: &[u8]| {
    let Some(request) = request(bytes) else { return };
    let is_asked_for = |word: &&str| request.uri().path().contains(*word);
    if ASKED_FOR.iter().any(|word| is_asked_for(&word)) || request.uri().path().contains('%') {
        return;
    }
    let is_head = request.method() == Method::HEAD;
    let answer = async {
        let response = WORLD.router.clone().oneshot(request).await.expect("it always answers");
        let status = response.status();
        let body = response.into_body().collect().await.expect("it is in memory").to_bytes();
        (status, body)
    };
    let timed = WORLD.runtime.block_on(async { tokio::time::timeout(SOON, answer).await });
    let (status, body) = timed.expect("it answers soon");
    assert!(status < StatusCode::INTERNAL_SERVER_ERROR, "{status} {}", String::from_utf8_lossy(&body));
    // The answer to HEAD has no body.
    if status.is_client_error() && !is_head {
        let problem: serde_json::Value = serde_json::from_slice(&body).expect("a problem is JSON");
        assert_eq!(problem["status"], status.as_u16());
    }
    // What the core keeps to be looked at later would fill the memory.
    WORLD.core.observed.lock().expect("nothing panicked").clear();
});
