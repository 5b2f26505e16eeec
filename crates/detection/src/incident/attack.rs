//! MITRE ATT&CK: tactics and techniques of rules' tags, in one version whatever version a rule was written for.
//!
//! Tags are kept as rules write them and mapped when they are read, so a newer table corrects old incidents too.
//! A tag that is not understood is kept as it is, never dropped in silence.

mod aliases;

use aliases::ALIASES;
use serde::{Serialize, Serializer};
use std::collections::BTreeSet;
use std::fmt;

/// The version of the matrix that tags are mapped to.
pub const VERSION: u16 = 19;
/// Most tags of one mapping that are looked at.
pub const TAGS_MAX: usize = 256;

/// A tactic of the enterprise matrix, in the order in which an attack usually goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tactic {
    /// TA0043.
    Reconnaissance,
    /// TA0042.
    ResourceDevelopment,
    /// TA0001.
    InitialAccess,
    /// TA0002.
    Execution,
    /// TA0003.
    Persistence,
    /// TA0004.
    PrivilegeEscalation,
    /// TA0005; until version 18 `defense-evasion`, with what is now [`Tactic::DefenseImpairment`].
    Stealth,
    /// TA0112, since version 19.
    DefenseImpairment,
    /// TA0006.
    CredentialAccess,
    /// TA0007.
    Discovery,
    /// TA0008.
    LateralMovement,
    /// TA0009.
    Collection,
    /// TA0011.
    CommandAndControl,
    /// TA0010.
    Exfiltration,
    /// TA0040.
    Impact,
}

/// Tactics by the names and numbers that tags give them; the last are names of earlier versions.
const TACTICS: [(&str, u16, Tactic); 16] = [
    ("reconnaissance", 43, Tactic::Reconnaissance),
    ("resource-development", 42, Tactic::ResourceDevelopment),
    ("initial-access", 1, Tactic::InitialAccess),
    ("execution", 2, Tactic::Execution),
    ("persistence", 3, Tactic::Persistence),
    ("privilege-escalation", 4, Tactic::PrivilegeEscalation),
    ("stealth", 5, Tactic::Stealth),
    ("defense-impairment", 112, Tactic::DefenseImpairment),
    ("credential-access", 6, Tactic::CredentialAccess),
    ("discovery", 7, Tactic::Discovery),
    ("lateral-movement", 8, Tactic::LateralMovement),
    ("collection", 9, Tactic::Collection),
    ("command-and-control", 11, Tactic::CommandAndControl),
    ("exfiltration", 10, Tactic::Exfiltration),
    ("impact", 40, Tactic::Impact),
    ("defense-evasion", 5, Tactic::Stealth),
];

impl Tactic {
    /// Its name, as tags write it.
    pub fn name(self) -> &'static str {
        TACTICS.iter().find(|(_, _, tactic)| *tactic == self).map_or("", |(name, _, _)| name)
    }
}

/// A technique or sub-technique, such as T1110.003.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Technique {
    number: u16,
    /// 0 for the technique itself.
    sub: u16,
}

impl Technique {
    const fn new(number: u16, sub: u16) -> Self {
        Self { number, sub }
    }
    /// The technique that one of an earlier version now is.
    pub fn current(self) -> Self {
        let mut technique = self;
        // A row of renamings ends: each leads to a later version.
        for _ in 0..ROW_MAX {
            match ALIASES.binary_search_by_key(&technique, |(old, _, _)| *old) {
                Ok(place) => technique = ALIASES[place].1,
                Err(_) => return technique,
            }
        }
        technique
    }
    /// The version in which it was renamed, revoked or merged; `None` where it stands.
    pub fn renamed_in(self) -> Option<u16> {
        let place = ALIASES.binary_search_by_key(&self, |(old, _, _)| *old).ok()?;
        Some(ALIASES[place].2)
    }
    /// The technique of text such as `t1110.003`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(['t', 'T'])?;
        let (number, sub) = digits.split_once('.').map_or((digits, None), |(number, sub)| (number, Some(sub)));
        let is_number = |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
        if !is_number(number, 4) || !sub.is_none_or(|sub| is_number(sub, 3)) {
            return None;
        }
        let sub = sub.map_or(Ok(0), str::parse).ok()?;
        Some(Self::new(number.parse().ok()?, sub))
    }
}

