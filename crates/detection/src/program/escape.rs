//! Texts as JSON shows them: literals are written so when rules are compiled, to be looked for in values as they stand.

/// Whether a text of JSON has escapes that [`shown`] does not write.
pub(super) fn is_unusual(mut text: &[u8]) -> bool {
    while let Some(slash) = memchr::memchr(b'\\', text) {
        // The reader has seen that something follows.
        if matches!(text[slash + 1], b'u' | b'/') {
            return true;
        }
        text = &text[slash + 2..];
    }
    false
}

/// A text as JSON shows it, with the escapes that everyone writes and no others.
pub(super) fn shown(text: &str) -> String {
    escaped(text).unwrap_or_else(|| text.to_owned())
}

/// The same; nothing where it is the text itself.
pub(super) fn escaped(text: &str) -> Option<String> {
    let letter = |byte| match byte {
        b'"' | b'\\' => Some(char::from(byte)),
        b'\n' => Some('n'),
        b'\r' => Some('r'),
        b'\t' => Some('t'),
        0x8 => Some('b'),
        0xc => Some('f'),
        _ => None,
    };
    let count = text.bytes().filter(|byte| letter(*byte).is_some()).count();
    if count == 0 {
        return None;
    }
    let mut shown = String::with_capacity(text.len() + count);
    for character in text.chars() {
        match u8::try_from(character).ok().and_then(letter) {
            Some(letter) => shown.extend(['\\', letter]),
            None => shown.push(character),
        }
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shown_as_in_json() {
        for text in ["", "plain", "C:\\Users\\x", "\"q\"", "a\r\nb\tc\u{8}\u{c}", "é\u{7f}/"] {
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(shown(text), json[1..json.len() - 1]);
        }
    }
}
