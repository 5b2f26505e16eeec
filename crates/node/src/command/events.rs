//! `holdfast events`: events of the past, searched and hunted through over a node's API, and their files checked.

use crate::command::remote::{Client, Remote};
use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one question for a job's state may take to be answered.
const POLL: Duration = Duration::from_millis(300);
/// Rows of one page.
const PAGE_ROWS: usize = 1000;
/// Characters of a cell.
const CELL_CHARACTERS_MAX: usize = 60;
/// Bytes of a file of rules.
const RULES_BYTES_MAX: u64 = 1 << 20;
/// The columns of a search by terms, for people.
const COLUMNS: [&str; 8] = ["time", "tenant", "operation", "status", "user_name", "src_address", "host", "message"];

/// Questions about events of the past.
#[derive(Subcommand)]
#[allow(missing_docs, reason = "what is flattened is described at its type")]
pub enum EventsCommand {
    /// Find events: the newest that fit the terms, or the rows of a SELECT.
    #[command(after_help = "Examples:\n  \
        holdfast events search user:ann status:failure --since 7d\n  \
        holdfast events search 'address:10.0.0.0/8 (operation:login* or severity>=3) not host:web-1'\n  \
        holdfast events search --sql \"SELECT user_name, count(*) FROM events GROUP BY 1 ORDER BY 2 DESC\"")]
    Search {
        /// Terms: field:value, field>=number, text; `and`, `or`, `not`, parentheses; * is any text.
        terms: Vec<String>,
        /// A SELECT over the table `events` instead of terms.
        #[arg(long, conflicts_with = "terms")]
        sql: Option<String>,
        /// Most rows.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        scope: Scope,
        #[command(flatten)]
        remote: Remote,
    },
    /// Run detection rules over events of the past: the alerts that live detection would have raised.
    #[command(after_help = "Examples:\n  \
        holdfast events hunt --since 7d --only api_brute_force\n  \
        holdfast events hunt --rules sigma/rules/linux --nested --pipeline ocsf --since 30d")]
    Hunt {
        /// A file of Sigma rules, or a folder of them; the node's own rules by default.
        #[arg(long)]
        rules: Option<PathBuf>,
        /// Read the folders inside it too, as public packs are laid out.
        #[arg(long, requires = "rules")]
        nested: bool,
        /// Read the rules through a pipeline: a file, or `ocsf` for the one that comes with the program. One after the
        /// other.
        #[arg(long, requires = "rules")]
        pipeline: Vec<String>,
        /// Only alerts of this rule, by id, also when it is in shadow; may be repeated.
        #[arg(long)]
        only: Vec<String>,
        #[command(flatten)]
        scope: Scope,
        #[command(flatten)]
        remote: Remote,
    },
    /// Searches and hunts that run, or ended within the hour; one of them with what it found.
    Jobs {
        /// The id of one.
        id: Option<String>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Cancel a search or hunt, or forget one that has ended.
    Cancel {
        /// Its id.
        id: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// What a node keeps: by tenant how much, since when, for how long, and legal holds.
    Retention {
        #[command(flatten)]
        remote: Remote,
    },
    /// Read every file of an archive on this machine, without a node. Fails when one is broken.
    Check {
        /// The node's data folder.
        data: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Whose events, and when.
#[derive(Args)]
pub struct Scope {
    /// Whose events: one's own tenant's by default; `*` for all, where that is allowed.
    #[arg(long)]
    tenant: Option<String>,
    /// From so long ago on, such as 30m, 24h or 7d.
    #[arg(long, default_value = "24h", value_parser = milliseconds)]
    since: u64,
    /// From this moment on, such as 2026-11-24T03:00:00Z, instead of --since.
    #[arg(long)]
    from: Option<jiff::Timestamp>,
    /// Up to this moment; now by default.
    #[arg(long)]
    to: Option<jiff::Timestamp>,
}

fn milliseconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a time like 30m, 24h or 7d");
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 24 * 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_ms).ok_or_else(wrong)
}

impl Scope {
    fn body(&self) -> Value {
        let now_ms = jiff::Timestamp::now().as_millisecond().cast_unsigned();
        let ms = |moment: &jiff::Timestamp| moment.as_millisecond().max(0).cast_unsigned();
        let to_ms = self.to.as_ref().map_or(now_ms + 1, ms);
        let from_ms = self.from.as_ref().map_or_else(|| to_ms.saturating_sub(self.since), ms);
        json!({"tenant": self.tenant, "from_ms": from_ms, "to_ms": to_ms})
    }
}

/// Answers one question.
pub async fn run(command: &EventsCommand) -> Result<()> {
    match command {
        EventsCommand::Search { terms, sql, limit, scope, remote } => {
            let mut body = scope.body();
            body["limit"] = (*limit).into();
            match sql {
                Some(sql) => body["sql"] = sql.as_str().into(),
                None => body["query"] = terms.join(" ").into(),
            }
            ask(remote, "/v1/events/search", body).await
        }
        EventsCommand::Hunt { rules, nested, pipeline, only, scope, remote } => {
            let mut body = scope.body();
            body["only"] = json!(only);
            if let Some(path) = rules {
                body["rules"] = read_rules(path, *nested)?.into();
                let pipelines = pipeline.iter().map(|name| read_pipeline(name)).collect::<Result<Vec<_>>>()?;
                body["pipelines"] = json!(pipelines);
            }
            ask(remote, "/v1/events/hunt", body).await
        }
        EventsCommand::Jobs { id: Some(id), remote } => {
            let client = remote.connect().await?;
            let job = client.get(&format!("/v1/events/jobs/{id}?limit={PAGE_ROWS}")).await?;
            show(&client, remote, follow(&client, job).await?).await
        }
        EventsCommand::Jobs { id: None, remote } => {
            let list = remote.connect().await?.get("/v1/events/jobs").await?;
            if remote.json {
                println!("{list:#}");
                return Ok(());
            }
            let names = ["id", "kind", "state", "tenant", "question", "files_done", "files_total", "rows_matched"];
            println!("{}", table(&names, list["jobs"].as_array().into_iter().flatten()));
            Ok(())
        }
        EventsCommand::Cancel { id, remote } => {
            let client = remote.connect().await?;
            client.ask(Method::DELETE, &format!("/v1/events/jobs/{id}"), None).await.map(|_| ())
        }
        EventsCommand::Retention { remote } => retention(remote).await,
        EventsCommand::Check { data, json } => check(data, *json),
    }
}

/// A pipeline as the API takes it.
fn read_pipeline(name: &str) -> Result<String> {
    if name == "ocsf" { Ok(name.to_owned()) } else { std::fs::read_to_string(name).with_context(|| name.to_owned()) }
}

/// All rules of a file, or of the files of a folder, and of the folders in it if they are wanted.
fn read_rules(path: &Path, nested: bool) -> Result<String> {
    let (mut texts, mut waiting, mut size_bytes) = (Vec::new(), vec![path.to_owned()], 0);
    while let Some(next) = waiting.pop() {
        let name = next.display().to_string();
        if next.is_dir() {
            let entries = std::fs::read_dir(&next).with_context(|| name.clone())?;
            let mut inside = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
            inside.retain(|path| if path.is_dir() { nested && !path.is_symlink() } else { is_rules(path) });
            // The first in the order of names is popped first.
            inside.sort();
            waiting.extend(inside.into_iter().rev());
            continue;
        }
        size_bytes += std::fs::metadata(&next).with_context(|| name.clone())?.len();
        ensure!(
            size_bytes <= RULES_BYTES_MAX,
            "{name}: the rules of one hunt may have {RULES_BYTES_MAX} bytes: hunt in parts, or name rules of the node \
             with --only"
        );
        texts.push(std::fs::read_to_string(&next).with_context(|| name)?);
    }
    ensure!(!texts.is_empty(), "{}: no rules", path.display());
    Ok(texts.join("\n---\n"))
}

fn is_rules(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml")
}

async fn ask(remote: &Remote, path: &str, body: Value) -> Result<()> {
    let client = remote.connect().await?;
    let job = client.ask(Method::POST, path, Some(body)).await?;
    show(&client, remote, follow(&client, job).await?).await
}

/// Waits until a job has ended, and shows how far it is. Interrupted, it cancels the job.
async fn follow(client: &Client, mut job: Value) -> Result<Value> {
    if job["state"] != "running" {
        return Ok(job);
    }
    let path = format!("/v1/events/jobs/{}", text(&job["id"]));
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} files, {msg} [{elapsed}]");
    bar.set_style(style.context("the bar's form")?);
    while job["state"] == "running" {
        bar.set_length(job["files_total"].as_u64().unwrap_or(0));
        bar.set_position(job["files_done"].as_u64().unwrap_or(0));
        bar.set_message(format!("{} read, {} found", text(&job["rows_read"]), text(&job["rows_matched"])));
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => {
                bar.finish_and_clear();
                client.ask(Method::DELETE, &path, None).await?;
                bail!("cancelled");
            }
            () = tokio::time::sleep(POLL) => {}
        }
        job = client.get(&format!("{path}?limit={PAGE_ROWS}")).await?;
    }
    bar.finish_and_clear();
    Ok(job)
}

