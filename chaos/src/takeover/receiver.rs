//! Somebody outside who is told of alerts by webhook: keeps what came under which key, and now and then says "later".

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// One request of so many is answered with "later", after it was kept: it must come again under the same key.
const REFUSED_EACH: u64 = 7;
/// A request is no longer than this.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// What came under one key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Told {
    /// How often.
    pub(super) times: u64,
    /// Whether it was not the same each time.
    pub(super) differs: bool,
    /// The alert, an OCSF Detection Finding.
    pub(super) body: Value,
}

type All = Arc<Mutex<(u64, BTreeMap<String, Told>)>>;

/// The receiver; it ends when it is dropped.
pub(super) struct Receiver {
    address: SocketAddr,
    all: All,
    _tasks: JoinSet<()>,
}

impl Receiver {
    /// Listens on a free port of this machine.
    pub(super) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port is free")?;
        let address = listener.local_addr()?;
        let all = All::default();
        let heard = Arc::clone(&all);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // A node that is killed leaves its connection broken: that is no news here.
                let all = Arc::clone(&heard);
                connections.spawn(async move { drop(hear(stream, all).await) });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, all, _tasks: tasks })
    }

    /// The topology by which a node tells it of alerts.
    pub(super) fn topology(&self, secret: &Path) -> String {
        format!(
            "[sinks.outside]\ntype = \"webhook\"\ninputs = [\"alerts\"]\nurl = \"http://{}/\"\nsecret = \"{}\"\n",
            self.address,
            secret.display()
        )
    }

    /// What came, by key.
    pub(super) fn told(&self) -> BTreeMap<String, Told> {
        self.all.lock().map(|all| all.1.clone()).unwrap_or_default()
    }
}

async fn hear(mut stream: TcpStream, all: All) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            more(&mut stream, &mut bytes).await?;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let length: usize = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        while bytes.len() < end + length {
            more(&mut stream, &mut bytes).await?;
        }
        let is_taken = keep(&all, header("idempotency-key").unwrap_or_default(), &bytes[end..end + length]);
        bytes.drain(..end + length);
        let status = if is_taken { "204 No Content" } else { "503 Service Unavailable" };
        stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await?;
    }
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    if bytes.len() > REQUEST_BYTES_MAX || stream.read_buf(bytes).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Keeps a notice; whether it is to be answered as taken.
fn keep(all: &All, key: &str, notice: &[u8]) -> bool {
    let notice: Value = serde_json::from_slice(notice).unwrap_or_default();
    let Ok(mut all) = all.lock() else { return false };
    all.0 += 1;
    let is_taken = all.0 % REFUSED_EACH != 0;
    let told = all.1.entry(key.to_owned()).or_insert_with(|| Told { body: notice["body"].clone(), ..Told::default() });
    told.times += 1;
    told.differs |= told.body != notice["body"];
    is_taken
}
