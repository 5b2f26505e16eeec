//! Calls people about incidents until somebody acknowledges: one node of the region at a time.
//!
//! There are no timers to lose. What is due is a function of the policy, the incident and the time; the run of an
//! incident, the notices of its next step and their place in the incident's history are stored as one, under the
//! lease of the duty, and only what is stored is told. Whoever takes over goes on from the records.

mod reach;

pub(crate) use reach::unreached;

use crate::core::stored::{put, transact};
use crate::driver::book;
use crate::driver::duty::{Lost, Post, Work};
use crate::driver::follow;
use crate::driver::outbox::call::{self, Call as CallRecord, PAGE};
use crate::driver::record::note;
use crate::machine::command::Must;
use crate::machine::control::platform;
use crate::node::Node;
use crate::telemetry::metrics::Metrics;
use api::core::Answer;
use api::problem::Problem;
use async_trait::async_trait;
use detection::escalation::{
    Advance, Book, Channel, Mark, Notification, Reminder, Run, Standing, State, Stop, advance, remind,
};
use detection::incident::breach::{Clock, ClockState};
use detection::incident::mute::{Mute, quiet_until_ms};
use detection::incident::{Act, Desk, Incident, Input, entity};
use detection::{IncidentId, NotificationId};
use model::{RegionId, TenantId, VersionVector};
use pipeline::sink::{Notice, Topic};
use std::collections::BTreeMap;
use std::time::Duration;

/// Who calls, in the history of incidents.
const BY: &str = "escalation";
/// Looks again at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// And not more often.
const LOOK_AFTER: Duration = Duration::from_millis(200);
/// How long another region leaves an incident to the one that opened it, before it calls people itself. What both
/// tell has the same key.
const ELSEWHERE_WAIT_MS: u64 = 120_000;
/// How often tickets of several regions are looked through.
const TICKETS_EVERY_MS: u64 = 10_000;
/// Reminders of one transaction: fewer than it may have operations, and bytes.
const REMINDERS_AT_ONCE: usize = 32;
/// Entities that a notice names.
const NAMED_MAX: usize = 8;

/// The duty.
pub struct Escalation;

#[async_trait]
impl Work for Escalation {
    fn duty(&self) -> String {
        "escalation".into()
    }

    async fn work(&self, mut post: Post) -> Lost {
        let mut watch = Watch::default();
        let mut tickets = 0u64;
        let _gauges = Gauges(std::sync::Arc::clone(&post.node.metrics));
        loop {
            let Ok(wait) = watch.turn(&mut post).await else { return Lost };
            let now_ms = post.node.now_ms();
            if now_ms >= tickets {
                tickets = now_ms.saturating_add(TICKETS_EVERY_MS);
                if tell_tickets(&mut post).await.is_err() {
                    return Lost;
                }
            }
            // A flood of alerts is looked at now and then, not for each of them.
            tokio::time::sleep(LOOK_AFTER).await;
            follow::more(&post.node, wait).await;
        }
    }
}

/// Only the node that calls people counts incidents: another one's counts are taken back when it has the duty no more.
struct Gauges(std::sync::Arc<Metrics>);

impl Drop for Gauges {
    fn drop(&mut self) {
        self.0.incidents.reset();
        self.0.clocks.reset();
        self.0.unreached.reset();
    }
}

/// What is known between two turns: only to save work.
#[derive(Default)]
struct Watch {
    read_at: Option<VersionVector>,
    next_ms: u64,
    /// The policy, and its revision.
    policy: Option<(u64, Book)>,
}

/// What must be known of an incident to call people about it.
struct Call {
    state: State,
    opened_in: Option<RegionId>,
    title: String,
    entities: Vec<String>,
    alerts: usize,
}

/// What is stored at once.
struct Step {
    run: Run,
    was: Option<Standing>,
    notices: Vec<(Notification, Notice)>,
    /// Whom nobody told in time.
    untold: Vec<String>,
}

impl Watch {
    /// Does what is due; how long nothing more is, unless something changes.
    async fn turn(&mut self, post: &mut Post) -> Result<Duration, Lost> {
        let node = std::sync::Arc::clone(&post.node);
        let now_ms = node.now_ms();
        // Before the records: what is read is at least as new.
        let vector = node.home().machine.vector(node.cluster.partition(TenantId::PLATFORM));
        if self.read_at.as_ref() != Some(&vector) || now_ms >= self.next_ms {
            match self.plan(&node, now_ms).await {
                Ok((steps, reminders, next_ms)) => {
                    let mut is_whole = true;
                    for step in steps {
                        is_whole &= store(post, step).await?;
                    }
                    for reminders in reminders {
                        store_reminders(post, reminders).await?;
                    }
                    // What was not stored is planned again, as things stand then.
                    (self.read_at, self.next_ms) = (Some(vector).filter(|_| is_whole), next_ms);
                }
                Err(problem) => {
                    tracing::error!(%problem, "nobody can be called: the incidents cannot be read");
                    return Ok(LOOK_EVERY);
                }
            }
        }
        let left_ms = self.next_ms.saturating_sub(node.now_ms());
        Ok(Duration::from_millis(left_ms).min(LOOK_EVERY))
    }

