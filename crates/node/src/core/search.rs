//! Events of the past, as the SOC asks for them: who may, what is put on record, and the jobs that answer.

use crate::core::wait::internal;
use crate::driver::archive::Keeper;
use crate::machine::note::Note;
use crate::node::Node;
use api::core::Answer;
use api::problem::{Problem, Unavailable};
use api::types::{ArchiveTenant, ArchiveView, Caller, EventHunt, EventSearch, JobList, JobState, JobView};
use archive::hunt::{self, Hunt};
use archive::job::{About, Job, Outcome};
use archive::layout::day_text;
use archive::search::{self, Ask, Limits, Progress, Question};
use archive::{ArchiveError, Span, Tenants};
use detection::engine::Options;
use detection::packs;
use detection::rules::{RuleSet, load_texts};
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
const EVERY: &str = "*";

/// Whose events a session asks for.
struct Whose {
    tenants: Tenants,
    name: String,
}

impl Node {
    fn keeper(&self) -> Answer<&Keeper> {
        let none = || {
            let detail = "this node keeps no archive: ask another one of the region";
            Problem::unavailable(Unavailable::Starting, detail, RETRY_AFTER)
        };
        self.archive.get().ok_or_else(none)
    }

    /// Whose events these may be. Of a tenant, its own; of the platform, any tenant's, or all.
    async fn whose(&self, caller: &Caller, session: &Session, wanted: Option<&str>) -> Answer<Whose> {
        let own = session.tenant();
        self.permit(caller, session, Action::IncidentRead, own, "events").await?;
        let own_name = self.tenant_name(own).ok_or(Problem::not_found("tenant"))?;
        let name = wanted.unwrap_or(&own_name);
        if own != TenantId::PLATFORM {
            // Another tenant does not exist for this session, and that it asked is on record.
            let tenant = self.own_tenant(caller, session, name).await?;
            return Ok(Whose { tenants: Tenants::one(&tenant.name), name: tenant.name.clone() });
        }
        if name == EVERY {
            return Ok(Whose { tenants: Tenants::All, name: EVERY.into() });
        }
        let control = self.control();
        let tenant = control.tenant(name).ok_or(Problem::not_found("tenant"))?;
        Ok(Whose { tenants: Tenants::one(&tenant.name), name: tenant.name.clone() })
    }

    fn span(&self, from_ms: Option<u64>, to_ms: Option<u64>) -> Answer<Span> {
        let now_ms = self.world.clock.wall_ms();
        // What happens in this very millisecond is asked for too.
        let to_ms = to_ms.unwrap_or(now_ms + 1);
        let from_ms = from_ms.unwrap_or_else(|| to_ms.saturating_sub(SPAN_MS));
        if from_ms >= to_ms {
            return Err(Problem::invalid("from_ms", "must be before to_ms"));
        }
        Ok(Span { from_ms, to_ms: to_ms.min(Span::ALL.to_ms) })
    }

    /// Puts a question on record before it is answered.
    async fn on_record(
        &self,
        caller: &Caller,
        session: &Session,
        action: &str,
        whose: &Whose,
        question: &Value,
    ) -> Answer<()> {
        let mut note = self.note(caller, session, action);
        if whose.name != EVERY {
            // Whose events were looked at sees who did.
            note.tenant = Some(whose.name.clone());
        }
        let resource = Some(format!("tenants/{}/events", whose.name));
        let values = Some((None, Some(question.to_string())));
        self.record(session.tenant(), Note { resource, values, ..note }).await
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
        self.on_record(caller, session, "events.search", &whose, &asked).await?;
        let archive = Arc::clone(&self.keeper()?.archive);
        let question = Question { tenants: whose.tenants.clone(), span, ask, rows_max };
        let work = move |progress: &Arc<Progress>| match search::run(&archive, &question, Limits::default(), progress) {
            Ok(answer) => Outcome::Rows(Arc::new(answer)),
            Err(error) => Outcome::Failed(Arc::new(error)),
        };
        self.begin_job(session, "search", whose.name, text, request.wait_ms, work).await
    }

