//! `holdfast pipeline`: checks a topology, draws it, runs the user's own tests of it, and looks after dead letters.

use crate::intake;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use pipeline::cases::{self, Case};
use pipeline::dead::{self, Letter, LetterId, Wanted};
use pipeline::record::Record;
use pipeline::runtime::dead_letters_folder;
use pipeline::topology::graph::{self, draw};
use pipeline::topology::{Finding, Topology};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Questions about a topology, and its dead letters.
#[derive(Subcommand)]
pub enum PipelineCommand {
    /// Say what is wrong with a topology, with lines and what to do. Fails when something is.
    Check {
        /// The topology.
        file: PathBuf,
        /// Do not look for the secrets and certificates that it names: this machine does not have them.
        #[arg(long)]
        without_secrets: bool,
        /// Answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Draw a topology.
    Graph {
        /// The topology.
        file: PathBuf,
        /// How.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Run the tests in a topology and in the `.test.toml` files beside it. Fails when one does not hold.
    Test {
        /// The topology.
        file: PathBuf,
        /// Answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Events that could not be dealt with.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
}

/// How a picture is written.
#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    /// A line for each component.
    Text,
    /// For documents.
    Mermaid,
    /// For Graphviz.
    Dot,
}

/// What can be done with dead letters.
#[derive(Subcommand)]
pub enum DeadLettersCommand {
    /// List them, oldest first.
    List {
        /// Which.
        #[command(flatten)]
        chosen: Chosen,
        /// Answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show all of one.
    Show {
        /// Which.
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Have the running node deal with them again, from the component that could not.
    Replay {
        /// Which.
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Drop them.
    Drop {
        /// Which.
        #[command(flatten)]
        chosen: Chosen,
    },
}

/// Some dead letters.
#[derive(Args)]
pub struct Chosen {
    /// Their names, as `list` says them.
    ids: Vec<LetterId>,
    /// The node's data directory.
    #[arg(long)]
    data: PathBuf,
    /// Only of that component.
    #[arg(long)]
    component: Option<String>,
    /// Only for that reason, by its short word.
    #[arg(long)]
    reason: Option<String>,
    /// Without names: all that are left.
    #[arg(long)]
    all: bool,
}

/// Answers one question.
pub fn run(command: &PipelineCommand) -> Result<()> {
    match command {
        PipelineCommand::Check { file, without_secrets, json } => check(file, !without_secrets, *json),
        PipelineCommand::Graph { file, format } => {
            let format = match format {
                Format::Text => graph::Format::Text,
                Format::Mermaid => graph::Format::Mermaid,
                Format::Dot => graph::Format::Dot,
            };
            print!("{}", draw(&sound(file)?, format));
            Ok(())
        }
        PipelineCommand::Test { file, json } => test(file, *json),
        PipelineCommand::DeadLetters(command) => dead_letters(command),
    }
}

fn read(file: &Path) -> Result<(Topology, Vec<Finding>)> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| name.clone())?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(Topology::read(&name, &text, folder.to_owned()))
}

/// A topology of which nothing is wrong.
fn sound(file: &Path) -> Result<Topology> {
    let (topology, findings) = read(file)?;
    refuse(&findings)?;
    Ok(topology)
}

fn refuse(findings: &[Finding]) -> Result<()> {
    for finding in findings {
        eprintln!("{finding}");
    }
    if findings.is_empty() { Ok(()) } else { bail!("{} things are wrong with the topology", findings.len()) }
}

fn check(file: &Path, looks: bool, as_json: bool) -> Result<()> {
    let (topology, mut findings) = read(file)?;
    if looks && findings.is_empty() {
        findings = intake::look(&topology, &file.display().to_string());
    }
    let (sources, transforms, sinks) = (topology.sources.len(), topology.transforms.len(), topology.sinks.len());
    if as_json {
        let report = json!({"findings": findings, "sources": sources, "transforms": transforms, "sinks": sinks});
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        findings.iter().for_each(|finding| println!("{finding}"));
        println!("{}: {sources} sources, {transforms} transforms, {sinks} sinks", file.display());
    }
    if findings.is_empty() { Ok(()) } else { bail!("{} things are wrong with the topology", findings.len()) }
}

fn test(file: &Path, as_json: bool) -> Result<()> {
    let topology = sound(file)?;
    let mut tests: Vec<(String, Vec<Case>)> = vec![(file.display().to_string(), topology.tests.clone())];
    for path in beside(file)? {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).with_context(|| name.clone())?;
        let (cases, findings) = cases::read(&name, &text);
        refuse(&findings)?;
        tests.push((name, cases));
    }
    let (mut passed, mut failed, mut reports) = (0, 0, Vec::new());
    for (name, cases) in &tests {
        let report = cases::run(&topology, cases)?;
        passed += report.passed;
        failed += report.failed;
        if !as_json {
            for failure in &report.failures {
                println!("FAILED {name}:{}: {}", failure.line, failure.name);
                failure.differences.iter().for_each(|difference| println!("  {difference}"));
            }
        }
        reports.push(json!({"file": name, "report": report}));
    }
    if as_json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
    } else {
        println!("{passed} passed, {failed} failed");
    }
    if failed == 0 { Ok(()) } else { bail!("{failed} tests do not hold") }
}

/// `a.test.toml`, `a.more.test.toml` and their like, beside `a.toml`.
fn beside(file: &Path) -> Result<Vec<PathBuf>> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let stem = file.file_stem().and_then(|stem| stem.to_str()).context("the topology's name is not UTF-8")?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".test.toml")) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn dead_letters(command: &DeadLettersCommand) -> Result<()> {
    match command {
        DeadLettersCommand::List { chosen, json } => {
            let letters = chosen.find(true)?;
            if *json {
                let all: Vec<_> = letters.iter().map(|(id, letter)| json!({"id": id, "letter": letter})).collect();
                println!("{}", serde_json::to_string_pretty(&all)?);
                return Ok(());
            }
            let mut table = comfy_table::Table::new();
            table.set_header(["id", "when", "component", "reason", "begins"]);
            for (id, letter) in &letters {
                let when = jiff::Timestamp::from_millisecond(letter.at_ms.cast_signed()).map(|time| time.to_string());
                let begins = beginning(letter);
                let component = letter.component.to_string();
                table.add_row([id.to_string(), when.unwrap_or_default(), component, letter.reason.clone(), begins]);
            }
            println!("{table}\n{} dead letters", letters.len());
            Ok(())
        }
        DeadLettersCommand::Show { chosen } => {
            for (_, letter) in chosen.find(false)? {
                println!("{}", serde_json::to_string_pretty(&letter)?);
            }
            Ok(())
        }
        DeadLettersCommand::Replay { chosen } => {
            let letters = chosen.find(false)?;
            let count = dead::replay(&chosen.folder(), &letters, &caller())?;
            println!("{count} are replayed; {} are samples and stay", letters.len() - count);
            Ok(())
        }
        DeadLettersCommand::Drop { chosen } => {
            let ids: Vec<LetterId> = chosen.find(false)?.into_iter().map(|(id, _)| id).collect();
            dead::drop_letters(&chosen.folder(), &ids, &caller())?;
            println!("{} dropped", ids.len());
            Ok(())
        }
    }
}

