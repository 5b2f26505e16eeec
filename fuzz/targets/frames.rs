//! Frames of syslog over TCP and lines of files: in whatever pieces they arrive, the same frames come out.
#![no_main]

use detection::source::framing::Framer;
use detection::source::ndjson::parse_ndjson;
use libfuzzer_sys::fuzz_target;

const SIZE_BYTES_MAX: usize = 64;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    for framer in [Framer::syslog, Framer::lines] {
        let cut = |piece: usize| {
            let (mut framer, mut frames) = (framer(SIZE_BYTES_MAX), Vec::new());
            bytes.chunks(piece).for_each(|piece| framer.push(piece, &mut frames));
            frames.extend(framer.finish());
            frames
        };
        let whole = cut(bytes.len().max(1));
        assert_eq!(whole, cut(usize::from(piece).max(1)));
        assert!(whole.iter().flatten().all(|frame| frame.len() <= SIZE_BYTES_MAX));
        for frame in whole.iter().flatten() {
            let _ = detection::source::syslog::parse(frame, 1_795_467_600_000);
        }
    }
    let (events, rejects) = parse_ndjson(&bytes.to_vec().into(), 1, None, 0);
    assert!(events.len() + rejects.len() <= bytes.split(|byte| *byte == b'\n').count());
});
