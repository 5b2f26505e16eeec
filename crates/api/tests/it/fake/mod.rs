//! A core in memory that does just enough for the API to be tested against it.

mod records;
mod views;

use api::types::*;
use api::{Answer, Core, Problem, Unauthenticated};
use bytes::Bytes;
use identity::{Account, Grant as IdentityGrant, Role, Session, SessionKey, SessionKeys};
use model::entropy::Entropy;
use model::{TenantId, UserId};
use records::Records;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use views::*;

const NOW_MS: u64 = 1_800_000_000_000;

struct Fixed;

impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

#[derive(Default)]
pub struct Fake {
    /// The next method answers this.
    pub problem: Mutex<Option<Problem>>,
    /// The records of every table.
    records: Mutex<Records>,
    /// What `observe` was told.
    pub observed: Mutex<Vec<(&'static str, String, u16)>>,
    /// What the last write was given.
    pub write: Mutex<Option<WriteOptions>>,
    /// What the last transaction was given.
    pub operations: Mutex<Vec<Operation>>,
    /// What the last caller was.
    pub caller: Mutex<Option<Caller>>,
    /// What the last ingestion was given.
    pub lines: Mutex<Vec<Bytes>>,
    /// A read of the key `held` has come in.
    pub entered: Notify,
    /// Lets a read of the key `held` go on.
    pub release: Notify,
    count: AtomicU64,
}

fn keys() -> SessionKeys {
    let key = SessionKey::generate(serde_json::from_str("1").unwrap(), &Fixed);
    SessionKeys::new([&key]).unwrap()
}

fn account(login: &str) -> Account {
    Account {
        id: UserId::new(login.len() as u64),
        login: identity::Login::parse(login).unwrap(),
        person: login.into(),
        tenant: TenantId::new(1),
        grants: vec![IdentityGrant::whole(Role::Agent)],
        password: serde_json::from_str("\"\"").unwrap(),
        totp: None,
        totp_last: None,
        must_change: false,
        disabled: false,
        epoch: 0,
    }
}

impl Fake {
    /// A token of this login's session from this address.
    pub fn token(&self, login: &str, address: IpAddr) -> String {
        keys().issue(&account(login), address, false, NOW_MS, 1000, &Fixed).token
    }

    fn trip(&self) -> Answer<()> {
        self.problem.lock().unwrap().take().map_or(Ok(()), Err)
    }

