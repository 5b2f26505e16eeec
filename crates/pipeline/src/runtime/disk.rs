//! A disk buffer between tasks: one brings, one takes, each waits for the other, and neither holds up the runtime.

use super::counters::Counters;
use super::morgue::Morgue;
use crate::buffer::{Buffer, BufferConfig, Next, NotAppended, WhenFull};
use crate::dead::Letter;
use crate::record::{Record, Stored};
use crate::transform::Refusal;
use parking_lot::Mutex;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Pause after the disk failed.
const DISK_PAUSE: Duration = Duration::from_secs(1);
/// Most records taken at once.
const TAKE_MAX: usize = 512;
/// Most bytes of records taken at once, but for one that is larger.
const TAKE_BYTES_MAX: usize = 1024 * 1024;

/// A buffer and those who wait for it.
pub(super) struct Disk {
    name: Arc<str>,
    buffer: Mutex<Buffer>,
    when_full: WhenFull,
    counters: Arc<Counters>,
    morgue: Arc<Morgue>,
    appended: Notify,
    freed: Notify,
}

/// What was taken, and up to where it is confirmed once it has been dealt with.
pub(super) struct Taken {
    pub(super) records: Vec<Record>,
    until: u64,
}

/// The disk was asked in another thread, which the stop has ended.
fn ended(_: tokio::task::JoinError) -> io::Error {
    io::Error::other("the pipeline stops")
}

impl Disk {
    pub(super) fn open(
        name: &Arc<str>,
        folder: &Path,
        config: &BufferConfig,
        counters: Arc<Counters>,
        morgue: Arc<Morgue>,
    ) -> io::Result<Arc<Self>> {
        let buffer = Buffer::open(folder, config.clone())?;
        if buffer.torn_bytes() > 0 {
            tracing::warn!(component = %name, bytes = buffer.torn_bytes(), "a buffer's torn end was cut off");
        }
        counters.holds_on_disk(buffer.waiting(), buffer.size_bytes());
        let (appended, freed) = (Notify::new(), Notify::new());
        let (name, when_full) = (Arc::clone(name), config.when_full);
        Ok(Arc::new(Self { name, buffer: Mutex::new(buffer), when_full, counters, morgue, appended, freed }))
    }

    fn count(&self, buffer: &Buffer) {
        self.counters.holds_on_disk(buffer.waiting(), buffer.size_bytes());
    }

    /// Appends records; waits for room, or drops them and counts it, as the buffer was told to. Whether it came to its
    /// end: a stop interrupts it.
    pub(super) async fn append(self: &Arc<Self>, records: &[Record]) -> bool {
        let mut lines: Vec<Vec<u8>> = Vec::with_capacity(records.len());
        lines.extend(records.iter().map(|record| {
            serde_json::to_vec(&Stored::from(record)).expect("records have texts as keys, so they have a JSON form")
        }));
        let mut at = 0;
        while at < lines.len() {
            // Asked for before the attempt, so that room made in between is not missed.
            let freed = self.freed.notified();
            let disk = Arc::clone(self);
            let rest = lines.split_off(at);
            (lines, at) = (rest, 0);
            let attempt = tokio::task::spawn_blocking(move || {
                let mut buffer = disk.buffer.lock();
                let appended = buffer.append(&lines);
                disk.count(&buffer);
                (appended, lines)
            });
            let Ok((appended, back)) = attempt.await else { return false };
            lines = back;
            match appended {
                Ok(count) => {
                    at = count;
                    self.appended.notify_one();
                }
                Err(NotAppended::Full) if self.when_full == WhenFull::DropNewest => {
                    self.counters.drop_newest(lines.len() as u64);
                    return true;
                }
                Err(NotAppended::Full) => {
                    let began = tokio::time::Instant::now();
                    freed.await;
                    self.counters.wait(began.elapsed());
                }
                Err(NotAppended::TooLarge) => {
                    let refusal = Refusal::Rejected(detection::RejectReason::TooLarge {
                        limit_bytes: crate::buffer::RECORD_BYTES_MAX as u64,
                    });
                    let place = records.len() - lines.len();
                    self.morgue.bury_records(&self.name, &[(records[place].clone(), refusal)]).await;
                    at = 1;
                }
                Err(NotAppended::Disk(error)) => {
                    tracing::error!(component = %self.name, %error, "a buffer cannot be written");
                    tokio::time::sleep(DISK_PAUSE).await;
                }
            }
        }
        true
    }

    /// Waits for records and takes some; damage that is met becomes a dead letter.
    pub(super) async fn take(self: &Arc<Self>) -> Taken {
        loop {
            let appended = self.appended.notified();
            let disk = Arc::clone(self);
            let read = tokio::task::spawn_blocking(move || disk.read()).await.map_err(ended).and_then(|read| read);
            match read {
                Ok((taken, damage)) => {
                    self.bury(damage).await;
                    if !taken.records.is_empty() {
                        return taken;
                    }
                    if taken.until > 0 && self.behind(taken.until) {
                        self.confirm(&taken).await;
                    }
                    appended.await;
                }
                Err(error) => {
                    tracing::error!(component = %self.name, %error, "a buffer cannot be read");
                    tokio::time::sleep(DISK_PAUSE).await;
                }
            }
        }
    }

    fn behind(&self, until: u64) -> bool {
        let buffer = self.buffer.lock();
        buffer.next_sequence() - buffer.waiting() < until
    }

    fn read(&self) -> io::Result<(Taken, Vec<Refusal>)> {
        let mut buffer = self.buffer.lock();
        let (mut records, mut damage, mut bytes_taken) = (Vec::new(), Vec::new(), 0);
        while records.len() < TAKE_MAX && bytes_taken < TAKE_BYTES_MAX {
            match buffer.read()? {
                Next::Nothing => break,
                Next::Damaged { bytes, records } => damage.push(Refusal::Damaged { bytes, records }),
                Next::Record { bytes, .. } => {
                    let stored = serde_json::from_slice::<Stored>(&bytes).ok();
                    match stored.and_then(|stored| Record::try_from(stored).ok()) {
                        Some(record) => records.push(record),
                        None => damage.push(Refusal::Damaged { bytes: bytes.len() as u64, records: 1 }),
                    }
                    bytes_taken += bytes.len();
                }
            }
        }
        Ok((Taken { records, until: buffer.read_until() }, damage))
    }

    async fn bury(&self, damage: Vec<Refusal>) {
        for refusal in damage {
            let letter = Letter::of_damage(self.morgue.now_ms(), &self.name, &refusal);
            self.morgue.bury(&self.name, vec![letter]).await;
        }
    }

    /// What was taken has been dealt with.
    pub(super) async fn confirm(self: &Arc<Self>, taken: &Taken) {
        let (disk, until) = (Arc::clone(self), taken.until);
        let done = tokio::task::spawn_blocking(move || {
            let mut buffer = disk.buffer.lock();
            let done = until.checked_sub(1).map_or(Ok(()), |last| buffer.confirm(last));
            disk.count(&buffer);
            done
        });
        if let Err(error) = done.await.map_err(ended).and_then(|done| done) {
            tracing::warn!(component = %self.name, %error, "a buffer's cursor cannot be written");
        }
        self.freed.notify_one();
    }

    /// What was taken is taken again.
    pub(super) fn rewind(&self) {
        self.buffer.lock().rewind();
    }
}
