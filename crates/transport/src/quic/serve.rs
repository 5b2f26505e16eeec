//! What arrives: connections, and on them calls and streams, each in a task of its own.
//!
//! A stream that does not keep to the protocol is closed and counted; its neighbours go on.

use super::dial::{hear, reason, refuse};
use super::slot::{Established, Slot};
use super::stream::{self, QuicStream, ReadError, SendHalf};
use super::{COPY_BYTES_MAX, Code, Places, Shared};
use crate::frame::{Answer, Decoder, FrameError, LENGTH_BYTES, Opening, length, welcome_encode};
use crate::identity::IdentityError;
use crate::link::{FRAME_BYTES_MAX, Handler, Peer, Service};
use bytes::{Bytes, BytesMut};
use quinn::{Connection, Incoming, RecvStream, SendStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

/// Connections whose handshake or hello is not done; more are turned away.
pub(super) const HANDSHAKES_MAX: usize = 64;
/// From so many on, who connects must first prove that its address is its own.
const HANDSHAKES_UNPROVEN_MAX: usize = HANDSHAKES_MAX / 2;
/// Connections in all.
const CONNECTIONS_MAX: usize = 1024;
/// How long who connects may take, hello included.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take to arrive, or its answer to leave.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Lets others in, until the link is closed.
pub(super) async fn accept(shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut tasks = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            biased;
            Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                report(done);
                continue;
            }
            incoming = shared.endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else {
            break;
        };
        let place = handshakes.clone().try_acquire_owned();
        let unproven = !incoming.remote_address_validated() && incoming.may_retry();
        match place {
            Ok(_) if shared.endpoint.open_connections() >= CONNECTIONS_MAX => incoming.refuse(),
            Ok(_) if unproven && handshakes.available_permits() < HANDSHAKES_UNPROVEN_MAX => {
                let _ = incoming.retry();
            }
            Ok(place) => {
                let shared = shared.clone();
                tasks.spawn(async move {
                    let welcomed = timeout(HANDSHAKE_TIMEOUT, welcome(&shared, incoming)).await;
                    drop(place);
                    if let Ok(Some((slot, peer, connection))) = welcomed {
                        serve_connection(shared, slot, peer, connection).await;
                    }
                });
            }
            Err(_) => incoming.refuse(),
        }
    }
    while let Some(done) = tasks.join_next().await {
        report(done);
    }
}

/// A task that panicked is a defect, but not a reason to stop the node.
pub(super) fn report(done: Result<(), JoinError>) {
    if let Err(error) = done
        && error.is_panic()
    {
        tracing::error!(%error, "a task of a link panicked");
    }
}

async fn welcome(shared: &Shared, incoming: Incoming) -> Option<(Arc<Slot>, Peer, Connection)> {
    let address = incoming.remote_address();
    let connection = match incoming.accept() {
        Ok(connecting) => connecting.await,
        Err(error) => Err(error),
    };
    let connection = connection.map_err(|error| shared.count_refusal(address, reason(&error))).ok()?;
    let refused = |why: String| {
        refuse(&connection, &why);
        shared.count_refusal(address, why);
    };
    let identity = shared.authenticate(&connection).map_err(|error| refused(error.to_string())).ok()?;
    let heard = match connection.accept_bi().await {
        Ok((send, mut receive)) => hear(&mut receive).await.map(|hello| (send, hello)),
        Err(_) => None,
    };
    let Some((mut send, hello)) = heard else {
        match connection.close_reason() {
            // The other side has refused this one.
            Some(error) => shared.count_refusal(address, reason(&error)),
            None => refused("malformed hello".to_owned()),
        }
        return None;
    };
    let found = shared.identity.node;
    if hello.expected != found {
        refused(IdentityError::OtherNode { expected: hello.expected, found }.to_string());
        return None;
    }
    let frame = Bytes::from(welcome_encode(shared.boot));
    send.write_all(&[length(&frame).as_slice(), &frame].concat()).await.ok()?;
    send.finish().ok()?;
    shared.accepted.fetch_add(1, Ordering::Relaxed);
    let slot = shared.slot_or_new(identity.node);
    slot.adopt(Established { connection: connection.clone(), boot: hello.boot, dialler: identity.node });
    Some((slot, identity.peer(), connection))
}

/// Answers what arrives on a connection until it ends, and until all that was begun is done.
pub(super) async fn serve_connection(shared: Arc<Shared>, slot: Arc<Slot>, peer: Peer, connection: Connection) {
    let peer = Arc::new(peer);
    let mut tasks = JoinSet::new();
    let error = loop {
        let stream = tokio::select! {
            biased;
            Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                report(done);
                continue;
            }
            stream = connection.accept_bi() => stream,
        };
        match stream {
            Ok((send, receive)) => {
                let (shared, slot, peer) = (shared.clone(), slot.clone(), peer.clone());
                tasks.spawn(async move { serve_stream(&shared, slot, &peer, send, receive).await });
            }
            Err(error) => break error,
        }
    };
    slot.lost(&connection, reason(&error));
    // A handler is never stopped half-way because its caller has gone.
    while let Some(done) = tasks.join_next().await {
        report(done);
    }
}

