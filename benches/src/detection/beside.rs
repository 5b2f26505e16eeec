//! rsigma, built from crates.io in a folder of its own, in a process of its own: never part of this workspace.

use super::agreement::Matched;
use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const MANIFEST: &str = include_str!("../../rsigma/manifest.toml");
const DRIVER: &str = include_str!("../../rsigma/driver.rs");
/// How it is asked which rules match: a rule's log source as strict as ours.
const STRICT: &str = "strict";

/// What it says when it has read rules and events.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Hello {
    pub(super) rules: usize,
    pub(super) load_ms: f64,
    pub(super) rules_bytes: Option<u64>,
    /// How it can be asked.
    pub(super) ways: Vec<String>,
}

/// All events once.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Round {
    pub(super) events: usize,
    pub(super) hits: u64,
    pub(super) seconds: f64,
}

/// The running process; ends with this value.
pub(super) struct Beside {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(super) hello: Hello,
    _events: tempfile::NamedTempFile,
}

impl Beside {
    /// Builds it in a folder below that one; what was built before is used again.
    pub(super) fn build(cache: &Path) -> Result<PathBuf> {
        let folder = cache.join("rsigma-0.23");
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        for (name, text) in [("Cargo.toml", MANIFEST), ("driver.rs", DRIVER)] {
            let path = folder.join(name);
            // Only what changed is built again.
            if std::fs::read_to_string(&path).ok().as_deref() != Some(text) {
                std::fs::write(&path, text).with_context(|| path.display().to_string())?;
            }
        }
        let target = folder.join("target");
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--quiet"]).current_dir(&folder).env("CARGO_TARGET_DIR", &target);
        let status = cargo.stdin(Stdio::null()).status().context("cargo")?;
        ensure!(status.success(), "rsigma does not build in {}", folder.display());
        Ok(target.join("release/rsigma-beside"))
    }

    /// Starts it with the same rules and the same lines.
    pub(super) fn start(program: &Path, rules: &Path, lines: &str) -> Result<Self> {
        let mut events = tempfile::NamedTempFile::new()?;
        events.write_all(lines.as_bytes())?;
        let mut command = Command::new(program);
        command.arg(rules).arg(events.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| program.display().to_string())?;
        let input = child.stdin.take().context("its stdin")?;
        let mut output = BufReader::new(child.stdout.take().context("its stdout")?);
        let hello = answer(&mut output)?;
        Ok(Self { child, input, output, hello, _events: events })
    }

    /// Judges all events once.
    pub(super) fn round(&mut self, way: &str) -> Result<Round> {
        writeln!(self.input, "round {way}")?;
        answer(&mut self.output)
    }

    /// The ids of the rules that match each event.
    pub(super) fn matches(&mut self) -> Result<Vec<Matched>> {
        writeln!(self.input, "matches {STRICT}")?;
        let mut all = Vec::new();
        loop {
            let line = line(&mut self.output)?;
            if line == "end" {
                return Ok(all);
            }
            let ids: Vec<Option<String>> = serde_json::from_str(&line).context("what rsigma matched")?;
            all.push(ids.into_iter().map(|id| id.unwrap_or_else(|| "(a rule without id)".to_owned())).collect());
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(output: &mut BufReader<ChildStdout>) -> Result<String> {
    let mut line = String::new();
    ensure!(output.read_line(&mut line)? > 0, "rsigma ended");
    Ok(line.trim_end().to_owned())
}

fn answer<T: DeserializeOwned>(output: &mut BufReader<ChildStdout>) -> Result<T> {
    let line = line(output)?;
    serde_json::from_str(&line).with_context(|| format!("rsigma said: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script that says what the driver would.
    const PRETENDER: &str = r#"echo '{"rules":2,"load_ms":1.5,"rules_bytes":null,"ways":["strict"]}'
while read verb way; do
  case $verb in
    round) echo "{\"events\":$(wc -l <"$1"),\"hits\":1,\"seconds\":0.5}" ;;
    matches) echo '["a","b"]'; echo '[]'; echo end ;;
  esac
done
"#;

    #[test]
    fn a_process_is_asked_in_turn_and_its_end_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        // The shell takes the first path as a script, as the driver takes it as rules.
        let script = folder.path().join("pretender");
        std::fs::write(&script, PRETENDER).unwrap();
        let mut beside = Beside::start(Path::new("/bin/sh"), &script, "{}\n{}\n").unwrap();
        assert_eq!((beside.hello.rules, beside.hello.ways.clone()), (2, vec!["strict".to_owned()]));
        let round = beside.round("strict").unwrap();
        assert_eq!((round.events, round.hits, round.seconds), (2, 1, 0.5));
        let matched = beside.matches().unwrap();
        assert_eq!(matched[0].iter().map(String::as_str).collect::<Vec<_>>(), ["a", "b"]);
        assert!(matched[1].is_empty());
        beside.child.kill().unwrap();
        beside.child.wait().unwrap();
        assert!(beside.round("strict").is_err());
    }
}
