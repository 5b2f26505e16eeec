//! Frames on a QUIC stream.
//!
//! What is dropped in the middle of a frame resets the stream, so that the other side never takes a part for the
//! whole; what is dropped between frames finishes it.

use super::slot::Slot;
use super::{COPY_BYTES_MAX, Code};
use crate::frame::{Decoder, FrameError, LENGTH_BYTES, length};
use crate::link::{FRAME_BYTES_MAX, FrameSink, FrameSource, FrameStream, LinkError};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream, WriteError};
use std::sync::Arc;

/// How much is taken at once from what has arrived.
const READ_BYTES: usize = 64 * 1024;

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// Not what the protocol allows.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream or its connection ended, or it took too long (`None`).
    #[error("the stream was lost")]
    Stream(Option<quinn::ReadError>),
}

/// Reads until `take` finds what it wants; `None` at the end of the stream between two things, an error inside
/// one. Cancel-safe: what has arrived is in the decoder.
pub(super) async fn read<T>(
    decoder: &mut Decoder,
    receive: &mut RecvStream,
    mut take: impl FnMut(&mut Decoder) -> Result<Option<T>, FrameError>,
) -> Result<Option<T>, ReadError> {
    loop {
        if let Some(taken) = take(decoder)? {
            return Ok(Some(taken));
        }
        match receive.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => decoder.push(&chunk.bytes),
            Ok(None) if decoder.is_empty() => return Ok(None),
            Ok(None) => return Err(FrameError::Malformed.into()),
            Err(error) => return Err(ReadError::Stream(Some(error))),
        }
    }
}

/// The sending side of a QUIC stream, with what is not yet on its way.
pub(super) struct SendHalf {
    /// `None` only after [`Self::into_inner`].
    send: Option<SendStream>,
    pending: [Bytes; 2],
    finished: bool,
}

impl SendHalf {
    pub(super) fn new(send: SendStream) -> Self {
        Self { send: Some(send), pending: [Bytes::new(), Bytes::new()], finished: false }
    }

    /// Writes `head` and `body`, after what a cancelled write has left.
    pub(super) async fn write(&mut self, mut head: BytesMut, body: Bytes) -> Result<(), WriteError> {
        self.flush().await?;
        if body.len() <= COPY_BYTES_MAX {
            head.extend_from_slice(&body);
            self.pending = [head.freeze(), Bytes::new()];
        } else {
            self.pending = [head.freeze(), body];
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), WriteError> {
        let Some(send) = &mut self.send else {
            return Ok(());
        };
        while let Some(first) = self.pending.iter().position(|bytes| !bytes.is_empty()) {
            send.write_chunks(&mut self.pending[first..]).await?;
        }
        Ok(())
    }

    /// Says that this was all. What was written still arrives.
    pub(super) fn finish(&mut self) {
        self.finished = true;
        if let Some(send) = &mut self.send {
            let _ = send.finish();
        }
    }

    pub(super) fn abandon(mut self, code: Code) {
        self.finished = true;
        if let Some(send) = &mut self.send {
            let _ = send.reset(code.into());
        }
    }

    /// The stream itself: nothing may be pending.
    pub(super) fn into_inner(mut self) -> SendStream {
        self.send.take().expect("taken once, by value")
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        let complete = self.finished || self.pending.iter().all(Bytes::is_empty) && !std::thread::panicking();
        if !complete && let Some(send) = &mut self.send {
            let _ = send.reset(Code::Abandoned.into());
        }
    }
}

/// A stream of frames.
pub(super) struct QuicStream {
    sink: Sink,
    source: Source,
}

impl QuicStream {
    /// From a QUIC stream whose opening is written or read.
    pub(super) fn new(slot: Arc<Slot>, send: SendStream, receive: RecvStream, decoder: Decoder) -> Self {
        Self {
            sink: Sink { slot: slot.clone(), send: SendHalf::new(send) },
            source: Source { slot, receive, decoder, malformed: false },
        }
    }
}

#[async_trait]
impl FrameStream for QuicStream {
    async fn send(&mut self, frame: Bytes) -> Result<(), LinkError> {
        self.sink.send(frame).await
    }
    async fn receive(&mut self) -> Result<Option<Bytes>, LinkError> {
        self.source.receive().await
    }
    fn split(self: Box<Self>) -> (Box<dyn FrameSink>, Box<dyn FrameSource>) {
        (Box::new(self.sink), Box::new(self.source))
    }
}

struct Sink {
    slot: Arc<Slot>,
    send: SendHalf,
}

#[async_trait]
impl FrameSink for Sink {
    async fn send(&mut self, frame: Bytes) -> Result<(), LinkError> {
        let size_bytes = frame.len();
        if size_bytes > FRAME_BYTES_MAX {
            return Err(LinkError::TooLarge { size_bytes });
        }
        let mut head = BytesMut::with_capacity(LENGTH_BYTES + size_bytes.min(COPY_BYTES_MAX));
        head.extend_from_slice(&length(&frame));
        self.send.write(head, frame).await.map_err(|_| LinkError::Closed(self.slot.node()))?;
        self.slot.count_sent(size_bytes);
        Ok(())
    }
}

struct Source {
    slot: Arc<Slot>,
    receive: RecvStream,
    decoder: Decoder,
    /// Counted already.
    malformed: bool,
}

#[async_trait]
impl FrameSource for Source {
    async fn receive(&mut self) -> Result<Option<Bytes>, LinkError> {
        match read(&mut self.decoder, &mut self.receive, Decoder::frame).await {
            Ok(frame) => {
                self.slot.count_received(frame.as_ref().map_or(0, Bytes::len));
                Ok(frame)
            }
            Err(ReadError::Stream(_)) => Err(LinkError::Closed(self.slot.node())),
            Err(ReadError::Frame(error)) => {
                if !std::mem::replace(&mut self.malformed, true) {
                    self.slot.count_malformed();
                    let _ = self.receive.stop(Code::Malformed.into());
                }
                match error {
                    FrameError::TooLarge { size_bytes } => Err(LinkError::TooLarge { size_bytes }),
                    FrameError::Malformed => Err(LinkError::Closed(self.slot.node())),
                }
            }
        }
    }
}
