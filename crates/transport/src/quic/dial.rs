//! From no connection to one: dial, say hello, and let everyone who waits go on.

use super::serve::serve_connection;
use super::slot::{Established, Slot, Way};
use super::{Code, Shared, stream};
use crate::frame::{Decoder, HELLO_BYTES_MAX, Hello, LENGTH_BYTES, length, welcome_decode};
use crate::identity::{Identity, IdentityError};
use crate::link::LinkError;
use bytes::Bytes;
use model::NodeId;
use quinn::Connection;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a connection may take to be made, hello included.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// In the handshake, but nobody looks at it: names are in certificates.
const SERVER_NAME: &str = "node.holdfast";

/// Why a node could not be connected to.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error(transparent)]
    Connect(#[from] quinn::ConnectError),
    #[error("{}", reason(.0))]
    Connection(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("no answer within {} s", DIAL_TIMEOUT.as_secs())]
    Timeout,
    #[error("the other side does not speak this protocol")]
    Protocol,
}

/// A connection's end in words, with the reason that the other side gave.
pub(super) fn reason(error: &quinn::ConnectionError) -> String {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) if close.error_code == Code::NotLetIn.into() => {
            format!("refused by the other side: {}", printable(&close.reason))
        }
        quinn::ConnectionError::ApplicationClosed(close) => {
            format!("closed by the other side: {}", printable(&close.reason))
        }
        other => other.to_string(),
    }
}

/// What another said, safe to log.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// The connection to a node; dials when there is none. Who is refused or too early hears so at once.
pub(super) async fn connection(shared: &Arc<Shared>, slot: &Arc<Slot>) -> Result<Connection, LinkError> {
    let mut may_dial = true;
    loop {
        let mut changed = pin!(slot.changed.notified());
        changed.as_mut().enable();
        match slot.way(may_dial) {
            Way::Up(connection) => return Ok(connection),
            Way::Closed => return Err(LinkError::Unreachable(slot.node())),
            Way::Dialling => {}
            // Not in this future: its caller may give up earlier than a handshake over a long way takes.
            Way::Dial(address) => shared.spawn(run(shared.clone(), slot.clone(), address)),
        }
        may_dial = false;
        changed.await;
    }
}

async fn run(shared: Arc<Shared>, slot: Arc<Slot>, address: SocketAddr) {
    let dialled = timeout(DIAL_TIMEOUT, dial(&shared, slot.node(), address)).await;
    match dialled.unwrap_or(Err(DialError::Timeout)) {
        Ok((identity, established)) => {
            slot.adopt(established.clone());
            serve_connection(shared, slot, identity.peer(), established.connection).await;
        }
        Err(error) => slot.failed(error.to_string(), shared.entropy.number()),
    }
}

async fn dial(shared: &Shared, to: NodeId, address: SocketAddr) -> Result<(Identity, Established), DialError> {
    let connection = shared.endpoint.connect_with(shared.client.clone(), address, SERVER_NAME)?.await?;
    let identity = shared.authenticate(&connection).and_then(|identity| {
        let found = identity.node;
        if found == to { Ok(identity) } else { Err(IdentityError::OtherNode { expected: to, found }) }
    });
    let identity = identity.inspect_err(|error| refuse(&connection, &error.to_string()))?;
    match hello(&connection, Hello { boot: shared.boot, expected: to }).await? {
        Some(boot) => Ok((identity, Established { connection, boot, dialler: shared.identity.node })),
        None => {
            connection.close(Code::Malformed.into(), b"malformed hello");
            Err(DialError::Protocol)
        }
    }
}

/// Ends a connection and tells the other side why.
pub(super) fn refuse(connection: &Connection, reason: &str) {
    connection.close(Code::NotLetIn.into(), reason.as_bytes());
}

/// The life of the other process, once it has let this one in; `None` when it speaks otherwise.
async fn hello(connection: &Connection, hello: Hello) -> Result<Option<u64>, quinn::ConnectionError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let frame = Bytes::from(hello.encode());
    let sent = send.write_all(&[length(&frame).as_slice(), &frame].concat()).await;
    if sent.is_err() || send.finish().is_err() {
        return connection.close_reason().map_or(Ok(None), Err);
    }
    match receive.read_to_end(HELLO_BYTES_MAX).await {
        Ok(bytes) => Ok(welcome(&bytes)),
        Err(_) => {
            // A refusal ends the connection, and its reason is what the caller must see.
            connection.close_reason().map_or(Ok(None), Err)
        }
    }
}

fn welcome(bytes: &[u8]) -> Option<u64> {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    let frame = decoder.frame().ok().flatten().filter(|_| decoder.is_empty())?;
    welcome_decode(&frame)
}

/// Reads the hello of a node that dialled.
pub(super) async fn hear(receive: &mut quinn::RecvStream) -> Option<Hello> {
    let mut decoder = Decoder::default();
    let bounded = |decoder: &mut Decoder| match decoder.announced()? {
        Some(size_bytes) if size_bytes + LENGTH_BYTES > HELLO_BYTES_MAX => Err(crate::frame::FrameError::Malformed),
        _ => decoder.frame(),
    };
    Hello::decode(&stream::read(&mut decoder, receive, bounded).await.ok().flatten()?)
}
