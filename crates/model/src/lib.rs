//! What the platform stores: identifiers, tenants, tables, fields, records and time.
//!
//! Pure: it computes and validates, and never touches a clock, a disk or a socket.
//! The two traits [`time::Clock`] and [`entropy::Entropy`] are doors to the world that others open.

pub mod cluster;
pub mod codec;
pub mod entropy;
pub mod id;
pub mod limit;
pub mod record;
pub mod schema;
pub mod tenant;
pub mod time;
pub mod value;
pub mod vector;

pub use id::{FieldId, GroupId, NodeId, Origin, PartitionId, RegionId, SessionId, TableId, TenantId, UserId};
pub use record::{FieldState, Record, Stamp};
pub use schema::{Field, FieldKind, Merge, Table};
pub use tenant::Tenant;
pub use time::Hlc;
pub use value::Value;
pub use vector::VersionVector;
