//! Until when certificates are valid.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// When the first of the certificates in a PEM text expires, in milliseconds since 1970; nothing where there is none.
pub fn expires_ms(pem: &[u8]) -> Option<u64> {
    let each = CertificateDer::pem_slice_iter(pem).map(|der| {
        let der = der.ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        u64::try_from(certificate.validity().not_after.timestamp()).ok()?.checked_mul(1_000)
    });
    // One that cannot be read says nothing about the others, and must not hide that.
    each.collect::<Option<Vec<u64>>>()?.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_texts_have_no_expiry_and_never_panic(text in "(-----BEGIN CERTIFICATE-----\n)?[A-Za-z0-9+/=\n]{0,80}(\n-----END CERTIFICATE-----)?") {
            prop_assert_eq!(expires_ms(text.as_bytes()), None);
        }
    }
}
