//! Entities in one form: the same thing has the same name, whatever wrote it.
//!
//! Pure text to text. What stands for "nothing" is no entity: it would join everything.

use crate::alert::{Entity, EntityKind, SUMMARY_TEXT_CHARACTERS_MAX};
use std::net::{IpAddr, SocketAddr};

/// What logs write where they have no name.
const NOBODY: [&str; 12] =
    ["-", "--", "?", "*", "(none)", "n/a", "nil", "none", "null", "undefined", "unknown", "(unknown)"];

/// The entity of a kind and a name as it was written; `None` where the name stands for nothing.
pub fn normalise(kind: EntityKind, name: &str) -> Option<Entity> {
    let plain: String = name.chars().filter(|character| !character.is_control()).collect();
    let plain = plain.trim();
    let name = match kind {
        EntityKind::Session | EntityKind::Tenant => plain.to_owned(),
        EntityKind::User | EntityKind::Node | EntityKind::Region => plain.to_lowercase(),
        EntityKind::Host => plain.to_lowercase().trim_end_matches('.').to_owned(),
        EntityKind::Badge => {
            plain.to_lowercase().chars().filter(|c| !c.is_whitespace() && !matches!(c, '-' | ':')).collect()
        }
        EntityKind::Address => address(plain)?,
    };
    let short: String = name.chars().take(SUMMARY_TEXT_CHARACTERS_MAX).collect();
    let short = match kind {
        EntityKind::Host | EntityKind::Address => short.trim_end_matches(|c: char| c == '.' || c.is_whitespace()),
        _ => short.trim_end(),
    };
    let is_name = !short.is_empty() && !NOBODY.contains(&short.to_lowercase().as_str());
    is_name.then(|| Entity { kind, name: short.into() })
}

/// What each kind is called, in API, policies and command line.
const KINDS: [(&str, EntityKind); 8] = [
    ("user", EntityKind::User),
    ("address", EntityKind::Address),
    ("session", EntityKind::Session),
    ("host", EntityKind::Host),
    ("tenant", EntityKind::Tenant),
    ("node", EntityKind::Node),
    ("region", EntityKind::Region),
    ("badge", EntityKind::Badge),
];

/// What a kind is called.
pub fn kind_name(kind: EntityKind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(name, _)| name)
}

/// The entity of a kind's name and a name, such as `user` and `Ann`; `None` where there is none.
pub fn parse(kind: &str, name: &str) -> Option<Entity> {
    let (_, kind) = KINDS.iter().find(|(known, _)| *known == kind)?;
    normalise(*kind, name)
}

/// Kind and name, such as `user:ann`.
pub fn text(entity: &Entity) -> String {
    format!("{}:{}", kind_name(entity.kind), entity.name)
}

/// An entity in that form.
pub fn normalised(entity: &Entity) -> Option<Entity> {
    normalise(entity.kind, &entity.name)
}

/// IPv4 where it is IPv4, without port, brackets and zone; other names as hosts. The unspecified address is nobody's.
fn address(text: &str) -> Option<String> {
    let bare = text.trim_start_matches('[').trim_end_matches(['.', ']']);
    let parsed = text
        .parse::<SocketAddr>()
        .map(|socket| socket.ip())
        .or_else(|_| bare.split('%').next().unwrap_or(bare).parse::<IpAddr>());
    match parsed.map(|address| address.to_canonical()) {
        Ok(address) if address.is_unspecified() => None,
        Ok(address) => Some(address.to_string()),
        Err(_) => Some(text.to_lowercase().trim_end_matches('.').to_owned()),
    }
}

/// Whether an entity is in nearly every event: it joins alerts only where an alert has nothing better.
pub const fn is_broad(kind: EntityKind) -> bool {
    matches!(kind, EntityKind::Host | EntityKind::Tenant | EntityKind::Node | EntityKind::Region)
}

/// Whether an entity joins nothing anywhere: every host has it.
pub fn joins_nothing(entity: &Entity) -> bool {
    let loopback = |address: IpAddr| address.is_loopback();
    match entity.kind {
        EntityKind::Address => &*entity.name == "localhost" || entity.name.parse().is_ok_and(loopback),
        EntityKind::Host => matches!(&*entity.name, "localhost" | "localhost.localdomain"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(kind: EntityKind, written: &str, expect: Option<&str>) {
        let is = normalise(kind, written);
        assert_eq!(is.as_ref().map(|entity| &*entity.name), expect, "{kind:?} {written:?}");
    }

    #[test]
    fn the_same_thing_has_the_same_name() {
        check(EntityKind::Address, "::ffff:10.0.0.1", Some("10.0.0.1"));
        check(EntityKind::Address, "10.0.0.1:22", Some("10.0.0.1"));
        check(EntityKind::Address, "[2001:DB8::1]:443", Some("2001:db8::1"));
        check(EntityKind::Address, "fe80::1%eth0", Some("fe80::1"));
        check(EntityKind::Address, "Host.Example.", Some("host.example"));
        check(EntityKind::User, " CORP\\Ann ", Some("corp\\ann"));
        check(EntityKind::Badge, "00-12 Ab", Some("0012ab"));
        check(EntityKind::Session, "AbC", Some("AbC"));
        let long = "x".repeat(SUMMARY_TEXT_CHARACTERS_MAX - 1);
        check(EntityKind::User, &format!("{long} y"), Some(&long));
        for nobody in ["", " ", "-", "N/A", "(None)", "unknown\n"] {
            check(EntityKind::User, nobody, None);
        }
        check(EntityKind::Address, "0.0.0.0", None);
        check(EntityKind::Address, "::", None);
    }

    proptest! {
        #[test]
        fn a_normal_name_is_its_own_normal_name(kind in 0..8usize, name in "\\PC{0,300}|[0-9a-fA-F.:%\\[\\]]{0,24}") {
            use EntityKind::*;
            let kind = [User, Address, Session, Host, Tenant, Node, Region, Badge][kind];
            if let Some(entity) = normalise(kind, &name) {
                prop_assert_eq!(normalised(&entity), Some(entity.clone()));
                prop_assert!(entity.name.chars().count() <= SUMMARY_TEXT_CHARACTERS_MAX);
            }
        }
    }
}
