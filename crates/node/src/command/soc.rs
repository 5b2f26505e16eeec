//! `holdfast soc`: the incidents, live in the terminal.
//!
//! There is no change feed: the list is asked for each second with the tag of the last answer, which is empty while
//! nothing has changed. Keys and answers come to one loop, which draws; nothing else touches the terminal.

mod render;
mod state;

use super::remote::{Client, Remote};
use super::show::text;
use crate::world::SystemClock;
use anyhow::Context;
use clap::Args;
use model::time::Clock as _;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use reqwest::Method;
use state::{Open, State, Wish};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How often the API is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How long a key is waited for before the end is looked at.
const KEY_WAIT: Duration = Duration::from_millis(200);
/// Keys that wait to be taken.
const KEYS_MAX: usize = 64;
/// The size of a single drawing: rows beside those of incidents, and columns.
const FRAME_ROWS: u16 = 5;
const ONCE_COLUMNS: u16 = 160;

/// The incidents, live in the terminal.
#[derive(Args)]
#[command(after_help = "Keys: arrows choose, Enter opens, a acknowledges, m takes it, s gives it to somebody,\n\
    c comments, x closes, / filters, o and t change which are shown in which order, ? explains, q ends.")]
pub struct Soc {
    #[command(flatten)]
    remote: Remote,
    /// Draw once, as plain text, and end: for pipes and tests.
    #[arg(long)]
    once: bool,
    /// With --once: draw this incident instead of the list.
    #[arg(long, requires = "once")]
    incident: Option<String>,
}

/// Shows incidents until somebody quits.
pub async fn run(soc: &Soc) -> anyhow::Result<()> {
    let client = soc.remote.connect().await?;
    let me = client.get("/v1/me").await?;
    let state = State::new(text(&me["user"]["login"]));
    let mut desk = Desk { nodes: nodes(&client).await, client, state, known: (String::new(), None) };
    if soc.once {
        if let Some(id) = &soc.incident {
            let id = super::incidents::find(&desk.client, id).await?;
            desk.state.open = Some(Open { id, ..Open::default() });
        }
        desk.read().await?;
        print!("{}", desk.once()?);
        return Ok(());
    }
    let mut terminal = ratatui::try_init().context("this is no terminal; --once draws into a pipe")?;
    let ended = desk.live(&mut terminal).await;
    ratatui::restore();
    ended
}

/// Where the nodes of the region that is asked answer, and then those of the others.
async fn nodes(client: &Client) -> Vec<String> {
    let found = client.get("/v1/endpoints").await.unwrap_or_default();
    let regions = found["regions"].as_array().cloned().unwrap_or_default();
    let (near, far): (Vec<_>, Vec<_>) = regions.iter().partition(|region| region["name"] == found["region"]);
    let apis = near.into_iter().chain(far).flat_map(|region| region["api"].as_array().into_iter().flatten());
    apis.map(text).collect()
}

struct Desk {
    client: Client,
    /// The other nodes, for when this one does not answer.
    nodes: Vec<String>,
    state: State,
    /// The address of the list that was read last, and its tag.
    known: (String, Option<String>),
}

/// What is shown, as it was asked for.
struct Question {
    client: Client,
    path: String,
    tag: Option<String>,
    open: Option<String>,
}

