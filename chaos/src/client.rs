//! A client of the API over HTTPS: what was sent, what came back, and whether it may have happened.

use crate::cluster::Lab;
use anyhow::{Context as _, Result, bail};
use reqwest::Method;
use serde_json::Value;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A request that takes longer was lost, as far as the client can tell.
pub const CALL_WITHIN: Duration = Duration::from_millis(1_500);
/// A read that may have to wait for another region's writes.
pub const WAITING_CALL_WITHIN: Duration = Duration::from_secs(3);
/// Requests outside the load, which may do more work.
pub const ERRAND_WITHIN: Duration = Duration::from_secs(20);
const CONNECT_WITHIN: Duration = Duration::from_millis(500);

/// Where one node answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// The region's place in the cluster's description.
    pub region: usize,
    /// The node's name.
    pub node: String,
    /// `https://…` of its API.
    pub base: String,
}

/// Every node's door, in the order of the description.
pub fn doors(lab: &Lab) -> Vec<Door> {
    let regions = lab.description().regions.iter().enumerate();
    let of = |(index, region): (usize, &model::cluster::Region)| {
        let door = |node: &model::cluster::Node| Door {
            region: index,
            node: node.name.clone(),
            base: format!("https://{}", node.api),
        };
        region.nodes.iter().map(door).collect::<Vec<_>>()
    };
    regions.flat_map(of).collect()
}

/// One request.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The session's token.
    pub token: Option<&'a str>,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body and its type.
    pub body: Option<(&'static str, Vec<u8>)>,
    /// How long to wait.
    pub within: Duration,
}

impl<'a> Call<'a> {
    /// A request without a body.
    pub fn new(method: Method, path: impl Into<String>, token: &'a str) -> Self {
        let token = Some(token).filter(|token| !token.is_empty());
        Self { method, path: path.into(), token, headers: Vec::new(), body: None, within: ERRAND_WITHIN }
    }
    /// With a JSON body.
    pub fn json(self, body: &Value) -> Self {
        Self { body: Some(("application/json", body.to_string().into_bytes())), ..self }
    }
    /// With a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
    /// With another limit of time.
    pub fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The server's number of the request.
    pub request: String,
    /// What the session has seen (`Holdfast-Session`).
    pub seen: Option<String>,
    /// Whether it is the stored answer to an earlier request.
    pub is_replayed: bool,
    /// The body, if it is JSON.
    pub body: Value,
}

impl Answer {
    /// Whether it was done.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
    /// The problem's kind and detail, for people.
    pub fn problem(&self) -> String {
        let kind = self.body["type"].as_str().unwrap_or_default().rsplit([':', '/']).next().unwrap_or_default();
        format!("{} {kind}: {}", self.status, self.body["detail"].as_str().unwrap_or_default())
    }
}

/// Why nothing came back.
#[derive(Clone, Debug)]
pub enum CallError {
    /// No connection: it certainly did not happen.
    NotSent(String),
    /// No answer: nobody knows whether it happened.
    Lost(String),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSent(why) => write!(f, "not sent: {why}"),
            Self::Lost(why) => write!(f, "lost: {why}"),
        }
    }
}

/// A client at one address.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
}

impl Client {
    /// A client that trusts only the cluster's authority and, if told, calls from another loopback address.
    pub fn new(authority: &[u8], from: Option<IpAddr>) -> Result<Self> {
        let authority = reqwest::Certificate::from_pem(authority).context("ca.pem is not a certificate")?;
        let builder = reqwest::Client::builder()
            .tls_certs_only([authority])
            .no_proxy()
            .connect_timeout(CONNECT_WITHIN)
            .local_address(from)
            .tcp_nodelay(true);
        Ok(Self { http: builder.build().context("the HTTP client cannot be built")? })
    }

    /// Sends a request and waits for its answer.
    pub async fn send(&self, door: &Door, call: &Call<'_>) -> Result<Answer, CallError> {
        let url = format!("{}{}", door.base, call.path);
        let mut request = self.http.request(call.method.clone(), url).timeout(call.within);
        if let Some(token) = call.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some((kind, body)) = &call.body {
            request = request.header("content-type", *kind).body(body.clone());
        }
        let response = request.send().await.map_err(sort)?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut answer = Answer {
            status: response.status().as_u16(),
            request: header("holdfast-request").unwrap_or_default(),
            seen: header("holdfast-session"),
            is_replayed: header("idempotency-replayed").is_some(),
            body: Value::Null,
        };
        let body = response.bytes().await.map_err(|error| CallError::Lost(reason(&error)))?;
        answer.body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok(answer)
    }

    /// Sends a request that must succeed; tries again, for a while, what was not sent or only reads.
    pub async fn must(&self, door: &Door, call: &Call<'_>) -> Result<Answer> {
        let began = Instant::now();
        loop {
            let (may_repeat, why) = match self.send(door, call).await {
                Ok(answer) if answer.is_success() => return Ok(answer),
                Ok(answer) => {
                    let is_passing = call.method == Method::GET && answer.status >= 500;
                    (is_passing, format!("{} {}", answer.problem(), answer.body))
                }
                Err(CallError::NotSent(why)) => (true, why),
                Err(CallError::Lost(why)) => (call.method == Method::GET, why),
            };
            if !may_repeat || began.elapsed() >= ERRAND_WITHIN {
                bail!("{} {} at {}: {why}", call.method, call.path, door.node);
            }
            tokio::time::sleep(crate::cluster::POLL).await;
        }
    }
}

fn sort(error: reqwest::Error) -> CallError {
    let why = reason(&error);
    if error.is_connect() || error.is_builder() { CallError::NotSent(why) } else { CallError::Lost(why) }
}

/// The innermost cause: what the outer ones say is always the same.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
