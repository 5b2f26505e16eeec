//! An HTTP receiver that does what it is told: answers, waits, or hangs up.

use super::tls::Authority;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What the receiver does with a request.
#[derive(Clone)]
pub enum Deed {
    Answer(u16, Vec<u8>),
    Redirect(String),
    /// Reads it and never answers.
    Wait,
    /// Reads it and hangs up.
    HangUp,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub line: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

pub struct Receiver {
    pub address: SocketAddr,
    pub requests: Arc<Mutex<Vec<Request>>>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    /// Does one deed for each request; after the last one 200.
    pub async fn start(authority: &Authority, deeds: Vec<Deed>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (acceptor, seen) = (authority.acceptor(), Arc::clone(&requests));
        let deeds = Arc::new(Mutex::new(VecDeque::from(deeds)));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, seen, deeds) = (acceptor.clone(), Arc::clone(&seen), Arc::clone(&deeds));
                connections.spawn(async move {
                    if let Ok(stream) = acceptor.accept(tcp).await {
                        serve(stream, &seen, &deeds).await;
                    }
                });
            }
        });
        Self { address, requests, _tasks: tasks }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    seen: &Mutex<Vec<Request>>,
    deeds: &Mutex<VecDeque<Deed>>,
) {
    while let Some(request) = read(&mut stream).await {
        seen.lock().unwrap().push(request);
        let deed = deeds.lock().unwrap().pop_front().unwrap_or(Deed::Answer(200, Vec::new()));
        let (head, body) = match deed {
            Deed::Answer(status, body) => (format!("HTTP/1.1 {status} x\r\n"), body),
            Deed::Redirect(to) => (format!("HTTP/1.1 307 x\r\nlocation: {to}\r\n"), Vec::new()),
            Deed::Wait => std::future::pending().await,
            Deed::HangUp => return,
        };
        let head = format!("{head}content-length: {}\r\n\r\n", body.len());
        if stream.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
            return;
        }
    }
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let line = lines.next()?.to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.into()))
        .collect();
    let size: usize = headers.get("content-length").map_or(0, |size| size.parse().unwrap());
    while bytes.len() < end + size {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(Request { line, headers, body: bytes[end..end + size].to_vec() })
}
