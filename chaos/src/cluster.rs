//! A cluster of real processes in a folder of its own.
//!
//! Made by `holdfast init` on free ports; everything is killed and, unless something failed or it is kept,
//! removed when the [`Lab`] is dropped.

use crate::process::{Birth, NodeProcess};
use anyhow::{Context as _, Result, bail};
use model::cluster::{Cluster, Environment};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a cluster may take to be ready.
pub const READY_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at something that is waited for.
pub const POLL: Duration = Duration::from_millis(50);
/// A health check that takes longer counts as no answer.
const HEALTH_WITHIN: Duration = Duration::from_secs(2);

/// The first administrator, from `bootstrap.toml`.
#[derive(Clone, Deserialize)]
pub struct Bootstrap {
    /// The login.
    pub login: String,
    /// The password.
    pub password: String,
    /// The secret of the second factor, base32.
    pub totp: String,
}

/// A cluster's folder and its processes.
pub struct Lab {
    directory: PathBuf,
    description: Cluster,
    nodes: BTreeMap<String, NodeProcess>,
    health: reqwest::Client,
    is_kept: bool,
    is_ours: bool,
}

/// Drills are for clusters without customers.
pub fn refuse_production(cluster: &Cluster) -> Result<()> {
    if cluster.environment == Environment::Production {
        bail!("cluster '{}' is in production: drills are refused", cluster.name);
    }
    Ok(())
}

impl Lab {
    /// Makes a new cluster: three regions of three nodes.
    pub fn create(binary: &Path, directory: &Path, name: &str) -> Result<Self> {
        Self::create_with(binary, directory, name, "eu,us,ap", &crate::place::data("cluster/rules")?)
    }

