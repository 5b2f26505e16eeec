//! Time: the door to clocks, and the hybrid logical clock (Kulkarni et al., 2014).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The door to the world's clocks. Only its implementations read one.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01 UTC. May jump.
    fn wall_ms(&self) -> u64;
    /// Time since an arbitrary start. Never goes back.
    fn monotonic(&self) -> Duration;
}

/// A hybrid logical clock reading: 48 bits of milliseconds since 1970 and 16 bits of logic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hlc(u64);

impl Hlc {
    /// Before everything.
    pub const ZERO: Self = Self(0);

    /// A reading from its two parts; milliseconds beyond 48 bits are cut to the largest.
    pub fn new(wall_ms: u64, logic: u16) -> Self {
        Self(wall_ms.min((1 << 48) - 1) << 16 | u64::from(logic))
    }
    /// From the stored number.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
    /// The stored number: later is larger.
    pub const fn bits(self) -> u64 {
        self.0
    }
    /// Milliseconds since 1970.
    pub const fn wall_ms(self) -> u64 {
        self.0 >> 16
    }
    /// The logical part.
    pub const fn logic(self) -> u16 {
        self.0 as u16
    }
    /// The next reading: logic carries over into milliseconds.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
    /// `max(stamp, self + 1)`: the rule that makes what is causally later compare later.
    pub fn advance(self, stamp: Self) -> Self {
        stamp.max(self.next())
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.wall_ms(), self.logic())
    }
}
impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advance_never_goes_back_and_never_repeats() {
        let last = Hlc::new(1_000, u16::MAX);
        assert!(last.advance(Hlc::new(900, 0)) > last);
        assert_eq!(last.advance(Hlc::new(900, 0)), Hlc::new(1_001, 0));
        assert_eq!(last.advance(Hlc::new(2_000, 3)), Hlc::new(2_000, 3));
    }
}
