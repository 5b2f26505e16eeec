//! A Holdfast cluster of real processes in a folder of its own, made by `holdfast init` on free ports.

use crate::process::Server;
use anyhow::{Context as _, Result, bail};
use model::cluster::{Cluster, Node};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const READY_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// Partitions of a bench's cluster.
pub const PARTITIONS: u16 = 64;
/// Raft groups of each region.
pub const GROUPS: u16 = 2;

/// The first administrator, from `bootstrap.toml`; the rest of the file is not for clients.
#[derive(Deserialize)]
pub struct Bootstrap {
    /// The login.
    pub login: String,
    /// The password.
    pub password: String,
    /// The secret of the second factor, base32.
    pub totp: String,
}

/// A cluster's folder and processes.
pub struct Lab {
    binary: PathBuf,
    folder: PathBuf,
    /// What `holdfast init` described.
    pub description: Cluster,
    servers: Vec<Server>,
}

impl Lab {
    /// Makes a cluster in `folder`, not started yet.
    pub fn init(binary: &Path, folder: &Path, regions: &str, nodes: u16, rules: Option<&Path>) -> Result<Self> {
        let mut init = Command::new(binary);
        init.arg("init").arg(folder).args(["--name", "bench", "--environment", "development", "--base-port", "0"]);
        init.args(["--regions", regions, "--nodes", &nodes.to_string()]);
        init.args(["--groups", &GROUPS.to_string(), "--partitions", &PARTITIONS.to_string(), "--json"]);
        if let Some(rules) = rules {
            init.arg("--rules").arg(rules);
        }
        let made = init.output().with_context(|| binary.display().to_string())?;
        if !made.status.success() {
            bail!("holdfast init: {}", String::from_utf8_lossy(&made.stderr));
        }
        let text = std::fs::read_to_string(folder.join("cluster.toml"))?;
        let description = Cluster::parse(&text)?;
        Ok(Self { binary: binary.to_owned(), folder: folder.to_owned(), description, servers: Vec::new() })
    }

    /// Gives one node its own description of the cluster, such as one in which others are behind a proxy.
    pub fn describe_for(&self, node: &str, description: &Cluster) -> Result<()> {
        let home = self.folder.join("nodes").join(node);
        std::fs::write(home.join("cluster.toml"), description.to_toml())?;
        let config = std::fs::read_to_string(home.join("node.toml"))?;
        std::fs::write(home.join("node.toml"), config.replace("../../cluster.toml", "cluster.toml"))?;
        Ok(())
    }

    /// Starts every node and waits until all are ready.
    pub async fn start(&mut self) -> Result<()> {
        for (_, node) in self.description.nodes() {
            let path = |path: PathBuf| path.display().to_string();
            let arguments = [
                "start".to_owned(),
                "--config".to_owned(),
                path(self.folder.join("nodes").join(&node.name).join("node.toml")),
                "--first".to_owned(),
                "--bootstrap".to_owned(),
                path(self.folder.join("bootstrap.toml")),
            ];
            let log = self.folder.join(format!("{}.log", node.name));
            self.servers.push(Server::start(&node.name, &self.binary, &arguments, &log)?);
        }
        self.ready().await
    }

    async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        for (_, node) in self.description.nodes() {
            let url = format!("http://{}/readyz", node.metrics);
            loop {
                self.servers.iter_mut().try_for_each(Server::check)?;
                let why = match reqwest::get(&url).await {
                    Ok(answer) if answer.status().is_success() => break,
                    Ok(answer) => answer.text().await.unwrap_or_default(),
                    Err(error) => error.to_string(),
                };
                if Instant::now() > deadline {
                    bail!("{} is not ready within {READY_WITHIN:?}: {why}", node.name);
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Every node, in order.
    pub fn nodes(&self) -> Vec<&Node> {
        self.description.nodes().map(|(_, node)| node).collect()
    }

    /// The process of every node, in order.
    pub fn processes(&self) -> Vec<u32> {
        self.servers.iter().map(Server::id).collect()
    }

    /// The authority that clients trust.
    pub fn authority(&self) -> Result<Vec<u8>> {
        std::fs::read(self.folder.join("ca.pem")).context("ca.pem")
    }

    /// The first administrator.
    pub fn bootstrap(&self) -> Result<Bootstrap> {
        let text = std::fs::read_to_string(self.folder.join("bootstrap.toml")).context("bootstrap.toml")?;
        toml::from_str(&text).context("bootstrap.toml")
    }
}
