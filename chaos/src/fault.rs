//! Breaking things, proving that they broke, and healing them.

use crate::cluster::Lab;
use crate::network::Cut;
use crate::probe::{Leader, leader};
use crate::tenancy::Site;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// What is broken. Regions are given by their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The leader of the tenant's group is killed, and started again.
    KillLeader {
        /// Of this region.
        region: String,
    },
    /// A node that does not lead the tenant's group is killed, and started again.
    KillFollower {
        /// Of this region.
        region: String,
    },
    /// All nodes of a region are killed at once, and started again.
    KillRegion {
        /// This one.
        region: String,
    },
    /// No packet passes between a region and the others.
    CutRegion {
        /// This one.
        region: String,
        /// What it sends arrives nevertheless: it is deaf, not mute.
        one_way: bool,
    },
    /// The leader of the tenant's group stands still, its connections open.
    PauseLeader {
        /// Of this region.
        region: String,
    },
    /// A node is killed and everything it stored is gone; it starts again with nothing.
    LoseDisk {
        /// Of this region.
        region: String,
    },
}

/// A fault that was injected.
pub struct Injected {
    /// The moment.
    pub at: Instant,
    /// What was struck, in words.
    pub what: String,
    /// Nodes that do not run and must be started again.
    pub down: Vec<String>,
    is_wiped: bool,
    paused: Option<String>,
    cut: Option<Cut>,
    before: Option<Leader>,
}

/// What proves that a fault bit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bite {
    /// Whether it did.
    pub did_bite: bool,
    /// What was seen.
    pub evidence: String,
}

/// What a fault needs to know.
pub struct Scene<'a> {
    /// The processes.
    pub lab: &'a mut Lab,
    /// The way in.
    pub site: &'a Site,
    /// The tenant's group.
    pub group: String,
}

impl Fault {
    /// The region that is struck.
    pub fn region(&self) -> &str {
        match self {
            Self::KillLeader { region }
            | Self::KillFollower { region }
            | Self::KillRegion { region }
            | Self::CutRegion { region, .. }
            | Self::PauseLeader { region }
            | Self::LoseDisk { region } => region,
        }
    }

    /// Why this machine cannot do it, if it cannot.
    pub fn impossible(&self) -> Option<String> {
        match self {
            Self::CutRegion { .. } => crate::network::can_cut().err(),
            _ => None,
        }
    }

    /// Injects the fault.
    pub async fn inject(&self, scene: &mut Scene<'_>) -> Result<Injected> {
        let region = scene.region(self.region())?;
        let before = leader(scene.site, region, &scene.group, None).await;
        let led_by =
            before.clone().with_context(|| format!("group {} of {} has no leader", scene.group, self.region()))?;
        let nodes = scene.lab.nodes_of(self.region());
        let follower = nodes.iter().find(|name| **name != led_by.node).context("a region of one node")?.clone();
        let mut injected = Injected {
            at: Instant::now(),
            what: String::new(),
            down: Vec::new(),
            is_wiped: false,
            paused: None,
            cut: None,
            before,
        };
        match self {
            Self::KillLeader { .. } => injected.kill(scene.lab, &[led_by.node], "leader")?,
            Self::KillFollower { .. } => injected.kill(scene.lab, &[follower], "follower")?,
            Self::KillRegion { .. } => injected.kill(scene.lab, &nodes, "region")?,
            Self::LoseDisk { .. } => {
                injected.kill(scene.lab, std::slice::from_ref(&follower), "node and its disk")?;
                scene.lab.node(&follower)?.wipe()?;
                injected.is_wiped = true;
            }
            Self::PauseLeader { .. } => {
                injected.at = Instant::now();
                scene.lab.node(&led_by.node)?.pause()?;
                injected.what = format!("stopped the leader {}", led_by.node);
                injected.paused = Some(led_by.node);
            }
            Self::CutRegion { one_way, .. } => {
                let (inside, outside) = scene.link_ports(self.region());
                // Deaf: what the others send does not arrive; what it sends does.
                injected.at = Instant::now();
                injected.cut = Some(Cut::between(&outside, &inside, !one_way)?);
                let how = if *one_way { "nothing arrives in it" } else { "nothing passes" };
                injected.what = format!("cut region {} off: {how}", self.region());
            }
        }
        Ok(injected)
    }
}

impl Scene<'_> {
    fn region(&self, name: &str) -> Result<usize> {
        let mut names = self.site.regions.iter();
        names.position(|region| region == name).with_context(|| format!("the cluster has no region '{name}'"))
    }

    /// UDP ports of the links of a region's nodes, and of all others.
    fn link_ports(&self, region: &str) -> (Vec<u16>, Vec<u16>) {
        let description = self.lab.description();
        let (inside, outside): (Vec<_>, Vec<_>) = description.nodes().partition(|(of, _)| of.name == region);
        let ports = |nodes: Vec<(&model::cluster::Region, &model::cluster::Node)>| {
            nodes.into_iter().map(|(_, node)| node.link.port()).collect()
        };
        (ports(inside), ports(outside))
    }
}

impl Injected {
    fn kill(&mut self, lab: &mut Lab, names: &[String], what: &str) -> Result<()> {
        self.at = lab.kill(names)?;
        self.what = format!("killed the {what}: {}", names.join(", "));
        self.down = names.to_vec();
        Ok(())
    }

    /// Looks, while the fault lasts, whether it bit.
    pub async fn bite(&self, fault: &Fault, scene: &Scene<'_>) -> Result<Bite> {
        let region = scene.region(fault.region())?;
        match fault {
            Fault::KillLeader { .. } | Fault::PauseLeader { .. } => {
                let before = self.before.as_ref().context("a leader was struck")?;
                let now = leader(scene.site, region, &scene.group, Some(&before.node)).await;
                let did_bite = now.as_ref().is_some_and(|now| now.node != before.node && now.term > before.term);
                let of = |one: &Leader| format!("{} in term {}", one.node, one.term);
                let after = now.as_ref().map_or("nobody".to_owned(), of);
                Ok(Bite {
                    did_bite,
                    evidence: format!("group {} was led by {}, then by {after}", scene.group, of(before)),
                })
            }
            Fault::KillFollower { .. } | Fault::LoseDisk { .. } | Fault::KillRegion { .. } => {
                let mut refusing = Vec::new();
                for door in scene.site.doors.iter().filter(|door| self.down.contains(&door.node)) {
                    let call = crate::client::Call::new(reqwest::Method::GET, "/healthz", "");
                    if scene.site.client.send(door, &call.within(Duration::from_secs(1))).await.is_err() {
                        refusing.push(door.node.as_str());
                    }
                }
                let did_bite = refusing.len() == self.down.len();
                Ok(Bite { did_bite, evidence: format!("no answer from {}", refusing.join(", ")) })
            }
            Fault::CutRegion { .. } => {
                let dropped = self.cut.as_ref().context("links were cut")?.dropped()?;
                let did_bite = !dropped.is_empty() && dropped.iter().all(|count| *count > 0);
                Ok(Bite { did_bite, evidence: format!("packets dropped in each direction: {dropped:?}") })
            }
        }
    }

    /// Heals the fault; answers the moment.
    pub fn heal(&mut self, scene: &mut Scene<'_>) -> Result<Instant> {
        let healed = Instant::now();
        self.cut = None;
        if let Some(name) = self.paused.take() {
            scene.lab.node(&name)?.resume()?;
        }
        let down = std::mem::take(&mut self.down);
        if self.is_wiped {
            scene.lab.rejoin(&down)?;
        } else {
            scene.lab.restart(&down)?;
        }
        Ok(healed)
    }
}
