//! Bodies of requests: read within a time, within a size, and out of the share of who sent them.

use super::READ_TIME_MAX;
use super::budget::{NoRoom, Share};
use crate::resource::Invalid;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Sleep;

/// Most bytes of one request after decompression, unless the description says otherwise.
pub const BODY_SIZE_BYTES: usize = 4 * 1024 * 1024;
/// The most a description may allow.
pub const BODY_SIZE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The least a description may allow.
const BODY_SIZE_BYTES_MIN: usize = 1024;

/// The default of `body_size_bytes_max`.
pub(in super::super) fn body_size_bytes_max() -> usize {
    BODY_SIZE_BYTES
}

/// What is wrong with a bound on one request's bytes.
pub(in super::super) fn body_problem(body_size_bytes_max: usize) -> Option<Invalid> {
    let fits = (BODY_SIZE_BYTES_MIN..=BODY_SIZE_BYTES_MAX).contains(&body_size_bytes_max);
    let advice = format!("write a number from {BODY_SIZE_BYTES_MIN} to {BODY_SIZE_BYTES_MAX}");
    (!fits).then(|| Invalid::new("body_size_bytes_max", advice))
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Broken {
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    #[error("not read in time")]
    Slow,
    #[error("too much at once: send it again")]
    Busy,
    #[error("the body broke off")]
    BrokeOff,
    #[error("not gzip")]
    NotGzip,
}

impl From<NoRoom> for Broken {
    fn from(_: NoRoom) -> Self {
        Self::Busy
    }
}

/// A body that comes within bounds, or breaks.
pub(in super::super) struct Metered {
    body: Incoming,
    left: usize,
    limit: usize,
    until: Pin<Box<Sleep>>,
    share: Arc<Mutex<Share>>,
}

impl Metered {
    /// A body of at most so many bytes, paid for out of a share.
    pub(in super::super) fn new(body: Incoming, limit: usize, share: &Arc<Mutex<Share>>) -> Self {
        let until = Box::pin(tokio::time::sleep(READ_TIME_MAX));
        Self { body, left: limit, limit, until, share: Arc::clone(share) }
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending if self.until.as_mut().poll(cx).is_ready() => return Poll::Ready(Some(Err(Broken::Slow))),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(Err(Broken::BrokeOff))),
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        let size = frame.data_ref().map_or(0, Bytes::len);
        let Some(left) = self.left.checked_sub(size) else {
            return Poll::Ready(Some(Err(Broken::TooLarge(self.limit))));
        };
        self.left = left;
        let paid = self.share.lock().grow(size);
        Poll::Ready(Some(paid.map(|()| frame).map_err(Broken::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads a whole body of at most so many bytes, compressed or not.
pub(in super::super) async fn read(
    body: Incoming,
    is_gzip: bool,
    limit: usize,
    share: &Arc<Mutex<Share>>,
) -> Result<Bytes, Broken> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Broken::TooLarge(limit));
    }
    let bytes = Metered::new(body, limit, share).collect().await?.to_bytes();
    if !is_gzip {
        return Ok(bytes);
    }
    share.lock().grow(limit)?;
    let unzipped = unzipped(&bytes, limit)?;
    share.lock().shrink_to(unzipped.len());
    Ok(unzipped.into())
}

/// What was compressed, within bounds.
fn unzipped(body: &[u8], limit: usize) -> Result<Vec<u8>, Broken> {
    let mut bytes = Vec::new();
    let mut reader = flate2::read::MultiGzDecoder::new(body).take(limit as u64 + 1);
    reader.read_to_end(&mut bytes).map_err(|_| Broken::NotGzip)?;
    if bytes.len() > limit { Err(Broken::TooLarge(limit)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_bomb_is_refused_before_it_goes_off() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000);
        assert_eq!(unzipped(&bomb, 1 << 20), Err(Broken::TooLarge(1 << 20)));
        assert_eq!(unzipped(&gzip(b"small"), 5).unwrap(), b"small");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = unzipped(&bytes, 1 << 16);
            let _ = unzipped(&[gzip(&bytes), bytes.clone()].concat(), 1 << 16);
        }
    }
}
