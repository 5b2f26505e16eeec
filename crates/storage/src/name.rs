//! Names that become parts of paths: checked once, so that no peer can point outside a directory.

use std::io;

/// Longest name of a space or of a checkpoint's file.
pub const NAME_LENGTH_MAX: usize = 64;

/// Accepts letters, digits, `.`, `-` and `_`, not starting with a dot, at most
/// [`NAME_LENGTH_MAX`] bytes; anything else is `InvalidInput`.
pub(crate) fn check(name: &str) -> io::Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let fits = (1..=NAME_LENGTH_MAX).contains(&name.len());
    if fits && !name.starts_with('.') && name.bytes().all(plain) {
        return Ok(());
    }
    let shown: String = name.chars().take(NAME_LENGTH_MAX).collect();
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{shown:?} is not a name of a file or space")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_plain_names_pass() {
        for good in ["000012.sst", "MANIFEST-000005", "g65535", "CURRENT", "a_b-c.d"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\\b", "a\0b", ".hidden", "ä", &"x".repeat(65)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_name_that_passes_is_one_plain_path_component(name: String) {
            if check(&name).is_ok() {
                let path = std::path::Path::new(&name);
                let parts: Vec<_> = path.components().collect();
                prop_assert!(matches!(parts[..], [std::path::Component::Normal(_)]));
            }
        }
    }
}