/// Shows what a job found, page by page.
async fn show(client: &Client, remote: &Remote, mut job: Value) -> Result<()> {
    if job["state"] != "done" {
        bail!("{}: {}", text(&job["state"]), text(&job["problem"]));
    }
    let mut rows = job["rows"].as_array().cloned().unwrap_or_default();
    while let Some(after) = job["next"].as_u64() {
        let path = format!("/v1/events/jobs/{}?after={after}&limit={PAGE_ROWS}", text(&job["id"]));
        job = client.get(&path).await?;
        rows.extend(job["rows"].as_array().cloned().unwrap_or_default());
    }
    if remote.json {
        job["rows"] = rows.into();
        println!("{job:#}");
        return Ok(());
    }
    if job["kind"] == "hunt" {
        alerts(&rows);
    } else {
        let columns: Vec<&str> = job["columns"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        // A search by terms has every column: people get those that say most.
        let columns = if columns.contains(&"raw") && columns.contains(&"fields") { COLUMNS.to_vec() } else { columns };
        println!("{}", table(&columns, rows.iter()));
    }
    let more = if job["truncated"] == true { " (there are more)" } else { "" };
    println!("{} found{more}; {} events read", rows.len(), text(&job["rows_read"]));
    for (file, reason) in job["broken"].as_object().into_iter().flatten() {
        eprintln!("holdfast: skipped a broken file, events may be missing: {file}: {}", text(reason));
    }
    Ok(())
}

fn alerts(rows: &[Value]) {
    let mut table = comfy_table::Table::new();
    table.set_header(["last event", "severity", "rule", "group", "events", "alert"]);
    for alert in rows {
        let last_ms = alert["last_ms"].as_i64().unwrap_or(0);
        let last = jiff::Timestamp::from_millisecond(last_ms).map_or_else(|_| last_ms.to_string(), |at| at.to_string());
        let group: Vec<String> =
            alert["group_key"].as_object().into_iter().flatten().map(|(_, value)| text(value)).collect();
        let events = alert["events"].as_array().map_or(0, Vec::len).to_string();
        let id = text(&alert["id"]).chars().take(16).collect();
        table.add_row([last, text(&alert["severity"]), text(&alert["rule"]["title"]), group.join(" "), events, id]);
    }
    println!("{table}");
}

async fn retention(remote: &Remote) -> Result<()> {
    let view = remote.connect().await?.get("/v1/events/archive").await?;
    if remote.json {
        println!("{view:#}");
        return Ok(());
    }
    println!("node {} ({})", text(&view["node"]), text(&view["region"]));
    let names = ["tenant", "files", "rows", "size_bytes", "first_day", "last_day", "retention_days", "holds"];
    println!("{}", table(&names, view["tenants"].as_array().into_iter().flatten()));
    if let Some(max) = view["size_bytes_max"].as_u64().filter(|max| *max > 0) {
        println!("{} of {max} bytes, {} events in no file yet", text(&view["size_bytes"]), text(&view["open_rows"]));
    }
    for (file, reason) in view["broken"].as_object().into_iter().flatten() {
        println!("BROKEN {file}: {}", text(reason));
    }
    Ok(())
}

fn check(data: &Path, json: bool) -> Result<()> {
    let root = data.join("archive");
    ensure!(root.is_dir(), "{}: there is no archive here", root.display());
    let bar = ProgressBar::new_spinner();
    let report = archive::check::check(&root, |files| {
        bar.set_message(format!("{files} files"));
        bar.tick();
        true
    });
    bar.finish_and_clear();
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        for (file, reason) in &report.broken {
            println!("BROKEN {file}: {reason}");
        }
        println!("{} files, {} events, {} bytes", report.files, report.rows, report.size_bytes);
    }
    if report.broken.is_empty() { Ok(()) } else { bail!("{} files are broken", report.broken.len()) }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join("; "),
        other => other.to_string(),
    }
}

