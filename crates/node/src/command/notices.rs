//! `holdfast notices`: what could not be told outside.

use super::remote::Remote;
use super::show::{self, plain, print, query, rows, text, time};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

/// What could not be told outside: notices that a sink refused for good.
#[derive(Subcommand)]
#[command(
    after_help = "A notice that a sink refuses for good, or does not take for a day, is kept with the reason.\n\n  \
    holdfast notices list --sink pager\n  \
    holdfast notices replay pager page/3f2a91c0d4e5f60718293a4b5c6d7e8f\n  \
    holdfast notices replay pager --all\n  \
    holdfast notices drop pager --all"
)]
#[allow(missing_docs, reason = "what is flattened is described at its type")]
pub enum NoticesCommand {
    /// List them, the newest first.
    List {
        #[command(flatten)]
        remote: Remote,
        /// Only of this sink.
        #[arg(long)]
        sink: Option<String>,
    },
    /// Have them told again, under the keys they had.
    Replay(Chosen),
    /// Drop them.
    Drop(Chosen),
}

/// Which.
#[derive(Args)]
pub struct Chosen {
    #[command(flatten)]
    remote: Remote,
    /// The sink.
    sink: String,
    /// Their keys.
    #[arg(required_unless_present = "all")]
    keys: Vec<String>,
    /// All of the sink.
    #[arg(long, conflicts_with = "keys")]
    all: bool,
}

/// Carries out a command.
pub async fn run(command: &NoticesCommand) -> anyhow::Result<()> {
    match command {
        NoticesCommand::List { remote, sink } => {
            let sink = sink.as_ref().map(|sink| format!("&sink={}", query(sink))).unwrap_or_default();
            let found = remote.connect().await?.get(&format!("/v1/notices/refused?limit=500{sink}")).await?;
            print(remote, &found, list)
        }
        NoticesCommand::Replay(chosen) => chosen.to_all("replay", "are told again").await,
        NoticesCommand::Drop(chosen) => chosen.to_all("drop", "are dropped").await,
    }
}

impl Chosen {
    async fn to_all(&self, act: &str, done: &str) -> anyhow::Result<()> {
        let keys = if self.all { Value::Null } else { json!(self.keys) };
        let body = json!({"sink": self.sink, "keys": keys});
        let client = self.remote.connect().await?;
        let answer = client.ask(Method::POST, &format!("/v1/notices/refused/{act}"), Some(body)).await?;
        print(&self.remote, &answer, |answer| format!("{} {done}", text(&answer["count"])))
    }
}

fn list(found: &Value) -> String {
    let row = |one: &Value| {
        let again = if one["is_asked_for"] == true { "again: " } else { "" };
        let reason = plain(&format!("{again}{}", text(&one["reason"])));
        let [sink, key, subject] = ["sink", "key", "subject"].map(|name| plain(&text(&one[name])));
        [sink, key, text(&one["severity"]), time(&one["refused_ms"]), reason, subject]
    };
    let shown = rows(&found["notices"], row);
    match shown.is_empty() {
        true => "Nothing was refused.".into(),
        false => show::table(["sink", "key", "severity", "refused", "why", "subject"], shown).to_string(),
    }
}
