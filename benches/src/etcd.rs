//! etcd beside us: three members on loopback, spoken to over gRPC.
//!
//! Messages are written by hand from etcd's `rpc.proto` and `kv.proto` (3.4); only the fields used here.

use crate::load::{Client, Product};
use crate::process::{Server, free_ports, sample};
use crate::wire::{Connection, Protocol, trust};
use anyhow::{Context as _, Result, bail, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::Request;
use http_body_util::Full;
use prost::Message;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const MEMBERS: usize = 3;
const READY_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// A compression flag and a length stand before every gRPC message.
const PREFIX_BYTES: usize = 5;

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct PutResponse {}

#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

/// How members and clients speak to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// As etcd's guide says for production: TLS for clients, mutual TLS between members. Holdfast has no other way.
    Tls,
    /// Nothing is encrypted and nobody is checked.
    Plain,
}

/// Three members.
pub struct Etcd {
    wire: Wire,
    members: Vec<Server>,
    addresses: Vec<SocketAddr>,
    trust: Option<Arc<rustls::ClientConfig>>,
}

/// A certificate for loopback that signs itself, for all members: its file, its key's file, and itself.
fn certificate(directory: &Path) -> Result<(PathBuf, PathBuf, String)> {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    let (file, key, text) = (directory.join("tls.pem"), directory.join("tls.key"), made.cert.pem());
    std::fs::write(&file, &text)?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    Ok((file, key, text))
}

