//! Syslog lines: RFC 5424, and RFC 3164 as it is found in the wild (with and without priority).
//!
//! Pure. A year that RFC 3164 leaves out is the latest that does not put the line into the future; times
//! without a zone are UTC.

use crate::event::RejectReason;

/// Most structured data parameters of one line.
const PARAMETERS_MAX: usize = 128;
/// Most bytes of the names of an element and of its parameter.
const NAMES_BYTES_MAX: usize = 256;
/// A line of RFC 3164 may be this far ahead of its receipt and still be of this year.
const AHEAD_MAX_MS: u64 = 24 * 60 * 60 * 1_000;

/// A parsed line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Syslog {
    /// 0 to 23, where there was a priority.
    pub facility: Option<u8>,
    /// 0 (emergency) to 7 (debug), where there was a priority.
    pub severity: Option<u8>,
    /// When, in milliseconds since 1970; `None` where RFC 5424 says `-`.
    pub time_ms: Option<u64>,
    /// The host that wrote it.
    pub host: Option<String>,
    /// The program, without its process id: `sshd`, `su(pam_unix)`.
    pub program: Option<String>,
    /// The process.
    pub process_id: Option<String>,
    /// RFC 5424's message id.
    pub message_id: Option<String>,
    /// RFC 5424's structured data: element, parameter, value.
    pub parameters: Vec<(String, String, String)>,
    /// The message.
    pub message: String,
}

/// Parses a line.
pub fn parse(line: &[u8], received_ms: u64) -> Result<Syslog, RejectReason> {
    let text = std::str::from_utf8(line).map_err(|_| RejectReason::NotUtf8)?;
    let text = text.trim_end_matches(['\r', '\n', '\0']);
    if text.trim().is_empty() {
        return Err(RejectReason::Empty);
    }
    let (priority, rest) = priority(text)?;
    let mut parsed = match rest.strip_prefix("1 ").filter(|_| priority.is_some()) {
        Some(rest) => rfc5424(rest)?,
        None => rfc3164(rest, received_ms)?,
    };
    parsed.facility = priority.map(|priority| priority / 8);
    parsed.severity = priority.map(|priority| priority % 8);
    Ok(parsed)
}

fn priority(text: &str) -> Result<(Option<u8>, &str), RejectReason> {
    let Some(rest) = text.strip_prefix('<') else { return Ok((None, text)) };
    let (digits, rest) = rest.split_once('>').ok_or(RejectReason::BadPriority)?;
    if digits.is_empty() || digits.len() > 3 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(RejectReason::BadPriority);
    }
    let priority: u8 = digits.parse().map_err(|_| RejectReason::BadPriority)?;
    if priority > 191 { Err(RejectReason::BadPriority) } else { Ok((Some(priority), rest)) }
}

fn rfc5424(text: &str) -> Result<Syslog, RejectReason> {
    let mut words = text.splitn(6, ' ');
    let mut word = || words.next().filter(|word| !word.is_empty()).ok_or(RejectReason::BadHeader);
    let (time, host, program, process_id, message_id) = (word()?, word()?, word()?, word()?, word()?);
    let rest = words.next().ok_or(RejectReason::BadHeader)?;
    let given = |word: &str| (word != "-").then(|| word.to_owned());
    let time_ms = match time {
        "-" => None,
        time => Some(rfc3339_ms(time).ok_or(RejectReason::BadTime)?),
    };
    let (parameters, message) = structured_data(rest)?;
    Ok(Syslog {
        time_ms,
        host: given(host),
        program: given(program),
        process_id: given(process_id),
        message_id: given(message_id),
        parameters,
        message: message.trim_start_matches('\u{feff}').to_owned(),
        ..Syslog::default()
    })
}