    /// Makes a new cluster with such regions, of three nodes each, which detects by such rules.
    pub fn create_with(binary: &Path, directory: &Path, name: &str, regions: &str, rules: &Path) -> Result<Self> {
        let mut command = Command::new(binary);
        command.arg("init").arg(directory).args(["--name", name, "--regions", regions, "--nodes", "3"]);
        command.args(["--base-port", "0", "--groups", "2", "--partitions", "64", "--environment", "development"]);
        command.arg("--rules").arg(rules).arg("--json");
        let output = command.output().with_context(|| format!("{}: cannot be run", binary.display()))?;
        if !output.status.success() {
            bail!("holdfast init failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        Self::open(binary, directory, true)
    }

    /// Opens a folder that `holdfast init` made and whose nodes do not run.
    pub fn open(binary: &Path, directory: &Path, is_ours: bool) -> Result<Self> {
        let path = directory.join("cluster.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
        let description = Cluster::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        refuse_production(&description)?;
        std::fs::create_dir_all(directory.join("logs")).context("the folder of logs cannot be created")?;
        let process = |name: &str| (name.to_owned(), NodeProcess::new(binary, directory, name));
        let nodes = description.nodes().map(|(_, node)| process(&node.name)).collect();
        let health = reqwest::Client::builder().no_proxy().timeout(HEALTH_WITHIN).build()?;
        Ok(Self { directory: directory.to_owned(), description, nodes, health, is_kept: false, is_ours })
    }

    /// What the cluster is.
    pub fn description(&self) -> &Cluster {
        &self.description
    }

    /// Its folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The certificate authority, PEM.
    pub fn authority(&self) -> Result<Vec<u8>> {
        let path = self.directory.join("ca.pem");
        std::fs::read(&path).with_context(|| format!("{}: cannot be read", path.display()))
    }

    /// The first administrator.
    pub fn bootstrap(&self) -> Result<Bootstrap> {
        let path = self.bootstrap_path();
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{}: not as expected", path.display()))
    }

    fn bootstrap_path(&self) -> PathBuf {
        self.directory.join("bootstrap.toml")
    }

    /// Starts all nodes for the first time and waits until they are ready.
    pub async fn found(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let bootstrap = self.bootstrap_path();
        for node in self.nodes.values_mut() {
            node.start(Birth::First(&bootstrap))?;
        }
        self.ready(READY_WITHIN).await?;
        Ok(began.elapsed())
    }

    /// Starts nodes again that were killed.
    pub fn restart(&mut self, names: &[String]) -> Result<()> {
        names.iter().try_for_each(|name| self.node(name)?.start(Birth::Again))
    }

    /// Starts nodes that were killed and lost their disks.
    pub fn rejoin(&mut self, names: &[String]) -> Result<()> {
        names.iter().try_for_each(|name| self.node(name)?.start(Birth::Rejoin))
    }

    /// Waits until every started node says it is ready.
    pub async fn ready(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let mut waiting: Vec<String> =
            self.nodes.iter().filter(|(_, node)| node.is_started()).map(|(name, _)| name.clone()).collect();
        loop {
            let mut still = Vec::new();
            let mut reason = String::new();
            for name in waiting {
                self.node(&name)?.check()?;
                if let Err(why) = self.health(&name).await {
                    reason = format!("{name}: {why}");
                    still.push(name);
                }
            }
            waiting = still;
            let Some(last) = waiting.last() else { return Ok(()) };
            if Instant::now() >= deadline {
                let tail = self.nodes.get(last).map(NodeProcess::tail).unwrap_or_default();
                bail!("not ready within {within:?}: {} ({reason}); the end of its log:\n{tail}", waiting.join(", "));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn health(&self, name: &str) -> Result<(), String> {
        let (_, node) = self.description.node_named(name).ok_or("no such node")?;
        let answer = self.health.get(format!("http://{}/readyz", node.metrics)).send().await;
        match answer {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status(), answer.text().await.unwrap_or_default())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Names of a region's nodes.
    pub fn nodes_of(&self, region: &str) -> Vec<String> {
        let region = self.description.region_named(region);
        region.map(|region| region.nodes.iter().map(|node| node.name.clone()).collect()).unwrap_or_default()
    }

    /// Kills nodes at once (SIGKILL) and answers when the first was struck.
    pub fn kill(&mut self, names: &[String]) -> Result<Instant> {
        let struck = Instant::now();
        for name in names {
            self.node(name)?.strike()?;
        }
        for name in names {
            self.node(name)?.bury()?;
        }
        Ok(struck)
    }

    /// One node's process.
    pub fn node(&mut self, name: &str) -> Result<&mut NodeProcess> {
        self.nodes.get_mut(name).with_context(|| format!("no node is named '{name}'"))
    }

    /// Fails if a node ended that nobody killed.
    pub fn check(&mut self) -> Result<()> {
        self.nodes.values_mut().try_for_each(|node| node.check().map(drop))
    }

    /// The folder stays, for whoever looks for a fault.
    pub fn keep_files(&mut self) {
        self.is_kept = true;
    }

    /// Lets the cluster run on after this program. Its processes' ids are then in `pids` in its folder.
    pub fn release(&mut self) -> Result<PathBuf> {
        self.is_kept = true;
        let ids: Vec<String> =
            self.nodes.values_mut().filter_map(NodeProcess::release).map(|id| id.to_string()).collect();
        let path = self.directory.join("pids");
        std::fs::write(&path, ids.join("\n") + "\n")
            .with_context(|| format!("{}: cannot be written", path.display()))?;
        Ok(path)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for node in self.nodes.values_mut().filter(|node| node.is_started()) {
            let _ = node.strike();
        }
        for node in self.nodes.values_mut().filter(|node| node.is_started()) {
            let _ = node.bury();
        }
        if self.is_ours && !self.is_kept {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIPTION: &str = r#"
        name = "demo"
        environment = "production"
        [[regions]]
        id = 1
        name = "eu"
        [[regions.nodes]]
        id = 1
        name = "eu-1"
        link = "127.0.0.1:1"
        api = "127.0.0.1:2"
        metrics = "127.0.0.1:3"
    "#;

    #[test]
    fn production_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cluster.toml"), DESCRIPTION).unwrap();
        let refused = Lab::open(Path::new("holdfast"), folder.path(), false).err().unwrap();
        assert!(refused.to_string().contains("production"), "{refused}");
        let staging = Cluster::parse(&DESCRIPTION.replace("production", "staging")).unwrap();
        assert!(refuse_production(&staging).is_ok());
    }
}
