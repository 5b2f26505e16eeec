//! Who is called when, over the API: the policy, who is on call, and what runs.

use crate::driver::escalate::unreached;
use crate::machine::command::Must;
use crate::machine::control::platform;
use crate::machine::note::Note;
use crate::node::Node;
use api::core::Answer;
use api::problem::{Problem, Violation};
use api::types::{
    ApplyPolicy, Caller, EscalationList, EscalationView, Etag, OnCallList, OnCallView, PolicyView, Precondition,
};
use detection::escalation::{Book, Run, Standing, Stop};
use identity::Session;
use serde::{Deserialize, Serialize};

/// Keys of policies begin so.
const PREFIX: &str = "escalation/";
/// The version of the stored form that is written.
const VERSION: u32 = 1;
/// Warnings that are shown.
const WARNINGS_MAX: usize = 100;
/// Escalations that are shown.
const SHOWN_MAX: usize = 500;

/// A revision of the policy document, as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PolicyDocument {
    version: u32,
    /// Which.
    pub(crate) revision: u64,
    text: String,
    by: String,
    at_ms: u64,
    why: Option<String>,
}

impl PolicyDocument {
    /// The newest first: keys count down.
    fn key(revision: u64) -> String {
        format!("{PREFIX}{:016x}", u64::MAX - revision)
    }

    /// What it says.
    pub(crate) fn book(&self) -> Result<Book, Vec<detection::escalation::PolicyError>> {
        detection::escalation::parse("policy", self.text.as_bytes())
    }

    fn view(self, node: &Node) -> Answer<PolicyView> {
        let etag = Etag::new(self.revision.to_string()).ok_or(Problem::Internal)?;
        let book = self.book().unwrap_or_default();
        let unreached = unreached(&book, &node.sinks).into_iter();
        let unreached = unreached.map(|(policy, who)| format!("policy {policy}: no sink calls {who}"));
        let unknown = book.policies.iter().flat_map(|policy| &policy.tenants);
        let unknown = unknown.filter(|tenant| node.control().tenant(tenant).is_none());
        let unknown = unknown.map(|tenant| format!("there is no tenant {tenant}"));
        let warnings = book.warnings().into_iter().chain(unreached).chain(unknown).take(WARNINGS_MAX).collect();
        let Self { revision, text, by, at_ms, why, .. } = self;
        Ok(PolicyView { revision, text, by, applied_ms: at_ms, why, warnings, etag })
    }
}

impl Node {
    /// The policy document as it was last applied, as this node knows it.
    pub(crate) fn policy_document(&self) -> Answer<Option<PolicyDocument>> {
        self.first_json_record(platform::POLICIES, PREFIX)
    }

    /// The policy document as it was last applied.
    pub(crate) async fn escalation_policy(&self, caller: &Caller, session: &Session) -> Answer<PolicyView> {
        self.may_see(caller, session, "escalation/policy").await?;
        self.policy_document()?.ok_or(Problem::not_found("policy"))?.view(self)
    }

    /// Replaces the policy document, if it is right and as its author saw it.
    pub(crate) async fn apply_escalation_policy(
        &self,
        caller: &Caller,
        session: &Session,
        request: ApplyPolicy,
        precondition: Precondition,
    ) -> Answer<PolicyView> {
        let what = "escalation/policy";
        self.may_manage(caller, session, what).await?;
        let done = self.replace_policy(caller, session, request, precondition).await;
        self.noting(caller, session, "escalation.policy", what.to_owned(), done).await
    }

