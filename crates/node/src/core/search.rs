//! Events of the past, as the SOC asks for them: who may, what is put on record, and the jobs that answer.

use crate::driver::archive::Keeper;
use crate::machine::note::Note;
use crate::node::Node;
use api::core::Answer;
use api::problem::{Problem, Unavailable};
use api::types::{ArchiveTenant, ArchiveView, Caller, EventSearch, JobList, JobState, JobView};
use archive::job::{About, Job, Outcome};
use archive::layout::day_text;
use archive::search::{self, Ask, Limits, Progress, Question};
use archive::{ArchiveError, Span, Tenants};
use identity::{Action, Session};
use model::TenantId;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The span of a question that names none.
const SPAN_MS: u64 = 24 * 3_600_000;
/// Rows of an answer when the question does not say.
const ROWS_DEFAULT: usize = 1000;
/// Rows that come with the answer to the question itself.
const FIRST_ROWS: usize = 1000;
const WAIT_MS_DEFAULT: u64 = 5_000;
/// Less than a request may take.
const WAIT_MS_MAX: u64 = 20_000;
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// All tenants, in a question.
pub(super) const EVERY: &str = "*";
/// Tenants that one question may be about: each learns of it.
const EVERY_MAX: usize = 1000;
/// Of them at once.
const EVERY_AT_ONCE: usize = 64;

/// Whose events a session asks for.
pub(super) struct Whose {
    pub(super) tenants: Tenants,
    /// Of which of them it may read the audit log.
    pub(super) audit: Tenants,
    pub(super) name: String,
}

impl Node {
    pub(super) fn keeper(&self) -> Answer<&Keeper> {
        let none = || {
            let detail = "this node keeps no archive: ask another one of the region";
            Problem::unavailable(Unavailable::Starting, detail, RETRY_AFTER)
        };
        self.archive.get().ok_or_else(none)
    }

    /// Whose events these may be: of a tenant, its own; of the platform, also others', where policy says so.
    pub(super) async fn whose(&self, caller: &Caller, session: &Session, wanted: Option<&str>) -> Answer<Whose> {
        let own = session.tenant();
        let capability = self.permit(caller, session, Action::EventSearch, own, "events").await?;
        let own_name = self.tenant_name(own).ok_or(Problem::not_found("tenant"))?;
        let name = wanted.unwrap_or(&own_name);
        let tenants = if own != TenantId::PLATFORM {
            // Another tenant does not exist for this session, and that it asked is on record.
            Tenants::one(&self.own_tenant(caller, session, name).await?.name)
        } else {
            let control = self.control();
            let others: Vec<TenantId> = if name == EVERY {
                control.tenants.keys().copied().collect()
            } else {
                vec![control.tenant(name).ok_or(Problem::not_found("tenant"))?.id]
            };
            for tenant in others {
                self.permit(caller, session, Action::EventSearch, tenant, &format!("tenants/{name}/events")).await?;
            }
            if name == EVERY { Tenants::All } else { Tenants::one(name) }
        };
        let audits = capability.permits(Action::AuditRead, own).is_ok();
        let audit = if audits { tenants.clone() } else { Tenants::Only([].into()) };
        Ok(Whose { tenants, audit, name: name.to_owned() })
    }

    pub(super) fn span(&self, from_ms: Option<u64>, to_ms: Option<u64>) -> Answer<Span> {
        let now_ms = self.world.clock.wall_ms();
        // What happens in this very millisecond is asked for too.
        let to_ms = to_ms.unwrap_or(now_ms + 1);
        let from_ms = from_ms.unwrap_or_else(|| to_ms.saturating_sub(SPAN_MS));
        if from_ms >= to_ms {
            return Err(Problem::invalid("from_ms", "must be before to_ms"));
        }
        Ok(Span { from_ms, to_ms: to_ms.min(Span::ALL.to_ms) })
    }

