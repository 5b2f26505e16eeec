//! Who a node is: the name in its certificate, and how it is read and checked.
//!
//! The name is a SPIFFE ID in the one URI of the certificate's subject alternative names:
//!
//! ```text
//! spiffe://<cluster>/env/<environment>/region/<id>-<name>/node/<id>-<name>/zone/<zone>
//! ```
//!
//! Nothing here trusts a signature: that the certificate chains to the cluster's authority is TLS's part.
//! Nothing here repairs a name: what is not exactly of this shape is refused.

use crate::link::Peer;
use model::cluster::{Cluster, Environment};
use model::schema::check_name;
use model::{NodeId, RegionId};
use std::fmt;
use std::str::FromStr;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The longest name that is read.
const URI_BYTES_MAX: usize = 1024;

/// A node's name, as its certificate has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: String,
    /// What kind of cluster.
    pub environment: Environment,
    /// The region's id.
    pub region: RegionId,
    /// The region's short name.
    pub region_name: String,
    /// The node's id.
    pub node: NodeId,
    /// The node's short name.
    pub node_name: String,
    /// The security zone.
    pub zone: String,
}

/// Why a certificate's holder is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not an X.509 certificate.
    #[error("not a certificate")]
    NotACertificate,
    /// Not exactly one URI among the subject's names: not a node's certificate.
    #[error("the certificate does not name a node")]
    NoName,
    /// A URI of another shape.
    #[error("the certificate's name is malformed")]
    Malformed,
    /// Another cluster's node.
    #[error("certificate of another cluster: '{theirs}'")]
    OtherCluster {
        /// The cluster it names.
        theirs: String,
    },
    /// A node of a cluster of the same name in another environment.
    #[error("certificate of another environment: '{}'", environment_name(*theirs))]
    OtherEnvironment {
        /// The environment it names.
        theirs: Environment,
    },
    /// The cluster's description has no such node in this region and zone.
    #[error("no such node in this cluster: {node} in {region}, zone '{zone}'")]
    NotDescribed {
        /// The node it names.
        node: NodeId,
        /// The region it names.
        region: RegionId,
        /// The zone it names.
        zone: String,
    },
    /// Another node answers at this address.
    #[error("expected {expected}, found {found}")]
    OtherNode {
        /// Who should be there.
        expected: NodeId,
        /// Who is.
        found: NodeId,
    },
}

impl Identity {
    /// Reads the name in a DER certificate. The signature is not checked here.
    pub fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| IdentityError::NotACertificate)?;
        if !rest.is_empty() {
            return Err(IdentityError::NotACertificate);
        }
        let names = certificate.subject_alternative_name().map_err(|_| IdentityError::NoName)?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let mut uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        match (uris.next(), uris.next()) {
            (Some(uri), None) => uri.parse(),
            _ => Err(IdentityError::NoName),
        }
    }

    /// The part that services see.
    pub fn peer(&self) -> Peer {
        Peer { node: self.node, region: self.region, zone: self.zone.clone() }
    }

    /// The name of a node of a cluster's description.
    pub fn described(cluster: &Cluster, node: NodeId) -> Option<Self> {
        let (region, node) = cluster.node(node)?;
        Some(Self {
            cluster: cluster.name.clone(),
            environment: cluster.environment,
            region: region.id,
            region_name: region.name.clone(),
            node: node.id,
            node_name: node.name.clone(),
            zone: node.zone.clone(),
        })
    }

    /// Whether this node may speak with `other`; `allowed` says who is in the cluster.
    pub fn accepts(&self, other: &Self, allowed: impl FnOnce(&Peer) -> bool) -> Result<(), IdentityError> {
        if other.cluster != self.cluster {
            return Err(IdentityError::OtherCluster { theirs: other.cluster.clone() });
        }
        if other.environment != self.environment {
            return Err(IdentityError::OtherEnvironment { theirs: other.environment });
        }
        let peer = other.peer();
        if !allowed(&peer) {
            return Err(IdentityError::NotDescribed { node: peer.node, region: peer.region, zone: peer.zone });
        }
        Ok(())
    }
}