    fn tenant_exists(&self, tenant: &str) -> Answer<()> {
        self.trip()?;
        if tenant == "acme" { Ok(()) } else { Err(Problem::not_found("tenant")) }
    }
}

#[async_trait::async_trait]
impl Core for Fake {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.count.load(Ordering::Relaxed))
    }
    fn request_id(&self) -> u128 {
        u128::from(self.count.fetch_add(1, Ordering::Relaxed)) + 1
    }
    fn page_secret(&self) -> [u8; 32] {
        [9; 32]
    }
    fn observe(&self, method: &'static str, route: &str, status: u16, _: Duration) {
        self.observed.lock().unwrap().push((method, route.to_owned(), status));
    }
    async fn health(&self) -> Answer<Health> {
        self.trip()?;
        Ok(health())
    }
    async fn ready(&self) -> Answer<Health> {
        self.trip()?;
        Ok(health())
    }
    async fn endpoints(&self) -> Answer<Endpoints> {
        self.trip()?;
        Ok(Endpoints { cluster: "c".into(), region: "eu".into(), regions: vec![] })
    }
    async fn login(&self, caller: &Caller, request: Login) -> Answer<LoggedIn> {
        self.trip()?;
        if request.password != "right" {
            return Err(Problem::Unauthenticated(Unauthenticated::CredentialsRefused));
        }
        let token = self.token(&request.login, caller.address);
        Ok(LoggedIn { token, expires_ms: NOW_MS, must_change_password: false, user: user(&request.login) })
    }
    async fn authenticate(&self, caller: &Caller) -> Answer<Session> {
        *self.caller.lock().unwrap() = Some(caller.clone());
        let token = caller.bearer.as_deref().ok_or_else(Problem::unauthenticated)?;
        let find = |id: UserId| ["bob", "alice"].into_iter().map(account).find(|a| a.id == id).map(Arc::new);
        Ok(keys().verify(token, caller.address, NOW_MS, |_| false, find)?)
    }
    async fn logout(&self, _: &Caller, _: &Session) -> Answer<()> {
        self.trip()
    }
    async fn change_password(&self, _: &Caller, _: &Session, _: ChangePassword) -> Answer<()> {
        self.trip()
    }
    async fn me(&self, _: &Caller, session: &Session) -> Answer<Me> {
        self.trip()?;
        let user = user(session.account().login.as_str());
        let address = session.address().to_string();
        Ok(Me { user, address, expires_ms: session.expires_ms(), must_change_password: false })
    }
    async fn create_tenant(&self, _: &Caller, _: &Session, request: NewTenant) -> Answer<TenantView> {
        self.trip()?;
        Ok(tenant(&request.name))
    }
    async fn tenants(&self, _: &Caller, _: &Session) -> Answer<TenantList> {
        self.trip()?;
        Ok(TenantList { tenants: vec![tenant("acme")] })
    }
    async fn tenant(&self, _: &Caller, _: &Session, name: &str) -> Answer<TenantView> {
        self.tenant_exists(name)?;
        Ok(tenant(name))
    }
    async fn create_user(&self, _: &Caller, _: &Session, request: NewUser) -> Answer<CreatedUser> {
        self.trip()?;
        Ok(CreatedUser { user: user(&request.login), totp_uri: Some("otpauth://totp/x".into()) })
    }
    async fn users(&self, _: &Caller, _: &Session) -> Answer<UserList> {
        self.trip()?;
        Ok(UserList { users: vec![user("alice")] })
    }
    async fn create_table(&self, _: &Caller, _: &Session, tenant: &str, request: NewTable) -> Answer<TableView> {
        self.tenant_exists(tenant)?;
        Ok(TableView { fields: request.fields, ..table(&request.name) })
    }
    async fn tables(&self, _: &Caller, _: &Session, tenant: &str) -> Answer<TableList> {
        self.tenant_exists(tenant)?;
        Ok(TableList { tables: vec![table("calls")] })
    }
    async fn table(&self, _: &Caller, _: &Session, tenant: &str, name: &str) -> Answer<TableView> {
        self.tenant_exists(tenant)?;
        Ok(table(name))
    }
    async fn get_record(&self, _: &Caller, _: &Session, at: &RecordAt, read: &ReadOptions) -> Answer<Read<RecordView>> {
        self.tenant_exists(&at.tenant)?;
        match at.key.as_str() {
            "panic" => panic!("as the test asked"),
            "forever" => std::future::pending().await,
            "held" => {
                self.entered.notify_one();
                self.release.notified().await;
            }
            _ => {}
        }
        let value = self.records.lock().unwrap().get(&at.key, read.fields.as_ref())?;
        Ok(Read { value, token: "seen".into() })
    }
    async fn write_record(
        &self,
        _: &Caller,
        _: &Session,
        at: &RecordAt,
        change: Change,
        precondition: Precondition,
        write: &WriteOptions,
    ) -> Answer<Written> {
        self.tenant_exists(&at.tenant)?;
        *self.write.lock().unwrap() = Some(write.clone());
        let mut records = self.records.lock().unwrap();
        let version = self.count.fetch_add(1, Ordering::Relaxed);
        let (created, etag) = records.write(&at.key, change, &precondition, version)?;
        let durable = if write.durability == Durability::Region { Durable::AsAsked } else { Durable::Locally };
        let replayed = write.idempotency_key.as_deref() == Some("again");
        Ok(Written { durable, created, etag, token: "seen".into(), replayed })
    }
    async fn query(
        &self,
        _: &Caller,
        _: &Session,
        tenant: &str,
        _: &str,
        range: &KeyRange,
        _: &ReadOptions,
    ) -> Answer<Read<RecordPage>> {
        self.tenant_exists(tenant)?;
        Ok(Read { value: self.records.lock().unwrap().page(range), token: "seen".into() })
    }
    async fn transact(
        &self,
        _: &Caller,
        _: &Session,
        tenant: &str,
        operations: Vec<Operation>,
        write: &WriteOptions,
    ) -> Answer<Transacted> {
        self.tenant_exists(tenant)?;
        *self.write.lock().unwrap() = Some(write.clone());
        let results = operations.iter().map(|_| OperationResult { etag: Some(etag(1)) }).collect();
        *self.operations.lock().unwrap() = operations;
        Ok(Transacted { durable: Durable::AsAsked, results, token: "seen".into(), replayed: false })
    }
    async fn conflicts(&self, _: &Caller, _: &Session, tenant: &str, page: &Page) -> Answer<ConflictList> {
        self.tenant_exists(tenant)?;
        let place = page.after.clone().unwrap_or_default();
        Ok(ConflictList { conflicts: vec![], next: (place.len() < 3).then(|| format!("{place}+")) })
    }
    async fn durability(&self, _: &Caller, _: &Session, tenant: &str, _: &str) -> Answer<DurabilityView> {
        self.tenant_exists(tenant)?;
        Ok(DurabilityView { durable_in: vec!["us".into()], pending_in: vec![] })
    }
    async fn audit_entries(&self, _: &Caller, _: &Session, _: &AuditFilter) -> Answer<AuditList> {
        self.trip()?;
        let entry = AuditEntry { log: "eu-0".into(), index: 0, event: serde_json::json!({}), detail: None };
        Ok(AuditList { entries: vec![entry], next: None })
    }
    async fn audit_logs(&self, _: &Caller, _: &Session) -> Answer<AuditLogs> {
        self.trip()?;
        Ok(AuditLogs { logs: vec![] })
    }
    async fn audit_log_file(&self, _: &Caller, _: &Session, log: &str, file: LogFile) -> Answer<Bytes> {
        self.trip()?;
        if log != "eu-0" {
            return Err(Problem::not_found("log"));
        }
        Ok(match file {
            LogFile::Checkpoint => Bytes::from_static(b"holdfast/c/eu/0\n"),
            LogFile::Tile(tile) => Bytes::from(tile.to_string()),
        })
    }
    async fn audit_verify(&self, _: &Caller, _: &Session) -> Answer<AuditVerification> {
        self.trip()?;
        Ok(AuditVerification { verified: true, logs: vec![] })
    }
    async fn ingest(&self, _: &Caller, _: &Session, _: &str, lines: Vec<Bytes>, key: Option<&str>) -> Answer<Ingested> {
        self.trip()?;
        let accepted = lines.len() as u64;
        let is_again = key.is_some() && *self.lines.lock().unwrap() == lines;
        *self.lines.lock().unwrap() = lines;
        Ok(Ingested { accepted, repeated: if is_again { accepted } else { 0 } })
    }
    async fn search_events(&self, _: &Caller, _: &Session, request: EventSearch) -> Answer<JobView> {
        self.trip()?;
        let question = request.query.or(request.sql).unwrap_or_default();
        Ok(job(if question == "slow" { JobState::Running } else { JobState::Done }, question))
    }
    async fn hunt_events(&self, _: &Caller, _: &Session, request: EventHunt) -> Answer<JobView> {
        self.trip()?;
        Ok(job(JobState::Done, request.only.join(",")))
    }
    async fn event_jobs(&self, _: &Caller, _: &Session) -> Answer<JobList> {
        self.trip()?;
        Ok(JobList { jobs: vec![job(JobState::Done, String::new())] })
    }
    async fn event_job(&self, _: &Caller, _: &Session, id: u128, after: usize, limit: usize) -> Answer<JobView> {
        self.trip()?;
        if id != 1 {
            return Err(Problem::not_found("job"));
        }
        Ok(job(JobState::Done, format!("{after}+{limit}")))
    }
    async fn cancel_event_job(&self, _: &Caller, _: &Session, id: u128) -> Answer<()> {
        self.trip()?;
        if id == 1 { Ok(()) } else { Err(Problem::not_found("job")) }
    }
    async fn event_archive(&self, _: &Caller, _: &Session) -> Answer<ArchiveView> {
        self.trip()?;
        Ok(ArchiveView { node: "eu-1".into(), ..ArchiveView::default() })
    }
    async fn detection(&self, _: &Caller, _: &Session) -> Answer<DetectionStatus> {
        self.trip()?;
        let rules = KnownRules { set: "00".into(), rules: 2, correlations: 1, is_foretold: false };
        let streams =
            vec![StreamStatus { stream: "events/eu".into(), next: 3, head: 5, behind: 2, behind_ms: Some(7) }];
        let shard = ShardStatus { shard: 0, node: Some("eu-1".into()), epoch: Some(1), report: None, streams };
        let (region, node) = ("eu".into(), "eu-1".into());
        Ok(DetectionStatus { region, node, rules, shards: vec![shard], tenants: vec![] })
    }
    async fn rules(&self, _: &Caller, _: &Session, filter: &RuleFilter) -> Answer<RuleList> {
        self.trip()?;
        let place: usize = filter.page.after.as_deref().map_or(0, |after| after.parse().unwrap());
        let end = (place + filter.page.limit).min(3);
        let next = (end < 3).then(|| end.to_string());
        Ok(RuleList { rules: (place..end).map(rule).collect(), total: 3, next })
    }
    async fn alerts(&self, _: &Caller, _: &Session, filter: &AlertFilter) -> Answer<AlertList> {
        self.trip()?;
        let next = filter.page.after.is_none().then(|| "1-a1".to_owned());
        Ok(AlertList { alerts: vec![alert()], next })
    }
    async fn alert(&self, _: &Caller, _: &Session, id: &str) -> Answer<AlertDetail> {
        self.trip()?;
        if id != "a1" {
            return Err(Problem::not_found("alert"));
        }
        Ok(AlertDetail {
            alert: alert(),
            semantic_hash: "00".into(),
            tags: vec!["attack.t1110".into()],
            entities: vec!["user:ann".into()],
            first_ms: 1,
            last_ms: 1,
            late: false,
            clamped: false,
            events: vec![AlertEvent {
                id: "e1".into(),
                time_ms: 1,
                class_uid: 3002,
                activity_id: 1,
                text: "a failed login".into(),
                entities: vec!["user:ann".into()],
            }],
        })
    }
    async fn incidents(&self, _: &Caller, _: &Session, _: &IncidentFilter) -> Answer<IncidentList> {
        self.trip()?;
        Ok(IncidentList { incidents: vec![summary("i1")], total: 1, next: None })
    }
    async fn incident(&self, _: &Caller, _: &Session, id: &str) -> Answer<IncidentView> {
        self.trip()?;
        Ok(incident(id))
    }
    async fn incident_timeline(&self, _: &Caller, _: &Session, id: &str) -> Answer<Timeline> {
        self.trip()?;
        let what = MomentKind::Act { incident: id.into(), note: note("opened", "a1".into()) };
        Ok(Timeline { moments: vec![Moment { time_ms: 4, what }], left_out: 0 })
    }
    async fn act_on_incident(
        &self,
        caller: &Caller,
        session: &Session,
        id: &str,
        action: IncidentAction,
        precondition: Precondition,
    ) -> Answer<IncidentView> {
        let mut view = self.incident(caller, session, id).await?;
        if matches!(precondition, Precondition::Matches(tags) if !tags.contains(&view.etag)) {
            return Err(Problem::PreconditionFailed { operation: None });
        }
        let (act, text) = match action {
            IncidentAction::Acknowledge => ("acknowledged", String::new()),
            IncidentAction::Assign(assign) => ("assigned", assign.assignee),
            IncidentAction::Comment(comment) => ("commented", comment.text),
            IncidentAction::Close(close) => ("closed", close.cause.unwrap_or_default()),
            other => ("other", format!("{other:?}")),
        };
        view.history.push(note(act, text));
        Ok(view)
    }
    async fn mutes(&self, _: &Caller, _: &Session) -> Answer<MuteList> {
        self.trip()?;
        Ok(MuteList { mutes: vec![] })
    }
    async fn mute(&self, _: &Caller, _: &Session, request: NewMute) -> Answer<MuteView> {
        self.trip()?;
        let NewMute { entity, rule, tenant, until_ms, why } = request;
        Ok(MuteView { id: "m1".into(), entity, rule, tenant, until_ms, by: "alice".into(), why })
    }
    async fn unmute(&self, _: &Caller, _: &Session, _: &str) -> Answer<()> {
        self.trip()
    }
    async fn escalation_policy(&self, _: &Caller, _: &Session) -> Answer<PolicyView> {
        self.trip()?;
        Ok(policy(1, "version = 1"))
    }
    async fn apply_escalation_policy(
        &self,
        _: &Caller,
        _: &Session,
        request: ApplyPolicy,
        precondition: Precondition,
    ) -> Answer<PolicyView> {
        self.trip()?;
        match precondition {
            Precondition::Matches(tags) if tags.contains(&policy(1, "").etag) => Ok(policy(2, &request.text)),
            Precondition::Unstated => Err(Problem::PreconditionRequired),
            _ => Err(Problem::PreconditionFailed { operation: None }),
        }
    }
    async fn on_call(&self, _: &Caller, _: &Session, at_ms: Option<u64>) -> Answer<OnCallList> {
        self.trip()?;
        Ok(OnCallList { at_ms: at_ms.unwrap_or(NOW_MS), schedules: vec![] })
    }
    async fn escalations(&self, _: &Caller, _: &Session) -> Answer<EscalationList> {
        self.trip()?;
        Ok(EscalationList { escalations: vec![] })
    }
    async fn refused_notices(&self, _: &Caller, _: &Session, _: &RefusedFilter) -> Answer<RefusedList> {
        self.trip()?;
        Ok(RefusedList { notices: vec![], total: 0, next: None })
    }
    async fn replay_notices(&self, _: &Caller, _: &Session, chosen: ChosenNotices) -> Answer<NoticesDone> {
        self.trip()?;
        Ok(NoticesDone { count: chosen.keys.map_or(7, |keys| keys.len() as u64) })
    }
    async fn drop_notices(&self, _: &Caller, _: &Session, chosen: ChosenNotices) -> Answer<NoticesDone> {
        self.trip()?;
        Ok(NoticesDone { count: chosen.keys.map_or(7, |keys| keys.len() as u64) })
    }
    async fn pipeline(&self, _: &Caller, _: &Session) -> Answer<PipelineStatus> {
        self.trip()?;
        let (node, components) = ("eu-1".into(), vec![]);
        Ok(PipelineStatus { node, components, dead_letters_bytes: 9, dead_letters_files_lost: 0 })
    }
    async fn dead_letters(&self, _: &Caller, _: &Session, filter: &DeadLetterFilter) -> Answer<DeadLetterList> {
        self.trip()?;
        let next = filter.page.after.is_none().then(|| "1".to_owned());
        Ok(DeadLetterList { node: "eu-1".into(), letters: vec![], total: 2, unreadable: 0, next })
    }
    async fn replay_letters(&self, _: &Caller, _: &Session, chosen: ChosenLetters) -> Answer<LettersDone> {
        self.trip()?;
        Ok(LettersDone { count: chosen.ids.map_or(7, |ids| ids.len() as u64), stay: 1 })
    }
    async fn drop_letters(&self, _: &Caller, _: &Session, chosen: ChosenLetters) -> Answer<LettersDone> {
        self.trip()?;
        Ok(LettersDone { count: chosen.ids.map_or(7, |ids| ids.len() as u64), stay: 0 })
    }
    async fn tickets(&self, _: &Caller, _: &Session, _: &TicketFilter) -> Answer<TicketList> {
        self.trip()?;
        Ok(TicketList { tickets: vec![], next: None })
    }
    async fn ticket(&self, _: &Caller, _: &Session, id: &str) -> Answer<TicketView> {
        self.trip()?;
        Ok(ticket(id))
    }
    async fn open_ticket(&self, _: &Caller, _: &Session, _: NewTicket) -> Answer<TicketView> {
        self.trip()?;
        Ok(ticket("t1"))
    }
    async fn change_ticket(
        &self,
        _: &Caller,
        _: &Session,
        id: &str,
        request: ChangeTicket,
        _: Precondition,
    ) -> Answer<TicketView> {
        self.trip()?;
        let state = request.state.unwrap_or(TicketState::Open);
        Ok(TicketView { state, ..ticket(id) })
    }
    async fn cluster_status(&self, _: &Caller, _: &Session) -> Answer<ClusterStatus> {
        self.trip()?;
        Ok(ClusterStatus {
            cluster: "c".into(),
            region: "eu".into(),
            node: "eu-1".into(),
            version: "0".into(),
            groups: vec![],
            duties: vec![],
            links: vec![],
            stuck: vec![],
        })
    }
    async fn convergence(&self, _: &Caller, _: &Session) -> Answer<Convergence> {
        self.trip()?;
        Ok(Convergence { region: "eu".into(), partitions: vec![] })
    }
}
