//! Incidents as the SOC sees them, and what people do to them.

mod act;
pub(crate) mod mute;
mod view;

pub(super) use view::{alert as alert_view, severity};

use crate::driver::book;
use crate::machine::control::platform;
use crate::node::Node;
use api::core::Answer;
use api::problem::Problem;
use api::types::{Caller, IncidentAction, IncidentFilter, IncidentList, IncidentView, Page, Precondition, Timeline};
use detection::incident::risk::Weights;
use detection::incident::{Board, Deed, Effect, Entry, Incident, Input, Refusal, Status, timeline};
use detection::{Alert, IncidentId, VersionId};
use identity::{Action, Session};
use model::{Stamp, TenantId};

impl Node {
    pub(super) async fn may_see(&self, caller: &Caller, session: &Session, what: &str) -> Answer<()> {
        // Incidents are the platform's: they may name several tenants.
        self.permit(caller, session, Action::IncidentRead, TenantId::PLATFORM, what).await?;
        self.viewed(caller, session, what).await
    }

    pub(super) async fn may_manage(&self, caller: &Caller, session: &Session, what: &str) -> Answer<()> {
        self.permit(caller, session, Action::IncidentManage, TenantId::PLATFORM, what).await.map(|_| ())
    }

    /// Incidents, in the order asked for: those that are open, and those that ended last.
    pub(crate) async fn incidents(
        &self,
        caller: &Caller,
        session: &Session,
        filter: &IncidentFilter,
    ) -> Answer<IncidentList> {
        self.may_see(caller, session, "incidents").await?;
        let now = self.now()?;
        let wanted = view::Wanted::new(filter)?;
        let found = book::look(self, |desk| {
            let all = desk.iter().filter(|incident| incident.merged_into.is_none() && wanted.is_of(incident));
            let summaries = all.map(|incident| view::summary(incident, &now));
            summaries.filter(|summary| wanted.is_as_urgent(summary)).collect::<Vec<_>>()
        });
        let mut found = found.await?;
        view::sort(&mut found, filter.sort);
        let total = found.len() as u64;
        let (incidents, next) = paged(found, &filter.page)?;
        Ok(IncidentList { incidents, total, next })
    }

    /// One incident.
    pub(crate) async fn incident(&self, caller: &Caller, session: &Session, id: &str) -> Answer<IncidentView> {
        self.may_see(caller, session, &resource("incidents", id)).await?;
        self.incident_view(incident_id(id)?).await
    }

    /// What happened, in the order of time.
    pub(crate) async fn incident_timeline(&self, caller: &Caller, session: &Session, id: &str) -> Answer<Timeline> {
        self.may_see(caller, session, &resource("incidents", id)).await?;
        self.with_incident(incident_id(id)?, |board, incident| {
            let alerts = self.alerts_of(incident)?;
            Ok(view::timeline(timeline::timeline(board, incident, &alerts)))
        })
        .await
    }

    pub(super) async fn incident_view(&self, id: IncidentId) -> Answer<IncidentView> {
        let now = self.now()?;
        self.with_incident(id, |board, incident| {
            let alerts = self.alerts_of(incident)?;
            let version = board.version(id).ok_or(Problem::not_found("incident"))?;
            view::incident(board, incident, &alerts, version, &now)
        })
        .await
    }

    /// Reads one incident: from memory, or from the store where it is settled and memory has forgotten it.
    pub(super) async fn with_incident<T>(
        &self,
        id: IncidentId,
        read: impl Fn(&Board, &Incident) -> Answer<T>,
    ) -> Answer<T> {
        let found = book::look(self, |desk| desk.get(id).map(|incident| read(desk.board(), incident))).await?;
        if let Some(found) = found {
            return found;
        }
        let mut board = Board::new();
        board.extend(book::changes(self, |_| true)?.into_iter().map(|(_, change)| change));
        board.get(id).map_or(Err(Problem::not_found("incident")), |incident| read(&board, incident))
    }

    /// The alerts of an incident as they are stored, oldest first.
    fn alerts_of(&self, incident: &Incident) -> Answer<Vec<Alert>> {
        let mut alerts = Vec::with_capacity(incident.alerts.len());
        for id in incident.alerts.keys() {
            alerts.extend(self.json_record(platform::ALERTS, &id.to_string())?.map(|(_, alert): (Stamp, Alert)| alert));
        }
        alerts.sort_by_key(|alert| (alert.last_ms, alert.id));
        Ok(alerts)
    }

    fn now(&self) -> Answer<view::Now> {
        let book = self.policy_document()?.and_then(|document| document.book().ok()).unwrap_or_default();
        let usual = Weights::default();
        let half_life_ms = book.half_life_ms.unwrap_or(usual.half_life_ms);
        let weights = Weights { assets: book.assets, half_life_ms, ..usual };
        Ok(view::Now { ms: self.world.clock.wall_ms(), mutes: self.active_mutes()?, weights })
    }