impl Etcd {
    /// Starts three members in `directory` and waits until they write.
    pub async fn start(program: &Path, directory: &Path, wire: Wire) -> Result<Self> {
        ensure!(program.is_file(), "{}: not there; install Debian's etcd-server", program.display());
        std::fs::create_dir_all(directory)?;
        let ports = free_ports(2 * MEMBERS)?;
        let (clients, peers) = ports.split_at(MEMBERS);
        let scheme = if wire == Wire::Tls { "https" } else { "http" };
        let cluster: Vec<String> = (0..MEMBERS).map(|i| format!("m{i}={scheme}://127.0.0.1:{}", peers[i])).collect();
        let (mut tls, mut trusted) = (Vec::new(), None);
        if wire == Wire::Tls {
            let (file, key, text) = certificate(directory)?;
            let (file, key) = (file.display(), key.display());
            tls = vec![
                format!("--cert-file={file}"),
                format!("--key-file={key}"),
                format!("--peer-cert-file={file}"),
                format!("--peer-key-file={key}"),
                format!("--peer-trusted-ca-file={file}"),
                "--peer-client-cert-auth".to_owned(),
            ];
            trusted = Some(trust(text.as_bytes(), Protocol::Http2)?);
        }
        let mut members = Vec::new();
        for i in 0..MEMBERS {
            let address = |ports: &[u16]| format!("{scheme}://127.0.0.1:{}", ports[i]);
            let (client, peer) = (address(clients), address(peers));
            let mut arguments = vec![
                format!("--name=m{i}"),
                format!("--data-dir={}", directory.join(format!("m{i}")).display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster={}", cluster.join(",")),
                "--initial-cluster-state=new".to_owned(),
                "--logger=zap".to_owned(),
            ];
            arguments.extend_from_slice(&tls);
            members.push(Server::start(
                &format!("etcd m{i}"),
                program,
                &arguments,
                &directory.join(format!("m{i}.log")),
            )?);
        }
        let addresses = clients.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect();
        let mut etcd = Self { wire, members, addresses, trust: trusted };
        etcd.ready().await?;
        Ok(etcd)
    }

    async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        for address in self.addresses.clone() {
            loop {
                self.members.iter_mut().try_for_each(Server::check)?;
                let last = match EtcdClient::open(address, self.trust.clone()).await {
                    Ok(mut client) => match client.write("ready", "yes").await {
                        Ok(()) => break,
                        Err(error) => error,
                    },
                    Err(error) => error,
                };
                if Instant::now() > deadline {
                    bail!("etcd is not ready within {READY_WITHIN:?}: {last:#}");
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }
}

impl Product for Etcd {
    type Client = EtcdClient;

    fn name(&self) -> &'static str {
        match self.wire {
            Wire::Tls => "etcd",
            Wire::Plain => "etcd, no TLS",
        }
    }

    async fn clients(&self, count: usize, sharing: usize) -> Result<Vec<EtcdClient>> {
        let mut clients: Vec<EtcdClient> = Vec::with_capacity(count);
        for i in 0..count {
            let shared = if i % sharing == 0 { None } else { clients[i - 1].share() };
            clients.push(match shared {
                Some(client) => client,
                None => EtcdClient::open(self.addresses[i / sharing % MEMBERS], self.trust.clone()).await?,
            });
        }
        Ok(clients)
    }

    fn processes(&self) -> Vec<u32> {
        self.members.iter().map(Server::id).collect()
    }

    async fn syncs(&self) -> Result<f64> {
        let mut syncs = 0.0;
        for address in &self.addresses {
            let text = self.metrics(*address).await?;
            syncs += sample(&text, "etcd_disk_wal_fsync_duration_seconds_count", "");
        }
        Ok(syncs)
    }
}

impl Etcd {
    async fn metrics(&self, address: SocketAddr) -> Result<String> {
        // Without TLS only gRPC is spoken over HTTP/2.
        let (protocol, base) = match self.wire {
            Wire::Tls => (Protocol::Http2, format!("https://{address}")),
            Wire::Plain => (Protocol::Http1, String::new()),
        };
        let mut connection = Connection::open(address, self.trust.clone(), protocol).await?;
        let request = Request::get(format!("{base}/metrics")).header("host", address.to_string());
        let request = request.body(Full::default())?;
        Ok(String::from_utf8_lossy(&connection.send(request).await?.body).into_owned())
    }
}

/// One client.
pub struct EtcdClient {
    connection: Connection,
    address: SocketAddr,
}

impl EtcdClient {
    async fn open(address: SocketAddr, trust: Option<Arc<rustls::ClientConfig>>) -> Result<Self> {
        Ok(Self { connection: Connection::open(address, trust, Protocol::Http2).await?, address })
    }

    fn share(&self) -> Option<Self> {
        Some(Self { connection: self.connection.share()?, address: self.address })
    }

    async fn call<A: Message + Default>(&mut self, method: &str, message: &impl Message) -> Result<A> {
        let length = message.encoded_len();
        let mut body = BytesMut::with_capacity(PREFIX_BYTES + length);
        body.put_u8(0);
        body.put_u32(u32::try_from(length)?);
        message.encode(&mut body)?;
        let request = Request::post(format!("http://{}/etcdserverpb.KV/{method}", self.address))
            .header("content-type", "application/grpc+proto")
            .header("te", "trailers")
            .body(Full::new(body.freeze()))?;
        let answer = self.connection.send(request).await?;
        let status = answer.headers.get("grpc-status").and_then(|status| status.to_str().ok());
        if status != Some("0") {
            let message = answer.headers.get("grpc-message").and_then(|text| text.to_str().ok()).unwrap_or_default();
            bail!("{method}: HTTP {}, gRPC status {status:?} {message}", answer.status);
        }
        let bytes: Bytes = answer.body.slice(PREFIX_BYTES.min(answer.body.len())..);
        A::decode(bytes).with_context(|| format!("{method}: the answer is not protobuf"))
    }
}

impl Client for EtcdClient {
    async fn write(&mut self, key: &str, value: &str) -> Result<()> {
        let request = PutRequest { key: key.into(), value: value.into() };
        self.call::<PutResponse>("Put", &request).await.map(drop)
    }

    async fn read(&mut self, key: &str) -> Result<()> {
        // Linearizable is etcd's default.
        let found: RangeResponse = self.call("Range", &RangeRequest { key: key.into() }).await?;
        ensure!(found.kvs.len() == 1, "{key}: {} values", found.kvs.len());
        Ok(())
    }
}