fn table<'a>(columns: &[&str], rows: impl Iterator<Item = &'a Value>) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.set_header(columns);
    let cell = |value: &Value| {
        let all = text(value);
        let mut cut: String =
            all.chars().take(CELL_CHARACTERS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if cut.len() < all.len() {
            cut.push('…');
        }
        cut
    };
    for row in rows {
        table.add_row(columns.iter().map(|name| cell(&row[*name])));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers_with_a_unit() {
        assert_eq!((milliseconds("30m"), milliseconds("7d")), (Ok(1_800_000), Ok(604_800_000)));
        for text in ["", "7", "d", "-1h", "1ä", "99999999999999999999d"] {
            assert!(milliseconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rules_are_read_from_nested_folders_where_that_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("linux/auditd");
        std::fs::create_dir_all(&inside).unwrap();
        for (path, text) in [("b.yml", "b"), ("a.yaml", "a"), ("README.md", "no"), ("linux/auditd/c.yml", "c")] {
            std::fs::write(folder.path().join(path), text).unwrap();
        }
        assert_eq!(read_rules(folder.path(), false).unwrap(), "a\n---\nb");
        assert_eq!(read_rules(folder.path(), true).unwrap(), "a\n---\nb\n---\nc");
        assert!(read_rules(&folder.path().join("linux"), false).is_err(), "no rules is an error");
        std::fs::write(inside.join("d.yml"), "x".repeat(RULES_BYTES_MAX as usize)).unwrap();
        assert!(read_rules(folder.path(), true).unwrap_err().to_string().contains("in parts"));
    }

    #[test]
    fn what_events_say_cannot_move_the_cursor_of_a_terminal() {
        let row = json!({"message": "a\u{1b}[2Jb"});
        assert!(!table(&["message"], [&row].into_iter()).to_string().contains('\u{1b}'));
    }
}
