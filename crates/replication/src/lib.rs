//! Agreement between regions without one order.
//!
//! Each region orders its own changes and numbers them per (partition, origin). What others wrote is
//! pulled, held until its causes are here, merged field by field, and proven equal by digests.
//!
//! Pure: no clock, no entropy, no disk, no socket, no task. Time comes in as an argument.

pub mod digest;
pub mod op;

pub mod change;

pub mod collect;
pub mod conflict;
pub mod merge;

pub mod apply;
pub mod stamp;

pub mod inbox;
pub mod progress;
pub mod serve;
pub mod wire;

pub mod convergence;

pub use apply::{Admission, Position, admit};
pub use change::{Body, Change, ChangeError, Content, Header, Trace};
pub use collect::{Collected, collect};
pub use conflict::{Conflict, ConflictId, Side};
pub use digest::Digest;
pub use inbox::Inbox;
pub use merge::{FieldChange, Merged, Writer, merge, observe};
pub use op::{FieldWrite, Op, OpError, OpKind};
pub use progress::Progress;
pub use serve::Serve;