    /// Puts a question on record before it is answered, where those whose events are looked at see it.
    pub(super) async fn on_record(
        &self,
        caller: &Caller,
        session: &Session,
        action: &str,
        name: &str,
        (question, span): (&Value, Span),
    ) -> Answer<()> {
        let note = |tenant: Option<&str>, question: Value| {
            let note = self.note(caller, session, action);
            Note {
                tenant: tenant.map(str::to_owned).or(note.tenant.clone()),
                resource: Some(format!("tenants/{}/events", tenant.unwrap_or(name))),
                values: Some((None, Some(question.to_string()))),
                ..note
            }
        };
        if name != EVERY {
            return self.record(session.tenant(), note(Some(name), question.clone())).await;
        }
        let own = self.tenant_name(session.tenant());
        let tenants = self.keeper()?.archive.tenants(span).into_iter();
        let others: Vec<Arc<str>> = tenants.filter(|tenant| own.as_deref() != Some(&**tenant)).collect();
        if others.len() > EVERY_MAX {
            let detail = format!("more than {EVERY_MAX} tenants have events in this span: narrow it, or name one");
            return Err(Problem::invalid("tenant", detail));
        }
        self.record(session.tenant(), note(None, question.clone())).await?;
        // What was asked of all may tell one of another: each learns that it was, by whom and about when.
        let span = serde_json::json!({"tenant": EVERY, "from_ms": span.from_ms, "to_ms": span.to_ms});
        for some in others.chunks(EVERY_AT_ONCE) {
            let notes = some.iter().map(|tenant| self.record(session.tenant(), note(Some(&**tenant), span.clone())));
            futures::future::try_join_all(notes).await?;
        }
        Ok(())
    }

    /// Searches.
    pub(crate) async fn search_events(
        &self,
        caller: &Caller,
        session: &Session,
        request: EventSearch,
    ) -> Answer<JobView> {
        let whose = self.whose(caller, session, request.tenant.as_deref()).await?;
        let span = self.span(request.from_ms, request.to_ms)?;
        let rows_max = request.limit.unwrap_or(ROWS_DEFAULT);
        if !(1..=search::ROWS_MAX).contains(&rows_max) {
            return Err(Problem::invalid("limit", format!("1 to {}", search::ROWS_MAX)));
        }
        let (at, ask) = match (request.query, request.sql) {
            (Some(query), None) => ("query", Ask::Text(query)),
            (None, Some(sql)) => ("sql", Ask::Sql(sql)),
            _ => return Err(Problem::invalid("query", "either query or sql")),
        };
        search::check(&ask).await.map_err(|error| Problem::invalid(at, error.to_string()))?;
        let (Ask::Text(text) | Ask::Sql(text)) = &ask;
        let text = text.clone();
        let asked = serde_json::json!({at: text, "from_ms": span.from_ms, "to_ms": span.to_ms});
        self.on_record(caller, session, "events.search", &whose.name, (&asked, span)).await?;
        let archive = Arc::clone(&self.keeper()?.archive);
        let question = Question { tenants: whose.tenants, audit: whose.audit, span, ask, rows_max };
        let work = move |progress: &Arc<Progress>| match search::run(&archive, &question, Limits::default(), progress) {
            Ok(answer) => Outcome::Rows(Arc::new(answer)),
            Err(error) => Outcome::Failed(Arc::new(error)),
        };
        self.begin_job(session, "search", whose.name, text, request.wait_ms, work).await
    }

    pub(super) async fn begin_job(
        &self,
        session: &Session,
        kind: &'static str,
        tenant: String,
        question: String,
        wait_ms: Option<u64>,
        work: impl FnOnce(&Arc<Progress>) -> Outcome + Send + 'static,
    ) -> Answer<JobView> {
        let mut bytes = [0; 16];
        self.world.entropy.fill(&mut bytes);
        let id = u128::from_be_bytes(bytes);
        let began_ms = self.world.clock.wall_ms();
        let about = About { owner: owner(session), by: session.tenant(), kind, tenant, question, began_ms };
        let clock = Arc::clone(&self.world.clock);
        let job = self.keeper()?.jobs.begin(id, about, move || clock.wall_ms(), work);
        let job = job.map_err(|_| Problem::TooMany { retry_after: RETRY_AFTER })?;
        let wait = Duration::from_millis(wait_ms.unwrap_or(WAIT_MS_DEFAULT).min(WAIT_MS_MAX));
        let _ = tokio::time::timeout(wait, job.ended()).await;
        Ok(view(id, &job, 0, FIRST_ROWS))
    }