/// Whether a cluster's description has this node in this region and zone: what links take as `allowed`.
pub fn is_described(cluster: &Cluster, peer: &Peer) -> bool {
    cluster.node(peer.node).is_some_and(|(region, node)| region.id == peer.region && node.zone == peer.zone)
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/env/{}/region/{}-{}/node/{}-{}/zone/{}",
            self.cluster,
            environment_name(self.environment),
            self.region.get(),
            self.region_name,
            self.node.get(),
            self.node_name,
            self.zone,
        )
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let identity = parse(uri).ok_or(IdentityError::Malformed)?;
        // One name, one spelling: no leading zeros, nothing after.
        if identity.to_string() == uri { Ok(identity) } else { Err(IdentityError::Malformed) }
    }
}

fn parse(uri: &str) -> Option<Identity> {
    if uri.len() > URI_BYTES_MAX {
        return None;
    }
    let parts: Vec<&str> = uri.strip_prefix("spiffe://")?.split('/').collect();
    let &[cluster, "env", environment, "region", region, "node", node, "zone", zone] = parts.as_slice() else {
        return None;
    };
    let (region_id, region_name) = region.split_once('-')?;
    let (node_id, node_name) = node.split_once('-')?;
    let named = |name: &str| check_name(name).ok().map(|()| name.to_owned());
    Some(Identity {
        cluster: named(cluster)?,
        environment: environment_named(environment)?,
        region: RegionId::new(region_id.parse().ok()?),
        region_name: named(region_name)?,
        node: NodeId::new(node_id.parse().ok()?),
        node_name: named(node_name)?,
        zone: named(zone)?,
    })
}

fn environment_name(environment: Environment) -> &'static str {
    match environment {
        Environment::Development => "development",
        Environment::Qa => "qa",
        Environment::Staging => "staging",
        Environment::Production => "production",
    }
}

fn environment_named(name: &str) -> Option<Environment> {
    use Environment::{Development, Production, Qa, Staging};
    [Development, Qa, Staging, Production].into_iter().find(|environment| environment_name(*environment) == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: &str = "spiffe://mesh/env/qa/region/3-eu-west/node/7-eu-1/zone/protected";

    #[test]
    fn a_name_is_read_and_written() {
        let identity: Identity = NAME.parse().expect("well formed");
        assert_eq!((identity.region, identity.node), (RegionId::new(3), NodeId::new(7)));
        assert_eq!((identity.region_name.as_str(), identity.node_name.as_str()), ("eu-west", "eu-1"));
        assert_eq!(identity.to_string(), NAME);
    }

    #[test]
    fn a_name_of_another_shape_is_refused() {
        for (from, to) in [
            ("spiffe", "https"),
            ("mesh", "Mesh"),
            ("mesh", ""),
            ("qa", "QA"),
            ("3-eu-west", "03-eu-west"),
            ("3-eu-west", "+3-eu-west"),
            ("3-eu-west", "70000-eu-west"),
            ("3-eu-west", "3"),
            ("7-eu-1", "7-eu-1/node/8-eu-2"),
            ("protected", "protected/"),
            ("protected", "protected?x"),
            ("protected", "pro%74ected"),
        ] {
            let name = NAME.replace(from, to);
            assert_eq!(name.parse::<Identity>(), Err(IdentityError::Malformed), "{name}");
        }
    }

    #[test]
    fn another_cluster_environment_region_or_zone_is_refused() {
        let ours: Identity = NAME.parse().expect("well formed");
        let here = ours.peer();
        let accepts = |change: fn(&mut Identity)| {
            let mut other = ours.clone();
            change(&mut other);
            ours.accepts(&other, |peer| *peer == here)
        };
        assert_eq!(accepts(|_| {}), Ok(()));
        assert!(matches!(accepts(|o| o.cluster = "other".into()), Err(IdentityError::OtherCluster { .. })));
        let production = accepts(|o| o.environment = Environment::Production);
        assert!(matches!(production, Err(IdentityError::OtherEnvironment { .. })));
        assert!(matches!(accepts(|o| o.region = RegionId::new(4)), Err(IdentityError::NotDescribed { .. })));
        assert!(matches!(accepts(|o| o.zone = "edge".into()), Err(IdentityError::NotDescribed { .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_certificates_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Identity::of_certificate(&bytes);
        }

        #[test]
        fn arbitrary_names_never_panic(name in "spiffe://[a-z/0-9-]{0,80}|\\PC{0,80}") {
            if let Ok(identity) = name.parse::<Identity>() {
                prop_assert_eq!(identity.to_string(), name);
            }
        }
    }
}
