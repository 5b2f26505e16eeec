//! What joins alerts: shared entities, weighted by how rare they are, fading with time.
//!
//! Rarity is the number of hours, of the last [`WINDOW_HOURS`], in which an entity was in any alert: an
//! attacker is in a few, a scanner or a gateway in most, however many alerts each hour brings. So a flood by
//! one attacker stays together and a busy host joins nothing. Integers only: every node reckons the same.

use super::entity;
use crate::alert::{Entity, EntityKind};
use std::collections::{BTreeMap, BTreeSet};

/// How many hours are looked back.
pub const WINDOW_HOURS: u32 = 128;
/// Most entities whose hours are remembered; beyond it, those longest unseen are forgotten and count as rare.
pub const TRACKED_MAX: usize = 100_000;

const HOUR_MS: u64 = 3_600_000;

/// In which hours entities were seen in alerts.
#[derive(Debug, Default)]
pub struct Presence {
    seen: BTreeMap<Entity, Hours>,
}

#[derive(Clone, Copy, Debug)]
struct Hours {
    newest: u64,
    /// Bit n: seen n hours before the newest.
    bits: u128,
}

impl Presence {
    /// Notes an entity in an alert whose event happened then.
    pub fn note(&mut self, entity: &Entity, time_ms: u64) {
        let hour = time_ms / HOUR_MS;
        if let Some(hours) = self.seen.get_mut(entity) {
            if hour > hours.newest {
                hours.bits =
                    u32::try_from(hour - hours.newest).ok().and_then(|by| hours.bits.checked_shl(by)).unwrap_or(0);
                hours.newest = hour;
                hours.bits |= 1;
            } else if hours.newest - hour < u64::from(WINDOW_HOURS) {
                hours.bits |= 1 << (hours.newest - hour);
            }
            return;
        }
        if self.seen.len() >= TRACKED_MAX {
            self.forget();
        }
        self.seen.insert(entity.clone(), Hours { newest: hour, bits: 1 });
    }

    /// How rare an entity is, in thousandths of a bit: 7000 if in one hour, 0 if in all.
    pub fn rarity_millibits(&self, entity: &Entity) -> u32 {
        let hours = self.seen.get(entity).map_or(1, |hours| hours.bits.count_ones());
        millibits(WINDOW_HOURS).saturating_sub(millibits(hours))
    }

    /// How many entities it remembers.
    pub fn len(&self) -> usize {
        self.seen.len()
    }
    /// Whether it remembers none.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Half go at once, so that forgetting is rare.
    fn forget(&mut self) {
        let mut by_age: Vec<(u64, &Entity)> = self.seen.iter().map(|(entity, hours)| (hours.newest, entity)).collect();
        by_age.sort_unstable();
        let gone: Vec<Entity> = by_age.iter().take(TRACKED_MAX / 2).map(|(_, entity)| (*entity).clone()).collect();
        for entity in gone {
            self.seen.remove(&entity);
        }
    }
}

/// How much an entity of a kind says about who did something, in hundredths.
const fn weight_percent(kind: EntityKind) -> u32 {
    match kind {
        EntityKind::User | EntityKind::Session | EntityKind::Badge | EntityKind::Host | EntityKind::Node => 100,
        EntityKind::Address => 80,
        EntityKind::Tenant | EntityKind::Region => 60,
    }
}

/// Those of an alert's entities that may join it to others: the precise ones, the broad ones where there are no others.
pub fn joining<'a>(
    entities: &'a BTreeSet<Entity>,
    stop_list: &'a BTreeSet<Entity>,
) -> impl Iterator<Item = &'a Entity> {
    let precise = entities.iter().any(|entity| !entity::is_broad(entity.kind));
    entities.iter().filter(move |entity| {
        (!precise || !entity::is_broad(entity.kind)) && !stop_list.contains(*entity) && !entity::joins_nothing(entity)
    })
}

