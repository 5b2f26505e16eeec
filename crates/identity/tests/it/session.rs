//! Sessions and tokens against everything a client may send.

use super::{Seed, account, keys};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::session::LIFETIME_MS_MAX;
use identity::token::TOKEN_CHARACTERS_MAX;
use identity::{Account, Grant, Role, ScopeError, Session, SessionError, SessionKeys, VectorToken, VectorTokenError};
use model::{Origin, RegionId, TenantId, VersionVector};
use proptest::prelude::*;
use std::net::IpAddr;
use std::sync::Arc;

const NOW_MS: u64 = 1_800_000_000_000;
const HOUR_MS: u64 = 3_600_000;

fn home() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

fn agent() -> Account {
    account(5, vec![Grant::whole(Role::Agent)])
}

fn issue(keys: &SessionKeys, account: &Account, second_factor: bool) -> String {
    keys.issue(account, home(), second_factor, NOW_MS, HOUR_MS, &Seed(9)).token
}

fn verify(keys: &SessionKeys, token: &str, account: &Account) -> Result<Session, SessionError> {
    keys.verify(token, home(), NOW_MS, |_| false, |_| Some(Arc::new(account.clone())))
}

#[test]
fn a_token_becomes_a_session_at_its_address_until_it_expires() {
    let (keys, carol) = (keys(&[1]), agent());
    let issued = keys.issue(&carol, home(), true, NOW_MS, HOUR_MS, &Seed(9));
    let at = |address: &str, now_ms| {
        keys.verify(&issued.token, address.parse().unwrap(), now_ms, |_| false, |_| Some(Arc::new(carol.clone())))
    };
    let session = at("192.0.2.1", NOW_MS).unwrap();
    assert_eq!((session.id(), session.user(), session.tenant()), (issued.session, carol.id, carol.tenant));
    assert_eq!((session.address(), session.second_factor()), (home(), true));
    assert_eq!((session.issued_ms(), session.expires_ms()), (NOW_MS, issued.expires_ms));
    assert!(at("::ffff:192.0.2.1", NOW_MS).is_ok(), "the same address on a dual-stack socket");
    assert!(at("192.0.2.1", NOW_MS + HOUR_MS - 1).is_ok());
    assert!(matches!(at("192.0.2.1", NOW_MS + HOUR_MS), Err(SessionError::Expired(_))));
    for other in ["192.0.2.2", "127.0.0.1", "2001:db8::1", "::192.0.2.1"] {
        let refused = at(other, NOW_MS).unwrap_err();
        assert!(matches!(refused, SessionError::AddressMismatch(_)), "{other}");
        assert_eq!(refused.holder().unwrap().user, carol.id, "the audit log learns whose token it was");
    }
    assert!(!format!("{issued:?}").contains(&issued.token));
}

#[test]
fn no_session_outlives_the_longest_life() {
    let issued = keys(&[1]).issue(&agent(), home(), true, NOW_MS, u64::MAX, &Seed(9));
    assert_eq!(issued.expires_ms, NOW_MS + LIFETIME_MS_MAX);
}

#[test]
fn logout_disabling_and_changed_credentials_end_a_session() {
    let (keys, carol) = (keys(&[1]), agent());
    let token = issue(&keys, &carol, false);
    let revoked = keys.verify(&token, home(), NOW_MS, |_| true, |_| Some(Arc::new(carol.clone())));
    assert!(matches!(revoked, Err(SessionError::Revoked(_))));
    let gone = keys.verify(&token, home(), NOW_MS, |_| false, |_| None);
    assert!(matches!(gone, Err(SessionError::AccountDisabled(_))));
    let with = |change: fn(&mut Account)| {
        let mut changed = carol.clone();
        change(&mut changed);
        verify(&keys, &token, &changed).map(|_| ()).unwrap_err()
    };
    assert!(matches!(with(|account| account.disabled = true), SessionError::AccountDisabled(_)));
    assert!(matches!(with(|account| account.grants.clear()), SessionError::AccountDisabled(_)));
    assert!(matches!(with(|account| account.epoch += 1), SessionError::Revoked(_)));
    assert!(matches!(with(|account| account.tenant = TenantId::new(6)), SessionError::Revoked(_)));
    assert!(matches!(with(|account| account.id = model::UserId::new(8)), SessionError::AccountDisabled(_)));
}

#[test]
fn the_newest_key_signs_and_all_verify() {
    let carol = agent();
    let token = issue(&keys(&[1]), &carol, false);
    assert!(verify(&keys(&[1, 2]), &token, &carol).is_ok());
    assert_eq!(verify(&keys(&[2]), &token, &carol).unwrap_err(), SessionError::UnknownKey);
    let newer = issue(&keys(&[1, 2]), &carol, false);
    assert_eq!(verify(&keys(&[1]), &newer, &carol).unwrap_err(), SessionError::UnknownKey);
    assert!(SessionKeys::new(&[]).is_err());
}

