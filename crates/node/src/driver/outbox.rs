//! Tells the outside what was stored: one node of the region at a time for each sink, calls to people apart from all else.
//!
//! Follows the records of alerts, incidents and notices. A notice's key is that of what it tells, so that a receiver
//! knows repetitions; the place moves only after the sink has taken it, or it was put off or refused, and that is
//! stored: so nothing is left out.

pub(crate) mod call;
pub(crate) mod letter;
mod queue;

pub use queue::Lane;

use crate::core::stored::transact;
use crate::core::ticket;
use crate::core::wait::internal;
use crate::driver::book;
use crate::driver::duty::{Lost, Post, Work};
use crate::driver::follow::{self, Wrote};
use crate::driver::record::{ONLY, note};
use crate::machine::command::{Row, Select, Transact};
use crate::machine::control::platform;
use crate::node::Node;
use api::core::Answer;
use async_trait::async_trait;
use call::{Call, Outcome};
use detection::Alert;
use detection::incident::{Change, Input};
use letter::Letter;
use model::codec::{decode, encode};
use model::{FieldState, TenantId, Value, VersionVector};
use pipeline::sink::{Notice, Refused, Sink, Topic};
use queue::{Item, Queue, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The row with the place in the change log.
const PLACE: &[u8] = b"c";
/// What rows of notices that were put off begin with; the rest is the notice's key.
const WAITING: &[u8] = b"w";
/// The version of such a row.
const WAITING_VERSION: u8 = 1;
/// Looks again at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A sink that is new is told of what was stored so long ago, and nothing older.
const LOOK_BACK_MS: u64 = 3_600_000;

/// The duty of telling one sink.
pub struct Outbox {
    sink: Arc<dyn Sink>,
    lane: Lane,
}

/// What was put off, as it is stored.
type Waiting = (u8, Source, u64);

impl Outbox {
    /// The duties of a sink: calls to people wait for nothing else.
    pub fn lanes(sink: Arc<dyn Sink>) -> [Self; 2] {
        [Lane::Calls, Lane::Rest].map(|lane| Self { sink: Arc::clone(&sink), lane })
    }

    fn wants(&self, notice: &Notice) -> bool {
        (notice.topic == Topic::Page) == (self.lane == Lane::Calls) && self.sink.wants(notice)
    }
}

#[async_trait]
impl Work for Outbox {
    fn duty(&self) -> String {
        match self.lane {
            Lane::Calls => format!("sink/{}/calls", self.sink.name()),
            Lane::Rest => format!("sink/{}", self.sink.name()),
        }
    }

    async fn work(&self, post: Post) -> Lost {
        let Err(lost) = Teller::take_over(post, self).await;
        lost
    }
}

/// One node at this duty.
struct Teller<'a> {
    post: Post,
    outbox: &'a Outbox,
    queue: Queue,
    /// What was read, and what of it is stored.
    place: u64,
    stored: u64,
    /// Nothing older is told.
    since_ms: u64,
    /// Whether anything before the place was for this sink.
    has_told: bool,
    /// What follows from what was told, until it is stored with the place.
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// The keys of notices that have a row because they were put off.
    put_off: BTreeSet<String>,
    writes: Vec<Transact>,
    inputs: Vec<Input>,
    /// Letters were looked through when the records were so.
    letters_at: Option<VersionVector>,
}

