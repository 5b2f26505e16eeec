//! Texts as attackers encode them: UTF-16 and base64, at every offset.

use super::pattern::{DASHES, Token};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// Most encodings one after the other.
pub(super) const ENCODINGS_MAX: usize = 3;
/// Most characters of all texts that one with widened dashes stands for.
const WIDENED_CHARACTERS_MAX: usize = 1024 * 1024;

/// An encoding that a modifier names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf16Le,
    Utf16Be,
    Utf16,
    Base64,
    Base64Offset,
}

impl Encoding {
    pub(super) fn from_modifier(word: &str) -> Option<Self> {
        Some(match word {
            "wide" | "utf16le" => Self::Utf16Le,
            "utf16be" => Self::Utf16Be,
            "utf16" => Self::Utf16,
            "base64" => Self::Base64,
            "base64offset" => Self::Base64Offset,
            _ => return None,
        })
    }
    /// Base64 has a meaning only with its case.
    pub(super) fn is_base64(self) -> bool {
        matches!(self, Self::Base64 | Self::Base64Offset)
    }
}

/// All forms of a text under encodings, each dash that was widened as every character that it stands for.
///
/// # Errors
/// What the text must be to be encoded.
pub(super) fn forms(tokens: &[Token], encodings: &[Encoding]) -> Result<Vec<Vec<Token>>, &'static str> {
    let mut forms = Vec::new();
    for text in texts(tokens)? {
        for bytes in encode(&text, encodings) {
            if bytes.is_empty() {
                return Err("long enough that something of it is the same whatever stands around it");
            }
            let text = String::from_utf8(bytes).map_err(|_| "ASCII, or encoded with base64 as well")?;
            forms.push(text.chars().map(Token::Literal).collect());
        }
    }
    Ok(forms)
}

/// The texts that tokens without wildcards stand for.
fn texts(tokens: &[Token]) -> Result<Vec<String>, &'static str> {
    let mut texts = vec![String::new()];
    for token in tokens {
        match token {
            Token::Literal(character) => texts.iter_mut().for_each(|text| text.push(*character)),
            Token::Dash if texts.len() * DASHES.len() * tokens.len() > WIDENED_CHARACTERS_MAX => {
                return Err("shorter, or of fewer dashes");
            }
            Token::Dash => {
                let with = |text: &String| DASHES.map(|dash| format!("{text}{dash}"));
                texts = texts.iter().flat_map(with).collect();
            }
            Token::Many | Token::One => return Err("without wildcards, which have no meaning in encoded text"),
        }
    }
    Ok(texts)
}

/// All forms of a text under encodings, applied one after the other.
fn encode(text: &str, encodings: &[Encoding]) -> Vec<Vec<u8>> {
    let mut forms = vec![text.as_bytes().to_vec()];
    for encoding in encodings {
        forms = forms
            .into_iter()
            .flat_map(|bytes| match encoding {
                Encoding::Utf16Le => vec![utf16(&bytes, u16::to_le_bytes, &[])],
                Encoding::Utf16Be => vec![utf16(&bytes, u16::to_be_bytes, &[])],
                Encoding::Utf16 => vec![utf16(&bytes, u16::to_le_bytes, &[0xff, 0xfe])],
                Encoding::Base64 => vec![STANDARD.encode(&bytes).into_bytes()],
                Encoding::Base64Offset => (0..3).map(|offset| base64_at(&bytes, offset)).collect(),
            })
            .collect();
    }
    forms
}

fn utf16(bytes: &[u8], unit: impl Fn(u16) -> [u8; 2], mark: &[u8]) -> Vec<u8> {
    let mut wide = mark.to_vec();
    wide.extend(String::from_utf8_lossy(bytes).encode_utf16().flat_map(unit));
    wide
}

/// What the bytes look like inside base64 when so many bytes stand before them, less the characters
/// that also depend on their neighbours.
fn base64_at(bytes: &[u8], offset: usize) -> Vec<u8> {
    let mut shifted = vec![b' '; offset];
    shifted.extend_from_slice(bytes);
    let encoded = STANDARD_NO_PAD.encode(&shifted).into_bytes();
    let start = [0, 2, 3][offset];
    let end = encoded.len() - usize::from(!shifted.len().is_multiple_of(3));
    encoded.get(start..end).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_offsets_are_those_of_the_specification() {
        let forms: Vec<String> =
            (0..3).map(|offset| String::from_utf8(base64_at(b"foobar", offset)).unwrap()).collect();
        assert_eq!(forms, ["Zm9vYmFy", "Zvb2Jhc", "mb29iYX"]);
    }
}
