//! The cluster's certificate authority: creates itself, and issues certificates of nodes and API servers.
//!
//! All keys are ECDSA P-256: browsers and old TLS stacks reject Ed25519. Files are the caller's: everything here
//! takes and returns PEM text. It must never issue a name of another cluster, nor one that `Identity` would not read.

use crate::identity::Identity;
use model::entropy::Entropy;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::net::IpAddr;
use std::time::Duration;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an authority is valid.
pub const AUTHORITY_VALIDITY: Duration = Duration::from_secs(3650 * DAY.as_secs());
/// How long an issued certificate is valid: browsers accept no more than 398 days.
pub const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(365 * DAY.as_secs());
/// Certificates are valid from so long ago, for clocks that are behind.
const SKEW: Duration = Duration::from_secs(60 * 60);

/// A certificate and its private key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key (PKCS#8).
    pub key_pem: String,
}

/// Why an authority cannot be read, or does not issue.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate is not one of a cluster's authority.
    #[error("not the certificate of a cluster's authority")]
    Certificate,
    /// The private key is not one, or belongs to another certificate.
    #[error("not the private key of this authority")]
    Key,
    /// The name to be issued is another cluster's, or not one that would be read.
    #[error("the authority of '{cluster}' does not issue '{name}'")]
    Name {
        /// The authority's cluster.
        cluster: String,
        /// The refused name.
        name: String,
    },
    /// The certificate library refused.
    #[error(transparent)]
    Library(#[from] rcgen::Error),
}

/// The authority of one cluster.
pub struct Authority {
    cluster: String,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority for a cluster.
    pub fn create(cluster: &str, now_ms: u64, entropy: &dyn Entropy) -> Result<Self, AuthorityError> {
        let name = format!("spiffe://{cluster}");
        if model::schema::check_name(cluster).is_err() {
            return Err(AuthorityError::Name { cluster: cluster.to_owned(), name });
        }
        let key = KeyPair::generate()?;
        let mut params = params(now_ms, AUTHORITY_VALIDITY, entropy);
        params.distinguished_name.push(DnType::CommonName, format!("Holdfast authority of {cluster}"));
        params.subject_alt_names.push(SanType::URI(name.try_into()?));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self { cluster: cluster.to_owned(), certificate_pem, issuer: Issuer::new(params, key) })
    }

    /// Reads an authority that was created before.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let der =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|_| AuthorityError::Certificate)?;
        let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| AuthorityError::Certificate)?;
        let cluster = cluster_named(&certificate).ok_or(AuthorityError::Certificate)?;
        let key = KeyPair::from_pem(key_pem).map_err(|_| AuthorityError::Key)?;
        if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(AuthorityError::Key);
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self { cluster, certificate_pem: certificate_pem.to_owned(), issuer })
    }

    /// The cluster whose authority this is.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// What everyone must trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// What no one else may have.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A new key and certificate for a node's links.
    pub fn issue_node(&self, node: &Identity, now_ms: u64, entropy: &dyn Entropy) -> Result<Issued, AuthorityError> {
        let name = node.to_string();
        if node.cluster != self.cluster || name.parse().as_ref() != Ok(node) {
            return Err(AuthorityError::Name { cluster: self.cluster.clone(), name });
        }
        let mut params = params(now_ms, CERTIFICATE_VALIDITY, entropy);
        params.distinguished_name.push(DnType::CommonName, node.node_name.clone());
        params.subject_alt_names.push(SanType::URI(name.try_into()?));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    /// A new key and certificate for an API server, which clients reach by these names and addresses.
    /// `localhost` is always among the names. It has no node's name, so links refuse it.
    pub fn issue_api_server(
        &self,
        names: &[&str],
        addresses: &[IpAddr],
        now_ms: u64,
        entropy: &dyn Entropy,
    ) -> Result<Issued, AuthorityError> {
        let mut params = params(now_ms, CERTIFICATE_VALIDITY, entropy);
        params.distinguished_name.push(DnType::CommonName, format!("Holdfast API of {}", self.cluster));
        for name in ["localhost"].iter().chain(names.iter().filter(|name| **name != "localhost")) {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate_pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate_pem, key_pem: key.serialize_pem() })
    }
}

