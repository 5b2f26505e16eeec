//! What the audit log will say of an act: filled in where the act is known, written where it commits.

use model::{NodeId, SessionId};
use serde::{Deserialize, Serialize};

/// An act and who did it. Becomes an [`audit::AuditEvent`] at its place in the log.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Note {
    /// What was done: one of the audit log's actions.
    pub action: String,
    /// Whether it was refused, and why.
    pub refused: Option<String>,
    /// The tenant's name.
    pub tenant: Option<String>,
    /// The login.
    pub user: Option<String>,
    /// The session.
    pub session: Option<SessionId>,
    /// The address of the connection.
    pub address: Option<String>,
    /// What it was done to, as a resource name.
    pub resource: Option<String>,
    /// The fields that were seen or written.
    pub fields: Vec<String>,
    /// The request.
    pub request_id: Option<String>,
    /// The node that took the request.
    pub node: NodeId,
    /// Old and new value, as JSON text.
    pub values: Option<(Option<String>, Option<String>)>,
}