    /// The session's jobs. Whoever manages the cluster also sees others', but not what they ask or find.
    pub(crate) async fn event_jobs(&self, caller: &Caller, session: &Session) -> Answer<JobList> {
        let capability = self.permit(caller, session, Action::EventSearch, session.tenant(), "events/jobs").await?;
        let owner = owner(session);
        let manages = capability.permits(Action::ClusterManage, TenantId::PLATFORM).is_ok();
        let jobs = self.keeper()?.jobs.list(if manages { None } else { Some(&owner) });
        let view = |(id, job): &(u128, Arc<Job>)| {
            let view = view(*id, job, 0, 0);
            if job.about.owner == owner { view } else { JobView { question: String::new(), ..view } }
        };
        Ok(JobList { jobs: jobs.iter().map(view).collect() })
    }

    async fn own_job(&self, caller: &Caller, session: &Session, id: u128) -> Answer<Arc<Job>> {
        self.permit(caller, session, Action::EventSearch, session.tenant(), "events/jobs").await?;
        let job = self.keeper()?.jobs.get(id);
        job.filter(|job| job.about.owner == owner(session)).ok_or(Problem::not_found("job"))
    }

    /// One of them. What it shows was put on record when it was asked.
    pub(crate) async fn event_job(
        &self,
        caller: &Caller,
        session: &Session,
        id: u128,
        after: usize,
        limit: usize,
    ) -> Answer<JobView> {
        let job = self.own_job(caller, session, id).await?;
        Ok(view(id, &job, after, limit))
    }

    /// Cancels or forgets one of them; whoever manages the cluster also cancels others', which those see on record.
    pub(crate) async fn cancel_event_job(&self, caller: &Caller, session: &Session, id: u128) -> Answer<()> {
        let capability = self.permit(caller, session, Action::EventSearch, session.tenant(), "events/jobs").await?;
        let job = self.keeper()?.jobs.get(id).ok_or(Problem::not_found("job"))?;
        if job.about.owner != owner(session) {
            capability.permits(Action::ClusterManage, TenantId::PLATFORM).map_err(|_| Problem::not_found("job"))?;
            let tenant = self.tenant_name(job.about.by);
            let note = self.note(caller, session, "events.cancel");
            let note = Note {
                tenant: tenant.or(note.tenant.clone()),
                resource: Some(format!("events/jobs/{id:032x}")),
                ..note
            };
            self.record(session.tenant(), note).await?;
        }
        self.keeper()?.jobs.remove(id);
        Ok(())
    }

