//! What people see of the API's JSON: times, spans, short ids, tables.

use super::remote::Remote;
use anyhow::{Context, bail};
use serde_json::Value;

/// How many characters of an id tell incidents apart for people.
pub const ID_CHARACTERS: usize = 8;

/// A text as it is; anything else as JSON; nothing for null.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The beginning of an id.
pub fn short(id: &Value) -> String {
    text(id).chars().take(ID_CHARACTERS).collect()
}

/// A time in milliseconds since 1970, to the second, in UTC; nothing for null.
pub fn time(value: &Value) -> String {
    let at = value.as_i64().and_then(|ms| jiff::Timestamp::from_second(ms.div_euclid(1_000)).ok());
    at.map(|at| at.to_string()).unwrap_or_default()
}

/// A span in its two largest units: `3d 4h`, `12m 5s`.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// What is left until a time, or by how much it is past; nothing for null.
pub fn left(due_ms: &Value, now_ms: u64) -> String {
    match due_ms.as_u64() {
        Some(due_ms) if due_ms >= now_ms => format!("in {}", span(due_ms - now_ms)),
        Some(due_ms) => format!("OVERDUE {}", span(now_ms - due_ms)),
        None => String::new(),
    }
}

/// A span as people write it: `90s`, `15m`, `2h`, `3d`; in milliseconds.
pub fn parse_span(text: &str) -> anyhow::Result<u64> {
    let unit = text.chars().last().unwrap_or_default();
    let unit_ms = match unit {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => bail!("'{text}' is not a span such as 90s, 15m, 2h or 3d"),
    };
    let number = text.strip_suffix(unit).unwrap_or_default();
    let number: u64 = number.parse().with_context(|| format!("'{text}' is not a span such as 90s, 15m, 2h or 3d"))?;
    number.checked_mul(unit_ms).with_context(|| format!("'{text}' is too long"))
}

/// A time as people write it: RFC 3339 such as `2026-03-02T09:00:00Z`; in milliseconds since 1970.
pub fn parse_time(text: &str) -> anyhow::Result<u64> {
    let at: jiff::Timestamp =
        text.parse().with_context(|| format!("'{text}' is not a time such as 2026-03-02T09:00:00Z"))?;
    u64::try_from(at.as_millisecond()).with_context(|| format!("'{text}' is before 1970"))
}

/// Text that came from outside, without what would steer a terminal, on one line.
pub fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// A query parameter's value as it may stand in an address.
pub fn query(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b',' => {
                escaped.push(char::from(byte))
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// A table of rows whose cells are plain.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY).set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| plain(&cell)));
    }
    table
}

/// One row for each item of a list.
pub fn rows<const N: usize>(list: &Value, row: impl Fn(&Value) -> [String; N]) -> Vec<[String; N]> {
    list.as_array().into_iter().flatten().map(row).collect()
}

/// Prints an answer: as JSON where that was asked for.
pub fn print(remote: &Remote, answer: &Value, for_people: impl Fn(&Value) -> String) -> anyhow::Result<()> {
    use std::io::Write as _;
    let text = if remote.json { format!("{answer:#}") } else { for_people(answer) };
    writeln!(std::io::stdout(), "{text}").context("the terminal is gone")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_are_written_in_their_two_largest_units_and_read_in_one() {
        let cases = [(5_000, "5s"), (65_000, "1m 5s"), (3_660_000, "1h 1m"), (90_000_000, "1d 1h")];
        for (ms, expect) in cases {
            assert_eq!(span(ms), expect);
        }
        assert_eq!(parse_span("15m").ok(), Some(900_000));
        for wrong in ["", "m", "-1m", "5", "1w", "9999999999999999d", "é"] {
            assert!(parse_span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_past_is_overdue() {
        assert_eq!(left(&5_000.into(), 0), "in 5s");
        assert_eq!(left(&0.into(), 5_000), "OVERDUE 5s");
        assert_eq!(left(&Value::Null, 5_000), "");
    }

    #[test]
    fn nothing_from_outside_steers_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc"), "a [2Jb c");
        assert_eq!(query("a b&c=ü"), "a%20b%26c%3D%C3%BC");
    }

    proptest! {
        #[test]
        fn any_text_is_a_span_a_time_or_an_error(text in "\\PC{0,30}") {
            let _ = (parse_span(&text), parse_time(&text), plain(&text));
        }
    }
}
