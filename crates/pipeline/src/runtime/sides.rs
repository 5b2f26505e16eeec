//! Beside the way of events: lists that are read again, dead letters that are dealt with again, and the record of what
//! commands did with them.

use super::pump::Works;
use crate::dead::{self, Act};
use crate::plan::Plan;
use crate::record::Record;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How often lists are looked at again.
const RELOAD_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked what commands did with dead letters.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Puts on record what commands do beside the running node.
#[async_trait]
pub trait Witness: Send + Sync + 'static {
    /// Whether it is on record now; otherwise it is told again.
    async fn saw(&self, act: &Act) -> bool;
}

/// Looks at the lists that transforms read.
pub(super) async fn reload(plan: Arc<Plan>) {
    loop {
        tokio::time::sleep(RELOAD_EVERY).await;
        let (plan, again) = (Arc::clone(&plan), RELOAD_EVERY);
        let found = tokio::task::spawn_blocking(move || {
            plan.reload()
                .into_iter()
                .map(|(name, done)| (name, done.map_err(|error| error.to_string())))
                .collect::<Vec<_>>()
        });
        for (name, done) in found.await.unwrap_or_default() {
            match done {
                Ok(()) => tracing::info!(transform = %name, "a list was read again"),
                Err(error) => tracing::warn!(transform = %name, error, ?again, "a list stays as it was"),
            }
        }
    }
}

/// Sees to what commands did with dead letters: puts it on record, and deals again with those that were handed over.
pub(super) async fn attend(works: Works, letters: PathBuf, witness: Option<Arc<dyn Witness>>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Some(witness) = &witness {
            record(&**witness, &letters).await;
        }
        let folder = letters.clone();
        let found = tokio::task::spawn_blocking(move || dead::replays(&folder)).await;
        let files = match found {
            Ok(Ok(files)) => files,
            Ok(Err(error)) => {
                tracing::warn!(%error, "dead letters cannot be replayed");
                continue;
            }
            Err(_) => return,
        };
        for (path, replay) in files {
            if !replay_all(&works, replay.letters).await {
                continue;
            }
            tracing::info!(path = %path.display(), "dead letters were replayed");
            let done = match replay.unreadable {
                0 => std::fs::remove_file(&path),
                count => {
                    tracing::warn!(path = %path.display(), count, "lines cannot be read: they are kept beside");
                    std::fs::rename(&path, path.with_extension("unreadable"))
                }
            };
            if let Err(error) = done {
                tracing::warn!(path = %path.display(), %error, "replayed dead letters cannot be removed");
            }
        }
    }
}

async fn record(witness: &dyn Witness, letters: &Path) {
    let acts = match dead::acts(letters) {
        Ok(acts) => acts,
        Err(error) => return tracing::warn!(%error, "what was done with dead letters cannot be read"),
    };
    for (path, act) in acts {
        if witness.saw(&act).await
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "an act that is on record cannot be removed");
        }
    }
}

/// Whether all of them are durable: in a sink, or among the dead letters again.
async fn replay_all(works: &Works, letters: Vec<dead::Letter>) -> bool {
    let mut by_component: BTreeMap<Arc<str>, Vec<Record>> = BTreeMap::new();
    for letter in letters {
        if works.plan.entry(&letter.component).is_none() {
            tracing::warn!(component = %letter.component, "a dead letter's component is gone: it stays");
            works.morgue.keep(letter).await;
        } else if let Ok(record) = Record::try_from(letter.event.clone()) {
            // Its place is behind by now: by it, it would be taken for a repetition.
            let record = Record { position: None, ..record };
            by_component.entry(letter.component).or_default().push(record);
        } else {
            tracing::warn!(component = %letter.component, "a dead letter's bytes cannot be read: it stays");
            works.morgue.keep(letter).await;
        }
    }
    for (component, records) in by_component {
        let Some(entry) = works.plan.entry(&component) else { continue };
        let (done, told) = oneshot::channel();
        works.run(&entry, records, Some(done)).await;
        if told.await.is_err() {
            return false;
        }
    }
    true
}
