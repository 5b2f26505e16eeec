//! What a group drives: the state machine behind the log, implemented by the node.

use bytes::Bytes;
use std::io;
use std::sync::Arc;
use storage::Space;

/// The state machine of one group. Its methods are called one at a time, in order, never at once.
pub trait Machine: Send + Sync + 'static {
    /// Applies committed commands in order, in **one** storage batch that also holds `position`
    /// under the machine's own meta key. One result per command. With no commands only the position
    /// is stored. An error stops the group: it must mean that the disk failed, never that a command
    /// was refused (that is a result).
    fn apply(&self, entries: &[(u64, &[u8])], position: &[u8]) -> io::Result<Vec<Bytes>>;

    /// The position stored by the last apply that survived, `None` for a fresh group.
    fn position(&self) -> io::Result<Option<Vec<u8>>>;

    /// Where the state lives: for checkpoints and installs.
    fn space(&self) -> Arc<dyn Space>;

    /// Called after an install has replaced the content of the space: whatever the machine keeps in
    /// memory must be read again.
    fn reloaded(&self) -> io::Result<()>;
}