    /// What is due for all incidents, with the reminders of each, and when to look again at the latest.
    async fn plan(&mut self, node: &Node, now_ms: u64) -> Answer<(Vec<Step>, Vec<Vec<Notice>>, u64)> {
        let book = self.policy(node)?;
        let mutes = node.active_mutes()?;
        let runs = node.json_records::<Run>(platform::ESCALATIONS, "")?;
        let runs: BTreeMap<IncidentId, Run> = runs.into_iter().map(|(_, _, run)| (run.incident, run)).collect();
        let calls = crate::driver::book::look(node, |desk| {
            observe(node, book, desk.iter(), now_ms);
            let is_running = |id| runs.get(&id).is_some_and(|run| !matches!(run.standing, Standing::Stopped(_)));
            let calls = desk.iter().map(|incident| Call::of(incident, &mutes, now_ms));
            let calls = calls.filter(|call| call.state.stop.is_none() || is_running(call.state.incident));
            let reminded = desk.iter().filter(|incident| incident.merged_into.is_none());
            let reminded = reminded.map(|incident| (incident, wait_ms(node, opened_in(incident))));
            let (mut reminders, mut next) = (Vec::new(), u64::MAX);
            for (incident, wait_ms) in reminded {
                let (due, next_ms) = remind(book, incident, now_ms.saturating_sub(wait_ms));
                reminders.push(due.iter().map(|one| reminder(incident, one)).collect::<Vec<Notice>>());
                next = next.min(next_ms.map_or(u64::MAX, |next_ms| next_ms.saturating_add(wait_ms)));
            }
            (calls.collect::<Vec<Call>>(), reminders, next)
        });
        let (calls, mut reminders, mut next) = calls.await?;
        let is_new =
            |notice: &Notice| !matches!(node.json_record::<Notice>(platform::NOTICES, &notice.key), Ok(Some(_)));
        reminders.iter_mut().for_each(|of_incident| of_incident.retain(is_new));
        let mut steps = Vec::new();
        for call in calls {
            let wait_ms = wait_ms(node, call.opened_in);
            let now_ms = now_ms.saturating_sub(wait_ms);
            let stored = runs.get(&call.state.incident);
            let heard = stored.map(|run| run.heard(now_ms, |id| is_told(node, id)));
            let (known, late) = heard.map_or((None, Vec::new()), |(run, late)| (Some(run), late));
            let Advance { run, notifications, next_ms } = advance(known.as_ref(), book, &call.state, now_ms);
            next = next.min(next_ms.map_or(u64::MAX, |next_ms| next_ms.saturating_add(wait_ms)));
            if let Some(run) = run.or_else(|| known.filter(|known| Some(known) != stored)) {
                let is_over = matches!(run.standing, Standing::Stopped(_));
                let untold = late.iter().filter(|_| !is_over).map(|id| target_of(node, *id)).collect();
                let notices = notifications.into_iter().map(|one| (one.clone(), notice(&call, &one))).collect();
                steps.push(Step { run, was: stored.map(|known| known.standing), notices, untold });
            }
        }
        Ok((steps, reminders, next))
    }

    /// The policy as it was last applied; nobody is called without one.
    fn policy(&mut self, node: &Node) -> Answer<&Book> {
        let revision = node.policy_document()?.map(|document| (document.revision, document));
        let (revision, document) = revision.map_or((0, None), |(revision, document)| (revision, Some(document)));
        if self.policy.as_ref().map(|(known, _)| *known) != Some(revision) {
            let book = document.map_or(Ok(Book::default()), |document| document.book()).unwrap_or_else(|errors| {
                // It was checked before it was stored: by another version of the program.
                tracing::error!(first = ?errors.first().map(ToString::to_string), "the policy cannot be read");
                Book::default()
            });
            reach::observe(node, &book);
            self.policy = Some((revision, book));
        }
        self.policy.as_ref().map(|(_, book)| book).ok_or(Problem::Internal)
    }
}

/// Whether it is known what became of a notification: a sink took it, refused it for good, or it was withdrawn.
fn is_told(node: &Node, id: NotificationId) -> bool {
    matches!(node.json_record::<CallRecord>(platform::CALLS, &format!("{PAGE}{id}")), Ok(Some(_)))
}