    async fn replace_policy(
        &self,
        caller: &Caller,
        session: &Session,
        request: ApplyPolicy,
        precondition: Precondition,
    ) -> Answer<PolicyView> {
        let known = self.policy_document()?.map_or(0, |document| document.revision);
        let is_known = |tags: &[Etag]| tags.iter().any(|tag| tag.as_str() == known.to_string());
        let holds = match &precondition {
            Precondition::Unstated if known > 0 => return Err(Problem::PreconditionRequired),
            Precondition::Unstated => true,
            Precondition::Exists => known > 0,
            Precondition::Absent => known == 0,
            Precondition::Matches(tags) => known > 0 && is_known(tags),
            Precondition::Differs(tags) => !is_known(tags),
        };
        if !holds {
            return Err(Problem::PreconditionFailed { operation: None });
        }
        let document = PolicyDocument {
            version: VERSION,
            revision: known + 1,
            text: request.text,
            by: session.account().login.as_str().to_owned(),
            at_ms: self.now_ms(),
            why: request.why,
        };
        document.book().map_err(|errors| {
            let violation = |error: &detection::escalation::PolicyError| Violation {
                at: format!("line {}", error.line),
                message: error.reason.to_string(),
            };
            Problem::Invalid { violations: errors.iter().map(violation).collect() }
        })?;
        let resource = Some(format!("escalation/policy/{}", document.revision));
        let note = Note { resource, ..self.note(caller, session, "escalation.policy") };
        let key = PolicyDocument::key(document.revision);
        // Whoever applies another at the same time has the same key: one of the two is told.
        match self.keep_json(platform::POLICIES, key, Must::BeAbsent, &document, note).await {
            Err(Problem::Conflict { .. }) => Err(Problem::PreconditionFailed { operation: None }),
            other => other.and_then(|()| document.view(self)),
        }
    }

    /// Who is on call.
    pub(crate) async fn on_call(&self, caller: &Caller, session: &Session, at_ms: Option<u64>) -> Answer<OnCallList> {
        self.may_see(caller, session, "escalation/on-call").await?;
        let at_ms = at_ms.unwrap_or_else(|| self.world.clock.wall_ms());
        let book = match self.policy_document()? {
            Some(document) => document.book().unwrap_or_default(),
            None => Book::default(),
        };
        let schedules = book.schedules.values().map(|schedule| {
            let next = schedule.next_hand_over(at_ms);
            OnCallView {
                schedule: schedule.name.to_string(),
                login: schedule.on_call(at_ms).map(str::to_owned),
                until_ms: next.map(|(until_ms, _)| until_ms),
                next: next.and_then(|(_, login)| login).map(str::to_owned),
            }
        });
        Ok(OnCallList { at_ms, schedules: schedules.collect() })
    }

    /// Who is being called about what.
    pub(crate) async fn escalations(&self, caller: &Caller, session: &Session) -> Answer<EscalationList> {
        self.may_see(caller, session, "escalations").await?;
        let runs = self.json_records::<Run>(platform::ESCALATIONS, "")?;
        let mut runs: Vec<Run> = runs.into_iter().map(|(_, _, run)| run).collect();
        runs.sort_by_key(|run| {
            let is_over = matches!(run.standing, Standing::Stopped(_));
            (is_over, std::cmp::Reverse(run.begun_ms), run.incident)
        });
        Ok(EscalationList { escalations: runs.into_iter().take(SHOWN_MAX).map(view).collect() })
    }
}

fn view(run: Run) -> EscalationView {
    let (standing, stopped_by) = match run.standing {
        Standing::Running => ("running", None),
        Standing::Quiet => ("quiet", None),
        Standing::NoPolicy => ("no_policy", None),
        Standing::Exhausted => ("exhausted", None),
        Standing::Stopped(Stop::Acknowledged) => ("stopped", Some("acknowledged")),
        Standing::Stopped(Stop::Ended) => ("stopped", Some("ended")),
        Standing::Stopped(Stop::Merged) => ("stopped", Some("merged")),
    };
    EscalationView {
        incident: run.incident.to_string(),
        policy: run.policy.map(|name| name.to_string()),
        standing: standing.to_owned(),
        stopped_by: stopped_by.map(str::to_owned),
        begun_ms: run.begun_ms,
        round: run.reached.map(|reached| reached.round + 1),
        step: run.reached.map(|reached| reached.step + 1),
        told: run.told,
        acknowledge_by_ms: run.reached.map(|reached| reached.acknowledge_by_ms),
        sent: run.sent.len() as u64,
    }
}
