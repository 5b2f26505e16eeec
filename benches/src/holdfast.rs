//! Holdfast under load: one region of three nodes, spoken to over HTTPS with keep-alive.

use crate::cluster::Lab;
use crate::load::{Client, Product};
use crate::process::{metrics, sample};
use crate::tenancy::{self, FIELD, TABLE, Tenancy};
use crate::wire::{Answer, Connection, Protocol, trust};
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// What it is called in reports.
pub const NAME: &str = "Holdfast";

/// A cluster with tenants to write to.
pub struct Holdfast {
    lab: Lab,
    tenancies: Vec<Tenancy>,
    authority: Vec<u8>,
}

impl Holdfast {
    /// Starts one region of three nodes with so many tenants.
    pub async fn start(binary: &Path, folder: &Path, tenants: usize, rules: Option<&Path>) -> Result<Self> {
        let mut lab = Lab::init(binary, folder, "eu", 3, rules)?;
        lab.start().await?;
        Self::over(lab, tenants).await
    }

    /// Takes a cluster that runs.
    pub async fn over(lab: Lab, tenants: usize) -> Result<Self> {
        let tenancies = tenancy::create(&lab, tenants).await?;
        let authority = lab.authority()?;
        Ok(Self { lab, tenancies, authority })
    }

    /// The cluster.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// How many of the region's Raft groups hold the tenants.
    pub fn groups_used(&self) -> usize {
        self.tenancies.iter().map(|tenancy| self.lab.description.group(tenancy.id)).collect::<BTreeSet<_>>().len()
    }

    /// A client of one node, for one tenant.
    pub async fn client(&self, node: usize, tenancy: usize, protocol: Protocol) -> Result<HoldfastClient> {
        let nodes = self.lab.nodes();
        let address = nodes.get(node % nodes.len()).context("a cluster has nodes")?.api;
        let tls = trust(&self.authority, protocol)?;
        let connection = Connection::open(address, Some(tls), protocol).await?;
        Ok(HoldfastClient { connection, target: self.target(address, tenancy)?, durability: None, level: "" })
    }

    fn target(&self, address: SocketAddr, tenancy: usize) -> Result<Arc<Target>> {
        let tenancy = &self.tenancies[tenancy % self.tenancies.len()];
        Ok(Arc::new(Target {
            // HTTP/2 wants the authority in the address.
            base: format!("https://{address}"),
            records: format!("/v1/tenants/{}/tables/{TABLE}/records", tenancy.tenant),
            host: HeaderValue::from_str(&address.to_string())?,
            authorization: HeaderValue::from_str(&format!("Bearer {}", tenancy.token))?,
        }))
    }
}

impl Product for Holdfast {
    type Client = HoldfastClient;

    fn name(&self) -> &'static str {
        NAME
    }

    async fn clients(&self, count: usize, sharing: usize) -> Result<Vec<HoldfastClient>> {
        let protocol = if sharing > 1 { Protocol::Http2 } else { Protocol::Http1 };
        let mut clients: Vec<HoldfastClient> = Vec::with_capacity(count);
        for i in 0..count {
            let shared = if i % sharing == 0 { None } else { clients[i - 1].connection.share() };
            let tenancy = self.store_of(i);
            clients.push(match shared {
                Some(connection) => {
                    let address = self.lab.nodes()[i / sharing % self.lab.nodes().len()].api;
                    HoldfastClient { connection, target: self.target(address, tenancy)?, durability: None, level: "" }
                }
                None => self.client(i / sharing, tenancy, protocol).await?,
            });
        }
        Ok(clients)
    }

    fn stores(&self) -> usize {
        self.tenancies.len()
    }

    fn store_of(&self, client: usize) -> usize {
        // Not the node's number: with as many tenants as nodes, each tenant would meet one node only.
        client / self.lab.nodes().len() % self.tenancies.len()
    }

    fn processes(&self) -> Vec<u32> {
        self.lab.processes()
    }

    async fn syncs(&self) -> Result<f64> {
        let mut syncs = 0.0;
        for node in self.lab.nodes() {
            syncs += sample(&metrics(&node.metrics.to_string()).await?, "holdfast_log_writes", "what=\"syncs\"");
        }
        Ok(syncs)
    }
}

/// Where a client's requests go.
struct Target {
    base: String,
    records: String,
    host: HeaderValue,
    authorization: HeaderValue,
}

/// One client.
pub struct HoldfastClient {
    connection: Connection,
    target: Arc<Target>,
    /// When writes are done (`Holdfast-Durability`); `region` where nothing is said.
    pub durability: Option<HeaderValue>,
    /// How fresh reads are (`?level=…`); linearizable where nothing is said.
    pub level: &'static str,
}

impl HoldfastClient {
    async fn ask(&mut self, method: Method, key: &str, body: Bytes) -> Result<Answer> {
        let target = &self.target;
        let base = if matches!(self.connection, Connection::Two(_)) { target.base.as_str() } else { "" };
        let mut request =
            Request::builder().method(method).uri(format!("{base}{}/{key}{}", target.records, self.level));
        if base.is_empty() {
            request = request.header("host", target.host.clone());
        }
        request = request.header("authorization", target.authorization.clone());
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(durability) = &self.durability {
            request = request.header("holdfast-durability", durability.clone());
        }
        self.connection.send(request.body(Full::new(body))?).await
    }

    /// Whether there is such a record, at the level of this client.
    pub async fn sees(&mut self, key: &str) -> Result<bool> {
        let answer = self.ask(Method::GET, key, Bytes::new()).await?;
        match answer.status.as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            _ => bail!("GET {key}: {} {}", answer.status, String::from_utf8_lossy(&answer.body)),
        }
    }
}

impl Client for HoldfastClient {
    async fn write(&mut self, key: &str, value: &str) -> Result<()> {
        let body = format!("{{\"fields\":{{\"{FIELD}\":\"{value}\"}}}}");
        let answer = self.ask(Method::PUT, key, body.into()).await?;
        // 202: durable here, but not as far as was asked.
        if !matches!(answer.status.as_u16(), 200 | 201 | 204) {
            bail!("PUT {key}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        Ok(())
    }

    async fn read(&mut self, key: &str) -> Result<()> {
        if self.sees(key).await? { Ok(()) } else { bail!("GET {key}: not found") }
    }
}