    /// What the archive holds of the tenants the session may see.
    pub(crate) async fn event_archive(&self, caller: &Caller, session: &Session) -> Answer<ArchiveView> {
        self.permit(caller, session, Action::EventSearch, session.tenant(), "events/archive").await?;
        self.viewed(caller, session, "events/archive").await?;
        let is_platform = session.tenant() == TenantId::PLATFORM;
        let own = self.tenant_name(session.tenant()).ok_or(Problem::not_found("tenant"))?;
        let keeper = self.keeper()?;
        let policy = keeper.policy(self);
        let mut tenants: BTreeMap<Arc<str>, ArchiveTenant> = BTreeMap::new();
        for file in keeper.archive.files() {
            let name = &file.partition.tenant;
            if !is_platform && **name != *own {
                continue;
            }
            let day = day_text(file.partition.hour / 24);
            let entry = tenants.entry(Arc::clone(name)).or_insert_with(|| ArchiveTenant {
                tenant: name.to_string(),
                first_day: day.clone(),
                retention_days: policy.tenants.get(name).copied().unwrap_or(policy.days),
                holds: keeper.config.holds.iter().filter(|hold| *hold.tenant == **name).map(hold_text).collect(),
                ..ArchiveTenant::default()
            });
            entry.files += 1;
            entry.rows += file.name.rows;
            entry.size_bytes += file.size_bytes;
            if day < entry.first_day {
                entry.first_day.clone_from(&day);
            }
            if day > entry.last_day {
                entry.last_day = day;
            }
        }
        let broken = keeper.archive.broken();
        Ok(ArchiveView {
            node: self.place.name.clone(),
            region: self.region.name.clone(),
            tenants: tenants.into_values().collect(),
            // What all tenants have together is nothing for one of them.
            open_rows: if is_platform { keeper.archive.open_rows() as u64 } else { 0 },
            size_bytes: if is_platform { keeper.archive.size_bytes() } else { 0 },
            size_bytes_max: if is_platform { policy.size_bytes_max } else { 0 },
            broken: broken
                .into_iter()
                .filter(|_| is_platform)
                .map(|(path, reason)| (path.display().to_string(), reason))
                .collect(),
        })
    }
}

fn hold_text(hold: &crate::config::LegalHold) -> String {
    let or = |text: &Option<String>, otherwise: &str| text.clone().unwrap_or_else(|| otherwise.to_owned());
    format!("{} to {}: {}", or(&hold.from, "the beginning"), or(&hold.to, "further notice"), hold.reason)
}

fn owner(session: &Session) -> String {
    let account = session.account();
    format!("{}/{}", account.tenant, account.id)
}

/// A job with some of its rows.
fn view(id: u128, job: &Job, after: usize, limit: usize) -> JobView {
    let progress = &job.progress;
    let number = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let mut view = JobView {
        id: format!("{id:032x}"),
        kind: job.about.kind.into(),
        state: JobState::Running,
        tenant: job.about.tenant.clone(),
        question: job.about.question.clone(),
        began_ms: job.about.began_ms,
        // Files of strays are looked at more than once.
        files_done: number(&progress.files_done).min(number(&progress.files_total)),
        files_total: number(&progress.files_total),
        rows_read: number(&progress.rows_read),
        rows_matched: number(&progress.rows_matched),
        problem: None,
        broken: progress.skipped().into_iter().map(|(path, reason)| (name_of(&path), reason)).collect(),
        columns: Vec::new(),
        rows: Vec::new(),
        next: None,
        truncated: false,
    };
    let mut total = 0;
    match job.outcome() {
        None => {}
        Some(Outcome::Rows(answer)) => {
            view.state = JobState::Done;
            view.columns.clone_from(&answer.columns);
            view.truncated = answer.truncated;
            view.rows = answer.rows.iter().skip(after).take(limit).cloned().collect();
            total = answer.rows.len();
        }
        Some(Outcome::Alerts(found)) => {
            view.state = JobState::Done;
            view.truncated = found.truncated;
            let json = |alert| serde_json::to_value(alert).unwrap_or_default();
            view.rows = found.alerts.iter().skip(after).take(limit).map(json).collect();
            total = found.alerts.len();
        }
        Some(Outcome::Failed(error)) => {
            let is_cancelled = matches!(*error, ArchiveError::Cancelled);
            view.state = if is_cancelled { JobState::Cancelled } else { JobState::Failed };
            view.problem = Some(told(&error));
        }
    }
    let end = after.saturating_add(view.rows.len());
    view.next = (limit > 0 && end < total).then_some(end);
    view
}

/// Where on a disk a file lies is not told to clients.
fn name_of(path: &str) -> String {
    path.find("tenant=").map_or("a file", |at| &path[at..]).to_owned()
}

fn told(error: &ArchiveError) -> String {
    match error {
        ArchiveError::Disk { .. } | ArchiveError::Broken { .. } => {
            tracing::error!(%error, "a search failed");
            "the disk failed: what happened is in the node's log".into()
        }
        other => other.to_string(),
    }
}
