//! Requests against the router, without a network.

use crate::fake::Fake;
use api::Peer;
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;
use tower::ServiceExt as _;

pub const HOME: &str = "192.0.2.1";

/// One client of one router.
pub struct Client {
    pub core: Arc<Fake>,
    pub router: Router,
    pub address: IpAddr,
    pub bearer: Option<String>,
}

/// An answer, read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("the answer is JSON")
    }
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
    }
    /// The last part of the problem's type.
    pub fn kind(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let document = self.json();
        assert_eq!(document["status"], self.status.as_u16());
        let kind = document["type"].as_str().unwrap();
        kind.strip_prefix(api::TYPE_BASE).unwrap().to_owned()
    }
}

impl Client {
    /// Of a new core, with a session of alice, who is of the tenant `acme`.
    pub fn new() -> Self {
        let core = Arc::new(Fake::default());
        let address = HOME.parse().unwrap();
        let bearer = Some(core.token("alice", address));
        Self { router: api::router(core.clone()), core, address, bearer }
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.bearer {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.raw(request.body(body.into()).unwrap()).await
    }

    pub async fn raw(&self, mut request: Request<Body>) -> Answer {
        request.extensions_mut().insert(Peer(self.address));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, bytes }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Body::empty()).await
    }

    pub async fn json(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.send(method, path, &headers, body.to_string()).await
    }
}
