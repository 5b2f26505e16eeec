//! `holdfast tickets`: the work on incidents as other systems know it.

use super::incidents::find;
use super::remote::{Client, Remote};
use super::show::{self, plain, print, query, rows, short, text, time};
use anyhow::{bail, ensure};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

/// The work on incidents as other systems know it.
#[derive(Subcommand)]
#[command(
    after_help = "An incident has one ticket in each queue. Sinks that want tickets are told of every revision\n\
    under a key of its own; `show` says which sink took it, and why one refused.\n\n  \
    holdfast tickets open 3f2a91c0 jira --field project=SOC\n  \
    holdfast tickets change 88c1 --state in_progress --comment 'looking at it'"
)]
#[allow(missing_docs, reason = "what is flattened is described at its type")]
pub enum TicketsCommand {
    /// List tickets, those that changed last first.
    List {
        #[command(flatten)]
        remote: Remote,
        /// Only about this incident: its id, or enough of its beginning.
        #[arg(long)]
        incident: Option<String>,
        /// Only of this queue.
        #[arg(long)]
        queue: Option<String>,
        /// open, in_progress, waiting or done.
        #[arg(long)]
        state: Option<String>,
    },
    /// Everything about one.
    Show(One),
    /// Open the ticket of an incident in a queue.
    Open {
        #[command(flatten)]
        remote: Remote,
        /// The incident: its id, or enough of its beginning.
        incident: String,
        /// The queue of the other system.
        queue: String,
        /// In one line; the incident's title when not given.
        #[arg(long)]
        title: Option<String>,
        /// At length.
        #[arg(long, default_value = "")]
        description: String,
        /// A field of the other system, as name=value; several times.
        #[arg(long = "field")]
        fields: Vec<String>,
    },
    /// Change one: all that is said, or nothing.
    Change(Change),
    /// Tell those again that refused it.
    Retry(One),
}

/// One ticket.
#[derive(Args)]
pub struct One {
    #[command(flatten)]
    remote: Remote,
    /// The ticket: its id, or enough of its beginning.
    id: String,
}

/// What is to be another.
#[derive(Args)]
pub struct Change {
    #[command(flatten)]
    one: One,
    /// Another title.
    #[arg(long)]
    title: Option<String>,
    /// open, in_progress, waiting or done.
    #[arg(long)]
    state: Option<String>,
    /// A field of the other system, as name=value, or name= for none; several times.
    #[arg(long = "field")]
    fields: Vec<String>,
    /// A remark.
    #[arg(long)]
    comment: Option<String>,
    /// What it has to do with: an address, or another ticket or incident.
    #[arg(long)]
    link: Option<String>,
    /// What it has nothing to do with any more.
    #[arg(long)]
    unlink: Option<String>,
}

/// Carries out a command.
pub async fn run(command: &TicketsCommand) -> anyhow::Result<()> {
    match command {
        TicketsCommand::List { remote, incident, queue, state } => {
            let client = remote.connect().await?;
            let incident = match incident {
                Some(id) => Some(find(&client, id).await?),
                None => None,
            };
            let mut path = String::from("/v1/tickets?limit=200");
            for (name, value) in [("incident", &incident), ("queue", queue), ("state", state)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", query(value)));
                }
            }
            print(remote, &client.get(&path).await?, list_table)
        }
        TicketsCommand::Show(one) => {
            let client = one.remote.connect().await?;
            print(&one.remote, &client.get(&one.path(&client).await?).await?, whole)
        }
        TicketsCommand::Open { remote, incident, queue, title, description, fields } => {
            let client = remote.connect().await?;
            let incident = find(&client, incident).await?;
            let fields = fields_of(fields)?;
            let body = json!({"incident": incident, "queue": queue, "title": title, "description": description});
            let mut opened = client.ask(Method::POST, "/v1/tickets", Some(body)).await?;
            if !fields.is_empty() {
                let path = format!("/v1/tickets/{}", text(&opened["id"]));
                opened = client.ask(Method::PATCH, &path, Some(json!({"fields": fields}))).await?;
            }
            print(remote, &opened, whole)
        }
        TicketsCommand::Change(change) => {
            let Change { one, title, state, fields, comment, link, unlink } = change;
            let named = [("title", title), ("state", state), ("comment", comment), ("link", link), ("unlink", unlink)];
            let mut body: Map<String, Value> =
                named.into_iter().filter_map(|(name, value)| Some((name.into(), value.clone()?.into()))).collect();
            body.insert("fields".into(), fields_of(fields)?.into());
            one.change(body.into()).await
        }
        TicketsCommand::Retry(one) => one.change(json!({"retry": true})).await,
    }
}

