//! Lockout after failed logins, per account and per address.
//!
//! Counts only grow: each region counts its own failures, and a success clears those it names by raising a second
//! count. Two copies merge by taking the larger of each count, so regions agree in any order and a failure is never
//! counted twice.

use model::{RegionId, UserId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Most subjects a ledger holds; at the bound the one that has been quiet longest is forgotten.
pub const SUBJECTS_MAX: usize = 65_536;

/// When failures lock, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockoutPolicy {
    /// Failures that lock.
    pub failures: u64,
    /// Failures are forgotten after so long without another one.
    pub window_ms: u64,
    /// How long a lock lasts after the last failure.
    pub lock_ms: u64,
}

impl LockoutPolicy {
    /// For an account: 10 failures within 15 minutes lock it for 15 minutes.
    pub const ACCOUNT: Self = Self { failures: 10, window_ms: 15 * 60_000, lock_ms: 15 * 60_000 };
    /// For an address, behind which an office may sit: 100 failures.
    pub const ADDRESS: Self = Self { failures: 100, window_ms: 15 * 60_000, lock_ms: 15 * 60_000 };

    /// How long failures matter after the last of them.
    const fn memory_ms(&self) -> u64 {
        if self.window_ms > self.lock_ms { self.window_ms } else { self.lock_ms }
    }
}

/// What one region counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Count {
    /// Failures, ever.
    pub failed: u64,
    /// Failures that a success, or time, has cleared.
    pub cleared: u64,
    /// The latest failure, in milliseconds since 1970.
    pub last_ms: u64,
}

/// The failures of one account or one address, by region.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Failures(BTreeMap<RegionId, Count>);

impl FromIterator<(RegionId, Count)> for Failures {
    fn from_iter<I: IntoIterator<Item = (RegionId, Count)>>(counts: I) -> Self {
        Self(counts.into_iter().collect())
    }
}

/// The answer to a login: try, or wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many failed logins; locked for {} more seconds", .retry_after_ms.div_ceil(1000))]
pub struct Locked {
    /// How long it stays locked.
    pub retry_after_ms: u64,
}

impl Failures {
    /// Counts a failure seen in `region`.
    pub fn record_failure(&mut self, region: RegionId, now_ms: u64, policy: &LockoutPolicy) {
        let count = self.0.entry(region).or_default();
        if now_ms.saturating_sub(count.last_ms) > policy.memory_ms() {
            count.cleared = count.failed;
        }
        count.failed = count.failed.saturating_add(1);
        count.last_ms = count.last_ms.max(now_ms);
    }

    /// Clears every failure known here: a success names exactly these.
    pub fn record_success(&mut self) {
        for count in self.0.values_mut() {
            count.cleared = count.failed;
        }
    }

    /// Whether a login may be tried.
    pub fn check(&self, now_ms: u64, policy: &LockoutPolicy) -> Result<(), Locked> {
        let fresh = || self.0.values().filter(|count| now_ms.saturating_sub(count.last_ms) <= policy.memory_ms());
        let standing = fresh().fold(0u64, |sum, count| sum.saturating_add(count.failed.saturating_sub(count.cleared)));
        let last_ms = fresh().map(|count| count.last_ms).max().unwrap_or(0);
        let until_ms = last_ms.saturating_add(policy.lock_ms);
        if standing >= policy.failures && now_ms < until_ms {
            // A clock that jumped back must not lengthen a lock.
            Err(Locked { retry_after_ms: (until_ms - now_ms).min(policy.lock_ms) })
        } else {
            Ok(())
        }
    }

    /// Learns what another copy counted.
    pub fn merge(&mut self, other: &Self) {
        for (region, theirs) in &other.0 {
            let ours = self.0.entry(*region).or_default();
            ours.failed = ours.failed.max(theirs.failed);
            ours.cleared = ours.cleared.max(theirs.cleared);
            ours.last_ms = ours.last_ms.max(theirs.last_ms);
        }
    }

    /// The latest failure anywhere, in milliseconds since 1970.
    pub fn last_ms(&self) -> u64 {
        self.0.values().map(|count| count.last_ms).max().unwrap_or(0)
    }

    /// What each region counted.
    pub fn counts(&self) -> impl Iterator<Item = (RegionId, Count)> + '_ {
        self.0.iter().map(|(region, count)| (*region, *count))
    }
}

/// Whose failures are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Suspect {
    /// An account that exists.
    Account(UserId),
    /// An address, in canonical form, whatever logins were tried from it.
    Address(IpAddr),
}

/// The failures of everyone, bounded.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger(BTreeMap<Suspect, Failures>);

impl Ledger {
    /// Whether a login may be tried: neither the account (if there is one) nor the address is locked.
    pub fn check(&self, user: Option<UserId>, address: IpAddr, now_ms: u64) -> Result<(), Locked> {
        suspects(user, address).try_for_each(|(suspect, policy)| {
            self.0.get(&suspect).map_or(Ok(()), |failures| failures.check(now_ms, policy))
        })
    }

    /// Counts a failed login seen in `region`.
    pub fn record_failure(&mut self, user: Option<UserId>, address: IpAddr, region: RegionId, now_ms: u64) {
        for (suspect, policy) in suspects(user, address) {
            if !self.0.contains_key(&suspect) {
                self.make_room();
            }
            self.0.entry(suspect).or_default().record_failure(region, now_ms, policy);
        }
    }

    /// A full login, second factor included, clears the account's failures; those of the address stand, or an
    /// attacker with one account of his own could guess at others without end.
    pub fn record_success(&mut self, user: UserId) {
        if let Some(failures) = self.0.get_mut(&Suspect::Account(user)) {
            failures.record_success();
        }
    }