async fn serve_stream(shared: &Shared, slot: Arc<Slot>, peer: &Peer, send: SendStream, mut receive: RecvStream) {
    let mut decoder = Decoder::default();
    let send = SendHalf::new(send);
    let opening = timeout(REQUEST_TIMEOUT, stream::read(&mut decoder, &mut receive, Decoder::opening)).await;
    let opening = match opening {
        Ok(Ok(Some(opening))) => opening,
        Ok(Ok(None) | Err(ReadError::Frame(_))) => return malformed(&slot, send, receive),
        Ok(Err(ReadError::Stream(_))) | Err(_) => return send.abandon(Code::Abandoned),
    };
    let places = &shared.services[&opening.service()];
    let Ok(_place) = places.calls.try_acquire() else {
        shared.overloaded.fetch_add(1, Ordering::Relaxed);
        return refuse_stream(opening, send, receive).await;
    };
    let Some(handler) = shared.handler.get() else {
        return refuse_stream(opening, send, receive).await;
    };
    match opening {
        Opening::Stream(service) => {
            let stream = QuicStream::new(slot, send.into_inner(), receive, decoder);
            handler.stream(peer, service, Box::new(stream)).await;
        }
        Opening::Call(service) => {
            let called = answer_call(places, &**handler, &slot, peer, service, decoder, &mut receive).await;
            match called {
                Ok(answer) => {
                    if let Answer::Done(answer) = &answer {
                        slot.count_sent(answer.len());
                    }
                    let _ = timeout(REQUEST_TIMEOUT, send_answer(send, answer)).await;
                }
                Err(ReadError::Frame(_)) => malformed(&slot, send, receive),
                Err(ReadError::Stream(_)) => send.abandon(Code::Abandoned),
            }
        }
    }
}

fn malformed(slot: &Slot, send: SendHalf, mut receive: RecvStream) {
    slot.count_malformed();
    send.abandon(Code::Malformed);
    let _ = receive.stop(Code::Malformed.into());
}

async fn refuse_stream(opening: Opening, send: SendHalf, mut receive: RecvStream) {
    let _ = receive.stop(Code::Abandoned.into());
    match opening {
        Opening::Call(_) => {
            let _ = timeout(REQUEST_TIMEOUT, send_answer(send, Answer::Refused)).await;
        }
        Opening::Stream(_) => send.abandon(Code::Abandoned),
    }
}

async fn answer_call(
    places: &Places,
    handler: &dyn Handler,
    slot: &Slot,
    peer: &Peer,
    service: Service,
    mut decoder: Decoder,
    receive: &mut RecvStream,
) -> Result<Answer, ReadError> {
    let reading = async {
        let announced = stream::read(&mut decoder, receive, |decoder| decoder.announced()).await;
        let size_bytes = match announced {
            Ok(size_bytes) => size_bytes.ok_or(FrameError::Malformed)?,
            Err(ReadError::Frame(FrameError::TooLarge { size_bytes })) => return Ok(Err(size_bytes)),
            Err(error) => return Err(error),
        };
        let kib = u32::try_from(size_bytes / 1024).unwrap_or(u32::MAX);
        let held = places.kib.acquire_many(kib).await.expect("never closed");
        let request = stream::read(&mut decoder, receive, Decoder::frame).await?.ok_or(FrameError::Malformed)?;
        Ok(Ok((held, request)))
    };
    let read = timeout(REQUEST_TIMEOUT, reading).await.unwrap_or(Err(ReadError::Stream(None)))?;
    let (_held, request) = match read {
        Ok(read) => read,
        Err(size_bytes) => {
            slot.count_malformed();
            let _ = receive.stop(Code::Malformed.into());
            return Ok(Answer::TooLarge { size_bytes });
        }
    };
    slot.count_received(request.len());
    Ok(match handler.call(peer, service, request).await {
        Some(answer) if answer.len() > FRAME_BYTES_MAX => Answer::TooLarge { size_bytes: answer.len() },
        Some(answer) => Answer::Done(answer),
        None => Answer::Refused,
    })
}

async fn send_answer(mut send: SendHalf, answer: Answer) {
    let mut head = BytesMut::with_capacity(1 + LENGTH_BYTES + COPY_BYTES_MAX);
    let body = match answer {
        Answer::Done(body) => {
            head.extend_from_slice(&[0]);
            head.extend_from_slice(&length(&body));
            body
        }
        Answer::Refused => {
            head.extend_from_slice(&[1]);
            Bytes::new()
        }
        Answer::TooLarge { size_bytes } => {
            head.extend_from_slice(&[2]);
            head.extend_from_slice(&u32::try_from(size_bytes).unwrap_or(u32::MAX).to_be_bytes());
            Bytes::new()
        }
    };
    if send.write(head, body).await.is_ok() {
        send.finish();
    }
}