#[test]
fn a_key_of_another_cluster_with_the_same_id_opens_nothing() {
    let other = identity::SessionKey::generate(identity::KeyId::FIRST, &Seed(200));
    let token = issue(&SessionKeys::new(&[other]).unwrap(), &agent(), false);
    assert_eq!(verify(&keys(&[1]), &token, &agent()).unwrap_err(), SessionError::Malformed);
}

#[test]
fn a_causal_token_is_of_one_cluster_and_tenant_and_never_a_session() {
    let keys = keys(&[1]);
    let vector: VersionVector = [(Origin::new(RegionId::new(1), 0), 9)].into_iter().collect();
    let token = VectorToken { cluster: "demo".into(), tenant: TenantId::new(5), vector: vector.clone() };
    let signed = token.sign(&keys).unwrap();
    let read = |text: &str, cluster, tenant| VectorToken::verify(text, &keys, cluster, TenantId::new(tenant));
    assert_eq!(read(&signed, "demo", 5), Ok(vector));
    assert_eq!(read(&signed, "other", 5), Err(VectorTokenError::OtherCluster));
    assert_eq!(read(&signed, "demo", 6), Err(VectorTokenError::OtherTenant));
    assert_eq!(verify(&keys, &signed, &agent()).unwrap_err(), SessionError::Malformed);
    assert_eq!(read(&issue(&keys, &agent(), false), "demo", 5), Err(VectorTokenError::Malformed));

    let origins = (0..128).map(|n| (Origin::new(RegionId::new(u16::MAX - n), u16::MAX), u64::MAX));
    let largest = VectorToken { cluster: "c".repeat(64), vector: origins.clone().collect(), ..token.clone() };
    let signed = largest.sign(&keys).unwrap();
    assert!(signed.len() <= TOKEN_CHARACTERS_MAX, "{}", signed.len());
    assert_eq!(read(&signed, &largest.cluster, 5), Ok(largest.vector.clone()));
    let more = origins.chain([(Origin::new(RegionId::new(1), 0), 1)]).collect();
    assert_eq!(VectorToken { vector: more, ..token }.sign(&keys), Err(VectorTokenError::TooLarge));
}

#[test]
fn an_administrator_without_second_factor_or_with_a_given_password_gets_no_scope() {
    let keys = keys(&[1]);
    let scope = |account: &Account, second_factor, tenant| {
        verify(&keys, &issue(&keys, account, second_factor), account).unwrap().scope(TenantId::new(tenant))
    };
    let admin = account(5, vec![Grant::whole(Role::TenantAdmin)]);
    assert_eq!(scope(&admin, false, 5), Err(ScopeError::SecondFactorNeeded));
    assert_eq!(scope(&admin, true, 5).unwrap().tenant(), TenantId::new(5));
    let fresh = Account { must_change: true, ..agent() };
    assert_eq!(scope(&fresh, true, 5), Err(ScopeError::MustChange));
    let platform = account(0, vec![Grant::whole(Role::PlatformAdmin)]);
    assert_eq!(scope(&platform, true, 5), Err(ScopeError::OtherTenant), "running the platform opens no tenant");
}

proptest! {
    #[test]
    fn no_session_gets_the_scope_of_another_tenant(own in any::<u64>(), other in any::<u64>(), role in 0..Role::ALL.len()) {
        let keys = keys(&[1]);
        let account = account(own, vec![Grant::whole(Role::ALL[role])]);
        let session = verify(&keys, &issue(&keys, &account, true), &account).unwrap();
        prop_assert_eq!(session.scope(TenantId::new(own)).unwrap().tenant(), TenantId::new(own));
        if own != other {
            prop_assert_eq!(session.scope(TenantId::new(other)), Err(ScopeError::OtherTenant));
        }
    }

    #[test]
    fn arbitrary_text_never_panics_and_is_refused(text in "\\PC{0,300}", bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let keys = keys(&[1]);
        // Bytes that look right at the front, so that the key is found.
        let dressed = [&[1, 0, 0, 0, 1][..], &bytes].concat();
        for token in [text, URL_SAFE_NO_PAD.encode(bytes), URL_SAFE_NO_PAD.encode(dressed)] {
            let refused = verify(&keys, &token, &agent()).unwrap_err();
            prop_assert!(matches!(refused, SessionError::Malformed | SessionError::UnknownKey));
            prop_assert!(VectorToken::verify(&token, &keys, "demo", TenantId::new(5)).is_err());
        }
    }

    #[test]
    fn any_flipped_bit_is_refused(at in any::<usize>()) {
        let keys = keys(&[1]);
        let token = issue(&keys, &agent(), false);
        let mut bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        let bit = at % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(verify(&keys, &URL_SAFE_NO_PAD.encode(&bytes), &agent()).is_err());
        let mut text = token.clone().into_bytes();
        let bit = at % (text.len() * 8);
        text[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(verify(&keys, &String::from_utf8_lossy(&text), &agent()).is_err());
        prop_assert!(verify(&keys, &token[..at % token.len()], &agent()).is_err());
    }
}
