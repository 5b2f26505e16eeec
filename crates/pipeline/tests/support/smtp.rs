//! A mail server that speaks as much SMTP as a test needs, with TLS from the first byte or by STARTTLS.

use super::tls::Authority;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A mail as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Mail {
    pub login: Option<String>,
    pub to: Vec<String>,
    pub text: String,
}

pub struct Server {
    pub address: SocketAddr,
    pub mails: Arc<Mutex<Vec<Mail>>>,
    _tasks: JoinSet<()>,
}

/// What the server does at the end of the data: an answer, or none and it hangs up.
pub type Ends = Arc<Mutex<Vec<Option<&'static str>>>>;

impl Server {
    pub async fn start(authority: &Authority, starttls: bool, ends: Vec<Option<&'static str>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mails: Arc<Mutex<Vec<Mail>>> = Arc::default();
        let (acceptor, taken) = (authority.acceptor(), Arc::clone(&mails));
        let ends: Ends = Arc::new(Mutex::new(ends.into_iter().rev().collect()));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, taken, ends) = (acceptor.clone(), Arc::clone(&taken), Arc::clone(&ends));
                connections.spawn(async move {
                    if starttls {
                        plain(tcp, acceptor, &taken, &ends).await
                    } else {
                        let mut stream = BufReader::new(acceptor.accept(tcp).await.ok()?);
                        stream.write_all(b"220 hello\r\n").await.ok()?;
                        talk(stream, &taken, &ends).await
                    }
                });
            }
        });
        Self { address, mails, _tasks: tasks }
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap().clone()
    }
}

/// Before STARTTLS nothing else is taken.
async fn plain(tcp: tokio::net::TcpStream, acceptor: TlsAcceptor, taken: &Mutex<Vec<Mail>>, ends: &Ends) -> Option<()> {
    let mut stream = BufReader::new(tcp);
    stream.write_all(b"220 hello\r\n").await.ok()?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|size| *size > 0)?;
        if line.starts_with("EHLO") {
            stream.write_all(b"250-here\r\n250 STARTTLS\r\n").await.ok()?;
        } else if line.starts_with("STARTTLS") {
            stream.write_all(b"220 go\r\n").await.ok()?;
            let tls = acceptor.accept(stream.into_inner()).await.ok()?;
            return talk(BufReader::new(tls), taken, ends).await;
        } else {
            stream.write_all(b"530 STARTTLS first\r\n").await.ok()?;
        }
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: BufReader<S>,
    taken: &Mutex<Vec<Mail>>,
    ends: &Ends,
) -> Option<()> {
    let (mut mail, mut login) = (Mail::default(), None);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|size| *size > 0)?;
        let line = line.trim_end();
        let answer = if line.starts_with("EHLO") {
            "250-here\r\n250 AUTH PLAIN"
        } else if let Some(words) = line.strip_prefix("AUTH PLAIN ") {
            login = Some(words.to_owned());
            // "\0soc\0secret"
            if words == "AHNvYwBzZWNyZXQ=" { "235 welcome" } else { "535 who?" }
        } else if line.starts_with("MAIL FROM:") {
            mail = Mail { login: login.clone(), ..Mail::default() };
            "250 ok"
        } else if let Some(to) = line.strip_prefix("RCPT TO:") {
            mail.to.push(to.to_owned());
            if to.contains("nobody") { "550 nobody of that name" } else { "250 ok" }
        } else if line == "DATA" {
            stream.write_all(b"354 go on\r\n").await.ok()?;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).await.ok().filter(|size| *size > 0)?;
                if line == ".\r\n" {
                    break;
                }
                mail.text.push_str(&line);
            }
            taken.lock().unwrap().push(mail.clone());
            ends.lock().unwrap().pop().unwrap_or(Some("250 taken"))?
        } else {
            "221 bye"
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).await.ok()?;
    }
}
