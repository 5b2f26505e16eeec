//! `holdfast escalation`: who is called when.

use super::remote::Remote;
use super::show::{self, print, rows, short, text, time};
use crate::world::SystemClock;
use anyhow::{Context, bail};
use clap::Subcommand;
use model::time::Clock as _;
use reqwest::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Who is called when: the policy, who is on call, and what runs.
#[derive(Subcommand)]
#[command(after_help = "A policy is one TOML file, applied as a whole:\n\n  \
    version = 1\n\n  \
    [[person]]\n  login = \"ann\"\n  email = \"ann@example.org\"\n\n  \
    [[team]]\n  name = \"soc\"\n  members = [\"ann\"]\n\n  \
    [[schedule]]\n  name = \"primary\"\n  time_zone = \"Europe/Berlin\"\n  \
    [[schedule.layer]]\n  members = [\"ann\"]\n  from = \"2026-03-02\"\n  hand_over = \"09:00\"\n  every_days = 7\n\n  \
    [[policy]]\n  name = \"all\"\n  severity_min = \"medium\"\n  repeats = 1\n  fallback = [\"team:soc\"]\n  \
    [[policy.step]]\n  notify = [\"schedule:primary\"]\n  acknowledge_within = \"10m\"\n  \
    [[policy.step]]\n  notify = [\"team:soc\"]\n  acknowledge_within = \"20m\"\n\n  \
    [[asset]]\n  entity = \"host:db-1\"\n  criticality = \"vital\"\n\n\
    `check` needs no node; the others speak to one (HOLDFAST_API, HOLDFAST_CA, HOLDFAST_TOKEN).")]
#[allow(missing_docs, reason = "what is flattened is described at its type")]
pub enum EscalationCommand {
    /// Check a policy file: every fault is told with its line, and who is on call now.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Put a policy file into force, if it is right and nobody applied another since it was looked at.
    Apply {
        #[command(flatten)]
        remote: Remote,
        /// The file.
        file: PathBuf,
        /// Why.
        #[arg(long)]
        why: Option<String>,
        /// The revision it replaces, if it must be that one: the present one when not given.
        #[arg(long)]
        replaces: Option<u64>,
    },
    /// Print the policy in force.
    Show {
        #[command(flatten)]
        remote: Remote,
    },
    /// Say who is on call.
    Who {
        #[command(flatten)]
        remote: Remote,
        /// When, such as 2026-03-02T09:00:00Z; now when not given.
        at: Option<String>,
    },
    /// Say who is being called about what.
    Runs {
        #[command(flatten)]
        remote: Remote,
    },
}

/// Carries out a command.
pub async fn run(command: &EscalationCommand) -> anyhow::Result<()> {
    match command {
        EscalationCommand::Check { file } => check(file),
        EscalationCommand::Apply { remote, file, why, replaces } => {
            let document = checked(file)?;
            let client = remote.connect().await?;
            let known = match replaces {
                Some(revision) => Some(revision.to_string()),
                None => client.find("/v1/escalation/policy").await?.map(|policy| show::text(&policy["etag"])),
            };
            let body = Some(json!({"text": document, "why": why}));
            let applied = client.ask_as_seen(Method::PUT, "/v1/escalation/policy", body, known.as_deref()).await?;
            print(remote, &applied, |applied| {
                let warnings = applied["warnings"].as_array().into_iter().flatten();
                let warnings: String = warnings.map(|one| format!("warning: {}\n", show::plain(&text(one)))).collect();
                format!("{warnings}revision {} is in force", text(&applied["revision"]))
            })
        }
        EscalationCommand::Show { remote } => {
            let policy = remote.connect().await?.get("/v1/escalation/policy").await?;
            print(remote, &policy, |policy| {
                let why = policy["why"].as_str().map(|why| format!(": {}", show::plain(why))).unwrap_or_default();
                let (revision, by, at) = (text(&policy["revision"]), text(&policy["by"]), time(&policy["applied_ms"]));
                format!("# revision {revision}, applied by {by} at {at}{why}\n{}", text(&policy["text"]).trim_end())
            })
        }
        EscalationCommand::Who { remote, at } => {
            let at_ms = at.as_deref().map(show::parse_time).transpose()?;
            let path = at_ms.map_or(String::new(), |at_ms| format!("?at_ms={at_ms}"));
            let found = remote.connect().await?.get(&format!("/v1/escalation/on-call{path}")).await?;
            print(remote, &found, on_call)
        }
        EscalationCommand::Runs { remote } => {
            print(remote, &remote.connect().await?.get("/v1/escalations").await?, runs)
        }
    }
}

/// The text of a policy file without faults.
fn checked(file: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    if let Err(errors) = detection::escalation::parse(&file.display().to_string(), &bytes) {
        for error in &errors {
            eprintln!("{error}");
        }
        bail!("{} faults", errors.len());
    }
    String::from_utf8(bytes).with_context(|| file.display().to_string())
}

fn check(file: &Path) -> anyhow::Result<()> {
    let text = checked(file)?;
    let book = detection::escalation::parse("", text.as_bytes()).map_err(|_| anyhow::anyhow!("it has changed"))?;
    println!(
        "{}: {} people, {} teams, {} schedules, {} policies",
        file.display(),
        book.people.len(),
        book.teams.len(),
        book.schedules.len(),
        book.policies.len()
    );
    for warning in book.warnings() {
        println!("warning: {warning}");
    }
    let now_ms = SystemClock::new().wall_ms();
    for schedule in book.schedules.values() {
        println!("on call now in {}: {}", schedule.name, schedule.on_call(now_ms).unwrap_or("nobody"));
    }
    Ok(())
}

fn on_call(found: &Value) -> String {
    let row = |one: &Value| {
        let who = |name: &str| one[name].as_str().unwrap_or("nobody").to_owned();
        [text(&one["schedule"]), who("login"), time(&one["until_ms"]), who("next")]
    };
    let found = rows(&found["schedules"], row);
    match found.is_empty() {
        true => "There is no schedule.".into(),
        false => show::table(["schedule", "on call", "until", "then"], found).to_string(),
    }
}

fn runs(found: &Value) -> String {
    let row = |one: &Value| {
        let standing = [&one["standing"], &one["stopped_by"]].map(text).join(" ");
        let step = format!("{}/{}", text(&one["round"]), text(&one["step"]));
        let told = one["told"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
        let by = time(&one["acknowledge_by_ms"]);
        [short(&one["incident"]), text(&one["policy"]), standing, step, told, by, text(&one["sent"])]
    };
    let found = rows(&found["escalations"], row);
    match found.is_empty() {
        true => "Nobody was ever called.".into(),
        false => {
            let header = ["incident", "policy", "standing", "round/step", "told", "acknowledge by", "sent"];
            show::table(header, found).to_string()
        }
    }
}