fn structured_data(text: &str) -> Result<(Vec<(String, String, String)>, &str), RejectReason> {
    let mut parameters = Vec::new();
    if let Some(rest) = text.strip_prefix('-') {
        return match rest.strip_prefix(' ') {
            Some(message) => Ok((parameters, message)),
            None if rest.is_empty() => Ok((parameters, rest)),
            None => Err(RejectReason::BadHeader),
        };
    }
    let mut rest = text;
    while let Some(element) = rest.strip_prefix('[') {
        let end = element.find([' ', ']']).ok_or(RejectReason::BadHeader)?;
        let name = &element[..end];
        rest = &element[end..];
        while let Some(parameter) = rest.strip_prefix(' ') {
            let (key, after) = parameter.split_once("=\"").ok_or(RejectReason::BadHeader)?;
            let (value, after) = quoted(after)?;
            // An element's name is repeated for each of its parameters.
            if parameters.len() >= PARAMETERS_MAX || name.len() + key.len() > NAMES_BYTES_MAX {
                return Err(RejectReason::TooManyFields);
            }
            parameters.push((name.to_owned(), key.to_owned(), value));
            rest = after;
        }
        rest = rest.strip_prefix(']').ok_or(RejectReason::BadHeader)?;
    }
    if rest.len() == text.len() {
        return Err(RejectReason::BadHeader);
    }
    match rest.strip_prefix(' ') {
        Some(message) => Ok((parameters, message)),
        None if rest.is_empty() => Ok((parameters, rest)),
        None => Err(RejectReason::BadHeader),
    }
}

fn quoted(text: &str) -> Result<(String, &str), RejectReason> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[place + 1..])),
            '\\' => match characters.next() {
                Some((_, escaped @ ('"' | '\\' | ']'))) => value.push(escaped),
                Some((_, other)) => value.extend(['\\', other]),
                None => return Err(RejectReason::BadHeader),
            },
            other => value.push(other),
        }
    }
    Err(RejectReason::BadHeader)
}

