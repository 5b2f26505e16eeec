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

/// How often the API is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
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
    let mut desk = Desk { client, state: State::new(text(&me["user"]["login"])), known: (String::new(), None) };
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

struct Desk {
    client: Client,
    state: State,
    /// The address of the list that was read last, and its tag.
    known: (String, Option<String>),
}

impl Desk {
    async fn live(&mut self, terminal: &mut ratatui::DefaultTerminal) -> anyhow::Result<()> {
        let (sender, mut keys) = mpsc::channel(KEYS_MAX);
        let ends = Arc::new(AtomicBool::new(false));
        let reader = tokio::task::spawn_blocking({
            let ends = Arc::clone(&ends);
            move || read_keys(&sender, &ends)
        });
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
                _ = ticks.tick() => Wish::Read,
            };
            match wish {
                Wish::Nothing => {}
                Wish::Quit => break Ok(()),
                Wish::Read => self.try_read().await,
                Wish::Act { id, act, body, seen } => {
                    let path = format!("/v1/incidents/{id}/{act}");
                    let done = self.client.ask_as_seen(Method::POST, &path, Some(body), seen.as_deref()).await;
                    self.try_read().await;
                    self.state.message = match done {
                        Ok(_) => format!("{act}: done"),
                        Err(error) => format!("{error:#}"),
                    };
                }
            }
        };
        ends.store(true, Ordering::Release);
        reader.await?;
        ended
    }

    /// Reads what is shown; where that fails, what was read before stays, and the reason is told.
    async fn try_read(&mut self) {
        if let Err(error) = self.read().await {
            self.state.message = format!("{error:#}");
        }
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        let path = self.state.list_path();
        if self.known.0 != path {
            self.known = (path.clone(), None);
        }
        if let Some((found, tag)) = self.client.unless_known(&path, self.known.1.as_deref()).await? {
            self.state.listed(&found);
            self.known.1 = tag;
        }
        if let Some(id) = self.state.open.as_ref().map(|open| open.id.clone()) {
            let incident = self.client.get(&format!("/v1/incidents/{id}")).await?;
            let timeline = self.client.get(&format!("/v1/incidents/{id}/timeline")).await?;
            self.state.open = Some(Open { id, incident, timeline });
        }
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