    /// Hunts.
    pub(crate) async fn hunt_events(&self, caller: &Caller, session: &Session, request: EventHunt) -> Answer<JobView> {
        let whose = self.whose(caller, session, request.tenant.as_deref()).await?;
        let span = self.span(request.from_ms, request.to_ms)?;
        let keeper = self.keeper()?;
        let rules = self.hunting_rules(keeper, request.rules).await?;
        let question = if request.only.is_empty() {
            format!("{} rules", rules.rules().len() + rules.correlations().len())
        } else {
            request.only.join(", ")
        };
        let asked = serde_json::json!({"rules": question, "from_ms": span.from_ms, "to_ms": span.to_ms});
        self.on_record(caller, session, "events.hunt", &whose, &asked).await?;
        let archive = Arc::clone(&keeper.archive);
        let only = request.only.into_iter().collect();
        let hunt = Hunt { tenants: whose.tenants.clone(), span, rules, only, options: Options::default() };
        let work = move |progress: &Arc<Progress>| match hunt::run(&archive, hunt, progress) {
            Ok(found) => Outcome::Alerts(Arc::new(found)),
            Err(error) => Outcome::Failed(Arc::new(error)),
        };
        self.begin_job(session, "hunt", whose.name, question, request.wait_ms, work).await
    }

    /// The rules that were sent, or the node's own; all of them are good, or none is taken.
    async fn hunting_rules(&self, keeper: &Keeper, sent: Option<String>) -> Answer<RuleSet> {
        let folder = keeper.rules.clone();
        let were_sent = sent.is_some();
        let loaded = tokio::task::spawn_blocking(move || match (sent, folder) {
            (Some(text), _) => Ok(load_texts(vec![("rules".into(), text)])),
            (None, Some(folder)) => packs::load(&folder).map_err(|error| error.to_string()),
            (None, None) => Err("this node has no rules of its own: send some".into()),
        });
        let loaded = loaded.await.map_err(|error| internal("rules could not be read", &error))?;
        let (rules, errors) = loaded.map_err(|why| Problem::invalid("rules", why))?;
        if let (Some(error), true) = (errors.first(), were_sent) {
            return Err(Problem::invalid("rules", error.to_string()));
        }
        if rules.rules().is_empty() {
            return Err(Problem::invalid("rules", "there is no rule among them"));
        }
        Ok(rules)
    }

    async fn begin_job(
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
        let about = About { owner: owner(session), kind, tenant, question, began_ms };
        let clock = Arc::clone(&self.world.clock);
        let job = self.keeper()?.jobs.begin(id, about, move || clock.wall_ms(), work);
        let job = job.map_err(|_| Problem::TooMany { retry_after: RETRY_AFTER })?;
        let wait = Duration::from_millis(wait_ms.unwrap_or(WAIT_MS_DEFAULT).min(WAIT_MS_MAX));
        let _ = tokio::time::timeout(wait, job.ended()).await;
        Ok(view(id, &job, 0, FIRST_ROWS))
    }

    /// The session's jobs.
    pub(crate) async fn event_jobs(&self, caller: &Caller, session: &Session) -> Answer<JobList> {
        self.permit(caller, session, Action::IncidentRead, session.tenant(), "events/jobs").await?;
        let jobs = self.keeper()?.jobs.list(Some(&owner(session)));
        Ok(JobList { jobs: jobs.iter().map(|(id, job)| view(*id, job, 0, 0)).collect() })
    }

    async fn own_job(&self, caller: &Caller, session: &Session, id: u128) -> Answer<Arc<Job>> {
        self.permit(caller, session, Action::IncidentRead, session.tenant(), "events/jobs").await?;
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

    /// Cancels or forgets one of them.
    pub(crate) async fn cancel_event_job(&self, caller: &Caller, session: &Session, id: u128) -> Answer<()> {
        self.own_job(caller, session, id).await?;
        self.keeper()?.jobs.remove(id);
        Ok(())
    }

    /// What the archive holds of the tenants the session may see.
    pub(crate) async fn event_archive(&self, caller: &Caller, session: &Session) -> Answer<ArchiveView> {
        let wanted = (session.tenant() == TenantId::PLATFORM).then_some(EVERY);
        let whose = self.whose(caller, session, wanted).await?;
        self.viewed(caller, session, "events/archive").await?;
        let keeper = self.keeper()?;
        let policy = keeper.policy(self);
        let mut tenants: BTreeMap<Arc<str>, ArchiveTenant> = BTreeMap::new();
        for file in keeper.archive.files() {
            let name = &file.partition.tenant;
            if !whose.tenants.has(name) {
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
        let is_platform = whose.tenants == Tenants::All;
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
        broken: progress.broken().into_iter().map(|(path, reason)| (name_of(&path), reason)).collect(),
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