/// Who runs this command, as far as the machine knows.
fn caller() -> String {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").map_or_else(|_| "somebody".to_owned(), |own| format!("uid {}", own.uid()))
}

/// The first characters of what could not be dealt with, fit for a terminal.
fn beginning(letter: &Letter) -> String {
    let Ok(record) = Record::try_from(letter.event.clone()) else { return String::new() };
    let text = match &record.fields {
        Some(fields) if record.raw.is_empty() => json!(fields).to_string(),
        _ => String::from_utf8_lossy(&record.raw).into_owned(),
    };
    text.chars().take(60).map(|character| if character.is_control() { ' ' } else { character }).collect()
}

impl Chosen {
    fn folder(&self) -> PathBuf {
        dead_letters_folder(&intake::folder(&self.data))
    }

    fn find(&self, all_by_default: bool) -> Result<Vec<(LetterId, Letter)>> {
        let is_narrowed = !self.ids.is_empty() || self.component.is_some() || self.reason.is_some();
        if !is_narrowed && !self.all && !all_by_default {
            bail!("say which: names, --component, --reason, or --all");
        }
        let folder = self.folder();
        let (mut letters, unreadable) = dead::list(&folder).with_context(|| folder.display().to_string())?;
        if unreadable > 0 {
            eprintln!("holdfast: {unreadable} lines cannot be read");
        }
        if let Some(missing) = self.ids.iter().find(|id| letters.iter().all(|(found, _)| found != *id)) {
            bail!("there is no dead letter {missing}");
        }
        let ids = Some(self.ids.iter().copied().collect()).filter(|_| !self.ids.is_empty());
        let wanted = Wanted { ids, component: self.component.clone(), code: self.reason.clone() };
        letters.retain(|letter| wanted.has(letter));
        Ok(letters)
    }
}
