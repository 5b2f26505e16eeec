//! A client of the API: what a stranger would write with any HTTP library.

use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// Longer than any request may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(35);

/// A client of one node.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    pub token: Option<String>,
}

/// What came back.
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

/// A request being put together.
pub struct Ask {
    request: reqwest::RequestBuilder,
}

impl Client {
    pub fn new(api: SocketAddr, authority: &Path, from: Option<IpAddr>) -> Self {
        // The first to come installs it; all want the same.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let pem = std::fs::read(authority).expect("the authority can be read");
        let roots = reqwest::Certificate::from_pem(&pem).expect("the authority is a certificate");
        let builder =
            reqwest::Client::builder().tls_certs_only([roots]).no_proxy().timeout(ANSWER_WITHIN).local_address(from);
        Self { http: builder.build().expect("a client can be made"), base: format!("https://{api}"), token: None }
    }

    /// The same client with another session.
    pub fn with(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same client without a session.
    pub fn without(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    /// Where the node answers.
    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn ask(&self, method: Method, path: &str) -> Ask {
        let request = self.http.request(method, format!("{}{path}", self.base));
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        Ask { request }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path).send().await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path).json(&body).send().await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PUT, path).json(&body).send().await
    }

    /// Changes what exists, whatever its version.
    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PATCH, path).header("if-match", "*").json(&body).send().await
    }
}

impl Ask {
    pub fn header(self, name: &str, value: &str) -> Self {
        Self { request: self.request.header(name, value) }
    }

    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub fn body(self, kind: &str, body: impl Into<reqwest::Body>) -> Self {
        Self { request: self.request.header("content-type", kind).body(body) }
    }

    /// Sends it; no answer at all is an error.
    pub async fn try_send(self) -> Result<Answer, reqwest::Error> {
        let answer = self.request.send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok(Answer { status, headers, text: answer.text().await? })
    }

    /// Sends it to a node that must answer.
    pub async fn send(self) -> Answer {
        self.try_send().await.expect("the node answers")
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The last part of a problem's type.
    pub fn kind(&self) -> String {
        let document: Value = serde_json::from_str(&self.text).unwrap_or_default();
        document["type"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// It must have this status.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// It must be this problem, in full.
    #[track_caller]
    pub fn problem(self, status: u16, kind: &str) -> Self {
        assert_eq!((self.status.as_u16(), self.kind().as_str()), (status, kind), "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let document = self.json();
        assert_eq!(document["status"], status);
        for member in ["title", "detail", "instance"] {
            assert!(document[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {}", self.text);
        }
        self
    }
}