impl<'a> Teller<'a> {
    async fn take_over(post: Post, outbox: &'a Outbox) -> Result<std::convert::Infallible, Lost> {
        let stored = follow::place(&post, PLACE).await;
        let now_ms = post.node.now_ms();
        let mut teller = Self {
            outbox,
            queue: Queue::new(outbox.lane),
            place: stored.unwrap_or(0),
            stored: stored.unwrap_or(0),
            since_ms: if stored.is_some() { 0 } else { now_ms.saturating_sub(LOOK_BACK_MS) },
            has_told: false,
            rows: BTreeMap::new(),
            put_off: BTreeSet::new(),
            writes: Vec::new(),
            inputs: Vec::new(),
            letters_at: None,
            post,
        };
        while let Err(error) = teller.restore().await {
            tracing::error!(%error, "what was put off cannot be read");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        loop {
            teller.turn().await?;
        }
    }

    /// Takes up what was put off.
    async fn restore(&mut self) -> Answer<()> {
        let rows = self.post.rows(WAITING).map_err(|error| internal("rows of a duty cannot be read", &error))?;
        for (key, value) in rows {
            let Ok((WAITING_VERSION, source, since_ms)) = decode::<Waiting>(&value) else {
                tracing::error!(key = %String::from_utf8_lossy(&key), "a notice that was put off cannot be read");
                continue;
            };
            match notice_of(&self.post.node, &source).await? {
                Some(notice) => {
                    self.put_off.insert(notice.key.clone());
                    self.queue.restore(Item::new(source, notice, since_ms));
                }
                None => drop(self.rows.insert(key, None)),
            }
        }
        Ok(())
    }

    async fn turn(&mut self) -> Result<(), Lost> {
        let node = Arc::clone(&self.post.node);
        let mut is_idle = true;
        if self.queue.has_room() {
            match self.read_on().await {
                Ok(has_read) => is_idle = !has_read,
                // The place stays: what cannot be read now is told later.
                Err(problem) => tracing::error!(%problem, duty = self.post.duty(), "what is to be told cannot be read"),
            }
        }
        let items = self.queue.next(node.now_ms());
        if !items.is_empty() {
            is_idle = false;
            self.tell(items).await;
        }
        self.store().await?;
        if is_idle {
            let left = self.queue.next_ms().map(|at_ms| at_ms.saturating_sub(node.now_ms()).max(1));
            let left = left.map_or(LOOK_EVERY, |left_ms| Duration::from_millis(left_ms).min(LOOK_EVERY));
            follow::more(&node, left).await;
        }
        Ok(())
    }

    /// Reads what was written since, and what somebody wants told again. Whether there was anything.
    async fn read_on(&mut self) -> Answer<bool> {
        let node = Arc::clone(&self.post.node);
        // Before the records: what is read is at least as new.
        let vector = node.home().machine.vector(node.cluster.partition(TenantId::PLATFORM));
        if self.letters_at.as_ref() != Some(&vector) {
            let sink = self.outbox.sink.name();
            let ours = |letter: &Letter| letter.is_asked_for && letter.region == node.region.id;
            for letter in node.letters(Some(sink))?.into_iter().filter(ours) {
                if let Some(notice) = notice_of(&node, &letter.source).await?.filter(|one| self.is_of_lane(one)) {
                    self.queue.push(Item::new(letter.source, notice, node.now_ms()));
                }
            }
            self.letters_at = Some(vector);
        }
        let read = follow::after(&node, self.place);
        let (wrote, end) = read.map_err(|error| internal("the change log cannot be read", &error))?;
        let mut items = Vec::new();
        // Calls are notices from the beginning; all else need not be made into some.
        let may_be_of_lane = |one: &&Wrote| self.outbox.lane == Lane::Rest || one.table == platform::NOTICES;
        for one in wrote.iter().filter(may_be_of_lane).filter(|one| one.at_ms >= self.since_ms) {
            if let Some(notice) = notice(&node, one).await?.filter(|notice| self.outbox.wants(notice)) {
                let source = Source { table: one.table, key: one.key.clone() };
                items.push(Item::new(source, notice, node.now_ms()));
            }
        }
        self.has_told |= !items.is_empty();
        items.into_iter().for_each(|item| self.queue.push(item));
        let has_read = end != self.place;
        self.place = end;
        Ok(has_read)
    }

    /// Somebody asks for it: whether the sink wanted it then does not matter.
    fn is_of_lane(&self, notice: &Notice) -> bool {
        (notice.topic == Topic::Page) == (self.outbox.lane == Lane::Calls)
    }

    /// Tells notices in order, until one of them is not taken.
    async fn tell(&mut self, items: Vec<Item>) {
        let node = Arc::clone(&self.post.node);
        let mut wanted = Vec::with_capacity(items.len());
        for item in items {
            match self.unwanted(&node, &item).await {
                None => wanted.push(item),
                Some(why) => self.withdrawn(&node, &item, &why),
            }
        }
        if wanted.is_empty() {
            return;
        }
        let notices: Vec<Notice> = wanted.iter().map(|item| item.notice.clone()).collect();
        let (taken, outcome) = self.outbox.sink.deliver(&notices).await;
        let mut rest = wanted.split_off(taken.min(wanted.len()));
        if !wanted.is_empty() {
            self.queue.took();
        }
        wanted.iter().for_each(|item| self.taken(&node, item));
        let Err(refused) = outcome else { return self.queue.put_back(rest) };
        if rest.is_empty() {
            return;
        }
        let item = rest.remove(0);
        self.queue.put_back(rest);
        match refused {
            Refused::Never(reason) => self.refused(&node, item.because(reason)),
            Refused::Later(reason) => {
                self.count("later");
                tracing::warn!(sink = self.outbox.sink.name(), key = item.notice.key, reason, "a notice waits");
                self.keep(&item);
                if let Some(given_up) = self.queue.later(item, reason, node.now_ms()) {
                    let reason = format!("given up: {}", given_up.reason);
                    self.refused(&node, given_up.because(reason));
                }
            }
        }
    }

    async fn unwanted(&self, node: &Node, item: &Item) -> Option<String> {
        if item.notice.topic != Topic::Page || !self.outbox.sink.calls_people() {
            return None;
        }
        // Where the incidents cannot be read people are called: better once too often.
        book::look(node, |desk| call::unwanted(desk, &item.notice, self.queue.iter())).await.ok().flatten()
    }

    fn count(&self, what: &str) {
        self.post.node.metrics.notices.with_label_values(&[self.outbox.sink.name(), what]).inc();
    }

    fn taken(&mut self, node: &Node, item: &Item) {
        self.count("taken");
        self.forget(&item.notice.key);
        self.called(node, &item.notice, Outcome::Taken, "taken");
        self.heard(node, &item.notice, None);
        self.without_letter(node, &item.notice);
    }

    fn withdrawn(&mut self, node: &Node, item: &Item, why: &str) {
        self.count("withdrawn");
        self.forget(&item.notice.key);
        self.called(node, &item.notice, Outcome::Withdrawn, "withdrawn");
        self.inputs.extend(call::not_told(&item.notice, why));
        self.without_letter(node, &item.notice);
    }

    fn refused(&mut self, node: &Node, item: Item) {
        let sink = self.outbox.sink.name();
        match letter::refused(node, sink, &item) {
            Ok(writes) => self.writes.extend(writes),
            Err(problem) => {
                // It is asked for again, refused again, and then kept; until then by whoever has this duty next, too.
                tracing::error!(%problem, key = item.notice.key, "what was refused cannot be kept yet");
                self.keep(&item);
                return self.queue.hold(item, node.now_ms());
            }
        }
        tracing::error!(sink, key = item.notice.key, reason = item.reason, "a notice was refused for good");
        self.count("refused");
        self.forget(&item.notice.key);
        self.called(node, &item.notice, Outcome::Refused, "refused");
        if item.notice.topic == Topic::Page && self.outbox.sink.calls_people() {
            self.inputs.extend(call::not_told(&item.notice, &format!("{sink}: {}", item.reason)));
        }
        self.heard(node, &item.notice, Some(item.reason));
    }

    /// What was refused before and is now told, or not wanted any more, is kept no longer; of a ticket nothing older.
    fn without_letter(&mut self, node: &Node, notice: &Notice) {
        let sink = self.outbox.sink.name();
        let told = ticket::told(&notice.key);
        let ticket = notice.key.rsplit_once('/').filter(|_| told.is_some());
        let prefix = ticket.map_or(notice.key.as_str(), |(ticket, _)| ticket);
        let is_done = |letter: &Letter| match (told, ticket::told(&letter.key)) {
            (Some((_, told)), Some((_, refused))) => refused <= told,
            _ => letter.key == notice.key,
        };
        let found = node.json_records::<Letter>(platform::REFUSED, &Letter::record_key(sink, prefix));
        let letters = found.unwrap_or_default().into_iter().map(|(_, _, letter)| letter);
        for letter in letters.filter(is_done) {
            let note = note(node, "notice.update", String::new());
            self.writes.push(transact(vec![Letter::delete(sink, &letter.key)], note));
        }
    }

    /// Stores that a notice waits: the place in the change log may move past it.
    fn keep(&mut self, item: &Item) {
        if self.put_off.insert(item.notice.key.clone()) {
            let row = encode(&(WAITING_VERSION, item.source.clone(), item.since_ms));
            self.rows.insert(row_of(&item.notice.key), Some(row));
        }
    }

    fn forget(&mut self, key: &str) {
        if self.put_off.remove(key) {
            self.rows.insert(row_of(key), None);
        }
    }

    /// What became of a call; nothing where it is none.
    fn called(&mut self, node: &Node, notice: &Notice, outcome: Outcome, what: &str) {
        if notice.topic != Topic::Page || !self.outbox.sink.calls_people() {
            return;
        }
        node.metrics.pages.with_label_values(&[what]).inc();
        if let Ok(act) = Call::put(notice, self.outbox.sink.name(), outcome, node.now_ms()) {
            self.writes.push(transact(vec![act], note(node, "escalation.step", String::new())));
        }
    }

    /// What a sink's answer changes here: tickets say what it knows.
    fn heard(&mut self, node: &Node, notice: &Notice, refused: Option<String>) {
        if notice.topic == Topic::Ticket {
            let note = note(node, "ticket.update", notice.key.clone());
            self.writes.extend(node.ticket_heard(self.outbox.sink.name(), notice, refused, &note));
        }
    }

    /// Stores what followed, and the place once all that is new was told or put off.
    async fn store(&mut self) -> Result<(), Lost> {
        let is_further = self.queue.is_read() && self.has_told && self.place != self.stored;
        if !is_further && self.rows.is_empty() && self.writes.is_empty() && self.inputs.is_empty() {
            return Ok(());
        }
        if self.queue.is_read() {
            self.rows.insert(PLACE.to_vec(), Some(encode(&self.place)));
            (self.stored, self.has_told) = (self.place, false);
        }
        let rows: Vec<Row> = std::mem::take(&mut self.rows).into_iter().collect();
        let (writes, inputs) = (std::mem::take(&mut self.writes), std::mem::take(&mut self.inputs));
        if inputs.is_empty() {
            return self.post.report(rows, writes).await;
        }
        let note = note(&self.post.node, "incident.update", String::new());
        while !book::report(&mut self.post, rows.clone(), writes.clone(), &inputs, &note, |_| true).await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

fn row_of(key: &str) -> Vec<u8> {
    [WAITING, key.as_bytes()].concat()
}

/// What the outside is told of a record.
async fn notice(node: &Node, wrote: &Wrote) -> Answer<Option<Notice>> {
    match wrote.text(ONLY) {
        Some(json) => made(node, &Source { table: wrote.table, key: wrote.key.clone() }, json).await,
        None => Ok(None),
    }
}

/// What the outside is told of a record that was read before.
async fn notice_of(node: &Node, source: &Source) -> Answer<Option<Notice>> {
    let found = node.platform_records(source.table, &Select::Key(source.key.clone()))?;
    let field = found.records.first().and_then(|(_, record)| record.fields.get(&ONLY)).map(FieldState::value);
    match field {
        Some(Value::Text(json)) => made(node, source, &json).await,
        _ => Ok(None),
    }
}

/// A record that is none of ours to read is told as an error, and nobody hears of it: it would be so each time.
async fn made(node: &Node, source: &Source, json: &str) -> Answer<Option<Notice>> {
    let unreadable = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, key = source.key, "a record that is to be told cannot be read");
    };
    match source.table {
        platform::ALERTS => {
            let alert = serde_json::from_str::<Alert>(json).inspect_err(|error| unreadable(error));
            Ok(alert.ok().map(|alert| Notice::of_alert(&alert)))
        }
        platform::INCIDENTS => {
            let Ok(change) = Change::decode(json.as_bytes()).inspect_err(|error| unreadable(error)) else {
                return Ok(None);
            };
            let mut shelf = node.incidents.lock().await;
            let Some(incident) = shelf.refresh_with(node, change.incident)?.get(change.incident) else {
                return Ok(None);
            };
            let entry = incident.history.iter().find(|entry| entry.id == change.id());
            Ok(entry.map(|entry| Notice::of_incident(incident, entry)))
        }
        platform::NOTICES => Ok(serde_json::from_str(json).inspect_err(|error| unreadable(error)).ok()),
        _ => Ok(None),
    }
}
