//! One node as a process of its own: started, killed, stopped, continued, wiped.
//!
//! Every process is killed when its [`NodeProcess`] is dropped, unless it was released on purpose.

use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Bytes of a log's end shown when a node fails.
const LOG_TAIL_BYTES: usize = 2_000;

/// What a node starts with.
#[derive(Clone, Copy, Debug)]
pub enum Birth<'a> {
    /// Nothing, in a cluster that never ran; with the file of the first administrator.
    First(&'a Path),
    /// What it had stored.
    Again,
    /// Nothing, because its disk was lost.
    Rejoin,
}

/// A node's process and its files.
#[derive(Debug)]
pub struct NodeProcess {
    name: String,
    binary: PathBuf,
    config: PathBuf,
    data: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl NodeProcess {
    /// A node of a cluster's folder, not started yet.
    pub fn new(binary: &Path, directory: &Path, name: &str) -> Self {
        let home = directory.join("nodes").join(name);
        Self {
            name: name.to_owned(),
            binary: binary.to_owned(),
            config: home.join("node.toml"),
            data: home.join("data"),
            log: directory.join("logs").join(format!("{name}.log")),
            child: None,
        }
    }

    /// Starts the process.
    pub fn start(&mut self, birth: Birth<'_>) -> Result<()> {
        if self.child.is_some() {
            bail!("{} runs already", self.name);
        }
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("{}: cannot be opened", self.log.display()))?;
        let mut command = Command::new(&self.binary);
        command.arg("start").arg("--config").arg(&self.config);
        match birth {
            Birth::First(bootstrap) => drop(command.arg("--first").arg("--bootstrap").arg(bootstrap)),
            Birth::Again => {}
            Birth::Rejoin => drop(command.arg("--rejoin")),
        }
        // A group of its own: an interrupt at the terminal reaches this program, which then cleans up in order.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{}: cannot be started", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Kills the process without a warning (SIGKILL); does not wait for its end.
    pub fn strike(&mut self) -> Result<()> {
        let child = self.child.as_mut().with_context(|| format!("{} does not run", self.name))?;
        child.kill().with_context(|| format!("{} cannot be killed", self.name))
    }

    /// Waits for the end of a process that was struck.
    pub fn bury(&mut self) -> Result<()> {
        match self.child.take() {
            Some(mut child) => child.wait().map(drop).with_context(|| format!("{} cannot be waited for", self.name)),
            None => Ok(()),
        }
    }

    /// Stops the process where it stands (SIGSTOP): its connections stay open and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.signal(libc::SIGSTOP)
    }

    /// Lets a stopped process go on (SIGCONT).
    pub fn resume(&self) -> Result<()> {
        self.signal(libc::SIGCONT)
    }

    /// Removes everything the node stored. The process must not run.
    pub fn wipe(&self) -> Result<()> {
        if self.child.is_some() {
            bail!("{} runs: its disk cannot be taken away", self.name);
        }
        std::fs::remove_dir_all(&self.data).with_context(|| format!("{}: cannot be removed", self.data.display()))
    }

    /// Whether the process runs (or is stopped); an end that nobody asked for is an error with the log's tail.
    pub fn check(&mut self) -> Result<bool> {
        let Some(child) = self.child.as_mut() else { return Ok(false) };
        match child.try_wait().context("a process cannot be asked for its state")? {
            None => Ok(true),
            Some(status) => {
                self.child = None;
                bail!("{} ended by itself ({status}); the end of {}:\n{}", self.name, self.log.display(), self.tail())
            }
        }
    }

    /// Whether a process was started and not buried.
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Gives the process away: it outlives this program. Answers its id.
    pub fn release(&mut self) -> Option<u32> {
        self.child.take().map(|child| child.id())
    }

    /// Where the node writes its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The end of the node's log.
    pub fn tail(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned()
    }

    fn signal(&self, signal: libc::c_int) -> Result<()> {
        let child = self.child.as_ref().with_context(|| format!("{} does not run", self.name))?;
        let id = libc::pid_t::try_from(child.id()).context("a process id fits pid_t")?;
        #[expect(unsafe_code, reason = "the standard library can only kill")]
        // SAFETY: `kill` takes two numbers; the child has not been waited for, so its id is still its own.
        let result = unsafe { libc::kill(id, signal) };
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).context("a signal was refused") }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already; either way nothing is left.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> (tempfile::TempDir, NodeProcess) {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("sleeper");
        // Written by a process of its own: a file that this one has open for writing while another test forks cannot
        // be executed.
        let script = "printf '#!/bin/sh\\nexec sleep 600\\n' >\"$0\" && chmod 755 \"$0\"";
        let written = std::process::Command::new("sh").args(["-c", script]).arg(&binary).status().unwrap();
        assert!(written.success());
        std::fs::create_dir_all(folder.path().join("logs")).unwrap();
        std::fs::create_dir_all(folder.path().join("nodes/eu-1/data/x")).unwrap();
        let process = NodeProcess::new(&binary, folder.path(), "eu-1");
        (folder, process)
    }

    fn state(id: u32) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let (_folder, mut process) = sleeper();
        process.start(Birth::Again).unwrap();
        let id = process.child.as_ref().unwrap().id();
        assert!(process.check().unwrap());
        drop(process);
        assert_eq!(state(id), None);
    }

    #[test]
    fn a_disk_is_only_taken_from_a_dead_node() {
        let (folder, mut process) = sleeper();
        process.start(Birth::Again).unwrap();
        assert!(process.wipe().is_err());
        process.strike().unwrap();
        process.bury().unwrap();
        process.wipe().unwrap();
        assert!(!folder.path().join("nodes/eu-1/data").exists());
        assert!(!process.check().unwrap());
    }

    #[test]
    fn a_process_that_ends_by_itself_is_an_error() {
        let (_folder, mut process) = sleeper();
        process.start(Birth::Again).unwrap();
        process.strike().unwrap();
        let id = process.child.as_ref().unwrap().id();
        while state(id) != Some('Z') {
            std::thread::yield_now();
        }
        let ended = process.check().err();
        assert!(ended.is_some_and(|error| error.to_string().contains("ended by itself")));
    }
}
