//! Where tasks bring their dead letters: kept before anything is acknowledged, and asked for again while the disk fails.

use super::counters::Board;
use crate::dead::{DeadLetters, Letter};
use crate::record::Record;
use crate::transform::Refusal;
use model::time::Clock;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Pause after the disk failed.
const DISK_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Morgue {
    letters: Mutex<DeadLetters>,
    board: Board,
    clock: Arc<dyn Clock>,
}

impl Morgue {
    pub(super) fn new(letters: DeadLetters, board: Board, clock: Arc<dyn Clock>) -> Self {
        Self { letters: Mutex::new(letters), board, clock }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.wall_ms()
    }

    /// Keeps records that could not be dealt with.
    pub(super) async fn bury_records(self: &Arc<Self>, component: &Arc<str>, records: &[(Record, Refusal)]) {
        let now_ms = self.now_ms();
        let letters = records.iter().map(|(record, refusal)| Letter::of(now_ms, component, record, refusal));
        self.bury(component, letters.collect()).await;
    }

    /// Returns once the letters are safe: while the disk fails everything behind them waits, and nothing is lost.
    pub(super) async fn bury(self: &Arc<Self>, component: &Arc<str>, letters: Vec<Letter>) {
        if letters.is_empty() {
            return;
        }
        self.board.of(component).dead_letter(letters.len() as u64);
        self.append(Arc::new(letters)).await;
    }

    /// Keeps a letter that is one already.
    pub(super) async fn keep(self: &Arc<Self>, letter: Letter) {
        self.append(Arc::new(vec![letter])).await;
    }

    async fn append(self: &Arc<Self>, letters: Arc<Vec<Letter>>) {
        loop {
            let (morgue, batch) = (Arc::clone(self), Arc::clone(&letters));
            match tokio::task::spawn_blocking(move || morgue.letters.lock().append(&batch)).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => tracing::error!(%error, "dead letters cannot be written"),
                // The runtime ends, and this task with it.
                Err(_) => return,
            }
            tokio::time::sleep(DISK_PAUSE).await;
        }
    }

    /// Files of dead letters that went because the bound was met, and bytes that are kept.
    pub(super) fn kept(&self) -> (u64, u64) {
        let letters = self.letters.lock();
        (letters.lost_files(), letters.size_bytes())
    }
}
