//! Keeps every core awake with work that yields to everything else.
//!
//! An idle virtual machine wakes slowly: a lone fsync was measured at 4 ms with sleeping cores and 0.1 ms with awake
//! ones. Both products are measured with the same spinners, so that neither pays for the host's sleep.

use anyhow::{Context as _, Result};
use std::process::{Child, Command, Stdio};

/// Turns between two looks at whether the bench still runs.
const TURNS: u32 = 10_000_000;

/// One idle-priority process per core, ended when dropped.
pub struct Spinners(Vec<Child>);

impl Spinners {
    /// Starts them (SCHED_IDLE by util-linux' `chrt`).
    pub fn start() -> Result<Self> {
        let mut spinners = Self(Vec::new());
        let program = std::env::current_exe()?;
        for _ in 0..std::thread::available_parallelism()?.get() {
            let mut command = Command::new("chrt");
            command.args(["--idle", "0", "setpriv", "--pdeathsig", "KILL", "--"]).arg(&program).arg("spin");
            let child = command.stdin(Stdio::null()).spawn().context("chrt (util-linux) cannot be started")?;
            spinners.0.push(child);
        }
        Ok(spinners)
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a spinner does: nothing, for as long as its parent lives.
pub fn spin() {
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        for _ in 0..TURNS {
            std::hint::spin_loop();
        }
    }
}
