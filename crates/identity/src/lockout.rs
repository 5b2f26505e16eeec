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