    /// How long people took.
    fn measure(&self, incident: &Incident, change: &Entry) {
        let now_ms = change.change.at_ms();
        let seconds = |since_ms: u64| now_ms.saturating_sub(since_ms) as f64 / 1_000.0;
        let severity = [incident.severity.name()];
        let seen = incident.alarm.acknowledged.as_ref().is_some_and(|seen| seen.at_ms == now_ms);
        if seen {
            let began_ms = incident.alarm.begun_ms;
            self.metrics.acknowledge_seconds.with_label_values(&severity).observe(seconds(began_ms));
        }
        if matches!(change.change.deed, Deed::Closed { .. }) {
            self.metrics.close_seconds.with_label_values(&severity).observe(seconds(incident.opened_ms));
        }
    }

    /// Acts on an incident.
    pub(crate) async fn act_on_incident(
        &self,
        caller: &Caller,
        session: &Session,
        id: &str,
        action: IncidentAction,
        precondition: Precondition,
    ) -> Answer<IncidentView> {
        let what = resource("incidents", id);
        self.may_manage(caller, session, &what).await?;
        let done = self.do_to_incident(caller, session, id, action, precondition).await;
        self.noting(caller, session, "incident.update", what, done).await
    }

    async fn do_to_incident(
        &self,
        caller: &Caller,
        session: &Session,
        id: &str,
        action: IncidentAction,
        precondition: Precondition,
    ) -> Answer<IncidentView> {
        let incident = incident_id(id)?;
        let mut seen = match precondition {
            Precondition::Matches(tags) => {
                Some(tags.iter().filter_map(|tag| tag.as_str().parse::<VersionId>().ok()).collect())
            }
            _ => None,
        };
        let (why, acts) = act::of(action, self.now_ms())?;
        let by = session.account().login.as_str();
        let base = self.note(caller, session, "incident.update");
        for act in acts {
            // The first of several makes the version another: what was seen counts for the first.
            let input = Input::Act { incident, by: by.to_owned(), why: why.clone(), seen: seen.take(), act };
            let effects = book::act(self, &input, &base).await?;
            for effect in effects {
                match effect {
                    Effect::Refused { reason, .. } => return Err(refused(reason)),
                    Effect::Changed { incident, change } => self.measure(&incident, &change),
                }
            }
        }
        self.incident_view(incident).await
    }
}

/// The status as metrics label it.
pub(crate) const fn status_name(status: Status) -> &'static str {
    view::status(status).name()
}

/// What a refused act is to a client.
fn refused(reason: Refusal) -> Problem {
    match reason {
        Refusal::Unknown => Problem::not_found("incident"),
        Refusal::Changed => Problem::PreconditionFailed { operation: None },
        Refusal::TextRequired | Refusal::TextTooLong => Problem::invalid("text", reason.to_string()),
        Refusal::ReasonRequired => Problem::invalid("why", reason.to_string()),
        Refusal::TimeOutOfRange => Problem::invalid("time", reason.to_string()),
        Refusal::NotAPart => Problem::invalid("alerts", reason.to_string()),
        Refusal::OtherTenant | Refusal::TooLarge => Problem::invalid("incidents", reason.to_string()),
        _ => Problem::conflict(reason.to_string()),
    }
}

/// The name of an object in the audit log, whatever came for an id.
pub(super) fn resource(what: &str, id: &str) -> String {
    format!("{what}/{}", id.chars().take(64).collect::<String>())
}

pub(super) fn incident_id(text: &str) -> Answer<IncidentId> {
    text.parse().map_err(|_| Problem::not_found("incident"))
}

/// One page of a list that is sorted by its places, the last one first; `after` is the place of the one before.
pub(super) fn paged_by<T>(items: Vec<T>, page: &Page, place: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
    let after = page.after.as_deref();
    let mut rest = items.into_iter().skip_while(|item| after.is_some_and(|after| *place(item) >= *after)).peekable();
    let items: Vec<T> = rest.by_ref().take(page.limit).collect();
    let next = rest.peek().and(items.last()).map(&place);
    (items, next)
}

/// One page of a list that is in memory; `after` is how many came before.
pub(super) fn paged<T>(items: Vec<T>, page: &Page) -> Answer<(Vec<T>, Option<String>)> {
    let skip = match &page.after {
        Some(after) => after.parse::<usize>().map_err(|_| Problem::invalid("page_token", "not one of ours"))?,
        None => 0,
    };
    let total = items.len();
    let items: Vec<T> = items.into_iter().skip(skip).take(page.limit).collect();
    let next = (skip + items.len() < total).then(|| (skip + items.len()).to_string());
    Ok((items, next))
}