/// Whom a notification was for.
fn target_of(node: &Node, id: NotificationId) -> String {
    let notice = node.json_record::<Notice>(platform::NOTICES, &format!("{PAGE}{id}"));
    notice.ok().flatten().map(|(_, notice)| call::target(&notice)).unwrap_or_default()
}

impl Call {
    fn of(incident: &Incident, mutes: &[Mute], now_ms: u64) -> Self {
        let state = State { quiet_until_ms: quiet_until_ms(incident, mutes, now_ms), ..State::of(incident) };
        Self {
            state,
            opened_in: opened_in(incident),
            title: incident.title.to_string(),
            entities: incident.entities.iter().take(NAMED_MAX).map(entity::text).collect(),
            alerts: incident.alerts.len(),
        }
    }
}

fn opened_in(incident: &Incident) -> Option<RegionId> {
    incident.history.first().map(|entry| entry.change.region)
}

/// How much later this region does what the one that opened an incident does at once.
fn wait_ms(node: &Node, opened_in: Option<RegionId>) -> u64 {
    if opened_in.is_some_and(|region| region != node.region.id) { ELSEWHERE_WAIT_MS } else { 0 }
}

/// Stores a step: the run, its notices, and what the incident remembers of them; nothing where the incident is not as
/// it was when the step was planned. Whether it was stored.
async fn store(post: &mut Post, step: Step) -> Result<bool, Lost> {
    let node = std::sync::Arc::clone(&post.node);
    let id = step.run.incident;
    let note = note(&node, "escalation.step", format!("escalations/{id}"));
    let run = put(platform::ESCALATIONS, id.to_string(), Must::Nothing, &step.run, format!("escalations/{id}"));
    let notices = step.notices.iter().map(|(_, notice)| {
        // Another region may have been faster: what is there already is left alone.
        put(platform::NOTICES, notice.key.clone(), Must::BeAbsent, notice, notice.key.clone())
    });
    let acts: Answer<Vec<_>> = std::iter::once(run).chain(notices).collect();
    let Ok(acts) = acts else { return Ok(true) };
    let told = step.notices.iter().map(|(one, _)| Input::Act {
        incident: id,
        by: BY.into(),
        why: None,
        seen: None,
        act: Act::Notified { notification: one.id, target: one.target.clone() },
    });
    let untold = step.untold.iter().map(|target| call::of_incident(id, BY, target.clone(), "no sink took it in time"));
    let inputs: Vec<Input> = told.chain(untold).collect();
    let stops = matches!(step.run.standing, Standing::Stopped(_));
    let is_as_planned = |desk: &Desk| desk.get(id).is_some_and(|now| State::of(now).stop.is_some() == stops);
    let writes = vec![transact(acts, note.clone())];
    if !book::report(post, Vec::new(), writes, &inputs, &note, is_as_planned).await? {
        return Ok(false);
    }
    count(&node, &step);
    Ok(true)
}

/// Counts what a step did, once it is stored.
fn count(node: &Node, step: &Step) {
    let (pages, id) = (&node.metrics.pages, step.run.incident);
    pages.with_label_values(&["queued"]).inc_by(step.notices.len() as u64);
    pages.with_label_values(&["untold"]).inc_by(step.untold.len() as u64);
    for target in &step.untold {
        tracing::error!(incident = %id, target_of_call = target, "no sink took a call in time");
    }
    let was_running = step.was.is_some_and(|was| !matches!(was, Standing::Stopped(_)));
    if was_running && step.run.standing == Standing::Stopped(Stop::Acknowledged) {
        pages.with_label_values(&["acknowledged"]).inc();
    }
    // With a fallback to tell or without one: nobody has answered.
    if step.run.standing == Standing::Exhausted && step.was != Some(Standing::Exhausted) {
        tracing::error!(incident = %id, "all steps have come and nobody has acknowledged");
        pages.with_label_values(&["exhausted"]).inc();
    }
}

/// Stores what is to be told of tickets that two regions changed at once.
async fn tell_tickets(post: &mut Post) -> Result<(), Lost> {
    let node = std::sync::Arc::clone(&post.node);
    if node.cluster.regions.len() == 1 {
        return Ok(());
    }
    let notices = node.untold_tickets().await.unwrap_or_default();
    for one in notices {
        let Ok(act) = put(platform::NOTICES, one.key.clone(), Must::BeAbsent, &one, one.key.clone()) else { continue };
        let note = note(&node, "ticket.update", one.key.clone());
        post.report(Vec::new(), vec![transact(vec![act], note)]).await?;
    }
    Ok(())
}