/// What came of a question, or of an act.
enum Heard {
    Read { path: String, found: anyhow::Result<Found> },
    Done { act: &'static str, done: anyhow::Result<serde_json::Value> },
}

/// The list, unless it is known, and the open incident.
struct Found {
    list: Option<(serde_json::Value, Option<String>)>,
    open: Option<Open>,
}

impl Question {
    async fn ask(&self) -> anyhow::Result<Found> {
        let list = self.client.unless_known(&self.path, self.tag.as_deref()).await?;
        let open = match &self.open {
            Some(id) => {
                let incident = self.client.get(&format!("/v1/incidents/{id}")).await?;
                let timeline = self.client.get(&format!("/v1/incidents/{id}/timeline")).await?;
                Some(Open { id: id.clone(), incident, timeline })
            }
            None => None,
        };
        Ok(Found { list, open })
    }
}

/// An answer, or that there was none in time.
async fn in_time<T>(client: &Client, answer: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    match tokio::time::timeout(ANSWER_WAIT, answer).await {
        Ok(answer) => answer,
        Err(late) => Err(anyhow::Error::new(late).context(format!("{} does not answer", client.api()))),
    }
}

impl Desk {
    /// Draws, waits for keys and for what is heard. Nothing is waited for in between: a node that hangs holds up no key.
    async fn live(&mut self, terminal: &mut ratatui::DefaultTerminal) -> anyhow::Result<()> {
        let (sender, mut keys) = mpsc::channel(KEYS_MAX);
        let ends = Arc::new(AtomicBool::new(false));
        let reader = tokio::task::spawn_blocking({
            let ends = Arc::clone(&ends);
            move || read_keys(&sender, &ends)
        });
        let mut asked = JoinSet::new();
        let (mut is_reading, mut reads_again) = (false, false);
        let mut ticks = tokio::time::interval(ASK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ended = loop {
            let now_ms = SystemClock::new().wall_ms();
            if let Err(error) = terminal.draw(|frame| render::draw(frame, &self.state, now_ms)) {
                break Err(error.into());
            }
            let wish = tokio::select! {
                biased;
                key = keys.recv() => match key {
                    Some(Some(key)) => self.state.press(key),
                    // The terminal has another size: it is drawn again.
                    Some(None) => Wish::Nothing,
                    None => break Ok(()),
                },
                Some(heard) = asked.join_next() => {
                    let is_act = matches!(heard, Ok(Heard::Done { .. }));
                    is_reading &= is_act;
                    if let Ok(heard) = heard {
                        self.heard(heard, now_ms);
                    }
                    if is_act || std::mem::take(&mut reads_again) { Wish::Read } else { Wish::Nothing }
                }
                _ = ticks.tick() => Wish::Read,
            };
            match wish {
                Wish::Nothing => {}
                Wish::Quit => break Ok(()),
                Wish::Read if is_reading => reads_again = true,
                Wish::Read => {
                    is_reading = true;
                    let question = self.question();
                    asked.spawn(async move {
                        let found = in_time(&question.client, question.ask()).await;
                        Heard::Read { path: question.path, found }
                    });
                }
                Wish::Act { id, act, body, seen } => {
                    let (path, client) = (format!("/v1/incidents/{id}/{act}"), self.client.clone());
                    self.state.message = format!("{act} …");
                    asked.spawn(async move {
                        let answer = client.ask_as_seen(Method::POST, &path, Some(body), seen.as_deref());
                        Heard::Done { act, done: in_time(&client, answer).await }
                    });
                }
            }
        };
        ends.store(true, Ordering::Release);
        asked.shutdown().await;
        reader.await?;
        ended
    }

    fn question(&mut self) -> Question {
        let path = self.state.list_path();
        if self.known.0 != path {
            self.known = (path.clone(), None);
        }
        let open = self.state.open.as_ref().map(|open| open.id.clone());
        Question { client: self.client.clone(), path, tag: self.known.1.clone(), open }
    }

    /// Takes up what was heard; where nothing was, what was read before stays, with its age and the reason.
    fn heard(&mut self, heard: Heard, now_ms: u64) {
        match heard {
            Heard::Read { path, found: Ok(found) } => {
                (self.state.heard_ms, self.state.trouble) = (now_ms, None);
                if let Some((list, tag)) = found.list.filter(|_| path == self.state.list_path()) {
                    self.state.listed(&list);
                    self.known.1 = tag;
                }
                if let Some(read) = found.open
                    && let Some(open) = self.state.open.as_mut().filter(|open| open.id == read.id)
                {
                    *open = read;
                }
            }
            Heard::Read { found: Err(error), .. } => {
                if error.is::<reqwest::Error>() || error.is::<tokio::time::error::Elapsed>() {
                    self.turn_to_another();
                }
                self.state.trouble = Some(format!("{error:#}"));
            }
            Heard::Done { act, done } => {
                self.state.message = match done {
                    Ok(_) => format!("{act}: done"),
                    Err(error) => format!("{act}: {error:#}"),
                };
            }
        }
    }

    /// Asks the next node from now on.
    fn turn_to_another(&mut self) {
        let place = self.nodes.iter().position(|api| api == self.client.api());
        let next = place.map_or(0, |place| place + 1) % self.nodes.len().max(1);
        if let Some(api) = self.nodes.get(next) {
            self.client = self.client.at(api);
            self.known.1 = None;
        }
    }

    /// Reads once.
    async fn read(&mut self) -> anyhow::Result<()> {
        let question = self.question();
        let found = in_time(&question.client, question.ask()).await?;
        self.heard(Heard::Read { path: question.path, found: Ok(found) }, SystemClock::new().wall_ms());
        Ok(())
    }

    /// The drawing as plain text.
    fn once(&self) -> anyhow::Result<String> {
        let shown = self.state.list.len().max(40);
        let rows = u16::try_from(shown).unwrap_or(u16::MAX).saturating_add(FRAME_ROWS);
        let mut terminal = Terminal::new(TestBackend::new(ONCE_COLUMNS, rows))?;
        let now_ms = SystemClock::new().wall_ms();
        terminal.draw(|frame| render::draw(frame, &self.state, now_ms))?;
        let cells = &terminal.backend().buffer().content;
        let lines = cells.chunks(usize::from(ONCE_COLUMNS)).map(|row| {
            let line: String = row.iter().map(|cell| cell.symbol()).collect();
            line.trim_end().to_owned()
        });
        Ok(lines.collect::<Vec<String>>().join("\n") + "\n")
    }
}

/// Waits for keys, where waiting is allowed; `None` stands for another size of the terminal.
fn read_keys(keys: &mpsc::Sender<Option<KeyEvent>>, ends: &AtomicBool) {
    while !ends.load(Ordering::Acquire) {
        match event::poll(KEY_WAIT) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(_) => return,
        }
        let sent = match event::read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => keys.blocking_send(Some(key)),
            Ok(Event::Resize(..)) => keys.blocking_send(None),
            Ok(_) => Ok(()),
            Err(_) => return,
        };
        if sent.is_err() {
            return;
        }
    }
}
