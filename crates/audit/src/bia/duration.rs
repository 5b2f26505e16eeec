//! Durations as people write them in an analysis: a whole number and a unit, like `500 ms`, `15 min` or `4 h`.

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a duration like '500 ms', '2 s', '15 min', '4 h' or '3 d'")]
pub struct NotADuration;

/// Milliseconds of a text.
pub fn parse_duration_ms(text: &str) -> Result<u64, NotADuration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| NotADuration)?;
    let unit = text[digits..].trim_start();
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(NotADuration)?;
    number.checked_mul(*factor).ok_or(NotADuration)
}

/// The shortest exact text of milliseconds.
pub fn format_duration_ms(milliseconds: u64) -> String {
    let divides = |(_, factor): &&(&str, u64)| milliseconds.is_multiple_of(*factor);
    let (name, factor) = match milliseconds {
        0 => ("s", 1_000),
        _ => *UNITS.iter().rev().find(divides).expect("every number is a multiple of 1 ms"),
    };
    format!("{} {name}", milliseconds / factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_read() {
        let check = |text, expected| assert_eq!(parse_duration_ms(text), expected, "{text}");
        check("500 ms", Ok(500));
        check("2s", Ok(2_000));
        check(" 15 min ", Ok(900_000));
        check("4 h", Ok(14_400_000));
        check("3 d", Ok(259_200_000));
        check("", Err(NotADuration));
        check("5", Err(NotADuration));
        check("-5 s", Err(NotADuration));
        check("1.5 s", Err(NotADuration));
        check("5 weeks", Err(NotADuration));
        check("18446744073709551615 d", Err(NotADuration));
    }

    proptest! {
        #[test]
        fn durations_come_back(milliseconds in any::<u64>()) {
            prop_assert_eq!(parse_duration_ms(&format_duration_ms(milliseconds)), Ok(milliseconds));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,20}") {
            let _ = parse_duration_ms(&text);
        }
    }
}
