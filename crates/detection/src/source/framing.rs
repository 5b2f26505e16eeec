//! Framing of syslog over TCP (RFC 6587): octet-counted and newline-terminated, told apart frame by frame.
//!
//! Pure: bytes are pushed in, frames come out. Memory is bounded by one frame.

use crate::event::RejectReason;
use bytes::{Buf, Bytes, BytesMut};

/// Most digits of a frame's length.
const LENGTH_DIGITS_MAX: usize = 7;

/// Cuts a stream of bytes into frames.
#[derive(Debug)]
pub struct Framer {
    buffer: BytesMut,
    size_bytes_max: usize,
    octet_counting: bool,
    /// Inside a frame that is too large: dropped until its end.
    skipping: Skip,
}

#[derive(Debug, PartialEq, Eq)]
enum Skip {
    Nothing,
    ToNewline,
    Bytes(usize),
}

impl Framer {
    /// For syslog over TCP, with frames of at most so many bytes.
    pub fn syslog(size_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), size_bytes_max, octet_counting: true, skipping: Skip::Nothing }
    }

    /// For lines, with lines of at most so many bytes.
    pub fn lines(size_bytes_max: usize) -> Self {
        Self { octet_counting: false, ..Self::syslog(size_bytes_max) }
    }

    /// Takes bytes in and appends the frames, and what could not be framed, that they complete.
    pub fn push(&mut self, bytes: &[u8], frames: &mut Vec<Result<Bytes, RejectReason>>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            // Never more than a frame and its length in memory, however much is pushed at once.
            let room = (self.size_bytes_max + LENGTH_DIGITS_MAX + 2).saturating_sub(self.buffer.len()).max(1);
            let (now, later) = rest.split_at(rest.len().min(room));
            self.buffer.extend_from_slice(now);
            rest = later;
            while let Some(frame) = self.next_frame() {
                match frame {
                    Ok(frame) if frame.iter().all(u8::is_ascii_whitespace) => {}
                    frame => frames.push(frame),
                }
            }
        }
    }

    /// The input ended: what is left is a last line, or a frame cut short.
    pub fn finish(&mut self) -> Option<Result<Bytes, RejectReason>> {
        let rest = self.buffer.split().freeze();
        let skipping = std::mem::replace(&mut self.skipping, Skip::Nothing);
        if skipping != Skip::Nothing || rest.iter().all(u8::is_ascii_whitespace) {
            return None;
        }
        if self.octet_counting && rest[0].is_ascii_digit() {
            return Some(Err(RejectReason::Truncated));
        }
        Some(Ok(trimmed(rest)))
    }

    fn next_frame(&mut self) -> Option<Result<Bytes, RejectReason>> {
        if !self.skip() || self.buffer.is_empty() {
            return None;
        }
        if self.octet_counting && self.buffer[0].is_ascii_digit() { self.counted() } else { self.line() }
    }

    /// Drops the rest of a frame that is too large; whether its end was found.
    fn skip(&mut self) -> bool {
        match self.skipping {
            Skip::Nothing => {}
            Skip::ToNewline => match self.buffer.iter().position(|byte| *byte == b'\n') {
                Some(end) => self.buffer.advance(end + 1),
                None => {
                    self.buffer.clear();
                    return false;
                }
            },
            Skip::Bytes(count) => {
                let now = count.min(self.buffer.len());
                self.buffer.advance(now);
                if now < count {
                    self.skipping = Skip::Bytes(count - now);
                    return false;
                }
            }
        }
        self.skipping = Skip::Nothing;
        true
    }

    fn counted(&mut self) -> Option<Result<Bytes, RejectReason>> {
        let digits = self.buffer.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let end = self.buffer.get(digits);
        if digits <= LENGTH_DIGITS_MAX && end.is_none() {
            return None;
        }
        if digits > LENGTH_DIGITS_MAX || end != Some(&b' ') {
            self.skipping = Skip::ToNewline;
            return Some(Err(RejectReason::BadFrame));
        }
        let length = self.buffer[..digits].iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
        if length > self.size_bytes_max {
            self.skipping = Skip::Bytes(digits + 1 + length);
            return Some(Err(RejectReason::TooLarge { limit_bytes: self.size_bytes_max as u64 }));
        }
        if self.buffer.len() < digits + 1 + length {
            return None;
        }
        self.buffer.advance(digits + 1);
        Some(Ok(trimmed(self.buffer.split_to(length).freeze())))
    }

    fn line(&mut self) -> Option<Result<Bytes, RejectReason>> {
        match self.buffer.iter().position(|byte| *byte == b'\n') {
            Some(end) if end <= self.size_bytes_max => Some(Ok(trimmed(self.buffer.split_to(end + 1).freeze()))),
            None if self.buffer.len() <= self.size_bytes_max => None,
            _ => {
                self.skipping = Skip::ToNewline;
                Some(Err(RejectReason::TooLarge { limit_bytes: self.size_bytes_max as u64 }))
            }
        }
    }
}

fn trimmed(frame: Bytes) -> Bytes {
    let end = frame.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r' | 0)).map_or(0, |last| last + 1);
    frame.slice(..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(framer: &mut Framer, chunks: &[&[u8]]) -> Vec<Result<Bytes, RejectReason>> {
        let mut frames = Vec::new();
        chunks.iter().for_each(|chunk| framer.push(chunk, &mut frames));
        frames.extend(framer.finish());
        frames
    }

    #[test]
    fn both_framings_mix_on_one_connection() {
        let frames = all(&mut Framer::syslog(64), &[b"<1>a\n5 <2>", b"bc<3>d\r\n3 <4"]);
        let frames: Vec<_> = frames.into_iter().map(|frame| frame.map(|f| f.to_vec())).collect();
        assert_eq!(
            frames,
            [Ok(b"<1>a".to_vec()), Ok(b"<2>bc".to_vec()), Ok(b"<3>d".to_vec()), Err(RejectReason::Truncated)]
        );
    }

    #[test]
    fn a_frame_too_large_is_skipped_and_the_next_is_read() {
        let frames = all(&mut Framer::syslog(4), &[b"9 123456789", b"<5>e\n", b"<66666666\n<6>f\n"]);
        let good: Vec<_> = frames.iter().filter_map(|frame| frame.as_ref().ok()).collect();
        assert_eq!(good, [&Bytes::from_static(b"<5>e"), &Bytes::from_static(b"<6>f")]);
        assert_eq!(frames.len(), 4);
    }

    proptest! {
        #[test]
        fn framing_does_not_depend_on_how_bytes_are_cut(bytes: Vec<u8>, cut in 1_usize..9) {
            let whole = all(&mut Framer::syslog(16), &[&bytes]);
            let chunks: Vec<&[u8]> = bytes.chunks(cut).collect();
            prop_assert_eq!(whole, all(&mut Framer::syslog(16), &chunks));
        }
    }
}