fn rfc3164(text: &str, received_ms: u64) -> Result<Syslog, RejectReason> {
    let (time_ms, rest) = bsd_time(text, received_ms)
        .or_else(|| {
            let (word, rest) = text.split_once(' ')?;
            Some((rfc3339_ms(word)?, rest))
        })
        .ok_or(RejectReason::BadTime)?;
    let (host, rest) = rest.trim_start().split_once(' ').ok_or(RejectReason::BadHeader)?;
    let rest = rest.trim_start();
    let (tag, message) = match rest.split_once(':') {
        Some((tag, message)) if !tag.is_empty() && !tag.contains(' ') => (Some(tag), message),
        // Some programs, such as `syslogd 1.4.1:`, have a version in their tag.
        Some((tag, message)) if tag.split(' ').count() == 2 && !tag.contains('[') => (tag.split(' ').next(), message),
        _ => (None, rest),
    };
    let (program, process_id) = match tag.and_then(|tag| tag.strip_suffix(']')).and_then(|tag| tag.rsplit_once('[')) {
        Some((program, process_id)) => (Some(program), Some(process_id)),
        None => (tag, None),
    };
    Ok(Syslog {
        time_ms: Some(time_ms),
        host: Some(host.to_owned()),
        program: program.filter(|program| !program.is_empty()).map(str::to_owned),
        process_id: process_id.map(str::to_owned),
        message: message.trim_start().to_owned(),
        ..Syslog::default()
    })
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `Jun  4 15:16:01`, and what follows it.
fn bsd_time(text: &str, received_ms: u64) -> Option<(u64, &str)> {
    let month = MONTHS.iter().position(|month| text.get(..3) == Some(month))? as u64 + 1;
    let rest = text.get(3..)?.strip_prefix(' ')?.trim_start();
    let (day, rest) = rest.split_once(' ')?;
    let (time, rest) = rest.split_once(' ')?;
    let day = small(day)?;
    let mut parts = time.splitn(3, ':');
    let (hour, minute, second) = (small(parts.next()?)?, small(parts.next()?)?, small(parts.next()?)?);
    if !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let at = |year: u64| {
        let days = days_since_1970(year, month, day)?;
        Some((days * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000)
    };
    let year = 1970 + received_ms / 31_556_952_000;
    // The 29th of February may lie some years back.
    let latest = received_ms.saturating_add(AHEAD_MAX_MS);
    (year.saturating_sub(8)..=year + 1).rev().filter_map(at).find(|time_ms| *time_ms <= latest).map(|time| (time, rest))
}

fn small(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 2 || !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Days from 1970-01-01 to a date from that day on; `None` where the month has no such day.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let lengths = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if year < 1970 || !(1..=length).contains(&day) {
        return None;
    }
    let before = year - 1;
    let leaps = before / 4 - before / 100 + before / 400 - 477;
    let months: u64 = lengths[..usize::try_from(month).ok()? - 1].iter().sum();
    Some((year - 1970) * 365 + leaps + months + day - 1)
}

/// An RFC 3339 timestamp from 1970 on, in milliseconds.
pub(crate) fn rfc3339_ms(text: &str) -> Option<u64> {
    if text.len() > 40 {
        return None;
    }
    u64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-23 21:00:00 UTC.
    const NOW_MS: u64 = 1_795_467_600_000;

    #[test]
    fn the_examples_of_rfc_5424_parse() {
        let line = br#"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut="3" eventSource="App\"lication"][x@1 a="b"] An application event"#;
        let parsed = parse(line, NOW_MS).unwrap();
        assert_eq!((parsed.facility, parsed.severity), (Some(20), Some(5)));
        assert_eq!(parsed.time_ms, Some(1_065_910_455_003));
        assert_eq!(parsed.host.as_deref(), Some("mymachine.example.com"));
        assert_eq!(parsed.program.as_deref(), Some("evntslog"));
        assert_eq!(parsed.message_id.as_deref(), Some("ID47"));
        assert_eq!(parsed.parameters[1], ("exampleSDID@32473".into(), "eventSource".into(), "App\"lication".into()));
        assert_eq!(parsed.message, "An application event");
        assert_eq!(parse(b"<34>1 - h p - - -", NOW_MS).unwrap().message, "");
    }

    #[test]
    fn rfc_3164_lines_get_the_latest_possible_year() {
        let parsed = parse(b"Jun 14 15:16:01 combo sshd(pam_unix)[19939]: authentication failure; x", NOW_MS).unwrap();
        assert_eq!(parsed.time_ms, rfc3339_ms("2026-06-14T15:16:01Z"));
        assert_eq!(parsed.program.as_deref(), Some("sshd(pam_unix)"));
        assert_eq!(parsed.process_id.as_deref(), Some("19939"));
        assert_eq!(parsed.message, "authentication failure; x");
        let parsed = parse(b"<13>Dec  1 00:00:00 h p: m", NOW_MS).unwrap();
        assert_eq!(parsed.time_ms, rfc3339_ms("2025-12-01T00:00:00Z"));
        let parsed = parse(b"<13>Feb 29 00:00:00 h p: m", NOW_MS).unwrap();
        assert_eq!(parsed.time_ms, rfc3339_ms("2024-02-29T00:00:00Z"));
    }

    #[test]
    fn bad_lines_say_why() {
        assert_eq!(parse(b"  ", NOW_MS), Err(RejectReason::Empty));
        assert_eq!(parse(b"\xff", NOW_MS), Err(RejectReason::NotUtf8));
        assert_eq!(parse(b"<999>x", NOW_MS), Err(RejectReason::BadPriority));
        assert_eq!(parse(b"<13>Foo 99 x", NOW_MS), Err(RejectReason::BadTime));
        assert_eq!(parse(b"<13>1 2003-10-11T22:14:15Z h p - - [a b", NOW_MS), Err(RejectReason::BadHeader));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, received_ms: u64) {
            let _ = parse(&bytes, received_ms);
        }
        #[test]
        fn arbitrary_text_after_a_priority_never_panics(text in "<[0-9]{1,3}>(1 )?[A-Z][a-z]{2} {1,2}[0-9]{1,2} \\PC*") {
            let _ = parse(text.as_bytes(), NOW_MS);
        }
    }
}
