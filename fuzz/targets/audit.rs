//! Files of the audit log: what is read is written again byte for byte, and nothing is proven that was not signed.
#![no_main]

use audit::checkpoint::{Checkpoint, Note, NoteKey, NoteSigner};
use audit::merkle::{empty_root, leaf_hash};
use audit::proof::{verify_consistency, verify_inclusion};
use audit::tile::{decode_entries, decode_hashes, encode_entries};
use audit::verify::{Source, verify_log};
use audit::{AuditEvent, Detail, Frontier, Hash, Tile};
use keyring::{Secret, SigningKey};
use libfuzzer_sys::fuzz_target;
use std::convert::Infallible;
use std::sync::LazyLock;

const ORIGIN: &str = "holdfast/c/eu/0";

static SIGNER: LazyLock<NoteSigner> = LazyLock::new(|| {
    NoteSigner::new(ORIGIN, SigningKey::from_seed(Secret::from_bytes([1; 32]))).expect("the name is sound")
});

/// A log whose every file is the same.
struct Same<'a>(&'a [u8]);

impl Source for Same<'_> {
    type Error = Infallible;
    fn tile(&mut self, _: Tile) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(Some(self.0.to_vec()))
    }
    fn detail(&mut self, _: u64) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(Some(self.0.to_vec()))
    }
}

fuzz_target!(|input: (u16, u64, u64, &[u8])| {
    let (width, index, size, bytes) = input;
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(note) = Note::parse(text) {
            assert_eq!(note.to_string(), text);
        }
        if let Ok(tile) = text.parse::<Tile>() {
            assert_eq!(tile.to_string(), text);
        }
        let _ = (text.parse::<NoteKey>(), Hash::from_base64(text), Checkpoint::open(text, &SIGNER.key()));
    }
    if let Ok(event) = AuditEvent::decode(bytes) {
        assert_eq!(event.encode(), bytes);
    }
    let _ = Detail::decode(bytes);
    if let Ok(frontier) = Frontier::decode(bytes) {
        assert_eq!(frontier.encode(), bytes);
        frontier.root();
    }
    if let Ok(entries) = decode_entries(bytes) {
        assert_eq!(encode_entries(&entries).expect("they were read"), bytes);
    }
    let _ = decode_hashes(bytes, width);
    let proof: Vec<Hash> = bytes.chunks_exact(32).filter_map(Hash::from_slice).collect();
    let _ = verify_inclusion(&leaf_hash(bytes), index, size, &proof, &empty_root());
    let _ = verify_consistency(index, &empty_root(), size, &leaf_hash(bytes), &proof);
    let checkpoint = Checkpoint::new(ORIGIN, u64::from(width % 600), leaf_hash(b"another"));
    let note = checkpoint.sign(&SIGNER).expect("it is a checkpoint").to_string();
    let Ok(report) = verify_log(&note, &SIGNER.key(), None, &mut Same(bytes)) else {
        panic!("the checkpoint is sound, and reading cannot fail")
    };
    assert!(!report.is_proven());
});