/// Stores the reminders of an incident: each is there under its key, or is not told yet.
async fn store_reminders(post: &mut Post, reminders: Vec<Notice>) -> Result<(), Lost> {
    let node = std::sync::Arc::clone(&post.node);
    // A transaction has a bound, and one incident's reminders must not keep another's from being stored.
    for some in reminders.chunks(REMINDERS_AT_ONCE) {
        let put = |one: &Notice| put(platform::NOTICES, one.key.clone(), Must::BeAbsent, one, one.key.clone());
        let acts: Vec<_> = some.iter().filter_map(|one| put(one).ok()).collect();
        let (count, note) = (acts.len() as u64, note(&node, "escalation.step", "escalations/reminders".to_owned()));
        post.report(Vec::new(), vec![transact(acts, note)]).await?;
        node.metrics.pages.with_label_values(&["reminded"]).inc_by(count);
    }
    Ok(())
}

/// What people are reminded of.
fn reminder(incident: &Incident, one: &Reminder) -> Notice {
    let (to, receiver) = reached(&one.channel);
    let gone = match one.mark {
        Mark::Half => "half of the time to report is gone",
        Mark::ThreeQuarters => "three quarters of the time to report are gone",
        Mark::Over => "the time to report is OVER",
    };
    let body = serde_json::json!({
        "incident": one.incident,
        "title": incident.title,
        "severity": incident.severity.name(),
        "tenant": incident.tenant,
        "clock": one.clock,
        "subject": one.subject,
        "mark": one.mark,
        "due_ms": one.due_ms,
        "target": one.target,
        "receiver": receiver,
    });
    Notice {
        key: format!("reminder/{}", one.id),
        topic: Topic::Page,
        tenant: incident.tenant.to_string(),
        at_ms: one.at_ms,
        severity: incident.severity,
        subject: format!("[{}] {}: {gone} ({})", incident.severity.name(), incident.title, one.subject),
        to,
        body: body.to_string(),
    }
}

/// To whom a notice goes, and what its body says of a receiver that is no e-mail address.
fn reached(channel: &Channel) -> (Vec<String>, serde_json::Value) {
    match channel {
        Channel::Email { address } => (vec![address.to_string()], serde_json::Value::Null),
        Channel::Webhook { name, url } => (Vec::new(), serde_json::json!({"name": name, "url": url})),
    }
}

/// What people are told.
fn notice(call: &Call, one: &Notification) -> Notice {
    let severity = call.state.severity;
    let within_ms = one.acknowledge_by_ms.saturating_sub(one.due_ms);
    let urge = match within_ms {
        0 => "nobody has acknowledged".to_owned(),
        _ => format!("acknowledge within {}", crate::command::show::span(within_ms)),
    };
    let (to, receiver) = reached(&one.channel);
    let body = serde_json::json!({
        "incident": one.incident,
        "title": call.title,
        "severity": severity.name(),
        "tenant": call.state.tenant,
        "cause": call.state.cause,
        "alerts": call.alerts,
        "entities": call.entities,
        "policy": one.policy,
        "round": one.round + 1,
        "step": one.step + 1,
        "target": one.target,
        "receiver": receiver,
        "due_ms": one.due_ms,
        "acknowledge_by_ms": one.acknowledge_by_ms,
    });
    Notice {
        key: format!("{PAGE}{}", one.id),
        topic: Topic::Page,
        tenant: call.state.tenant.to_string(),
        at_ms: one.due_ms,
        severity,
        subject: format!("[{}] {}: {urge}", severity.name(), call.title),
        to,
        body: body.to_string(),
    }
}

/// Counts incidents and clocks as they stand.
fn observe<'a>(node: &Node, book: &Book, incidents: impl Iterator<Item = &'a Incident>, now_ms: u64) {
    let (incident_gauge, clock_gauge) = (&node.metrics.incidents, &node.metrics.clocks);
    incident_gauge.reset();
    for state in ["running", "overdue", "nobody_reminded"] {
        clock_gauge.with_label_values(&[state]).set(0);
    }
    for incident in incidents.filter(|incident| incident.merged_into.is_none()) {
        let status = crate::core::incident::status_name(incident.status);
        incident_gauge.with_label_values(&[status, incident.severity.name()]).inc();
        let open = |clock: &Clock| match clock.state(now_ms) {
            ClockState::Running { .. } => Some("running"),
            ClockState::Overdue { .. } => Some("overdue"),
            _ => None,
        };
        incident.clocks.iter().filter_map(open).for_each(|state| clock_gauge.with_label_values(&[state]).inc());
        if book.gravest(&incident.tenant).is_none() {
            let open = incident.clocks.iter().filter(|clock| clock.is_open()).count();
            clock_gauge.with_label_values(&["nobody_reminded"]).add(i64::try_from(open).unwrap_or(i64::MAX));
        }
    }
}