/// What all certificates have in common: validity from `now_ms`, a random serial number, an empty name.
fn params(now_ms: u64, validity: Duration, entropy: &dyn Entropy) -> CertificateParams {
    // Certificates count in seconds, and their years end at 9999: a clock beyond 48 bits is cut.
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs((now_ms / 1_000).min(1 << 37));
    let mut serial = [0; 16];
    entropy.fill(&mut serial);
    // Positive, and not shortened by leading zeros (RFC 5280, 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.not_before = now - SKEW;
    params.not_after = now + validity;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

fn cluster_named(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok()??;
    let &[GeneralName::URI(uri)] = names.value.general_names.as_slice() else {
        return None;
    };
    let cluster = uri.strip_prefix("spiffe://")?;
    (certificate.is_ca() && model::schema::check_name(cluster).is_ok()).then(|| cluster.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Counting;
    impl Entropy for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.iter_mut().zip(0..).for_each(|(byte, number)| *byte = number);
        }
    }

    const NOW_MS: u64 = 1_800_000_000_000;

    fn eu_1() -> Identity {
        "spiffe://mesh/env/qa/region/1-eu/node/1-eu-1/zone/protected".parse().expect("well formed")
    }

    #[test]
    fn a_node_is_named_by_its_certificate_also_after_loading() {
        let created = Authority::create("mesh", NOW_MS, &Counting).expect("creates");
        let loaded = Authority::load(created.certificate_pem(), &created.key_pem()).expect("loads");
        assert_eq!(loaded.cluster(), "mesh");
        for authority in [created, loaded] {
            let issued = authority.issue_node(&eu_1(), NOW_MS, &Counting).expect("issues");
            let der = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).expect("PEM");
            assert_eq!(Identity::of_certificate(&der), Ok(eu_1()));
            let (_, certificate) = X509Certificate::from_der(&der).expect("DER");
            let now = (NOW_MS / 1_000) as i64;
            assert_eq!(certificate.validity().not_before.timestamp(), now - 3_600);
            assert_eq!(certificate.validity().not_after.timestamp(), now + 365 * 86_400);
            let both = format!("{}{}", authority.certificate_pem(), issued.certificate_pem);
            assert_eq!(crate::expires_ms(both.as_bytes()), Some(NOW_MS + 365 * 86_400_000), "the first to expire");
        }
    }

    #[test]
    fn another_cluster_is_not_issued() {
        let authority = Authority::create("other", NOW_MS, &Counting).expect("creates");
        assert!(matches!(authority.issue_node(&eu_1(), NOW_MS, &Counting), Err(AuthorityError::Name { .. })));
        assert!(matches!(Authority::create("Not a name", NOW_MS, &Counting), Err(AuthorityError::Name { .. })));
    }

    #[test]
    fn a_strange_key_or_certificate_is_not_loaded() {
        let one = Authority::create("mesh", NOW_MS, &Counting).expect("creates");
        let other = Authority::create("mesh", NOW_MS, &Counting).expect("creates");
        assert!(matches!(Authority::load(one.certificate_pem(), &other.key_pem()), Err(AuthorityError::Key)));
        assert!(matches!(Authority::load(one.certificate_pem(), "nonsense"), Err(AuthorityError::Key)));
        let node = one.issue_node(&eu_1(), NOW_MS, &Counting).expect("issues");
        let loaded = Authority::load(&node.certificate_pem, &node.key_pem);
        assert!(matches!(loaded, Err(AuthorityError::Certificate)));
    }

    #[test]
    fn an_api_server_has_no_node_name() {
        let authority = Authority::create("mesh", NOW_MS, &Counting).expect("creates");
        let addresses = ["127.0.0.1".parse().expect("an address"), "::1".parse().expect("an address")];
        let issued = authority.issue_api_server(&["api.example"], &addresses, NOW_MS, &Counting).expect("issues");
        let der = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).expect("PEM");
        assert!(Identity::of_certificate(&der).is_err());
        let (_, certificate) = X509Certificate::from_der(&der).expect("DER");
        let names = certificate.subject_alternative_name().expect("parses").expect("is there");
        assert_eq!(names.value.general_names.len(), 4);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(certificate in "\\PC{0,200}", key in "\\PC{0,200}", now_ms: u64) {
            let _ = Authority::load(&certificate, &key);
            let _ = Authority::create("mesh", now_ms, &Counting);
        }
    }
}
