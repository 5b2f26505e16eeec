//! What the API asks for, carried out: session, policy, command, answer.
//!
//! Each file is one family of requests; this one only says which method is where.

mod admin;
mod alert;
mod audit;
mod cluster;
mod detection;
pub(crate) mod escalation;
mod hunt;
pub(crate) mod incident;
pub mod ingest;
mod notice;
mod pipeline;
mod query;
mod record;
mod resolve;
mod search;
mod session;
pub(crate) mod stored;
mod tag;
pub(crate) mod ticket;
pub(crate) mod wait;

use crate::node::Node;
use crate::telemetry::trace;
use api::core::Answer;
use api::types::*;
use bytes::Bytes;
use identity::Session;
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument as _;

/// The node as the API sees it.
pub struct NodeCore(pub Arc<Node>);

#[async_trait::async_trait]
impl api::Core for NodeCore {
    fn monotonic(&self) -> Duration {
        self.0.world.clock.monotonic()
    }
    fn request_id(&self) -> u128 {
        let mut bytes = [0; 16];
        self.0.world.entropy.fill(&mut bytes);
        u128::from_be_bytes(bytes)
    }
    fn page_secret(&self) -> [u8; 32] {
        self.0.page_secret()
    }
    fn observe(&self, method: &'static str, route: &str, status: u16, elapsed: Duration) {
        self.0.metrics.requests.with_label_values(&[method, route, status_name(status)]).inc();
        self.0.metrics.request_seconds.with_label_values(&[method, route]).observe(elapsed.as_secs_f64());
    }
    async fn health(&self) -> Answer<Health> {
        Ok(self.0.health_view())
    }
    async fn ready(&self) -> Answer<Health> {
        self.0.ready()
    }
    async fn endpoints(&self) -> Answer<Endpoints> {
        Ok(self.0.endpoints())
    }
    async fn login(&self, caller: &Caller, request: Login) -> Answer<LoggedIn> {
        self.0.login(caller, request).await
    }
    async fn authenticate(&self, caller: &Caller) -> Answer<Session> {
        self.0.authenticate(caller).await
    }
    async fn logout(&self, caller: &Caller, session: &Session) -> Answer<()> {
        self.0.logout(caller, session).await
    }
    async fn change_password(&self, caller: &Caller, session: &Session, request: ChangePassword) -> Answer<()> {
        self.0.change_password(caller, session, request).await
    }
    async fn me(&self, caller: &Caller, session: &Session) -> Answer<Me> {
        Ok(self.0.me(caller, session))
    }
    async fn create_tenant(&self, caller: &Caller, session: &Session, request: NewTenant) -> Answer<TenantView> {
        self.0.create_tenant(caller, session, request).await
    }
    async fn tenants(&self, caller: &Caller, session: &Session) -> Answer<TenantList> {
        self.0.tenants(caller, session).await
    }
    async fn tenant(&self, caller: &Caller, session: &Session, tenant: &str) -> Answer<TenantView> {
        self.0.tenant(caller, session, tenant).await
    }
    async fn create_user(&self, caller: &Caller, session: &Session, request: NewUser) -> Answer<CreatedUser> {
        self.0.create_user(caller, session, request).await
    }
    async fn users(&self, caller: &Caller, session: &Session) -> Answer<UserList> {
        self.0.users(caller, session).await
    }
    async fn create_table(
        &self,
        caller: &Caller,
        session: &Session,
        tenant: &str,
        request: NewTable,
    ) -> Answer<TableView> {
        self.0.create_table(caller, session, tenant, request).await
    }
    async fn tables(&self, caller: &Caller, session: &Session, tenant: &str) -> Answer<TableList> {
        self.0.tables(caller, session, tenant).await
    }
    async fn table(&self, caller: &Caller, session: &Session, tenant: &str, table: &str) -> Answer<TableView> {
        self.0.table(caller, session, tenant, table).await
    }
    async fn get_record(
        &self,
        caller: &Caller,
        session: &Session,
        at: &RecordAt,
        read: &ReadOptions,
    ) -> Answer<Read<RecordView>> {
        let span = trace::continued(tracing::debug_span!("read", node = %self.0.place.name), caller.trace);
        self.0.get_record(caller, session, at, read).instrument(span).await
    }
    async fn write_record(
        &self,
        caller: &Caller,
        session: &Session,
        at: &RecordAt,
        change: Change,
        precondition: Precondition,
        write: &WriteOptions,
    ) -> Answer<Written> {
        let span = trace::continued(tracing::debug_span!("write", node = %self.0.place.name), caller.trace);
        self.0.write_record(caller, session, at, change, precondition, write).instrument(span).await
    }
    async fn query(
        &self,
        caller: &Caller,
        session: &Session,
        tenant: &str,
        table: &str,
        range: &KeyRange,
        read: &ReadOptions,
    ) -> Answer<Read<RecordPage>> {
        let span = trace::continued(tracing::debug_span!("query", node = %self.0.place.name), caller.trace);
        self.0.query(caller, session, tenant, table, range, read).instrument(span).await
    }
    async fn transact(
        &self,
        caller: &Caller,
        session: &Session,
        tenant: &str,
        operations: Vec<Operation>,
        write: &WriteOptions,
    ) -> Answer<Transacted> {
        let span = trace::continued(tracing::debug_span!("transact", node = %self.0.place.name), caller.trace);
        self.0.transact(caller, session, tenant, operations, write).instrument(span).await
    }
    async fn conflicts(&self, caller: &Caller, session: &Session, tenant: &str, page: &Page) -> Answer<ConflictList> {
        self.0.conflicts(caller, session, tenant, page).await
    }
    async fn durability(
        &self,
        caller: &Caller,
        session: &Session,
        tenant: &str,
        token: &str,
    ) -> Answer<DurabilityView> {
        self.0.durability(caller, session, tenant, token).await
    }
    async fn audit_entries(&self, caller: &Caller, session: &Session, filter: &AuditFilter) -> Answer<AuditList> {
        self.0.audit_entries(caller, session, filter).await
    }
    async fn audit_logs(&self, caller: &Caller, session: &Session) -> Answer<AuditLogs> {
        self.0.audit_logs(caller, session).await
    }
    async fn audit_log_file(&self, caller: &Caller, session: &Session, log: &str, file: LogFile) -> Answer<Bytes> {
        self.0.audit_log_file(caller, session, log, file).await
    }
    async fn audit_verify(&self, caller: &Caller, session: &Session) -> Answer<AuditVerification> {
        self.0.audit_verify(caller, session).await
    }
    async fn ingest(
        &self,
        caller: &Caller,
        session: &Session,
        source: &str,
        lines: Vec<Bytes>,
        idempotency_key: Option<&str>,
    ) -> Answer<Ingested> {
        self.0.ingest(caller, session, source, lines, idempotency_key).await
    }
    async fn search_events(&self, caller: &Caller, session: &Session, request: EventSearch) -> Answer<JobView> {
        self.0.search_events(caller, session, request).await
    }
    async fn hunt_events(&self, caller: &Caller, session: &Session, request: EventHunt) -> Answer<JobView> {
        self.0.hunt_events(caller, session, request).await
    }
    async fn event_jobs(&self, caller: &Caller, session: &Session) -> Answer<JobList> {
        self.0.event_jobs(caller, session).await
    }
    async fn event_job(
        &self,
        caller: &Caller,
        session: &Session,
        id: u128,
        after: usize,
        limit: usize,
    ) -> Answer<JobView> {
        self.0.event_job(caller, session, id, after, limit).await
    }
    async fn cancel_event_job(&self, caller: &Caller, session: &Session, id: u128) -> Answer<()> {
        self.0.cancel_event_job(caller, session, id).await
    }
    async fn event_archive(&self, caller: &Caller, session: &Session) -> Answer<ArchiveView> {
        self.0.event_archive(caller, session).await
    }
    async fn detection(&self, caller: &Caller, session: &Session) -> Answer<DetectionStatus> {
        self.0.detection(caller, session).await
    }
    async fn rules(&self, caller: &Caller, session: &Session, filter: &RuleFilter) -> Answer<RuleList> {
        self.0.rules_read(caller, session, filter).await
    }
    async fn alerts(&self, caller: &Caller, session: &Session, filter: &AlertFilter) -> Answer<AlertList> {
        self.0.alerts(caller, session, filter).await
    }
    async fn alert(&self, caller: &Caller, session: &Session, id: &str) -> Answer<AlertDetail> {
        self.0.alert(caller, session, id).await
    }
    async fn incidents(&self, caller: &Caller, session: &Session, filter: &IncidentFilter) -> Answer<IncidentList> {
        self.0.incidents(caller, session, filter).await
    }
    async fn incident(&self, caller: &Caller, session: &Session, id: &str) -> Answer<IncidentView> {
        self.0.incident(caller, session, id).await
    }
    async fn incident_timeline(&self, caller: &Caller, session: &Session, id: &str) -> Answer<Timeline> {
        self.0.incident_timeline(caller, session, id).await
    }
    async fn act_on_incident(
        &self,
        caller: &Caller,
        session: &Session,
        id: &str,
        action: IncidentAction,
        precondition: Precondition,
    ) -> Answer<IncidentView> {
        self.0.act_on_incident(caller, session, id, action, precondition).await
    }
    async fn mutes(&self, caller: &Caller, session: &Session) -> Answer<MuteList> {
        self.0.mutes(caller, session).await
    }
    async fn mute(&self, caller: &Caller, session: &Session, request: NewMute) -> Answer<MuteView> {
        self.0.mute(caller, session, request).await
    }
    async fn unmute(&self, caller: &Caller, session: &Session, id: &str) -> Answer<()> {
        self.0.unmute(caller, session, id).await
    }
    async fn refused_notices(&self, caller: &Caller, session: &Session, filter: &RefusedFilter) -> Answer<RefusedList> {
        self.0.refused_notices(caller, session, filter).await
    }
    async fn replay_notices(&self, caller: &Caller, session: &Session, chosen: ChosenNotices) -> Answer<NoticesDone> {
        self.0.replay_notices(caller, session, chosen).await
    }
    async fn drop_notices(&self, caller: &Caller, session: &Session, chosen: ChosenNotices) -> Answer<NoticesDone> {
        self.0.drop_notices(caller, session, chosen).await
    }
    async fn pipeline(&self, caller: &Caller, session: &Session) -> Answer<PipelineStatus> {
        self.0.pipeline_status(caller, session).await
    }
    async fn dead_letters(
        &self,
        caller: &Caller,
        session: &Session,
        filter: &DeadLetterFilter,
    ) -> Answer<DeadLetterList> {
        self.0.dead_letters(caller, session, filter).await
    }
    async fn replay_letters(&self, caller: &Caller, session: &Session, chosen: ChosenLetters) -> Answer<LettersDone> {
        self.0.replay_letters(caller, session, chosen).await
    }
    async fn drop_letters(&self, caller: &Caller, session: &Session, chosen: ChosenLetters) -> Answer<LettersDone> {
        self.0.drop_letters(caller, session, chosen).await
    }
    async fn escalation_policy(&self, caller: &Caller, session: &Session) -> Answer<PolicyView> {
        self.0.escalation_policy(caller, session).await
    }
    async fn apply_escalation_policy(
        &self,
        caller: &Caller,
        session: &Session,
        request: ApplyPolicy,
        precondition: Precondition,
    ) -> Answer<PolicyView> {
        self.0.apply_escalation_policy(caller, session, request, precondition).await
    }
    async fn on_call(&self, caller: &Caller, session: &Session, at_ms: Option<u64>) -> Answer<OnCallList> {
        self.0.on_call(caller, session, at_ms).await
    }
    async fn escalations(&self, caller: &Caller, session: &Session) -> Answer<EscalationList> {
        self.0.escalations(caller, session).await
    }
    async fn tickets(&self, caller: &Caller, session: &Session, filter: &TicketFilter) -> Answer<TicketList> {
        self.0.tickets(caller, session, filter).await
    }
    async fn ticket(&self, caller: &Caller, session: &Session, id: &str) -> Answer<TicketView> {
        self.0.ticket(caller, session, id).await
    }
    async fn open_ticket(&self, caller: &Caller, session: &Session, request: NewTicket) -> Answer<TicketView> {
        self.0.open_ticket(caller, session, request).await
    }
    async fn change_ticket(
        &self,
        caller: &Caller,
        session: &Session,
        id: &str,
        request: ChangeTicket,
        precondition: Precondition,
    ) -> Answer<TicketView> {
        self.0.change_ticket(caller, session, id, request, precondition).await
    }
    async fn cluster_status(&self, caller: &Caller, session: &Session) -> Answer<ClusterStatus> {
        self.0.cluster_status(caller, session).await
    }
    async fn convergence(&self, caller: &Caller, session: &Session) -> Answer<Convergence> {
        self.0.convergence(caller, session).await
    }
}

/// Statuses as labels: a hundred strings are not made for every request.
const fn status_name(status: u16) -> &'static str {
    match status {
        200 => "200",
        201 => "201",
        202 => "202",
        204 => "204",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        409 => "409",
        412 => "412",
        422 => "422",
        428 => "428",
        429 => "429",
        500 => "500",
        503 => "503",
        _ if status < 400 => "other_ok",
        _ if status < 500 => "other_4xx",
        _ => "other_5xx",
    }
}
