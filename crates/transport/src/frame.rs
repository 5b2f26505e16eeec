//! What is on a QUIC stream, as bytes: no input or output here, and nothing a peer sends can panic or allocate
//! more than it has sent.
//!
//! ```text
//! stream   = kind service frame*          kind: 1 call, 2 stream; service: the number of `Service`
//! frame    = length:u32 (big endian) bytes
//! answer   = 0 frame | 1 (refused) | 2 length:u32 (an answer that is too large)
//! hello    = frame of magic, version, boot:u64, expected node:u64;   its answer = frame of magic, version, boot:u64
//! ```

use crate::link::{FRAME_BYTES_MAX, Service};
use bytes::{Buf, Bytes, BytesMut};
use model::NodeId;

const MAGIC: &[u8; 8] = b"holdfast";
const VERSION: u8 = 1;
/// The first two bytes of a stream.
pub(crate) const OPENING_BYTES: usize = 2;
/// What precedes a frame.
pub(crate) const LENGTH_BYTES: usize = 4;
/// The largest hello or answer to one.
pub(crate) const HELLO_BYTES_MAX: usize = 64;

/// The other side does not keep to the protocol; the stream is closed and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {size_bytes} bytes is too large")]
    TooLarge { size_bytes: usize },
    #[error("malformed")]
    Malformed,
}

/// What a new stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Call(Service),
    Stream(Service),
}

impl Opening {
    pub(crate) fn encode(self) -> [u8; OPENING_BYTES] {
        match self {
            Self::Call(service) => [1, service as u8],
            Self::Stream(service) => [2, service as u8],
        }
    }

    pub(crate) fn service(self) -> Service {
        let (Self::Call(service) | Self::Stream(service)) = self;
        service
    }
}

pub(crate) fn service_numbered(number: u8) -> Option<Service> {
    use Service::{Propose, Pull, Raft, ReadIndex, Snapshot, Status};
    [Raft, Snapshot, Propose, ReadIndex, Pull, Status].into_iter().find(|service| *service as u8 == number)
}

/// What a call is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done(Bytes),
    Refused,
    TooLarge { size_bytes: usize },
}

/// A frame's length, as it precedes the frame. Longer than the limit cannot be: senders check.
pub(crate) fn length(frame: &Bytes) -> [u8; LENGTH_BYTES] {
    u32::try_from(frame.len()).expect("senders check the length").to_be_bytes()
}

/// Collects what arrived and takes it apart. Holds no more than what arrived.
#[derive(Default)]
pub(crate) struct Decoder {
    arrived: BytesMut,
}

impl Decoder {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.arrived.extend_from_slice(bytes);
    }

    /// Whether nothing is left over: where a stream may end.
    pub(crate) fn is_empty(&self) -> bool {
        self.arrived.is_empty()
    }

    /// The opening, once it is there.
    pub(crate) fn opening(&mut self) -> Result<Option<Opening>, FrameError> {
        let Some(&[kind, service]) = self.arrived.first_chunk() else {
            return Ok(None);
        };
        let service = service_numbered(service).ok_or(FrameError::Malformed)?;
        self.arrived.advance(OPENING_BYTES);
        match kind {
            1 => Ok(Some(Opening::Call(service))),
            2 => Ok(Some(Opening::Stream(service))),
            _ => Err(FrameError::Malformed),
        }
    }

    /// The announced length of the next frame, checked as soon as it is there.
    pub(crate) fn announced(&self) -> Result<Option<usize>, FrameError> {
        announced(&self.arrived)
    }

    /// The next frame, once it is there.
    pub(crate) fn frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        self.frame_after(0)
    }

    fn frame_after(&mut self, skipped: usize) -> Result<Option<Bytes>, FrameError> {
        match announced(&self.arrived[skipped..])? {
            Some(size_bytes) if self.arrived.len() - skipped - LENGTH_BYTES >= size_bytes => {
                self.arrived.advance(skipped + LENGTH_BYTES);
                Ok(Some(self.arrived.split_to(size_bytes).freeze()))
            }
            _ => Ok(None),
        }
    }

    /// The answer to a call, once it is there.
    pub(crate) fn answer(&mut self) -> Result<Option<Answer>, FrameError> {
        match self.arrived.first() {
            None => Ok(None),
            Some(0) => Ok(self.frame_after(1)?.map(Answer::Done)),
            Some(1) => Ok(Some(Answer::Refused)),
            Some(2) => Ok(self.arrived[1..]
                .first_chunk()
                .map(|length| Answer::TooLarge { size_bytes: u32::from_be_bytes(*length) as usize })),
            Some(_) => Err(FrameError::Malformed),
        }
    }
}

fn announced(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(length) = bytes.first_chunk() else {
        return Ok(None);
    };
    let size_bytes = u32::from_be_bytes(*length) as usize;
    if size_bytes > FRAME_BYTES_MAX { Err(FrameError::TooLarge { size_bytes }) } else { Ok(Some(size_bytes)) }
}

