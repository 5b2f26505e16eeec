//! Causal session tokens: what a client has seen, carried by the client itself.
//!
//! Signed, so that nobody can make a replica wait for changes that do not exist.

use crate::SessionKeys;
use crate::token::{Kind, OpenError};
use model::{TenantId, VersionVector};
use serde::{Deserialize, Serialize};

/// Most origins of a token's vector.
pub const ORIGINS_MAX: usize = 128;

/// How far a client has seen one tenant's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorToken {
    /// The cluster's name.
    pub cluster: String,
    /// The tenant.
    pub tenant: TenantId,
    /// What was seen.
    pub vector: VersionVector,
}

/// Why a causal token cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VectorTokenError {
    /// Not a token, or its signature is wrong.
    #[error("the consistency token is malformed")]
    Malformed,
    /// Signed by a key that is not, or no longer, of this cluster.
    #[error("the consistency token was signed by an unknown key")]
    UnknownKey,
    /// Of another cluster.
    #[error("the consistency token belongs to another cluster")]
    OtherCluster,
    /// Of another tenant.
    #[error("the consistency token belongs to another tenant")]
    OtherTenant,
    /// More than [`ORIGINS_MAX`] origins.
    #[error("a consistency token has at most {ORIGINS_MAX} origins")]
    TooLarge,
}

impl VectorToken {
    /// The signed form, base64url.
    pub fn sign(&self, keys: &SessionKeys) -> Result<String, VectorTokenError> {
        if self.vector.iter().count() > ORIGINS_MAX || self.cluster.len() > model::limit::NAME_BYTES_MAX {
            return Err(VectorTokenError::TooLarge);
        }
        Ok(keys.seal(Kind::Vector, self))
    }

    /// Reads the signed form, and checks that it is of this cluster and tenant.
    pub fn verify(
        token: &str,
        keys: &SessionKeys,
        cluster: &str,
        tenant: TenantId,
    ) -> Result<VersionVector, VectorTokenError> {
        let token: Self = keys.open(Kind::Vector, token).map_err(|error| match error {
            OpenError::Malformed => VectorTokenError::Malformed,
            OpenError::UnknownKey => VectorTokenError::UnknownKey,
        })?;
        if token.cluster != cluster {
            return Err(VectorTokenError::OtherCluster);
        }
        if token.tenant != tenant {
            return Err(VectorTokenError::OtherTenant);
        }
        Ok(token.vector)
    }
}
