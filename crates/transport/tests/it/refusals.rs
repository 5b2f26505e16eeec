//! Who is not let in, whichever side dials, and what both sides are told.

use crate::conformance::{DEADLINE, Echo, body};
use crate::mesh::{Mesh, NOW_MS, Random, YEAR_MS, address, eventually, identity};
use model::cluster::Environment;
use model::{NodeId, RegionId};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use std::sync::Arc;
use transport::{Authority, Identity, Issued, Link, LinkError, QuicError, QuicLink, Service};

const ONE: NodeId = NodeId::new(1);
const TWO: NodeId = NodeId::new(2);

/// A stranger is refused in both directions; `inner` is what the one who refuses says, `outer` what the refused hears.
async fn check(mesh: &Mesh, stranger: Issued, inner: &str, outer: &str) {
    let good = mesh.server(1, &[]);
    let options = mesh.options(stranger.clone(), &[(1, address(&good))]);
    let bad = QuicLink::bind(options).expect("binds");
    bad.serve(Arc::new(Echo::default()));
    assert_eq!(bad.call(ONE, Service::Raft, body(1), DEADLINE).await, Err(LinkError::Unreachable(ONE)));
    let heard = bad.status().peers[&ONE].error.clone().expect("says why");
    assert!(heard.contains(outer), "the dialler hears: {heard}");
    let (_, said) = eventually(|| good.status().refusals.first().cloned()).await;
    assert!(said.contains(inner), "the other says: {said}");
    assert_eq!(good.status().refused, 1);
    assert_eq!(good.status().accepted, 0);

    let bad = QuicLink::bind(mesh.options(stranger, &[])).expect("binds");
    bad.serve(Arc::new(Echo::default()));
    let node = bad.identity().node;
    good.set_peer(node, address(&bad));
    assert_eq!(good.call(node, Service::Raft, body(1), DEADLINE).await, Err(LinkError::Unreachable(node)));
    let said = good.status().peers[&node].error.clone().expect("says why");
    assert!(said.contains(inner), "the dialler says: {said}");
    let (_, heard) = eventually(|| bad.status().refusals.first().cloned()).await;
    assert!(heard.contains(outer), "the other hears: {heard}");
}

fn changed(mesh: &Mesh, change: impl FnOnce(&mut Identity)) -> Issued {
    let mut identity = identity(2);
    change(&mut identity);
    mesh.authority.issue_node(&identity, NOW_MS, &Random).expect("issues")
}

/// A certificate that the authority itself would not issue: `None` signs it with its own key.
fn forged(authority: Option<&Authority>, name: &str) -> Issued {
    let key = KeyPair::generate().expect("generates");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(name.try_into().expect("ASCII"))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = match authority {
        Some(authority) => {
            let authority_key = KeyPair::from_pem(&authority.key_pem()).expect("PEM");
            let issuer = Issuer::from_ca_cert_pem(authority.certificate_pem(), authority_key).expect("PEM");
            params.signed_by(&key, &issuer)
        }
        None => params.self_signed(&key),
    };
    Issued { certificate_pem: certificate.expect("signs").pem(), key_pem: key.serialize_pem() }
}

#[tokio::test]
async fn another_region_is_refused() {
    let mesh = Mesh::new();
    let stranger = changed(&mesh, |identity| identity.region = RegionId::new(1));
    let why = "no such node in this cluster: n2 in r1, zone 'protected'";
    check(&mesh, stranger, why, &format!("refused by the other side: {why}")).await;
}

#[tokio::test]
async fn another_zone_is_refused() {
    let mesh = Mesh::new();
    let stranger = changed(&mesh, |identity| identity.zone = "edge".into());
    check(&mesh, stranger, "zone 'edge'", "refused by the other side: no such node").await;
}

#[tokio::test]
async fn another_environment_is_refused() {
    let mesh = Mesh::new();
    let stranger = changed(&mesh, |identity| identity.environment = Environment::Production);
    let why = "certificate of another environment: 'production'";
    // It refuses the others as well, for the same reason.
    check(&mesh, stranger, why, "certificate of another environment: 'development'").await;
}

#[tokio::test]
async fn another_cluster_under_the_same_authority_is_refused() {
    let mesh = Mesh::new();
    let name = identity(2).to_string().replace("mesh", "other");
    let why = "certificate of another cluster: 'other'";
    check(&mesh, forged(Some(&mesh.authority), &name), why, "certificate of another cluster: 'mesh'").await;
}

#[tokio::test]
async fn another_authority_is_refused() {
    let mesh = Mesh::new();
    check(&mesh, Mesh::new().issue(2), "invalid peer certificate", "aborted by peer").await;
}

#[tokio::test]
async fn a_self_signed_certificate_is_refused() {
    let mesh = Mesh::new();
    check(&mesh, forged(None, &identity(2).to_string()), "UnknownIssuer", "aborted by peer").await;
}

#[tokio::test]
async fn an_expired_certificate_and_one_not_yet_valid_are_refused() {
    let mesh = Mesh::new();
    let issue = |now_ms| mesh.authority.issue_node(&identity(2), now_ms, &Random).expect("issues");
    check(&mesh, issue(NOW_MS - YEAR_MS - 1_000), "expired", "aborted by peer").await;
    check(&mesh, issue(NOW_MS + YEAR_MS), "not valid yet", "aborted by peer").await;
}

#[tokio::test]
async fn another_node_at_the_address_is_not_taken_for_the_expected() {
    let mesh = Mesh::new();
    let three = mesh.server(3, &[]);
    let one = mesh.node(1, &[(2, address(&three))]);
    assert_eq!(one.call(TWO, Service::Raft, body(1), DEADLINE).await, Err(LinkError::Unreachable(TWO)));
    assert_eq!(one.status().peers[&TWO].error.as_deref(), Some("expected n2, found n3"));
    let (_, heard) = eventually(|| three.status().refusals.first().cloned()).await;
    assert_eq!(heard, "refused by the other side: expected n2, found n3");
}

#[test]
fn a_certificate_without_a_node_name_does_not_link() {
    let mesh = Mesh::new();
    let issued = mesh.authority.issue_api_server(&[], &[], NOW_MS, &Random).expect("issues");
    assert!(matches!(QuicLink::bind(mesh.options(issued, &[])), Err(QuicError::Identity(_))));
    let mut options = mesh.options(mesh.issue(1), &[]);
    options.roots_pem = "nonsense".into();
    assert!(matches!(QuicLink::bind(options), Err(QuicError::Roots)));
}
