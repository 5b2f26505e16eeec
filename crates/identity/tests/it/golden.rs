//! Bytes that were written once and must stay readable: tokens in clients' hands, accounts in the control state.

use super::{Seed, account, keys};
use identity::totp::TotpSecret;
use identity::{Account, Grant, Role, VectorToken};
use model::{FieldId, Origin, RegionId, TableId, TenantId};
use std::collections::BTreeMap;

fn carol() -> Account {
    let tables = BTreeMap::from([(TableId::new(1), Some([FieldId::new(2)].into())), (TableId::new(3), None)]);
    let totp = TotpSecret::generate(&Seed(4));
    let step = totp.check(&totp.code(1_800_000_000_000), 1_800_000_000_000, None).unwrap();
    let grants = vec![Grant::whole(Role::Agent), Grant { role: Role::Reader, tables: Some(tables) }];
    Account { totp: Some(totp), totp_last: Some(step), ..account(5, grants) }
}

#[test]
fn a_session_token_of_version_1_is_still_written_and_read() {
    let keys = keys(&[1]);
    let issued = keys.issue(&carol(), "192.0.2.1".parse().unwrap(), true, 1_800_000_000_000, 1000, &Seed(9));
    assert_eq!(issued.token, SESSION);
    let peer = "192.0.2.1".parse().unwrap();
    assert!(keys.verify(SESSION, peer, 1_800_000_000_000, |_| false, |_| Some(carol().into())).is_ok());
}

#[test]
fn a_causal_token_of_version_1_is_still_written_and_read() {
    let vector = [(Origin::new(RegionId::new(1), 0), 9), (Origin::new(RegionId::new(2), 1), 300)].into_iter().collect();
    let token = VectorToken { cluster: "demo".into(), tenant: TenantId::new(5), vector };
    assert_eq!(token.sign(&keys(&[1])).unwrap(), VECTOR);
    assert_eq!(VectorToken::verify(VECTOR, &keys(&[1]), "demo", token.tenant), Ok(token.vector));
}

#[test]
fn an_account_of_version_1_is_still_written_and_read() {
    use base64::Engine as _;
    let bytes = model::codec::encode(&carol());
    assert_eq!(base64::engine::general_purpose::STANDARD.encode(&bytes), ACCOUNT);
    assert_eq!(model::codec::decode::<Account>(&bytes), Ok(carol()));
}

const SESSION: &str =
    "AQAAAAEJCgsMDQ4PEBESExQVFhcYBwUDAMAAAgGAoPHCsTTop_HCsTQBarJkXHnte_JzHTF5lPLwFGmrdX_R_c_157RMM8VvWVY";
const VECTOR: &str = "AQAAAAEEZGVtbwUCAQAJAgGsAibtJTnmd6mLhnHcvqOmM0aOoDPC-My2Ymu3fFTZAdOi";
const ACCOUNT: &str = "AQcFY2Fyb2wIQ2Fyb2wgTmcFAgIAAwECAQEBAgMAXiRhcmdvbjJpZCR2PTE5JG09NjQsdD0xLHA9MSRBUUlEQkFVR0J3Z0pDZ3NNRFE0UEVBJHh5K29SL3dFQXBDbVB5MjZBYm9yRktUemZBZ09ZZTh1L3VFZE1iZFhsaVEBBAUGBwgJCgsMDQ4PEBESExQVFhcBgI7OHAAAAw==";
