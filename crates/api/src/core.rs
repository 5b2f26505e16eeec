//! The one door from HTTP to the rest of the platform.
//!
//! Nothing here decides: implementations authenticate, authorise, propose, read and audit. Every method that
//! reaches a tenant's data takes a [`Session`], which only a verification in `identity` can make.

use crate::problem::Problem;
use crate::types::*;
use bytes::Bytes;
use identity::Session;
use std::time::Duration;

/// What a method of [`Core`] answers.
pub type Answer<T> = Result<T, Problem>;

/// What the API asks of the platform.
///
/// Rules for every implementation:
/// - an object of another tenant and one that does not exist are the same [`Problem::NotFound`];
/// - names and keys arrive syntactically bounded (see `model::limit`) but otherwise unchecked;
/// - a write returns only when it is durable as asked, or says [`Durable::Locally`];
/// - the future of any method may be dropped at any await, when the client goes away or time is up: what was
///   proposed still happens, and nothing may be left half-done.
#[async_trait::async_trait]
pub trait Core: Send + Sync + 'static {
    // --- clocks, ids, hooks: called on every request, must not block ---

    /// Time since an arbitrary start; never goes back.
    fn monotonic(&self) -> Duration;
    /// A new number for a request, unlikely ever to repeat.
    fn request_id(&self) -> u128;
    /// The secret that seals page tokens: the same on every node of the cluster, used for nothing else.
    fn page_secret(&self) -> [u8; 32];
    /// One request was answered: `route` is the route's template (`/v1/tenants/{tenant}`), never the path that came,
    /// and `unmatched` for paths of no route; `method` is a standard one, or `OTHER`.
    fn observe(&self, method: &'static str, route: &str, status: u16, elapsed: Duration);

    // --- health, without authentication ---

    /// Whether the process works at all. `Err` becomes 503.
    async fn health(&self) -> Answer<Health>;
    /// Whether this node should get traffic: groups have leaders, state is recovered. `Err` becomes 503.
    async fn ready(&self) -> Answer<Health>;
    /// Where the cluster's regions answer: not secret, so that a client can fail over.
    async fn endpoints(&self) -> Answer<Endpoints>;

    // --- sessions ---

    /// Begins a session locked to `caller.address`. Failures are audited by the implementation.
    async fn login(&self, caller: &Caller, request: Login) -> Answer<LoggedIn>;
    /// Verifies `caller.bearer` for `caller.address`. Absent bearer: [`Problem::unauthenticated`].
    ///
    /// A session whose password must change is an `Ok` here; methods other than `me`, `change_password` and
    /// `logout` answer [`Problem::MustChangePassword`].
    async fn authenticate(&self, caller: &Caller) -> Answer<Session>;
    /// Ends the session in every region.
    async fn logout(&self, caller: &Caller, session: &Session) -> Answer<()>;
    /// Changes the password of the session's own user.
    async fn change_password(&self, caller: &Caller, session: &Session, request: ChangePassword) -> Answer<()>;
    /// Who the session is.
    async fn me(&self, caller: &Caller, session: &Session) -> Answer<Me>;

    // --- control plane ---

    /// Creates a tenant.
    async fn create_tenant(&self, caller: &Caller, session: &Session, request: NewTenant) -> Answer<TenantView>;
    /// The tenants the session may see, in order of their names.
    async fn tenants(&self, caller: &Caller, session: &Session) -> Answer<TenantList>;
    /// One tenant.
    async fn tenant(&self, caller: &Caller, session: &Session, tenant: &str) -> Answer<TenantView>;
    /// Creates a user; the answer has the TOTP enrolment for roles that need it, this once.
    async fn create_user(&self, caller: &Caller, session: &Session, request: NewUser) -> Answer<CreatedUser>;
    /// The users the session may see, in order of their logins.
    async fn users(&self, caller: &Caller, session: &Session) -> Answer<UserList>;
    /// Creates a table; the API has checked nothing but the JSON's shape.
    async fn create_table(
        &self,
        caller: &Caller,
        session: &Session,
        tenant: &str,
        request: NewTable,
    ) -> Answer<TableView>;
    /// The tables of a tenant, in order of their names.
    async fn tables(&self, caller: &Caller, session: &Session, tenant: &str) -> Answer<TableList>;
    /// One table.
    async fn table(&self, caller: &Caller, session: &Session, tenant: &str, table: &str) -> Answer<TableView>;

    // --- records ---

    /// Reads one record. Absent: [`Problem::NotFound`]. A view is audited before this returns.
    async fn get_record(
        &self,
        caller: &Caller,
        session: &Session,
        at: &RecordAt,
        read: &ReadOptions,
    ) -> Answer<Read<RecordView>>;
    /// Changes one record. See [`Precondition`] for what each one means for each [`Change`].
    async fn write_record(
        &self,
        caller: &Caller,
        session: &Session,
        at: &RecordAt,
        change: Change,
        precondition: Precondition,
        write: &WriteOptions,
    ) -> Answer<Written>;
    /// Reads a range of keys in order. `range.limit` is within bounds; the token was unsealed into `range.from`.
    async fn query(
        &self,
        caller: &Caller,
        session: &Session,
        tenant: &str,
        table: &str,
        range: &KeyRange,
        read: &ReadOptions,
    ) -> Answer<Read<RecordPage>>;
    /// Changes several records of one tenant: all or nothing.
    async fn transact(
        &self,
        caller: &Caller,
        session: &Session,
        tenant: &str,
        operations: Vec<Operation>,
        write: &WriteOptions,
    ) -> Answer<Transacted>;
    /// Concurrent overwrites whose loser was kept, newest first. `page.after` is what `next` was.
    async fn conflicts(&self, caller: &Caller, session: &Session, tenant: &str, page: &Page) -> Answer<ConflictList>;
    /// How far the writes of a session token (of `Holdfast-Session`) are durable in other regions.
    async fn durability(&self, caller: &Caller, session: &Session, tenant: &str, token: &str)
    -> Answer<DurabilityView>;

    // --- audit ---

    /// Entries of the audit log, newest first. `filter.page.after` is what `next` was.
    async fn audit_entries(&self, caller: &Caller, session: &Session, filter: &AuditFilter) -> Answer<AuditList>;
    /// The logs of this region, and each one's latest checkpoint.
    async fn audit_logs(&self, caller: &Caller, session: &Session) -> Answer<AuditLogs>;
    /// Bytes of a log: its checkpoint, a hash tile or a tile of entries (C2SP tlog-tiles).
    async fn audit_log_file(&self, caller: &Caller, session: &Session, log: &str, file: LogFile) -> Answer<Bytes>;
    /// Recomputes the region's logs against their checkpoints and says whether they hold.
    async fn audit_verify(&self, caller: &Caller, session: &Session) -> Answer<AuditVerification>;

    // --- detection ---

    /// Takes events: each line is one JSON object, verbatim. Returns when they are durable. Under the same key the same
    /// lines count once, and others are [`Problem::IdempotencyReuse`].
    async fn ingest(
        &self,
        caller: &Caller,
        session: &Session,
        source: &str,
        lines: Vec<Bytes>,
        idempotency_key: Option<&str>,
    ) -> Answer<Ingested>;
    /// How detection in this region does.
    async fn detection(&self, caller: &Caller, session: &Session) -> Answer<DetectionStatus>;
    /// The rules that this node has read, by their ids. `filter.page.after` is what `next` was.
    async fn rules(&self, caller: &Caller, session: &Session, filter: &RuleFilter) -> Answer<RuleList>;
    /// Alerts, newest first. `filter.page.after` is what `next` was.
    async fn alerts(&self, caller: &Caller, session: &Session, filter: &AlertFilter) -> Answer<AlertList>;
    /// One alert with its events.
    async fn alert(&self, caller: &Caller, session: &Session, id: &str) -> Answer<AlertDetail>;
    /// Incidents, in the order asked for.
    async fn incidents(&self, caller: &Caller, session: &Session, filter: &IncidentFilter) -> Answer<IncidentList>;
    /// One incident with its alerts, events, entities, clocks and history.
    async fn incident(&self, caller: &Caller, session: &Session, id: &str) -> Answer<IncidentView>;
    /// Its events, alerts and acts in the order of time.
    async fn incident_timeline(&self, caller: &Caller, session: &Session, id: &str) -> Answer<Timeline>;
    /// Acts on an incident. [`Precondition::Matches`]: only if it is at one of these versions; others say nothing.
    async fn act_on_incident(
        &self,
        caller: &Caller,
        session: &Session,
        id: &str,
        action: IncidentAction,
        precondition: Precondition,
    ) -> Answer<IncidentView>;
    /// The entities and rules whose notifications rest.
    async fn mutes(&self, caller: &Caller, session: &Session) -> Answer<MuteList>;
    /// Lets notifications about an entity or a rule rest; a later one about the same replaces it.
    async fn mute(&self, caller: &Caller, session: &Session, request: NewMute) -> Answer<MuteView>;
    /// They rest no longer.
    async fn unmute(&self, caller: &Caller, session: &Session, id: &str) -> Answer<()>;

    /// Notices that a sink refused for good.
    async fn refused_notices(&self, caller: &Caller, session: &Session, filter: &RefusedFilter) -> Answer<RefusedList>;
    /// Has refused notices told again.
    async fn replay_notices(&self, caller: &Caller, session: &Session, chosen: ChosenNotices) -> Answer<NoticesDone>;
    /// Drops refused notices.
    async fn drop_notices(&self, caller: &Caller, session: &Session, chosen: ChosenNotices) -> Answer<NoticesDone>;
    /// What the pipeline of this node does.
    async fn pipeline(&self, caller: &Caller, session: &Session) -> Answer<PipelineStatus>;
    /// Events that this node could not deal with, oldest first. `filter.page.after` is what `next` was.
    async fn dead_letters(
        &self,
        caller: &Caller,
        session: &Session,
        filter: &DeadLetterFilter,
    ) -> Answer<DeadLetterList>;
    /// Has them dealt with again.
    async fn replay_letters(&self, caller: &Caller, session: &Session, chosen: ChosenLetters) -> Answer<LettersDone>;
    /// Drops them.
    async fn drop_letters(&self, caller: &Caller, session: &Session, chosen: ChosenLetters) -> Answer<LettersDone>;
    /// The escalation policy as it was last applied.
    async fn escalation_policy(&self, caller: &Caller, session: &Session) -> Answer<PolicyView>;
    /// Replaces it, if it is right and the precondition holds; as with records, an existing one needs a precondition.
    async fn apply_escalation_policy(
        &self,
        caller: &Caller,
        session: &Session,
        request: ApplyPolicy,
        precondition: Precondition,
    ) -> Answer<PolicyView>;
    /// Who is on call at a time; now when not given.
    async fn on_call(&self, caller: &Caller, session: &Session, at_ms: Option<u64>) -> Answer<OnCallList>;
    /// Who is being called about what.
    async fn escalations(&self, caller: &Caller, session: &Session) -> Answer<EscalationList>;
    /// Tickets, those that changed last first.
    async fn tickets(&self, caller: &Caller, session: &Session, filter: &TicketFilter) -> Answer<TicketList>;
    /// One ticket.
    async fn ticket(&self, caller: &Caller, session: &Session, id: &str) -> Answer<TicketView>;
    /// Opens the ticket of an incident in a queue.
    async fn open_ticket(&self, caller: &Caller, session: &Session, request: NewTicket) -> Answer<TicketView>;
    /// Changes a ticket: all that is asked for, or nothing.
    async fn change_ticket(
        &self,
        caller: &Caller,
        session: &Session,
        id: &str,
        request: ChangeTicket,
        precondition: Precondition,
    ) -> Answer<TicketView>;
    // --- events of the past ---

    /// Searches; answers when it is done, or after a while with how far it is. Audited before it begins.
    async fn search_events(&self, caller: &Caller, session: &Session, request: EventSearch) -> Answer<JobView>;
    /// Hunts; as [`Core::search_events`].
    async fn hunt_events(&self, caller: &Caller, session: &Session, request: EventHunt) -> Answer<JobView>;
    /// The session's own jobs.
    async fn event_jobs(&self, caller: &Caller, session: &Session) -> Answer<JobList>;
    /// One of them, with `limit` rows after the first `after`.
    async fn event_job(
        &self,
        caller: &Caller,
        session: &Session,
        id: u128,
        after: usize,
        limit: usize,
    ) -> Answer<JobView>;
    /// Cancels one of them, or forgets it where it has ended.
    async fn cancel_event_job(&self, caller: &Caller, session: &Session, id: u128) -> Answer<()>;
    /// What this node's archive holds.
    async fn event_archive(&self, caller: &Caller, session: &Session) -> Answer<ArchiveView>;

    // --- cluster ---

    /// What runs, what is stuck, and why.
    async fn cluster_status(&self, caller: &Caller, session: &Session) -> Answer<ClusterStatus>;
    /// Hash and version vector of each partition here, for comparing regions.
    async fn convergence(&self, caller: &Caller, session: &Session) -> Answer<Convergence>;
}
