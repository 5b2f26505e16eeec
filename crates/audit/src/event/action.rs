//! What can be done, by its stable name. Names are never reused for something else.

use serde::{Deserialize, Serialize};

/// Bytes of an action's name. Longer ones are cut.
pub const NAME_SIZE_BYTES_MAX: usize = 64;

/// The name of an action this version does not know. Only [`Action::parse`] makes one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OtherName(String);

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What was done or tried.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum Action {
            $($(#[$doc])* $variant,)*
            /// An action of another version, kept by its name.
            Other(OtherName),
        }

        impl Action {
            /// Every action this version knows.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Other(name) => &name.0,
                }
            }

            /// The action of a name. One name is one value: a known name is never `Other`.
            pub fn parse(name: &str) -> Self {
                match name {
                    $($name => Self::$variant,)*
                    other => Self::Other(OtherName(super::cut(other, NAME_SIZE_BYTES_MAX))),
                }
            }
        }
    };
}

actions! {
    /// A session began.
    Login = "login",
    /// A login was refused.
    LoginFailed = "login.failed",
    /// A session was ended by its user.
    Logout = "logout",
    /// A request came with a session that is expired, revoked, forged or of another address.
    SessionRefused = "session.refused",
    /// A record was read by its key.
    RecordView = "record.view",
    /// Records were read by a range of keys.
    RecordQuery = "record.query",
    /// A record was written whole.
    RecordPut = "record.put",
    /// Fields of a record were changed.
    RecordPatch = "record.patch",
    /// A record was deleted.
    RecordDelete = "record.delete",
    /// A transaction of several records was applied; its records have their own entries.
    Transaction = "transaction",
    /// The list of conflicts was read.
    ConflictView = "conflict.view",
    /// A request came again and was answered with what its first time came to.
    RequestReplay = "request.replay",
    /// A tenant was created.
    TenantCreate = "tenant.create",
    /// A tenant was changed.
    TenantUpdate = "tenant.update",
    /// A table was created.
    TableCreate = "table.create",
    /// A table's fields were changed.
    TableUpdate = "table.update",
    /// An account was created.
    UserCreate = "user.create",
    /// An account was changed: its state, name or second factor.
    UserUpdate = "user.update",
    /// A password was changed.
    PasswordChange = "user.password",
    /// A role was given.
    RoleGrant = "role.grant",
    /// A role was taken away.
    RoleRevoke = "role.revoke",
    /// A decision of the policy refused a request.
    Denied = "denied",
    /// The audit log was read.
    AuditView = "audit.view",
    /// The checkpoint of another log was anchored in this one.
    AuditAnchor = "audit.anchor",
    /// A log was recomputed from its entries, or did not come out as it is stored.
    AuditVerify = "audit.verify",
    /// An incident was read.
    IncidentView = "incident.view",
    /// An incident was opened, acknowledged, assigned, commented or closed.
    IncidentUpdate = "incident.update",
    /// Nobody is called about an entity or a rule for a while.
    IncidentMute = "incident.mute",
    /// People are called about it again.
    IncidentUnmute = "incident.unmute",
    /// The escalation policy was replaced.
    EscalationPolicy = "escalation.policy",
    /// People were called, or are called no more.
    EscalationStep = "escalation.step",
    /// A ticket was opened, changed, or told to another system.
    TicketUpdate = "ticket.update",
    /// A detection raised an alert.
    AlertRaised = "alert.raised",
    /// An alert no longer stands: another covers its events.
    AlertSuperseded = "alert.superseded",
    /// The burst that an alert reported goes on.
    AlertExtended = "alert.extended",
    /// What a rule matched was sent to where correlations across regions are judged.
    TupleSent = "tuple.sent",
    /// What detection remembered could not be read, and was given up.
    DetectionStateLost = "detection.state_lost",
    /// Somebody outside refused to be told something.
    NoticeRefused = "notice.refused",
    /// A sink refused to call somebody.
    CallRefused = "call.refused",
    /// A notice that was refused is told again, or was dropped.
    NoticeUpdate = "notice.update",
    /// External events were taken in.
    Ingest = "ingest",
    /// Events that could not be dealt with were dropped.
    DeadLettersDrop = "dead_letters.drop",
    /// Events that could not be dealt with were handed over to be dealt with again.
    DeadLettersReplay = "dead_letters.replay",
    /// Events of the past were searched.
    EventsSearch = "events.search",
    /// Rules were run over events of the past.
    EventsHunt = "events.hunt",
    /// A search or hunt of somebody else was ended.
    EventsCancel = "events.cancel",
    /// Events left a node's archive because their time was over.
    ArchiveExpire = "archive.expire",
    /// Events left a node's archive before their time, because its disk was full.
    ArchiveEvict = "archive.evict",
    /// A node's archive is full of what is under legal hold, and takes nothing more.
    ArchiveFull = "archive.full",
    /// Changes of another region were applied.
    ReplicationApply = "replication.apply",
    /// A region sent a change that cannot be right, and it was refused.
    ReplicationRefused = "replication.refused",
    /// A clock cannot be trusted: what it stamped is held until its time has come.
    ClockQuarantine = "clock.quarantine",
    /// A certificate expires soon.
    CertificateExpiring = "certificate.expiring",
    /// Entries of an audit log are not where they should be.
    AuditGap = "audit.gap",
    /// A rule that detected is in force no more.
    RuleDisable = "rule.disable",
    /// Nothing was heard from another region for too long.
    ReplicationSilence = "replication.silence",
    /// A node joined, left or was replaced.
    ClusterMember = "cluster.member",
    /// A setting, key or rule of the platform was changed.
    ConfigUpdate = "config.update",
}

impl From<String> for Action {
    fn from(name: String) -> Self {
        Self::parse(&name)
    }
}

impl From<Action> for String {
    fn from(action: Action) -> Self {
        action.as_str().to_owned()
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_come_back() {
        let names: std::collections::BTreeSet<_> = Action::ALL.iter().map(Action::as_str).collect();
        assert_eq!(names.len(), Action::ALL.len());
        for action in Action::ALL {
            assert_eq!(&Action::parse(action.as_str()), action);
        }
        assert_eq!(Action::parse("recording.play").as_str(), "recording.play");
    }
}
