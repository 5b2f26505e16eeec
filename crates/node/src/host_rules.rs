//! The rules as they are on disk: read at the start, looked at again while the node runs, or when it is told to
//! (SIGHUP). A set with a mistake in it is not taken: the rules that were there go on.

use crate::config::DetectionConfig;
use crate::machine::command::Command;
use crate::machine::note::Note;
use crate::node::Node;
use anyhow::Context;
use detection::packs;
use detection::rules::RuleSet;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Files and folders that are looked at.
const FILES_MAX: usize = 20_000;

/// Reads the rules for the first time. Rules with mistakes are left out, and told.
pub fn read(config: &DetectionConfig) -> anyhow::Result<RuleSet> {
    let Some(path) = &config.rules else { return Ok(RuleSet::default()) };
    let (rules, errors) = packs::load(path).context("detection.rules")?;
    for error in &errors {
        tracing::error!(%error, "a rule was refused");
    }
    Ok(rules)
}

/// What can be seen of the files without reading them, wherever rules are read from.
fn look(path: &Path) -> BTreeMap<PathBuf, (u64, Option<std::time::SystemTime>)> {
    let (mut seen, mut waiting) = (BTreeMap::new(), Vec::from_iter(packs::places(path)));
    while let Some(place) = waiting.pop() {
        let Ok(meta) = std::fs::metadata(&place) else { continue };
        if seen.len() >= FILES_MAX || seen.contains_key(&place) {
            continue;
        }
        if meta.is_dir() {
            let entries = std::fs::read_dir(&place).into_iter().flatten().flatten();
            // A link to a folder is not followed, as it is not where rules are read.
            waiting.extend(entries.filter(|entry| !is_linked_folder(&entry.path())).map(|entry| entry.path()));
        }
        seen.insert(place, (meta.len(), meta.modified().ok()));
    }
    seen
}

fn is_linked_folder(path: &Path) -> bool {
    path.is_symlink() && path.is_dir()
}

/// Hands over rules as they change. Runs until the node stops.
pub async fn watch(path: PathBuf, rules: watch::Sender<Arc<RuleSet>>, node: Arc<Node>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    let mut seen = look(&path);
    loop {
        let is_told = tokio::select! {
            biased;
            told = hangup.recv() => told.is_some(),
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        let now = look(&path);
        if now == seen && !is_told {
            continue;
        }
        seen = now;
        let (read_path, began) = (path.clone(), Instant::now());
        // A public pack takes half a second: not on a thread that serves others.
        let loaded = tokio::task::spawn_blocking(move || packs::load(&read_path)).await;
        let (set, errors) = match loaded {
            Ok(Ok((set, errors))) => (set, errors),
            Ok(Err(error)) => (RuleSet::default(), vec![error]),
            Err(error) => {
                tracing::error!(%error, "the rules were not read");
                continue;
            }
        };
        let count = set.rules().len() + set.correlations().len();
        let refused = errors.first().map(|first| format!("{} mistakes, the first: {first}", errors.len()));
        match &refused {
            Some(why) => {
                node.metrics.rules.with_label_values(&["refused"]).inc();
                tracing::error!(why, "the new rules are not taken; those before go on");
            }
            None => {
                node.metrics.rules.with_label_values(&["taken"]).inc();
                tracing::info!(count, milliseconds = began.elapsed().as_millis() as u64, "the rules were read again");
                rules.send_replace(Arc::new(set));
            }
        }
        let note = Note {
            action: "config.update".into(),
            tenant: Some("platform".into()),
            resource: Some(format!("rules/{}", node.place.name)),
            refused,
            node: node.place.id,
            ..Note::default()
        };
        if let Err(error) = node.propose(node.cluster.home(), &Command::Note(note)).await {
            tracing::warn!(%error, "that the rules changed is not recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_wherever_rules_are_read_from() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let packs = "[[pack]]\nname = \"a\"\nfolders = [\"../elsewhere\"]\npipelines = [\"../maps/p.yml\"]\n\
            [[tenant]]\nname = \"acme\"\nrules = \"../acme.yml\"\n";
        write("own/packs.toml", packs);
        write("other/nothing.yml", "a");
        let path = folder.path().join("own/packs.toml");
        let mut seen = look(&path);
        for name in ["elsewhere/deep/r.yml", "maps/p.yml", "acme.yml", "own/tenants/globex/r.yml"] {
            for text in ["one", "and another"] {
                write(name, text);
                let now = look(&path);
                assert_ne!(now, seen, "{name}");
                seen = now;
            }
        }
        write("other/nothing.yml", "not read");
        assert_eq!(look(&path), seen);
        write("own/packs.toml", "");
        assert_ne!(look(&path), seen);
    }
}
