//! Change records: one transaction of one tenant, as it travels between regions.
//!
//! `chain = BLAKE3(previous chain ‖ header ‖ BLAKE3(body))`. A region that may not hold the tenant's data gets the
//! header and the digest of the body: the sequence has no hole, and the chain verifies without the content.

use crate::Digest;
use crate::merge::Writer;
use crate::op::{self, Op, OpError};
use model::codec::{self, CodecError};
use model::{Hlc, Origin, PartitionId, Stamp, TenantId, VersionVector, limit};
use serde::{Deserialize, Serialize};

/// Bytes of one encoded change: the transaction, and room for its header and what its deletes had observed.
pub const CHANGE_BYTES_MAX: usize = 2 * limit::TRANSACTION_BYTES_MAX;
/// Origins a change may name in its dependencies: more than any cluster has regions and lives of them.
pub const DEPS_MAX: usize = 1024;
/// What a change without content counts for: its header and its chain.
const CHANGE_WEIGHT_MIN: usize = 128;

/// What every region may know of a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Where it was written.
    pub origin: Origin,
    /// Its number in the (partition, origin) sequence, from 1, without holes.
    pub sequence: u64,
    /// When it was written.
    pub hlc: Hlc,
    /// What the origin's partition had applied of other origins.
    pub deps: VersionVector,
    /// Whose data it is.
    pub tenant: TenantId,
    /// The tenant's partition.
    pub partition: PartitionId,
    /// The version of the tenant's schema it was written with.
    pub schema_version: u32,
}

/// What only regions may know where the tenant's data may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// The client's idempotency key.
    pub request_id: Option<String>,
    /// The trace it is part of, if it is followed.
    pub trace: Option<Trace>,
    /// At most one for each record.
    pub ops: Vec<Op>,
}

/// Where a change stands in a distributed trace (W3C trace context): what follows from it elsewhere joins it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The trace.
    pub trace: u128,
    /// The span that wrote.
    pub span: u64,
}

/// The body, or proof of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Content {
    /// To be applied.
    Body(Body),
    /// The tenant's data may not be here: only the digest of the body.
    Withheld(Digest),
}

/// One transaction of one tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What every region may know.
    pub header: Header,
    /// The operations.
    pub content: Content,
    /// The running digest of this origin's sequence, up to and with this change.
    pub chain: Digest,
}

/// Why bytes are not a change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Longer than [`CHANGE_BYTES_MAX`].
    #[error("a change of {size_bytes} bytes; {CHANGE_BYTES_MAX} are allowed")]
    TooLarge {
        /// The size that came.
        size_bytes: usize,
    },
    /// Not an encoded change.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Sequences begin at 1, dependencies leave out the origin and name at most [`DEPS_MAX`] others.
    #[error("the change's header breaks a rule")]
    Header,
    /// Longer than [`limit::IDEMPOTENCY_KEY_BYTES_MAX`].
    #[error("the request id is too long")]
    RequestId,
    /// An operation breaks a rule.
    #[error(transparent)]
    Op(#[from] OpError),
}

impl Header {
    /// What orders this change among all.
    pub const fn stamp(&self) -> Stamp {
        Stamp { hlc: self.hlc, origin: self.origin, sequence: self.sequence }
    }
    /// Who writes, for [`crate::merge`].
    pub const fn writer(&self) -> Writer<'_> {
        Writer { tenant: self.tenant, stamp: self.stamp(), deps: &self.deps }
    }
}

impl Body {
    /// What the chain commits to.
    pub fn digest(&self) -> Digest {
        Digest::of(&[&codec::encode(self)])
    }
}

impl Content {
    /// What the chain commits to.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Body(body) => body.digest(),
            Self::Withheld(digest) => *digest,
        }
    }
}

impl Change {
    /// A new change at its origin, after the change whose chain is `previous` ([`Digest::ZERO`] before the first).
    pub fn new(header: Header, body: Body, previous: Digest) -> Self {
        let chain = link(previous, &header, body.digest());
        Self { header, content: Content::Body(body), chain }
    }
    /// Whether this change follows `previous` in its origin's sequence, whole and unaltered.
    pub fn follows(&self, previous: Digest) -> bool {
        link(previous, &self.header, self.content.digest()) == self.chain
    }
    /// The same change without its content, for a region where the tenant's data may not be.
    #[must_use]
    pub fn withheld(self) -> Self {
        Self { content: Content::Withheld(self.content.digest()), ..self }
    }
    /// The operations, where this region may know them.
    pub const fn body(&self) -> Option<&Body> {
        match &self.content {
            Content::Body(body) => Some(body),
            Content::Withheld(_) => None,
        }
    }
    /// What the change counts against credits and batches: about its bytes. Both ends compute the same.
    pub fn weight(&self) -> u64 {
        let deps = self.header.deps.iter().count() * 8;
        let ops = self.body().map_or(0, |body| body.ops.iter().map(Op::weight).sum());
        (CHANGE_WEIGHT_MIN + deps + ops) as u64
    }
    /// Encodes for storage and for peers.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }
    /// Decodes and checks; any bytes give a change or an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChangeError> {
        if bytes.len() > CHANGE_BYTES_MAX {
            return Err(ChangeError::TooLarge { size_bytes: bytes.len() });
        }
        let change: Self = codec::decode(bytes)?;
        change.check()?;
        Ok(change)
    }
    /// Checks the rules every region relies on.
    pub fn check(&self) -> Result<(), ChangeError> {
        let header = &self.header;
        if header.sequence == 0 || header.deps.get(header.origin) != 0 || header.deps.iter().count() > DEPS_MAX {
            return Err(ChangeError::Header);
        }
        let Content::Body(body) = &self.content else { return Ok(()) };
        if body.request_id.as_ref().is_some_and(|id| id.len() > limit::IDEMPOTENCY_KEY_BYTES_MAX) {
            return Err(ChangeError::RequestId);
        }
        Ok(op::check(&body.ops)?)
    }
}

fn link(previous: Digest, header: &Header, body: Digest) -> Digest {
    Digest::of(&[previous.bytes(), &codec::encode(header), body.bytes()])
}
