//! A cluster of real processes, made for one test and ended with it.

use crate::client::Client;
use model::cluster::Cluster;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long anything may take that must happen.
pub const WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at something that must happen.
const PAUSE: Duration = Duration::from_millis(25);
/// Ports that were free may be taken a moment later: then a cluster is made anew.
const ATTEMPTS: usize = 5;

/// Looks until there is something to see.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(WITHIN, looking).await.unwrap_or_else(|_| panic!("not within {WITHIN:?}: {what}"))
}

/// The program under test.
pub fn binary() -> Option<PathBuf> {
    let named = std::env::var_os("HOLDFAST_BINARY").map(PathBuf::from);
    if let Some(path) = named.as_ref().filter(|path| !path.is_file()) {
        // Whoever names a program means it: skipping everything would look like success.
        panic!("HOLDFAST_BINARY is {}, where there is no program", path.display());
    }
    let beside = || Some(std::env::current_exe().ok()?.parent()?.parent()?.join("holdfast"));
    let found = named.or_else(beside).filter(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: no program; build it, or name it by HOLDFAST_BINARY");
    }
    found
}

/// Runs a command of the program to its end.
pub fn holdfast(arguments: &[&str]) -> Output {
    let binary = binary().expect("the test began with a program");
    Command::new(binary).args(arguments).output().expect("the program can be run")
}

/// What a command said, on both streams.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What `holdfast init` made once: the first administrator.
pub struct First {
    pub login: String,
    pub password: String,
    pub totp: String,
}

/// A cluster.
pub struct Bed {
    folder: TempDir,
    pub cluster: Cluster,
    pub first: First,
    nodes: BTreeMap<String, Child>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        for child in self.nodes.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for (_, node) in self.cluster.nodes() {
                let log = std::fs::read_to_string(self.log(&node.name)).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                eprintln!("--- the end of the log of {}", node.name);
                tail.into_iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

impl Bed {
    /// A described cluster of which nothing runs yet; none without a program.
    pub fn described(arguments: &[&str]) -> Option<Self> {
        binary()?;
        let folder = TempDir::new().expect("there is room for a folder");
        let path = folder.path().join("cluster");
        let init = ["init", path.to_str().expect("the path is text"), "--base-port", "0", "--json"];
        let output = holdfast(&[&init[..], arguments].concat());
        assert!(output.status.success(), "{}", said(&output));
        let made: serde_json::Value = serde_json::from_slice(&output.stdout).expect("init --json prints JSON");
        let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("init tells no {name}")).to_owned();
        let cluster = std::fs::read_to_string(path.join("cluster.toml")).expect("init wrote a description");
        Some(Self {
            folder,
            cluster: Cluster::parse(&cluster).expect("the description can be read"),
            first: First { login: text("login"), password: text("password"), totp: text("totp") },
            nodes: BTreeMap::new(),
        })
    }

    /// A cluster that runs, every node ready; none without a program.
    pub async fn start(regions: &str, nodes: &str) -> Option<Self> {
        Self::start_with(&["--regions", regions, "--nodes", nodes]).await
    }

    /// A cluster that runs, made with these arguments.
    pub async fn start_with(arguments: &[&str]) -> Option<Self> {
        Self::start_changed(arguments, |_| {}).await
    }

    /// As [`Bed::start_with`], with something changed between the description and the start.
    pub async fn start_changed(arguments: &[&str], change: impl Fn(&Self)) -> Option<Self> {
        for _ in 0..ATTEMPTS {
            let mut bed = Self::described(arguments)?;
            change(&bed);
            let names: Vec<String> = bed.cluster.nodes().map(|(_, node)| node.name.clone()).collect();
            for name in &names {
                bed.spawn(name, &["--first", "--bootstrap", &bed.path("bootstrap.toml")]);
            }
            if bed.all_ready(&names).await {
                return Some(bed);
            }
        }
        panic!("no cluster started in {ATTEMPTS} attempts");
    }

    /// Waits for all; `false` when one found its port taken.
    async fn all_ready(&mut self, names: &[String]) -> bool {
        for name in names {
            let what = format!("{name} is ready");
            let ready = until(&what, async || {
                if self.ended(name).is_some() {
                    let log = std::fs::read_to_string(self.log(name)).unwrap_or_default();
                    assert!(log.contains("in use"), "{name} ended:\n{log}");
                    return Some(false);
                }
                self.is_ready(name).await.then_some(true)
            });
            if !ready.await {
                return false;
            }
        }
        true
    }

    /// A path in the cluster's folder.
    pub fn path(&self, inside: &str) -> String {
        self.folder.path().join("cluster").join(inside).to_str().expect("the path is text").to_owned()
    }

    /// A node's configuration.
    pub fn config(&self, name: &str) -> String {
        self.path(&format!("nodes/{name}/node.toml"))
    }

    /// A node's log.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// Starts a node; its log goes on where it was.
    pub fn spawn(&mut self, name: &str, arguments: &[&str]) {
        let log = File::options().create(true).append(true).open(self.log(name)).expect("a log can be opened");
        let mut command = Command::new(binary().expect("the test began with a program"));
        command.args(["start", "--config", &self.config(name)]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.nodes.insert(name.to_owned(), command.spawn().expect("the program can be started"));
    }

    /// Starts a node that ran before, and waits until it is ready.
    pub async fn restart(&mut self, name: &str) {
        self.spawn(name, &[]);
        self.ready(name).await;
    }

    /// Waits until a node is ready.
    pub async fn ready(&self, name: &str) {
        until(&format!("{name} is ready"), async || self.is_ready(name).await.then_some(())).await;
    }

    /// Whether a node says that it is ready.
    pub async fn is_ready(&self, name: &str) -> bool {
        self.plain(name, "/readyz").await.is_some_and(|(status, _)| status == 200)
    }

    /// Kills a node at once.
    pub fn kill(&mut self, name: &str) {
        let mut child = self.nodes.remove(name).expect("the node runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a killed child ends");
    }

    /// Asks a node to stop, and waits for its end.
    pub async fn stop(&mut self, name: &str) -> std::process::ExitStatus {
        let id = self.nodes[name].id().to_string();
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIGTERM can be sent");
        let status = until(&format!("{name} ends"), async || self.ended(name)).await;
        self.nodes.remove(name);
        status
    }

    fn ended(&mut self, name: &str) -> Option<std::process::ExitStatus> {
        self.nodes.get_mut(name)?.try_wait().expect("a child can be asked")
    }

    /// What a node answers in plain HTTP at its address for metrics and health.
    pub async fn plain(&self, name: &str, path: &str) -> Option<(u16, String)> {
        let (_, node) = self.cluster.node_named(name).expect("the node is described");
        let mut stream = TcpStream::connect(node.metrics).await.ok()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n").as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// A client of a node, without a session.
    pub fn client(&self, name: &str) -> Client {
        let (_, node) = self.cluster.node_named(name).expect("the node is described");
        Client::new(node.api, Path::new(&self.path("ca.pem")), None)
    }

    /// A client of a node from another address of this machine.
    pub fn client_from(&self, name: &str, address: &str) -> Client {
        let (_, node) = self.cluster.node_named(name).expect("the node is described");
        Client::new(node.api, Path::new(&self.path("ca.pem")), Some(address.parse().expect("an address")))
    }

    /// Nothing of this cluster panicked.
    pub fn assert_no_panic(&self) {
        for (_, node) in self.cluster.nodes() {
            let log = std::fs::read_to_string(self.log(&node.name)).unwrap_or_default();
            assert!(!log.contains("panicked"), "{}:\n{log}", node.name);
        }
    }
}