    /// Learns what another copy counted.
    pub fn merge(&mut self, other: &Self) {
        for (suspect, theirs) in &other.0 {
            if !self.0.contains_key(suspect) {
                self.make_room();
            }
            self.0.entry(*suspect).or_default().merge(theirs);
        }
    }

    fn make_room(&mut self) {
        if self.0.len() >= SUBJECTS_MAX {
            let quietest = self.0.iter().min_by_key(|(_, failures)| failures.last_ms()).map(|(suspect, _)| *suspect);
            if let Some(quietest) = quietest {
                self.0.remove(&quietest);
            }
        }
    }
}

fn suspects(user: Option<UserId>, address: IpAddr) -> impl Iterator<Item = (Suspect, &'static LockoutPolicy)> {
    let address = (Suspect::Address(crate::session::canonical(address)), &LockoutPolicy::ADDRESS);
    let account = user.map(|user| (Suspect::Account(user), &LockoutPolicy::ACCOUNT));
    account.into_iter().chain(std::iter::once(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: LockoutPolicy = LockoutPolicy { failures: 3, window_ms: 1000, lock_ms: 2000 };
    const EU: RegionId = RegionId::new(1);
    const US: RegionId = RegionId::new(2);

    fn failed(times: &[(RegionId, u64)]) -> Failures {
        let mut failures = Failures::default();
        times.iter().for_each(|(region, now_ms)| failures.record_failure(*region, *now_ms, &POLICY));
        failures
    }

    #[test]
    fn enough_failures_lock_for_a_while() {
        let failures = failed(&[(EU, 10_000), (EU, 10_001), (EU, 10_002)]);
        assert_eq!(failures.check(10_002, &POLICY), Err(Locked { retry_after_ms: 2000 }));
        assert_eq!(failures.check(12_001, &POLICY), Err(Locked { retry_after_ms: 1 }));
        assert_eq!(failures.check(12_002, &POLICY), Ok(()));
        assert_eq!(failed(&[(EU, 10_000), (EU, 10_001)]).check(10_001, &POLICY), Ok(()));
        assert_eq!(failures.check(0, &POLICY), Err(Locked { retry_after_ms: 2000 }), "a clock that jumped back");
    }

    #[test]
    fn failures_of_all_regions_add_up() {
        let mut merged = failed(&[(EU, 10_000), (EU, 10_001)]);
        merged.merge(&failed(&[(US, 10_001)]));
        assert!(merged.check(10_001, &POLICY).is_err());
    }

    #[test]
    fn quiet_time_forgets_and_a_success_clears_only_what_it_knew() {
        let failures = failed(&[(EU, 10_000), (EU, 10_001), (EU, 20_000)]);
        assert_eq!(failures.check(20_000, &POLICY), Ok(()));

        let known = failed(&[(EU, 10_000), (EU, 10_001), (EU, 10_002)]);
        let mut cleared = known.clone();
        cleared.record_success();
        assert_eq!(cleared.check(10_003, &POLICY), Ok(()));
        cleared.merge(&known);
        assert_eq!(cleared.check(10_003, &POLICY), Ok(()), "an old copy does not bring failures back");
        cleared.merge(&failed(&[(US, 10_001), (US, 10_002), (US, 10_003)]));
        assert!(cleared.check(10_003, &POLICY).is_err(), "failures the success did not know stand");
    }

    #[test]
    fn an_address_stays_counted_whatever_logins_it_tries() {
        let (mallory, carol) = ("192.0.2.1".parse().unwrap(), UserId::new(1));
        let mut ledger = Ledger::default();
        for n in 0..LockoutPolicy::ADDRESS.failures {
            assert_eq!(ledger.check(None, mallory, 1_000 + n), Ok(()));
            ledger.record_failure((n % 2 == 0).then(|| UserId::new(100 + n)), mallory, EU, 1_000 + n);
        }
        ledger.record_success(UserId::new(100));
        assert!(ledger.check(None, mallory, 2_000).is_err());
        assert!(ledger.check(None, "::ffff:192.0.2.1".parse().unwrap(), 2_000).is_err());
        assert_eq!(ledger.check(Some(carol), "192.0.2.2".parse().unwrap(), 2_000), Ok(()));
    }

    #[test]
    fn a_full_ledger_forgets_the_quietest() {
        let address = |n: usize| IpAddr::from((n as u32).to_be_bytes());
        let mut ledger = Ledger::default();
        for n in 0..=SUBJECTS_MAX {
            ledger.record_failure(None, address(n), EU, n as u64);
        }
        assert_eq!(ledger.0.len(), SUBJECTS_MAX);
        assert!(!ledger.0.contains_key(&Suspect::Address(address(0))));
    }

    fn any_failures() -> impl Strategy<Value = Failures> {
        proptest::collection::vec((0u16..3, 0u64..5000, any::<bool>()), 0..12).prop_map(|events| {
            let mut failures = Failures::default();
            for (region, now_ms, success) in events {
                failures.record_failure(RegionId::new(region), now_ms, &POLICY);
                if success {
                    failures.record_success();
                }
            }
            failures
        })
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_idempotent(
            a in any_failures(), b in any_failures(), c in any_failures(),
        ) {
            let merge = |x: &Failures, y: &Failures| { let mut x = x.clone(); x.merge(y); x };
            prop_assert_eq!(merge(&a, &b), merge(&b, &a));
            prop_assert_eq!(merge(&merge(&a, &b), &c), merge(&a, &merge(&b, &c)));
            prop_assert_eq!(merge(&a, &a), a.clone());
            for (region, count) in merge(&a, &b).counts() {
                let before = a.counts().find(|(id, _)| *id == region).map(|(_, count)| count).unwrap_or_default();
                prop_assert!(count.failed >= before.failed && count.cleared >= before.cleared);
            }
        }
    }
}