/// The first words on a connection. `boot` differs between two lives of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub boot: u64,
    pub expected: NodeId,
}

impl Hello {
    pub(crate) fn encode(self) -> Vec<u8> {
        [MAGIC.as_slice(), &[VERSION], &self.boot.to_be_bytes(), &self.expected.get().to_be_bytes()].concat()
    }

    pub(crate) fn decode(frame: &[u8]) -> Option<Self> {
        let (boot, rest) = boot_decode(frame)?;
        Some(Self { boot, expected: NodeId::new(u64::from_be_bytes(rest.try_into().ok()?)) })
    }
}

/// The answer to a hello.
pub(crate) fn welcome_encode(boot: u64) -> Vec<u8> {
    [MAGIC.as_slice(), &[VERSION], &boot.to_be_bytes()].concat()
}

pub(crate) fn welcome_decode(frame: &[u8]) -> Option<u64> {
    boot_decode(frame).filter(|(_, rest)| rest.is_empty()).map(|(boot, _)| boot)
}

fn boot_decode(frame: &[u8]) -> Option<(u64, &[u8])> {
    let rest = frame.strip_prefix(MAGIC)?.strip_prefix(&[VERSION])?;
    let (boot, rest) = rest.split_first_chunk()?;
    Some((u64::from_be_bytes(*boot), rest))
}

/// What arrived on a stream, in pieces of so many bytes.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8], piece: usize) {
    let (mut stream, mut call) = (Decoder::default(), Decoder::default());
    let (mut opening, mut ended) = (None, false);
    for bytes in bytes.chunks(piece.max(1)) {
        stream.push(bytes);
        call.push(bytes);
        let _ = call.answer();
        if ended {
            continue;
        }
        if opening.is_none() {
            match stream.opening() {
                Ok(found) => opening = found,
                Err(_) => ended = true,
            }
        }
        while opening.is_some() && !ended {
            match stream.frame() {
                Ok(Some(frame)) => {
                    if let Some(hello) = Hello::decode(&frame) {
                        assert_eq!(hello.encode(), frame);
                    }
                    if let Some(boot) = welcome_decode(&frame) {
                        assert_eq!(welcome_encode(boot), frame);
                    }
                }
                Ok(None) => break,
                Err(_) => ended = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_too_large_is_refused_by_its_length_alone() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_be_bytes());
        assert_eq!(decoder.frame(), Err(FrameError::TooLarge { size_bytes: u32::MAX as usize }));
        let mut decoder = Decoder::default();
        decoder.push(&(FRAME_BYTES_MAX as u32).to_be_bytes());
        assert_eq!(decoder.frame(), Ok(None));
    }

    #[test]
    fn hellos_are_read_and_written() {
        let hello = Hello { boot: 7, expected: NodeId::new(9) };
        assert_eq!(Hello::decode(&hello.encode()), Some(hello));
        assert_eq!(welcome_decode(&welcome_encode(5)), Some(5));
        assert_eq!(welcome_decode(&hello.encode()), None);
        assert!(hello.encode().len() + LENGTH_BYTES <= HELLO_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn frames_survive_any_chopping(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
            chunk in 1_usize..100,
        ) {
            let mut wire = Opening::Stream(Service::Pull).encode().to_vec();
            for frame in &frames {
                wire.extend(length(&Bytes::copy_from_slice(frame)));
                wire.extend(frame);
            }
            let (mut decoder, mut opening, mut read) = (Decoder::default(), None, Vec::new());
            for bytes in wire.chunks(chunk) {
                decoder.push(bytes);
                if opening.is_none() {
                    opening = decoder.opening().expect("well formed");
                }
                while opening.is_some() && let Some(frame) = decoder.frame().expect("well formed") {
                    read.push(frame.to_vec());
                }
            }
            prop_assert_eq!(opening, Some(Opening::Stream(Service::Pull)));
            prop_assert_eq!(read, frames);
            prop_assert!(decoder.is_empty());
        }

        #[test]
        fn answers_survive_any_chopping(body in proptest::collection::vec(any::<u8>(), 0..300), chunk in 1_usize..100) {
            let body = Bytes::from(body);
            let wire = [&[0], length(&body).as_slice(), &body].concat();
            let mut decoder = Decoder::default();
            let mut answer = None;
            for bytes in wire.chunks(chunk) {
                prop_assert_eq!(&answer, &None);
                decoder.push(bytes);
                answer = decoder.answer().expect("well formed");
            }
            prop_assert_eq!(answer, Some(Answer::Done(body)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let (mut framed, mut answered, mut opened) = (Decoder::default(), Decoder::default(), Decoder::default());
            for chunk in chunks {
                for decoder in [&mut framed, &mut answered, &mut opened] {
                    decoder.push(&chunk);
                }
                let _ = framed.frame();
                let _ = answered.answer();
                let _ = opened.opening();
                let _ = Hello::decode(&chunk);
                let _ = welcome_decode(&chunk);
            }
        }
    }
}
