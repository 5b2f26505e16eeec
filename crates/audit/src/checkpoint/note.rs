//! C2SP signed-note with Ed25519 (type 0x01): a text, a blank line, and lines of signatures.
//! Signatures by unknown keys are ignored; one by the known key that does not verify refuses the note.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyring::{Signature, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

/// Bytes in the largest note that is read.
pub const NOTE_SIZE_BYTES_MAX: usize = 64 * 1024;
/// Signature lines of one note that are read.
pub const SIGNATURES_MAX: usize = 100;

const ED25519: u8 = 1;
const LINE_PREFIX: &str = "— ";
const ID_SIZE_BYTES: usize = 4;

/// A text and who signed it. Nothing is known about it until it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One line below a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    name: String,
    id: [u8; ID_SIZE_BYTES],
    signature: Vec<u8>,
}

/// A named public key. Its text form is `<name>+<id in hex>+<base64 of type and key>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    key: VerifyingKey,
}

/// A named key that signs notes.
#[derive(Debug, Clone)]
pub struct NoteSigner {
    name: String,
    key: SigningKey,
}

/// Why a note, a name or a key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not in the form of a signed note.
    #[error("not in the form of a signed note")]
    Malformed,
    /// No signature by the key.
    #[error("not signed by the key")]
    NotSigned,
    /// A signature under the key's name and id that does not verify.
    #[error("the signature does not verify")]
    BadSignature,
    /// A name is empty or has a space, a plus or a control character.
    #[error("not the name of a key")]
    BadName,
    /// A text is not the form of an Ed25519 key.
    #[error("not the text form of an Ed25519 verifier key")]
    BadKey,
}

impl Note {
    /// A note that no one has signed yet. The text ends with a line feed and has no other control character.
    pub fn new(text: String) -> Result<Self, NoteError> {
        let allowed = text.ends_with('\n') && text.len() <= NOTE_SIZE_BYTES_MAX && !has_control(&text);
        if allowed { Ok(Self { text, signatures: Vec::new() }) } else { Err(NoteError::Malformed) }
    }

    /// The note with one more signature.
    #[must_use]
    pub fn signed_by(mut self, signer: &NoteSigner) -> Self {
        let signature = signer.key.sign(self.text.as_bytes()).as_bytes().to_vec();
        self.signatures.push(NoteSignature { name: signer.name.clone(), id: signer.key().id(), signature });
        self
    }

    /// Reads a note.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_SIZE_BYTES_MAX || has_control(note) {
            return Err(NoteError::Malformed);
        }
        // The text may have blank lines itself: the last one counts.
        let end = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
        let (text, lines) = (&note[..=end], &note[end + 2..]);
        let lines: Vec<_> = lines.strip_suffix('\n').ok_or(NoteError::Malformed)?.split('\n').collect();
        if lines.len() > SIGNATURES_MAX {
            return Err(NoteError::Malformed);
        }
        let signatures = lines.into_iter().map(NoteSignature::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The text, with its last line feed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Checks that the key signed the text, once.
    pub fn verify(&self, key: &NoteKey) -> Result<(), NoteError> {
        let id = key.id();
        let mut of_key = self.signatures.iter().filter(|line| line.name == key.name && line.id == id);
        let line = of_key.next().ok_or(NoteError::NotSigned)?;
        if of_key.next().is_some() {
            return Err(NoteError::BadSignature);
        }
        let signature = Signature::from_slice(&line.signature).map_err(|_| NoteError::BadSignature)?;
        key.key.verify(self.text.as_bytes(), &signature).map_err(|_| NoteError::BadSignature)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.text)?;
        for line in &self.signatures {
            let bytes = [line.id.as_slice(), &line.signature].concat();
            writeln!(formatter, "{LINE_PREFIX}{} {}", line.name, STANDARD.encode(bytes))?;
        }
        Ok(())
    }
}

impl NoteSignature {
    /// The name of the key that is said to have signed.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn parse(line: &str) -> Result<Self, NoteError> {
        let (name, encoded) =
            line.strip_prefix(LINE_PREFIX).and_then(|line| line.split_once(' ')).ok_or(NoteError::Malformed)?;
        check_name(name).map_err(|_| NoteError::Malformed)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| NoteError::Malformed)?;
        match bytes.split_first_chunk::<ID_SIZE_BYTES>() {
            Some((id, signature)) if !signature.is_empty() => {
                Ok(Self { name: name.to_owned(), id: *id, signature: signature.to_vec() })
            }
            _ => Err(NoteError::Malformed),
        }
    }
}

