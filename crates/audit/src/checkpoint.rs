//! Signed statements of a log's size and root: C2SP tlog-checkpoint inside C2SP signed-note, with Ed25519.
//!
//! It must never hand out a checkpoint whose signature was not checked: [`Checkpoint::open`] is the only reader.

mod note;

pub use note::{NOTE_SIZE_BYTES_MAX, Note, NoteError, NoteKey, NoteSignature, NoteSigner};

use crate::merkle::Hash;

/// Extension lines in one checkpoint.
pub const EXTENSIONS_MAX: usize = 16;

/// The size and root of a log at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: its unique name, without a scheme, like `holdfast/<cluster>/<region>/<group>`.
    pub origin: String,
    /// The number of entries.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// Further lines that were signed. Empty in our own logs.
    pub extensions: Vec<String>,
}

/// Why a checkpoint is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not a signed note, or not signed by the key.
    #[error("the note is refused: {0}")]
    Note(#[from] NoteError),
    /// Signed, but the text is no checkpoint.
    #[error("the signed text is not a checkpoint")]
    NotACheckpoint,
    /// Signed by the key, for a log of another name.
    #[error("the checkpoint is of another log")]
    OtherOrigin,
}

impl Checkpoint {
    /// A checkpoint without extensions.
    pub fn new(origin: impl Into<String>, size: u64, root: Hash) -> Self {
        Self { origin: origin.into(), size, root, extensions: Vec::new() }
    }

    /// The signed note. The signer's name should be the origin.
    pub fn sign(&self, signer: &NoteSigner) -> Result<Note, CheckpointError> {
        let text = self.to_text();
        // What this writes must be read back, or the log would publish something no one accepts.
        if Self::parse(&text).as_ref() != Some(self) {
            return Err(CheckpointError::NotACheckpoint);
        }
        Ok(Note::new(text)?.signed_by(signer))
    }

    /// Reads a note, checks the signature of `key` and that the checkpoint is of the log of the key's name.
    pub fn open(note: &str, key: &NoteKey) -> Result<Self, CheckpointError> {
        let note = Note::parse(note)?;
        note.verify(key)?;
        let checkpoint = Self::parse(note.text()).ok_or(CheckpointError::NotACheckpoint)?;
        if checkpoint.origin == key.name() { Ok(checkpoint) } else { Err(CheckpointError::OtherOrigin) }
    }

    /// The text that is signed.
    fn to_text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.size, self.root);
        for line in &self.extensions {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let extensions: Vec<_> = lines.map(str::to_owned).collect();
        let checkpoint =
            Self { origin: origin.to_owned(), size: size.parse().ok()?, root: Hash::from_base64(root)?, extensions };
        let possible = !origin.is_empty()
            && checkpoint.extensions.len() <= EXTENSIONS_MAX
            && checkpoint.extensions.iter().all(|line| !line.is_empty())
            && checkpoint.to_text() == text;
        possible.then_some(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use keyring::{Secret, SigningKey};
    use proptest::prelude::*;

    use super::*;
    use crate::merkle::leaf_hash;

    const ORIGIN: &str = "holdfast/demo/eu/0";

    fn signer(name: &str, seed: u8) -> NoteSigner {
        NoteSigner::new(name, SigningKey::from_seed(Secret::from_bytes([seed; 32]))).unwrap()
    }

    #[test]
    fn checkpoint_has_its_form_and_opens() {
        let signer = signer(ORIGIN, 1);
        let checkpoint = Checkpoint::new(ORIGIN, 17, leaf_hash(b"x"));
        let note = checkpoint.sign(&signer).unwrap().to_string();
        let lines: Vec<_> = note.lines().collect();
        assert_eq!(lines[..2], [ORIGIN, "17"]);
        assert_eq!(lines[2], leaf_hash(b"x").to_base64());
        assert_eq!(lines[3], "");
        assert!(lines[4].starts_with("— holdfast/demo/eu/0 "));
        assert_eq!(Checkpoint::open(&note, &signer.key()), Ok(checkpoint));
    }

    #[test]
    fn only_the_key_of_the_log_opens_it() {
        let note = Checkpoint::new(ORIGIN, 17, leaf_hash(b"x")).sign(&signer(ORIGIN, 1)).unwrap().to_string();
        let refused = |key: &NoteSigner| Checkpoint::open(&note, &key.key()).unwrap_err();
        assert_eq!(refused(&signer(ORIGIN, 2)), CheckpointError::Note(NoteError::NotSigned));
        assert_eq!(refused(&signer("holdfast/demo/us/0", 1)), CheckpointError::Note(NoteError::NotSigned));
        let other = signer("witness", 1);
        let cosigned = Note::parse(&note).unwrap().signed_by(&other).to_string();
        assert_eq!(Checkpoint::open(&cosigned, &other.key()), Err(CheckpointError::OtherOrigin));
        assert!(Checkpoint::open(&cosigned, &signer(ORIGIN, 1).key()).is_ok());
    }

    #[test]
    fn signed_texts_that_are_no_checkpoint_are_refused() {
        let signer = signer(ORIGIN, 1);
        let root = leaf_hash(b"x");
        for text in [
            format!("{ORIGIN}\n017\n{root}\n"),
            format!("{ORIGIN}\n+17\n{root}\n"),
            format!("{ORIGIN}\n17\nAAAA\n"),
            format!("{ORIGIN}\n17\n"),
            format!("{ORIGIN}\n-1\n{root}\n"),
            format!("\n17\n{root}\n"),
        ] {
            let note = Note::new(text.clone()).unwrap().signed_by(&signer).to_string();
            assert_eq!(Checkpoint::open(&note, &signer.key()), Err(CheckpointError::NotACheckpoint), "{text}");
        }
        assert_eq!(Checkpoint::new("a\nb", 1, root).sign(&signer).unwrap_err(), CheckpointError::NotACheckpoint);
    }

    proptest! {
        #[test]
        fn a_changed_note_is_refused_or_the_same(at in any::<usize>(), size in any::<u64>()) {
            let signer = signer(ORIGIN, 1);
            let checkpoint = Checkpoint::new(ORIGIN, size, leaf_hash(b"x"));
            let mut note = checkpoint.sign(&signer).unwrap().to_string().into_bytes();
            let at = at % (note.len() * 8);
            note[at / 8] ^= 1 << (at % 8);
            if let Ok(note) = String::from_utf8(note) {
                prop_assert!(Checkpoint::open(&note, &signer.key()).is_err());
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in "(.|\n){0,300}") {
            let _ = Checkpoint::open(&text, &signer(ORIGIN, 1).key());
            let _ = Checkpoint::parse(&text);
        }
    }
}
