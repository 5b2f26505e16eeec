//! A running hash of everything that happens: what is sent, what arrives, what is written, what clients are told.
//!
//! Two runs of a seed are the same run exactly when their hashes are equal. It only watches; it never decides.

use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::time::Instant;

/// Lines kept for a reader, the newest.
const LINES_MAX: usize = 400;
/// Findings kept: the first ones say what there is to know.
const FINDINGS_MAX: usize = 20;

struct State {
    hasher: blake3::Hasher,
    events: u64,
    lines: VecDeque<String>,
    findings: Vec<String>,
}

/// The trace of one run.
pub struct Trace {
    start: Instant,
    verbose: bool,
    /// Every event in short, for finding where two runs part.
    dump: bool,
    state: Mutex<State>,
}

impl Trace {
    /// An empty trace that begins now. `verbose` prints what is told; `dump` prints every event.
    pub fn new(verbose: bool, dump: bool) -> Self {
        let state = State { hasher: blake3::Hasher::new(), events: 0, lines: VecDeque::new(), findings: Vec::new() };
        Self { start: Instant::now(), verbose, dump, state: Mutex::new(state) }
    }

    /// Virtual time since the run began, in microseconds.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Something happened: `kind` says what, `parts` are its bytes.
    pub fn event(&self, kind: &str, numbers: &[u64], bytes: &[u8]) {
        let now = self.now_us();
        let mut state = self.state.lock();
        state.events += 1;
        state.hasher.update(&now.to_le_bytes());
        state.hasher.update(kind.as_bytes());
        for number in numbers {
            state.hasher.update(&number.to_le_bytes());
        }
        state.hasher.update(&(bytes.len() as u64).to_le_bytes());
        state.hasher.update(bytes);
        if self.dump {
            let short = blake3::hash(bytes).to_hex();
            println!("{now} {kind} {numbers:?} {} {}", bytes.len(), &short[..8]);
        }
    }

    /// Something a reader wants to know: a fault, a phase.
    pub fn tell(&self, text: String) {
        self.event("tell", &[], text.as_bytes());
        let line = format!("{:>10.3} s  {text}", self.now_us() as f64 / 1e6);
        if self.verbose {
            println!("{line}");
        }
        let mut state = self.state.lock();
        if state.lines.len() >= LINES_MAX {
            state.lines.pop_front();
        }
        state.lines.push_back(line);
    }

    /// An invariant does not hold.
    pub fn finding(&self, text: String) {
        self.tell(format!("VIOLATION: {text}"));
        let mut state = self.state.lock();
        if state.findings.len() < FINDINGS_MAX {
            state.findings.push(text);
        }
    }

    /// What was found wrong so far.
    pub fn findings(&self) -> Vec<String> {
        self.state.lock().findings.clone()
    }

    /// What was told last.
    pub fn lines(&self) -> Vec<String> {
        self.state.lock().lines.iter().cloned().collect()
    }

    /// The hash so far, and of how many events.
    pub fn digest(&self) -> (String, u64) {
        let state = self.state.lock();
        (state.hasher.finalize().to_hex()[..32].to_owned(), state.events)
    }
}
