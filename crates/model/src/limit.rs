//! Every bound of what can be stored, in one place.

/// Bytes of one value.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a record's key.
pub const KEY_BYTES_MAX: usize = 512;
/// Bytes of a name of a tenant, table, field or login.
pub const NAME_BYTES_MAX: usize = 64;
/// Fields of a table.
pub const FIELDS_MAX: usize = 256;
/// Operations of one transaction.
pub const TRANSACTION_OPERATIONS_MAX: usize = 128;
/// Bytes of one transaction, encoded.
pub const TRANSACTION_BYTES_MAX: usize = 1024 * 1024;
/// Records of one page of a query.
pub const PAGE_RECORDS_MAX: usize = 500;
/// Bytes of an idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