/// The weight of shared entities at a distance in event time, in thousandths of a bit, and the heaviest of them.
pub fn score<'a>(
    presence: &Presence,
    shared: impl IntoIterator<Item = &'a Entity>,
    gap_ms: u64,
    half_life_ms: u64,
) -> (u32, Option<&'a Entity>) {
    let (mut sum, mut heaviest) = (0u64, None);
    for entity in shared {
        let weight = u64::from(presence.rarity_millibits(entity)) * u64::from(weight_percent(entity.kind)) / 100;
        sum += weight;
        if heaviest.is_none_or(|(known, _)| weight > known) {
            heaviest = Some((weight, entity));
        }
    }
    let faded = decayed(sum, gap_ms, half_life_ms);
    (u32::try_from(faded).unwrap_or(u32::MAX), heaviest.map(|(_, entity)| entity))
}

/// A value that halves with each half-life, linear between.
pub fn decayed(value: u64, age_ms: u64, half_life_ms: u64) -> u64 {
    let half_life_ms = half_life_ms.max(1);
    let whole = u32::try_from(age_ms / half_life_ms).ok().and_then(|halves| value.checked_shr(halves)).unwrap_or(0);
    let part = u128::from(whole) * u128::from(age_ms % half_life_ms) / (2 * u128::from(half_life_ms));
    whole - u64::try_from(part).unwrap_or(whole)
}

/// The binary logarithm in thousandths, linear between powers of two.
fn millibits(number: u32) -> u32 {
    let number = u64::from(number.max(1));
    let whole = number.ilog2();
    let part = (number - (1 << whole)) * 1_000 / (1 << whole);
    whole * 1_000 + u32::try_from(part).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(name: &str) -> Entity {
        Entity { kind: EntityKind::Address, name: name.into() }
    }

    #[test]
    fn a_flood_stays_rare_and_a_gateway_becomes_common() {
        let mut presence = Presence::default();
        for alert in 0..10_000 {
            presence.note(&address("attacker"), alert * 100);
        }
        for hour in 0..200 {
            presence.note(&address("gateway"), hour * HOUR_MS);
        }
        assert_eq!(presence.rarity_millibits(&address("attacker")), 7_000);
        assert_eq!(presence.rarity_millibits(&address("gateway")), 0);
        assert_eq!(score(&presence, [&address("gateway")], 0, 1).0, 0);
        assert_eq!(score(&presence, [&address("attacker")], 0, 1), (5_600, Some(&address("attacker"))));
    }

    #[test]
    fn remembered_entities_are_bounded_and_the_longest_unseen_leave() {
        let mut presence = Presence::default();
        for number in 0..TRACKED_MAX + 10 {
            presence.note(&address(&number.to_string()), number as u64 * HOUR_MS);
        }
        assert!(presence.len() <= TRACKED_MAX);
        assert!(presence.seen.contains_key(&address(&TRACKED_MAX.to_string())));
        assert!(!presence.seen.contains_key(&address("0")));
    }

    proptest! {
        #[test]
        fn decay_never_grows_with_age(value in 0..u64::MAX, age_ms in 0..1u64 << 40, more_ms in 0..1u64 << 30, half in 1..1u64 << 36) {
            prop_assert!(decayed(value, age_ms + more_ms, half) <= decayed(value, age_ms, half));
            prop_assert_eq!(decayed(value, 0, half), value);
        }

        #[test]
        fn presence_does_not_depend_on_the_order_of_events(mut hours in prop::collection::vec(0..300u64, 1..40)) {
            let read = |hours: &[u64]| {
                let mut presence = Presence::default();
                hours.iter().for_each(|hour| presence.note(&address("a"), hour * HOUR_MS));
                presence.rarity_millibits(&address("a"))
            };
            let first = read(&hours);
            hours.sort_unstable();
            prop_assert_eq!(read(&hours), first);
        }
    }
}