impl NoteKey {
    /// Names a public key.
    pub fn new(name: impl Into<String>, key: VerifyingKey) -> Result<Self, NoteError> {
        let name = name.into();
        check_name(&name)?;
        Ok(Self { name, key })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of SHA-256 over name, line feed, type and key.
    fn id(&self) -> [u8; ID_SIZE_BYTES] {
        let mut hasher = Sha256::new();
        hasher.update(self.name.as_bytes());
        hasher.update([b'\n', ED25519]);
        hasher.update(self.key.as_bytes());
        let [a, b, c, d, ..] = <[u8; 32]>::from(hasher.finalize());
        [a, b, c, d]
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed = [&[ED25519], self.key.as_bytes().as_slice()].concat();
        write!(formatter, "{}+{}+{}", self.name, hex::encode(self.id()), STANDARD.encode(typed))
    }
}

impl FromStr for NoteKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.trim_end().splitn(3, '+');
        let (Some(name), Some(id), Some(typed)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::BadKey);
        };
        let typed = STANDARD.decode(typed).map_err(|_| NoteError::BadKey)?;
        let Some((&ED25519, key)) = typed.split_first() else { return Err(NoteError::BadKey) };
        let key = Self::new(name, VerifyingKey::from_slice(key).map_err(|_| NoteError::BadKey)?)?;
        if hex::encode(key.id()) == id { Ok(key) } else { Err(NoteError::BadKey) }
    }
}

impl NoteSigner {
    /// Names a signing key.
    pub fn new(name: impl Into<String>, key: SigningKey) -> Result<Self, NoteError> {
        let name = name.into();
        check_name(&name)?;
        Ok(Self { name, key })
    }

    /// The public half, to be given to those who verify.
    pub fn key(&self) -> NoteKey {
        NoteKey { name: self.name.clone(), key: self.key.verifying_key() }
    }
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let allowed = |letter: char| !letter.is_whitespace() && !letter.is_control() && letter != '+';
    if !name.is_empty() && name.chars().all(allowed) { Ok(()) } else { Err(NoteError::BadName) }
}

fn has_control(text: &str) -> bool {
    text.bytes().any(|byte| byte < 0x20 && byte != b'\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of the Go package `golang.org/x/mod/sumdb/note`, from which the format comes.
    const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const SIGNED: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your \
        problem is.\n\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpR\
        Zb6KE6RyyBwJnAM=\n";

    #[test]
    fn note_of_another_program_verifies() {
        let key: NoteKey = PETER.parse().unwrap();
        assert_eq!(key.to_string(), PETER);
        let note = Note::parse(SIGNED).unwrap();
        assert_eq!(note.verify(&key), Ok(()));
        assert_eq!(note.to_string(), SIGNED);
        let changed = SIGNED.replace("cryptography", "cartography");
        assert_eq!(Note::parse(&changed).unwrap().verify(&key), Err(NoteError::BadSignature));
    }

    #[test]
    fn keys_with_another_id_or_type_are_refused() {
        for text in [
            PETER.replace("c74f20a3", "c74f20a4"),
            PETER.replace("ARpc", "Ahpc"),
            PETER.replace("PeterNeumann", "Peter Neumann"),
            PETER.replace('+', " "),
            String::new(),
        ] {
            assert!(text.parse::<NoteKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn malformed_notes_are_refused() {
        for text in [
            "",
            "\n\n",
            "text\n",
            "text\n\n",
            "text\n\n— name\n",
            "text\n\n— name AAAA\n",
            "text\n\n- name AAAAAAA=\n",
            "text\n\n—  AAAAAAA=\n",
            "text\n\n— na+me AAAAAAA=\n",
            "te\rxt\n\n— name AAAAAAA=\n",
            "text\n\n— name AAAAAAA=",
        ] {
            assert_eq!(Note::parse(text), Err(NoteError::Malformed), "{text:?}");
        }
        let many = format!("text\n\n{}", "— name AAAAAAA=\n".repeat(SIGNATURES_MAX + 1));
        assert_eq!(Note::parse(&many), Err(NoteError::Malformed));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(.|\n|— |\n\n){0,200}") {
            if let Ok(note) = Note::parse(&text) {
                prop_assert_eq!(note.to_string(), text.clone());
            }
            let _ = text.parse::<NoteKey>();
        }
    }
}