impl fmt::Display for Technique {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{:04}", self.number)?;
        if self.sub > 0 { write!(f, ".{:03}", self.sub) } else { Ok(()) }
    }
}
impl fmt::Debug for Technique {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl Serialize for Technique {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What tags say, in [`VERSION`] of the matrix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mapping {
    /// The version it is in.
    pub version: u16,
    /// Tactics, in their order.
    pub tactics: BTreeSet<Tactic>,
    /// Techniques, under their present numbers.
    pub techniques: BTreeSet<Technique>,
    /// Techniques that tags name by a number of before, and the present one.
    pub renamed: BTreeSet<(Technique, Technique)>,
    /// Tags of ATT&CK's that are neither: groups, software, data sources, and what is not understood.
    pub others: BTreeSet<String>,
}

impl Mapping {
    /// The mapping of tags as rules write them; tags of other schemes are left out.
    pub fn of<'a>(tags: impl IntoIterator<Item = &'a str>) -> Self {
        let mut mapping = Self { version: VERSION, ..Self::default() };
        for tag in tags.into_iter().take(TAGS_MAX) {
            let lower = tag.to_ascii_lowercase();
            let Some(name) = lower.strip_prefix("attack.") else { continue };
            if let Some(technique) = Technique::parse(name) {
                mapping.techniques.insert(technique.current());
                if technique.renamed_in().is_some() {
                    mapping.renamed.insert((technique, technique.current()));
                }
            } else if let Some(tactic) = tactic(name) {
                mapping.tactics.insert(tactic);
            } else {
                mapping.others.insert(name.to_owned());
            }
        }
        mapping
    }
}

fn tactic(name: &str) -> Option<Tactic> {
    let name = name.replace(['_', ' '], "-");
    let number = name.strip_prefix("ta").and_then(|digits| digits.parse::<u16>().ok());
    TACTICS.iter().find(|(known, id, _)| *known == name || number == Some(*id)).map(|(_, _, tactic)| *tactic)
}

/// Longest row of renamings that is followed.
const ROW_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::aliases::t;
    use super::*;
    use proptest::prelude::*;

    fn check(tag: &str, tactics: &[Tactic], techniques: &[&str]) {
        let mapping = Mapping::of([tag]);
        assert_eq!(mapping.tactics, tactics.iter().copied().collect(), "{tag}");
        let names: Vec<String> = mapping.techniques.iter().map(Technique::to_string).collect();
        assert_eq!(names, techniques, "{tag}");
    }

    #[test]
    fn a_tag_of_any_version_means_the_same_today() {
        check("attack.t1110.003", &[], &["T1110.003"]);
        check("attack.T1086", &[], &["T1059.001"]);
        check("attack.t1562.008", &[], &["T1685.002"]);
        check("attack.t1089", &[], &["T1685"]);
        check("attack.t1574.002", &[], &["T1574.001"]);
        check("attack.defense_evasion", &[Tactic::Stealth], &[]);
        check("attack.defense-impairment", &[Tactic::DefenseImpairment], &[]);
        check("attack.ta0112", &[Tactic::DefenseImpairment], &[]);
        check("cve.2021.44228", &[], &[]);
        assert_eq!(Mapping::of(["attack.g0007", "attack.t12"]).others.len(), 2);
        assert_eq!(t(1086, 0).renamed_in(), Some(7));
    }

    #[test]
    fn the_alias_table_is_sorted_and_every_row_of_it_ends() {
        assert!(ALIASES.is_sorted_by(|one, other| one.0 < other.0));
        for (old, new, version) in ALIASES {
            assert!(*version <= VERSION);
            assert_eq!(old.current().renamed_in(), None, "{old:?} to {new:?}");
        }
    }

    proptest! {
        #[test]
        fn no_tag_is_lost_or_panics(tag in "attack\\.\\PC{0,12}|(attack\\.)?t[0-9.]{0,9}|\\PC{0,20}") {
            let mapping = Mapping::of([tag.as_str()]);
            let count = mapping.tactics.len() + mapping.techniques.len() + mapping.others.len();
            prop_assert_eq!(count, usize::from(tag.to_ascii_lowercase().starts_with("attack.")));
        }
    }
}
