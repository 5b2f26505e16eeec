//! What must exist before a client can write: a tenant, its user, a session and a table.

use crate::cluster::Lab;
use crate::wire::{Answer, Connection, Protocol, trust};
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use identity::totp::{STEP_SECONDS, TotpSecret};
use model::TenantId;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

/// How long a new account may take to be known at the node that is asked.
const KNOWN_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(250);
/// The table that is measured, with one field.
pub const TABLE: &str = "items";
/// Its field.
pub const FIELD: &str = "value";

/// A tenant with a session that may write and read its records.
#[derive(Clone, Debug)]
pub struct Tenancy {
    /// The tenant's name.
    pub tenant: String,
    /// Its id, which says where its records live.
    pub id: TenantId,
    /// The session's bearer token.
    pub token: String,
}

/// Requests for errands, one after the other.
struct Errands {
    connection: Connection,
    address: SocketAddr,
}

impl Errands {
    async fn ask(&mut self, method: Method, path: &str, token: &str, body: &Value) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(path).header("host", self.address.to_string());
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.header("content-type", "application/json");
        self.connection.send(request.body(Full::new(Bytes::from(body.to_string())))?).await
    }

    /// Asks until it succeeds: accounts and tables take a moment to be known at every node.
    async fn must(&mut self, method: Method, path: &str, token: &str, body: &Value) -> Result<Value> {
        let deadline = Instant::now() + KNOWN_WITHIN;
        loop {
            let answer = self.ask(method.clone(), path, token, body).await?;
            if answer.status.is_success() {
                return Ok(serde_json::from_slice(&answer.body).unwrap_or_default());
            }
            let may_come = matches!(answer.status.as_u16(), 401 | 404 | 503);
            if !may_come || Instant::now() > deadline {
                bail!("{method} {path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn login(&mut self, login: &str, password: &str, code: &str) -> Result<String> {
        let body = json!({"login": login, "password": password, "totp": code});
        let session = self.must(Method::POST, "/v1/sessions", "", &body).await?;
        Ok(session["token"].as_str().context("a login without a token")?.to_owned())
    }
}

/// Creates `count` tenants, each with a table and a user that holds both of the roles a bench needs.
pub async fn create(lab: &Lab, count: usize) -> Result<Vec<Tenancy>> {
    let address = lab.nodes().first().context("a cluster has nodes")?.api;
    let tls = trust(&lab.authority()?, Protocol::Http1)?;
    let mut errands = Errands { connection: Connection::open(address, Some(tls), Protocol::Http1).await?, address };
    let admin = lab.bootstrap()?;
    let code = secret(&admin.totp)?.code(now_ms());
    let token = errands.login(&admin.login, &admin.password, &code).await?;
    let mut tenancies = Vec::new();
    for number in 1..=count {
        tenancies.push(one(&mut errands, &token, number).await.with_context(|| format!("tenant {number}"))?);
    }
    Ok(tenancies)
}

async fn one(errands: &mut Errands, admin: &str, number: usize) -> Result<Tenancy> {
    let (tenant, login) = (format!("customer{number}"), format!("grace{number}"));
    let (first, password) = ("Quiet-Harbour-Lamp-71", "Amber-Window-Stone-38");
    let made = errands.must(Method::POST, "/v1/tenants", admin, &json!({"name": tenant})).await?;
    let id = TenantId::new(made["id"].as_u64().context("a tenant without an id")?);
    let roles = json!([{"role": "tenant-admin"}, {"role": "agent"}]);
    let user = json!({"login": login, "person": "Grace Bench", "tenant": tenant, "password": first, "grants": roles});
    let created = errands.must(Method::POST, "/v1/users", admin, &user).await?;
    let uri = created["totp_uri"].as_str().context("an administrator without an enrolment")?;
    let text = uri.split_once("secret=").and_then(|(_, rest)| rest.split('&').next()).context("no secret")?;
    let secret = secret(text)?;
    // The codes of the last, this and the next half minute are accepted, each once and in order.
    settle().await;
    let (now, step) = (now_ms(), STEP_SECONDS * 1_000);
    let codes = [now - step, now, now + step].map(|at| secret.code(at));
    let token = errands.login(&login, first, &codes[0]).await?;
    let change = json!({"current": first, "new": password, "totp": codes[1]});
    errands.must(Method::PUT, "/v1/me/password", &token, &change).await?;
    let token = errands.login(&login, password, &codes[2]).await?;
    let table = json!({"name": TABLE, "fields": [{"name": FIELD, "kind": "text", "merge": "lww"}]});
    errands.must(Method::POST, &format!("/v1/tenants/{tenant}/tables"), &token, &table).await?;
    Ok(Tenancy { tenant, id, token })
}

/// Waits if the half minute is about to end: codes are made for the one that lasts.
async fn settle() {
    const MARGIN_MS: u64 = 5_000;
    let left = STEP_SECONDS * 1_000 - now_ms() % (STEP_SECONDS * 1_000);
    if left < MARGIN_MS {
        tokio::time::sleep(Duration::from_millis(left + 10)).await;
    }
}

fn secret(text: &str) -> Result<TotpSecret> {
    TotpSecret::from_base32(text).context("not a base32 secret")
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
