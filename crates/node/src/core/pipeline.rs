//! The pipeline of this node over the API: what its components do, and what is done with its dead letters.
//!
//! What a letter says is not shown here: whose events somebody may look through is decided by `event.search`.

use super::incident::{paged, resource};
use super::wait::internal;
use crate::intake::Piped;
use crate::node::Node;
use api::core::Answer;
use api::problem::{Problem, Unavailable};
use api::types::{
    Caller, ChosenLetters, ComponentStatus, DeadLetterFilter, DeadLetterList, DeadLetterView, LettersDone,
    PipelineStatus,
};
use identity::Session;
use pipeline::dead::{self, Doing, Letter, LetterId, Wanted};
use pipeline::record::Record;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Counts of a component that are not sums: they have fields of their own.
const NOW: [&str; 3] = ["buffered_events", "buffered_bytes", "running"];

impl Node {
    /// What its components do.
    pub(crate) async fn pipeline_status(&self, caller: &Caller, session: &Session) -> Answer<PipelineStatus> {
        self.may_see(caller, session, "pipeline").await?;
        let mut status = self.piped()?.monitor.status();
        let components = std::mem::take(&mut status.components);
        let view = |(name, counts): (std::sync::Arc<str>, pipeline::runtime::Counts)| ComponentStatus {
            is_running: counts.running > 0,
            buffered_events: counts.buffered_events,
            buffered_bytes: counts.buffered_bytes,
            counts: named(counts.named().into_iter().filter(|(what, _)| !NOW.contains(what))),
            own: named(status.sources.remove(&name).unwrap_or_default()),
            name: name.to_string(),
        };
        Ok(PipelineStatus {
            node: self.place.name.clone(),
            components: components.into_iter().map(view).collect(),
            dead_letters_bytes: status.dead_letters_bytes,
            dead_letters_files_lost: status.dead_letters_files_lost,
        })
    }

    fn piped(&self) -> Answer<&Piped> {
        let starting = || "the pipeline has not been started yet".to_owned();
        self.piped.get().ok_or_else(|| Problem::unavailable(Unavailable::Starting, starting(), Duration::from_secs(1)))
    }

    /// What they could not deal with, the oldest first.
    pub(crate) async fn dead_letters(
        &self,
        caller: &Caller,
        session: &Session,
        filter: &DeadLetterFilter,
    ) -> Answer<DeadLetterList> {
        self.may_see(caller, session, "pipeline/dead-letters").await?;
        let wanted = Wanted { component: filter.component.clone(), code: filter.code.clone(), ids: None };
        let (page, node) = (filter.page.clone(), self.place.name.clone());
        let work = move |folder: &Path| {
            let (mut letters, unreadable) = dead::list(folder)?;
            letters.retain(|one| wanted.has(one));
            let total = letters.len() as u64;
            Ok(paged(letters, &page).map(|(letters, next)| {
                let letters = letters.into_iter().map(letter_view).collect();
                DeadLetterList { node, letters, total, unreadable, next }
            }))
        };
        self.with_letters(work).await?
    }

    /// Has them dealt with again.
    pub(crate) async fn replay_letters(
        &self,
        caller: &Caller,
        session: &Session,
        chosen: ChosenLetters,
    ) -> Answer<LettersDone> {
        self.to_dead_letters(caller, session, chosen, Doing::Replay).await
    }

    /// Drops them.
    pub(crate) async fn drop_letters(
        &self,
        caller: &Caller,
        session: &Session,
        chosen: ChosenLetters,
    ) -> Answer<LettersDone> {
        self.to_dead_letters(caller, session, chosen, Doing::Drop).await
    }

    async fn to_dead_letters(
        &self,
        caller: &Caller,
        session: &Session,
        chosen: ChosenLetters,
        doing: Doing,
    ) -> Answer<LettersDone> {
        self.may_manage(caller, session, &resource("pipeline", &self.place.name)).await?;
        if chosen.node != self.place.name {
            return Err(Problem::invalid("node", format!("{} answers: ask the node that has them", self.place.name)));
        }
        let ids = chosen.ids.as_ref().map(|ids| ids.iter().map(|id| id.parse()).collect::<Result<_, _>>());
        let ids: Option<BTreeSet<LetterId>> =
            ids.transpose().map_err(|error: dead::NotALetter| Problem::invalid("ids", error.to_string()))?;
        let wanted = Wanted { component: chosen.component, code: chosen.code, ids };
        // The node puts it on record from what is put down beside the letters, whoever does it how.
        let by = session.account().login.as_str().to_owned();
        let work = move |folder: &Path| {
            let (mut letters, _) = dead::list(folder)?;
            letters.retain(|one| wanted.has(one));
            if wanted.ids.as_ref().is_some_and(|ids| ids.len() != letters.len()) {
                return Ok(Err(Problem::not_found("dead letter")));
            }
            let count = match doing {
                Doing::Replay => dead::replay(folder, &letters, &by)?,
                Doing::Drop => {
                    let ids: Vec<LetterId> = letters.iter().map(|(id, _)| *id).collect();
                    dead::drop_letters(folder, &ids, &by)?;
                    ids.len()
                }
            };
            Ok(Ok(LettersDone { count: count as u64, stay: (letters.len() - count) as u64 }))
        };
        self.with_letters(work).await?
    }

    /// One after the other: they may be hundreds of megabytes, and none is replayed twice.
    async fn with_letters<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Answer<T> {
        let piped = self.piped()?;
        let folder = piped.dead_letters.clone();
        let turn = std::sync::Arc::clone(&piped.turn).lock_owned().await;
        // Whoever asked may go away: what has begun is done before the next one's turn.
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&folder);
            drop(turn);
            done
        });
        let done = done.await.map_err(|error| internal("work on dead letters ended early", &error))?;
        done.map_err(|error| internal("dead letters cannot be read or written", &error))
    }
}

fn letter_view((id, letter): (LetterId, Letter)) -> DeadLetterView {
    let Letter { at_ms, component, code, reason, event, is_sample } = letter;
    let record = Record::try_from(event).ok();
    DeadLetterView {
        id: id.to_string(),
        at_ms,
        component: component.to_string(),
        code,
        reason,
        received_ms: record.as_ref().map(|record| record.received_ms),
        tenant: record.as_ref().and_then(|record| record.tenant.as_deref().map(str::to_owned)),
        size_bytes: record.as_ref().map_or(0, |record| record.raw.len() as u64),
        is_sample,
    }
}

fn named<'a>(counts: impl IntoIterator<Item = (&'a str, u64)>) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(what, count)| (what.to_owned(), count)).collect()
}
