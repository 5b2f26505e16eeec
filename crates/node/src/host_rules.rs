//! The rules as they are on disk: read at the start, looked at again while the node runs, or when it is told to
//! (SIGHUP). Rules with mistakes are left out and told; a set that would lose a rule by a mistake is not taken: the
//! rules that were there go on.

use crate::config::DetectionConfig;
use crate::driver;
use crate::driver::known::{Forecasts, Known};
use crate::machine::command::Command;
use crate::machine::note::Note;
use crate::node::Node;
use anyhow::Context;
use detection::packs;
use detection::rules::RuleSet;
use detection::sigma::RuleError;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Files and folders that are looked at.
const FILES_MAX: usize = 20_000;

/// Rules whose forecast is told.
const FORECASTS_TOLD: usize = 10;
/// Said where there are no rules, which is seldom meant.
pub const NO_RULES: &str = "there are no rules in detection.rules, so nothing is detected; folders inside a folder are \
                            read where a packs.toml says `nested = true`";

/// Reads the rules for the first time, and gives the mistakes of those that are left out too.
pub fn read(config: &DetectionConfig) -> anyhow::Result<(RuleSet, Vec<RuleError>)> {
    let Some(path) = &config.rules else { return Ok(Default::default()) };
    let (rules, errors) = packs::load(path).context("detection.rules")?;
    told(path, &rules, &errors);
    Ok((rules, errors))
}

/// Whether there are no rules at all.
pub fn is_empty(rules: &RuleSet) -> bool {
    rules.rules().is_empty() && rules.correlations().is_empty()
}

fn told(path: &Path, rules: &RuleSet, errors: &[RuleError]) {
    for error in errors {
        tracing::error!(%error, "a rule was refused");
    }
    if is_empty(rules) {
        tracing::warn!(path = %path.display(), "{NO_RULES}");
    }
}

/// Why a set is not taken: a rule that was there is there no more, and there is a mistake that was not there before.
fn refusal(before: (&RuleSet, &[RuleError]), now: (&RuleSet, &[RuleError])) -> Option<String> {
    let ids = |rules: &RuleSet| -> BTreeSet<Arc<str>> {
        let of_rules = rules.rules().iter().map(|rule| &rule.header.reference.id);
        of_rules.chain(rules.correlations().iter().map(|plan| &plan.header.reference.id)).cloned().collect()
    };
    let kept = ids(now.0);
    let lost = ids(before.0).into_iter().find(|id| !kept.contains(id))?;
    // A mistake may have moved to another line.
    let mut known: Vec<(&str, String)> =
        before.1.iter().map(|error| (&*error.file, error.reason.to_string())).collect();
    let is_new = |error: &&RuleError| {
        let place = known.iter().position(|(file, why)| *file == &*error.file && *why == error.reason.to_string());
        place.map(|place| known.swap_remove(place)).is_none()
    };
    let fresh: Vec<&RuleError> = now.1.iter().filter(is_new).collect();
    fresh
        .first()
        .map(|first| format!("{lost} would be lost, and there are {} new mistakes, the first: {first}", fresh.len()))
}

/// What can be seen of the files without reading them: of the folder itself, and of those its packs name.
fn look(path: &Path) -> Vec<(PathBuf, u64, Option<std::time::SystemTime>)> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let mut folders = packs::sources(path);
    folders.push(folder.to_owned());
    let mut seen = Vec::new();
    while let Some(folder) = folders.pop() {
        if let Some(file) = std::fs::metadata(&folder).ok().filter(std::fs::Metadata::is_file) {
            seen.push((folder.clone(), file.len(), file.modified().ok()));
        }
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if seen.len() >= FILES_MAX {
                break;
            }
            if meta.is_dir() {
                folders.push(entry.path());
            }
            seen.push((entry.path(), meta.len(), meta.modified().ok()));
        }
    }
    seen.sort();
    // Packs may lie inside each other.
    seen.dedup();
    seen
}

