//! Server processes: started, measured from `/proc`, always stopped.
//!
//! Never leaves a process behind: each is killed when its [`Server`] is dropped, and by the kernel if this program dies.

use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Ticks of `/proc/PID/stat` in a second: fixed by Linux' interface to programs (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// Bytes of a log's end that are shown when a server fails.
const TAIL_BYTES: usize = 2_000;

/// A running server.
pub struct Server {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a program with its output in `log`.
    pub fn start(name: &str, program: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| log.display().to_string())?;
        // setpriv replaces itself by the program: the process id is the program's, and the kernel kills it with us.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails, with the end of its log, if it ended by itself.
    pub fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let log = std::fs::read(&self.log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(TAIL_BYTES)..]).into_owned();
        bail!("{} ended by itself ({status}); the end of its log:\n{tail}", self.name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; either way nothing is left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor seconds used so far by a process, its threads included.
pub fn cpu_seconds(process: &str) -> Result<f64> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    // The second field is the program's name, which may hold anything but ends at the last parenthesis.
    let fields: Vec<&str> =
        text.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace().collect()).unwrap_or_default();
    let ticks = |index: usize| fields.get(index).and_then(|ticks| ticks.parse::<f64>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).with_context(|| format!("{path}: not as expected"))?;
    Ok((user + system) / TICKS_PER_SECOND)
}

/// Processor seconds used so far by several processes.
pub fn cpu_seconds_of(processes: &[u32]) -> Result<f64> {
    processes.iter().map(|id| cpu_seconds(&id.to_string())).sum()
}

/// Bytes of a process in memory.
pub fn resident_bytes(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    Ok(kibibytes.with_context(|| format!("{path}: not as expected"))? * 1024)
}

/// Ports that nobody listens on; all are held until the last is chosen, so that none is chosen twice.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// The metrics of a server, as text.
pub async fn metrics(address: &str) -> Result<String> {
    let url = format!("http://{address}/metrics");
    Ok(reqwest::get(&url).await.with_context(|| url.clone())?.error_for_status()?.text().await?)
}

/// The sum of a metric's samples whose labels include `label` (all if it is empty).
pub fn sample(text: &str, name: &str, label: &str) -> f64 {
    let samples = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        // Not a longer name that begins the same.
        (rest.starts_with([' ', '{']) && rest.contains(label)).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    samples.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_name_and_label() {
        let text = "# HELP a x\na{what=\"syncs\"} 3\na{what=\"bytes\"} 5\na_total 7\nab 1\nb 2.5e1\n";
        assert_eq!(sample(text, "a", "what=\"syncs\""), 3.0);
        assert_eq!(sample(text, "a", ""), 8.0);
        assert_eq!(sample(text, "b", ""), 25.0);
        assert_eq!(sample(text, "c", ""), 0.0);
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
        assert!(cpu_seconds("self").unwrap() >= 0.0);
    }
}
