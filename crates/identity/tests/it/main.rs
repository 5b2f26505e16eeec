//! The crate from outside: sessions, policies, and what must not compile.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod golden;
mod policy;
mod session;
mod ui;

use identity::password::{Cost, PasswordHash};
use identity::{Account, Grant, KeyId, Login, SessionKey, SessionKeys};
use model::entropy::Entropy;
use model::{TenantId, UserId};

/// Bytes that a number decides.
struct Seed(u8);
impl Entropy for Seed {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = self.0.wrapping_add(at as u8));
    }
}

fn keys(seeds: &[u8]) -> SessionKeys {
    let keys: Vec<_> =
        seeds.iter().map(|seed| SessionKey::generate(KeyId::new(u32::from(*seed)), &Seed(*seed))).collect();
    SessionKeys::new(&keys).unwrap()
}

fn account(tenant: u64, grants: Vec<Grant>) -> Account {
    Account {
        id: UserId::new(7),
        login: Login::parse("carol").unwrap(),
        person: "Carol Ng".into(),
        tenant: TenantId::new(tenant),
        grants,
        password: PasswordHash::new("Tr4velling-Lamp", Cost::Cheap, &Seed(1)),
        totp: None,
        totp_last: None,
        must_change: false,
        disabled: false,
        epoch: 3,
    }
}