/// Hands over rules as they change; `known` are the mistakes that were there at the start. Runs until the node stops.
pub async fn watch(path: PathBuf, mut known: Vec<RuleError>, rules: watch::Sender<Known>, node: Arc<Node>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    let look = async || {
        let path = path.clone();
        tokio::task::spawn_blocking(move || look(&path)).await.unwrap_or_default()
    };
    let mut seen = look().await;
    loop {
        let is_told = tokio::select! {
            biased;
            told = hangup.recv() => told.is_some(),
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        let now = look().await;
        if now == seen && !is_told {
            continue;
        }
        seen = now;
        let (read_path, began) = (path.clone(), Instant::now());
        // A public pack takes half a second: not on a thread that serves others.
        let loaded = tokio::task::spawn_blocking(move || packs::load(&read_path)).await;
        let refused = match loaded {
            Ok(Ok((set, errors))) => {
                let refused = refusal((&rules.borrow().rules, &known), (&set, &errors));
                if refused.is_none() {
                    let count = set.rules().len() + set.correlations().len();
                    let milliseconds = began.elapsed().as_millis() as u64;
                    tracing::info!(count, refused = errors.len(), milliseconds, "the rules were read again");
                    told(&path, &set, &errors);
                    known = errors;
                    rules.send_replace(Known::of(set));
                }
                refused
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => {
                tracing::error!(%error, "the rules were not read");
                continue;
            }
        };
        if let Some(why) = &refused {
            tracing::error!(why, "the new rules are not taken; those before go on");
        }
        node.metrics.rules.with_label_values(&[if refused.is_some() { "refused" } else { "taken" }]).inc();
        let note = Note {
            action: "config.update".into(),
            tenant: Some("platform".into()),
            resource: Some(format!("rules/{}", node.place.name)),
            refused,
            node: node.place.id,
            ..Note::default()
        };
        driver::duty::certainly(&node, &Command::Note(note)).await;
    }
}

/// Says what rules that have changed would have raised in the last day of this node's archive: their trial waits for
/// it. One backtest at a time; newer rules are handed over meanwhile, and are next. Runs until the node stops.
pub async fn foretell(tell: watch::Sender<Known>, mut rules: watch::Receiver<Known>, node: Arc<Node>) {
    while rules.changed().await.is_ok() {
        let known = rules.borrow_and_update().clone();
        if known.forecast.is_none() {
            let forecast = driver::archive::forecast(&node, Arc::clone(&known.rules)).await;
            tell_forecast(&forecast);
            add_forecast(&tell, &known.rules, forecast);
        }
    }
}

/// Nothing, where newer rules came.
fn add_forecast(tell: &watch::Sender<Known>, of: &Arc<RuleSet>, forecast: Forecasts) {
    tell.send_if_modified(|known| {
        let is_theirs = Arc::ptr_eq(&known.rules, of);
        if is_theirs {
            known.forecast = Some(Arc::new(forecast));
        }
        is_theirs
    });
}

/// Those that would have raised most.
fn tell_forecast(forecast: &Forecasts) {
    let mut most: Vec<_> = forecast.iter().collect();
    most.sort_by(|one, other| other.1.per_day.total_cmp(&one.1.per_day));
    for (rule, expected) in most.into_iter().take(FORECASTS_TOLD) {
        let (per_day, at_most) = (expected.per_day.ceil(), expected.at_most_per_day.ceil());
        tracing::info!(%rule, per_day, at_most, "alerts a day that are to be expected, by the last day's events");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const GOOD: &str = "title: A\nname: a\nlogsource: {product: p}\ndetection: {s: {x: 1}, condition: s}\n";
    /// Refused: there is no such selection.
    const BAD: &str = "title: B\nname: b\nlogsource: {product: p}\ndetection: {s: {x: 1}, condition: t}\n";

    fn set(files: &[(&str, &str)]) -> (RuleSet, Vec<RuleError>) {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        detection::rules::load_texts(files.collect())
    }

    #[test]
    fn a_pack_with_a_rule_that_is_not_understood_can_be_read_again() {
        let pack = set(&[("a.yml", GOOD), ("b.yml", BAD)]);
        assert_eq!(pack.1.len(), 1);
        let refused = |before: &(RuleSet, Vec<RuleError>), now: &[(&str, &str)]| {
            let now = set(now);
            refusal((&before.0, &before.1), (&now.0, &now.1))
        };
        let other = GOOD.replace("name: a", "name: c");
        let more = ("c.yml", other.as_str());
        assert_eq!(refused(&pack, &[("a.yml", GOOD), ("b.yml", BAD), more]), None);
        let moved = format!("# moved\n{BAD}");
        assert_eq!(refused(&pack, &[("a.yml", GOOD), ("b.yml", &moved)]), None);
        assert_eq!(refused(&pack, &[("b.yml", BAD), more]), None, "who takes a rule away means it");
        // Somebody else's new mistake loses nothing.
        let bad = BAD.replace("name: b", "name: d");
        assert_eq!(refused(&pack, &[("a.yml", GOOD), ("b.yml", BAD), ("d.yml", &bad)]), None);
        // A mistake in a rule that was there is no reason to be without it.
        let broken = GOOD.replace("condition: s", "condition: t");
        let why = refused(&pack, &[("a.yml", &broken), ("b.yml", BAD)]).unwrap();
        assert!(why.contains("a would be lost") && why.contains("1 new mistakes") && why.contains("a.yml:"), "{why}");
    }

    #[test]
    fn a_forecast_is_of_the_rules_it_was_made_for() {
        let (tell, _rules) = watch::channel(Known::of(set(&[("a.yml", GOOD)]).0));
        let first = Arc::clone(&tell.borrow().rules);
        tell.send_replace(Known::of(set(&[("a.yml", GOOD)]).0));
        add_forecast(&tell, &first, Forecasts::new());
        assert!(tell.borrow().forecast.is_none(), "newer rules came meanwhile");
        let second = Arc::clone(&tell.borrow().rules);
        add_forecast(&tell, &second, Forecasts::new());
        assert!(tell.borrow().forecast.is_some());
    }

    #[test]
    fn folders_outside_that_packs_name_are_looked_at() {
        let root = tempfile::tempdir().unwrap();
        let ours = root.path().join("ours");
        for folder in ["ours", "sigma/linux", "elsewhere"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let packs = "[[pack]]\nname = \"sigma\"\nfolders = [\"../sigma\"]\nnested = true\npipelines = [\"ocsf\", \"../p.yml\"]\n\n\
                     [[tenant]]\nname = \"acme\"\nrules = \"../acme.yml\"\n";
        fs::write(ours.join("packs.toml"), packs).unwrap();
        let mut seen = look(&ours);
        for (path, is_seen) in [
            ("sigma/linux/a.yml", true),
            ("acme.yml", true),
            ("p.yml", true),
            ("ours/tenants.yml", true),
            ("elsewhere/a.yml", false),
        ] {
            fs::write(root.path().join(path), GOOD).unwrap();
            let now = look(&ours);
            assert_eq!(now != seen, is_seen, "{path}");
            assert_eq!(look(&ours.join("packs.toml")), now, "by its file it is the same");
            seen = now;
        }
    }
}
