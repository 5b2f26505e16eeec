//! Commands that ask a running node over its API.

use crate::world::SystemClock;
use anyhow::{Context, bail};
use clap::Args;
use model::time::Clock;
use serde_json::Value;
use std::path::PathBuf;

/// How to reach a node and who asks.
#[derive(Args)]
pub struct Remote {
    /// A node's API, such as https://127.0.0.1:7401.
    #[arg(long, env = "HOLDFAST_API")]
    api: String,
    /// The authority of its certificate (ca.pem).
    #[arg(long, env = "HOLDFAST_CA")]
    ca: PathBuf,
    /// A session token; without one, --login with HOLDFAST_PASSWORD and, where needed, --totp.
    #[arg(long, env = "HOLDFAST_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Log in as this user.
    #[arg(long)]
    login: Option<String>,
    /// The password; better given by the environment than on the command line.
    #[arg(long, env = "HOLDFAST_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// The one-time code.
    #[arg(long)]
    totp: Option<String>,
    /// Print JSON instead of tables.
    #[arg(long)]
    pub json: bool,
}

/// How long the other side may take to accept a connection.
const CONNECT_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// A client with a session.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    api: String,
    token: String,
}

impl Remote {
    /// Connects, logging in if no token was given.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        let pem = std::fs::read(&self.ca).with_context(|| self.ca.display().to_string())?;
        let roots = reqwest::Certificate::from_pem(&pem).with_context(|| self.ca.display().to_string())?;
        let http = reqwest::Client::builder().tls_certs_only([roots]).connect_timeout(CONNECT_WAIT).build()?;
        let mut client = Client { http, api: self.api.trim_end_matches('/').to_owned(), token: String::new() };
        client.token = match (&self.token, &self.login, &self.password) {
            (Some(token), _, _) => token.clone(),
            (None, Some(login), Some(password)) => {
                let body = serde_json::json!({"login": login, "password": password, "totp": self.totp});
                let session = client.ask(reqwest::Method::POST, "/v1/sessions", Some(body)).await?;
                session["token"].as_str().context("the answer to the login has no token")?.to_owned()
            }
            _ => bail!("who asks? Give --token, or --login and HOLDFAST_PASSWORD (and --totp for administrators)"),
        };
        Ok(client)
    }
}

impl Client {
    /// The node that is asked.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// The same session at another node.
    pub fn at(&self, api: &str) -> Self {
        Self { api: api.trim_end_matches('/').to_owned(), ..self.clone() }
    }

    /// Asks for JSON; a problem of the API becomes an error that says what it said.
    pub async fn ask(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        self.ask_as_seen(method, path, body, None).await
    }

    /// As [`Client::ask`], and only if what is changed is still at this entity tag.
    pub async fn ask_as_seen(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<Value>,
        seen: Option<&str>,
    ) -> anyhow::Result<Value> {
        let mut request = self.http.request(method, format!("{}{path}", self.api));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        if let Some(seen) = seen {
            request = request.header("if-match", format!("\"{seen}\""));
        }
        let answer = request.send().await.with_context(|| format!("{} does not answer", self.api))?;
        let status = answer.status();
        let json: Value = answer.json().await.unwrap_or_default();
        if status.is_success() {
            return Ok(json);
        }
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        let violations = json["violations"].as_array().into_iter().flatten();
        let violations = violations.map(|one| {
            let part = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
            format!("; {}: {}", part("at"), part("message"))
        });
        bail!("{path}: {status}: {} {}{}", text("title"), text("detail"), violations.collect::<String>())
    }

    /// Asks with GET; none where there is nothing.
    pub async fn find(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let request = self.http.get(format!("{}{path}", self.api)).bearer_auth(&self.token);
        let answer = request.send().await.with_context(|| format!("{} does not answer", self.api))?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.get(path).await.map(Some)
    }

    /// Asks with GET for what is not at this entity tag any more; with the tag of the answer.
    pub async fn unless_known(&self, path: &str, tag: Option<&str>) -> anyhow::Result<Option<(Value, Option<String>)>> {
        let mut request = self.http.get(format!("{}{path}", self.api)).bearer_auth(&self.token);
        if let Some(tag) = tag {
            request = request.header("if-none-match", tag);
        }
        let answer = request.send().await.with_context(|| format!("{} does not answer", self.api))?;
        let tag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        match answer.status() {
            reqwest::StatusCode::NOT_MODIFIED => Ok(None),
            status if status.is_success() => Ok(Some((answer.json().await?, tag))),
            // Asked again for the reason.
            _ => self.get(path).await.map(|found| Some((found, None))),
        }
    }

    /// Asks with GET.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(reqwest::Method::GET, path, None).await
    }

    /// The bytes of a file of an audit log.
    pub async fn bytes(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let request = self.http.get(format!("{}{path}", self.api)).bearer_auth(&self.token);
        let answer = request.send().await.with_context(|| format!("{} does not answer", self.api))?;
        Ok(answer.error_for_status()?.bytes().await?.to_vec())
    }
}

/// `holdfast cluster status`: what runs, what is stuck, and why.
pub async fn status(remote: &Remote) -> anyhow::Result<()> {
    let client = remote.connect().await?;
    let status = client.get("/v1/cluster/status").await?;
    if remote.json {
        println!("{status:#}");
        return Ok(());
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    println!(
        "cluster {}, seen from {} ({})\n",
        text(&status["cluster"]),
        text(&status["node"]),
        text(&status["region"])
    );
    let mut groups = comfy_table::Table::new();
    groups.set_header(["group", "leader", "role here", "term", "committed", "applied"]);
    for group in status["groups"].as_array().into_iter().flatten() {
        groups.add_row(["group", "leader", "role", "term", "committed", "applied"].map(|name| text(&group[name])));
    }
    println!("{groups}");
    let links = status["links"].as_array().cloned().unwrap_or_default();
    if !links.is_empty() {
        let mut table = comfy_table::Table::new();
        table.set_header(["from region", "group", "state", "behind"]);
        for link in &links {
            table.add_row(["region", "group", "state", "behind"].map(|name| text(&link[name])));
        }
        println!("{table}");
    }
    let stuck = status["stuck"].as_array().cloned().unwrap_or_default();
    if stuck.is_empty() {
        println!("Nothing is stuck.");
        return Ok(());
    }
    for one in &stuck {
        println!("STUCK {}: {}", text(&one["what"]), text(&one["why"]));
    }
    bail!("{} of it is stuck", stuck.len())
}

/// `holdfast totp`: the one-time code of this moment.
pub fn totp(secret: &str) -> anyhow::Result<String> {
    let secret = identity::totp::TotpSecret::from_base32(secret).context("not a base32 secret")?;
    Ok(secret.code(SystemClock::new().wall_ms()))
}