impl One {
    async fn path(&self, client: &Client) -> anyhow::Result<String> {
        const WHOLE: usize = 32;
        if self.id.len() >= WHOLE {
            return Ok(format!("/v1/tickets/{}", query(&self.id)));
        }
        let found = client.get("/v1/tickets?limit=500").await?;
        let ids = found["tickets"].as_array().into_iter().flatten().map(|one| text(&one["id"]));
        let fits: Vec<String> = ids.filter(|known| known.starts_with(&self.id)).collect();
        match fits.as_slice() {
            [one] => Ok(format!("/v1/tickets/{one}")),
            [] => bail!("no ticket's id begins with '{}'", self.id),
            several => bail!("'{}' begins more than one: {}", self.id, several.join(", ")),
        }
    }

    async fn change(&self, body: Value) -> anyhow::Result<()> {
        let client = self.remote.connect().await?;
        let path = self.path(&client).await?;
        print(&self.remote, &client.ask(Method::PATCH, &path, Some(body)).await?, whole)
    }
}

fn fields_of(pairs: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut fields = Map::new();
    for pair in pairs {
        let Some((name, value)) = pair.split_once('=') else { bail!("'{pair}' is not name=value") };
        ensure!(!name.is_empty(), "'{pair}' has no name");
        let value = if value.is_empty() { Value::Null } else { value.into() };
        fields.insert(name.to_owned(), value);
    }
    Ok(fields)
}

fn list_table(found: &Value) -> String {
    let row = |one: &Value| {
        let at = time(&one["updated_ms"]);
        let [id, incident] = [&one["id"], &one["incident"]].map(short);
        [id, incident, text(&one["queue"]), text(&one["state"]), text(&one["sync"]), at, text(&one["title"])]
    };
    let found = rows(&found["tickets"], row);
    match found.is_empty() {
        true => "No tickets.".into(),
        false => show::table(["id", "incident", "queue", "state", "sync", "updated", "title"], found).to_string(),
    }
}

fn whole(one: &Value) -> String {
    let mut said = format!(
        "{}\nid {}  incident {}  queue {}  state {}  revision {}  sync {}\n",
        plain(&text(&one["title"])),
        text(&one["id"]),
        short(&one["incident"]),
        plain(&text(&one["queue"])),
        text(&one["state"]),
        text(&one["revision"]),
        text(&one["sync"]),
    );
    for (name, value) in one["fields"].as_object().into_iter().flatten() {
        said.push_str(&plain(&format!("{name} = {}", text(value))));
        said.push('\n');
    }
    for link in one["links"].as_array().into_iter().flatten() {
        said.push_str(&format!("see {}\n", plain(&text(link))));
    }
    for sink in one["sinks"].as_array().into_iter().flatten() {
        let answer = sink["refused"].as_str().map_or("took".to_owned(), |why| format!("refused ({})", plain(why)));
        let (at, revision) = (time(&sink["at_ms"]), text(&sink["revision"]));
        said.push_str(&format!("{at}  {} {answer} revision {revision}\n", plain(&text(&sink["sink"]))));
    }
    for comment in one["comments"].as_array().into_iter().flatten() {
        said.push_str(&format!(
            "{}  {}: {}\n",
            time(&comment["at_ms"]),
            text(&comment["by"]),
            plain(&text(&comment["text"]))
        ));
    }
    said.trim_end().to_owned()
}
