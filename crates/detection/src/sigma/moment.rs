//! Parts of a point in time: what the modifiers `minute` to `year` compare. All in UTC.

use crate::source::syslog::rfc3339_ms;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Numbers below this are seconds since 1970, not milliseconds.
const SECONDS_BELOW: f64 = 1e11;
/// The last moment of the year 9999.
const MOMENT_MAX_MS: f64 = 253_402_300_799_999.0;

/// A part of a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MomentPart {
    Minute,
    Hour,
    /// Of the month.
    Day,
    /// Of the year, as ISO 8601 counts them.
    Week,
    Month,
    Year,
}

impl MomentPart {
    /// The part that a modifier names.
    pub(crate) fn from_modifier(word: &str) -> Option<Self> {
        Some(match word {
            "minute" => Self::Minute,
            "hour" => Self::Hour,
            "day" => Self::Day,
            "week" => Self::Week,
            "month" => Self::Month,
            "year" => Self::Year,
            _ => return None,
        })
    }

    /// That part of the moment a text tells: RFC 3339 (also with a space, also without an offset), or a number of
    /// seconds or milliseconds since 1970.
    pub(crate) fn of(self, text: &str) -> Option<f64> {
        let at = TimeZone::UTC.to_datetime(Timestamp::from_millisecond(milliseconds(text.trim())?).ok()?);
        Some(f64::from(match self {
            Self::Minute => i16::from(at.minute()),
            Self::Hour => i16::from(at.hour()),
            Self::Day => i16::from(at.day()),
            Self::Week => i16::from(at.date().iso_week_date().week()),
            Self::Month => i16::from(at.month()),
            Self::Year => at.year(),
        }))
    }
}

fn milliseconds(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse::<f64>() {
        let ms = if number < SECONDS_BELOW { number * 1_000.0 } else { number };
        return (0.0..=MOMENT_MAX_MS).contains(&ms).then_some(ms as i64);
    }
    let at = rfc3339_ms(text).or_else(|| rfc3339_ms(&format!("{}Z", text.replacen(' ', "T", 1))))?;
    i64::try_from(at).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_moment_are_those_of_the_calendar() {
        let parts = [
            MomentPart::Minute,
            MomentPart::Hour,
            MomentPart::Day,
            MomentPart::Week,
            MomentPart::Month,
            MomentPart::Year,
        ];
        for text in ["2026-11-24T01:07:09Z", "2026-11-24 01:07:09", "1795482429", "1795482429000"] {
            assert_eq!(parts.map(|part| part.of(text)), [7, 1, 24, 48, 11, 2026].map(|n| Some(f64::from(n))), "{text}");
        }
        assert_eq!(MomentPart::Hour.of("noon"), None);
    }
}
