//! Identifiers made by hashing: of events, alerts, incidents and rules' meaning.
//!
//! They are computed from content alone, so a replay computes them again.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;
use std::str::FromStr;

/// A string that is not the lower-case hexadecimal form of an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier in hexadecimal")]
pub struct NotAnId;

macro_rules! hashed_id {
    ($(#[$doc:meta])* $name:ident, $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $size]);

        impl $name {
            /// From its bytes.
            pub const fn from_bytes(bytes: [u8; $size]) -> Self {
                Self(bytes)
            }
            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }
            /// What a finished hash says, cut to size.
            pub(crate) fn of(hash: Digest) -> Self {
                let mut bytes = [0; $size];
                bytes.copy_from_slice(&hash.0.finalize().as_bytes()[..$size]);
                Self(bytes)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let digits = text.as_bytes();
                if digits.len() != 2 * $size {
                    return Err(NotAnId);
                }
                let mut bytes = [0; $size];
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                    *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
                }
                Ok(Self(bytes))
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

hashed_id!(
    /// An event: of its stream and position, or of its content where it has none.
    EventId, 16
);
hashed_id!(
    /// An alert: of tenant, rule, the rule's meaning, group key and the minimal satisfying set of events.
    AlertId, 32
);
hashed_id!(
    /// An incident: of the alert that opened it.
    IncidentId, 16
);
hashed_id!(
    /// A change of an incident: of all that it says.
    ChangeId, 16
);
hashed_id!(
    /// An incident as it stands: of all that people can see done to it.
    VersionId, 16
);
hashed_id!(
    /// A mute: of what rests.
    MuteId, 16
);
hashed_id!(
    /// A notification: of incident, cause, round, step and target.
    NotificationId, 16
);
hashed_id!(
    /// A ticket: of the incident it is about and the queue it lies in.
    TicketId, 16
);
hashed_id!(
    /// What a rule means: unchanged by its title, comments or the order of its keys.
    SemanticHash, 32
);

fn nibble(digit: u8) -> Result<u8, NotAnId> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(NotAnId),
    }
}

/// A BLAKE3 hash of parts, each with its length, so that no two lists of parts collide.
pub(crate) struct Digest(blake3::Hasher);

impl Digest {
    /// A hash for one purpose; `domain` keeps purposes apart.
    pub(crate) fn new(domain: &str) -> Self {
        let mut hash = Self(blake3::Hasher::new());
        hash.part(domain.as_bytes());
        hash
    }
    /// Adds one part.
    pub(crate) fn part(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }
    /// What it says so far, cut to a number's size.
    pub(crate) fn first_eight(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0.finalize().as_bytes()[..8]);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        let id = EventId::of(Digest::new("test"));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("zz".parse::<EventId>(), Err(NotAnId));
    }
}
