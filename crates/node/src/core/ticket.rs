//! Tickets over the API, and what sinks said of them.
//!
//! A ticket is a fold of its stored changes. A change that others are to know of and the notice that tells them are
//! one transaction: nothing is told that was not done, and nothing done is not told.

use super::incident::{incident_id, paged, resource};
use super::stored::put;
use crate::machine::command::{Act, Must, Transact};
use crate::machine::control::platform;
use crate::machine::note::Note;
use crate::node::Node;
use api::core::Answer;
use api::problem::Problem;
use api::types::{
    self as said, Caller, ChangeTicket, Etag, NewTicket, Precondition, TicketComment, TicketFilter, TicketList,
    TicketSink, TicketSync, TicketView,
};
use detection::escalation::ticket::{
    NotDone, OUTBOX, Sync, SyncState, Ticket, TicketAct, TicketChange, TicketState, VERSION, ticket_id,
};
use detection::{Severity, TicketId};
use identity::Session;
use model::{Hlc, Stamp};
use pipeline::sink::{Notice, Sink, Topic};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes of a notice's JSON: what a field can hold, with room to spare.
const NOTICE_BYTES_MAX: usize = model::limit::VALUE_BYTES_MAX - 1024;
/// Keys of notices about tickets begin so.
const NOTICE: &str = "ticket/";

/// Times that a change is tried while others change the same ticket.
const ATTEMPTS: usize = 16;
/// What two regions did is told together once nobody has done anything for so long.
const SETTLED_MS: u64 = 3_000;

/// The latest change of a ticket in one region, as it is stored beside the changes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Head {
    last: Hlc,
    /// The sinks that are to know of it.
    sinks: BTreeSet<String>,
    /// Of the record.
    #[serde(skip)]
    version: Option<Stamp>,
}

impl Node {
    /// Tickets, those that changed last first.
    pub(crate) async fn tickets(
        &self,
        caller: &Caller,
        session: &Session,
        filter: &TicketFilter,
    ) -> Answer<TicketList> {
        self.may_see(caller, session, "tickets").await?;
        let mut by_ticket: BTreeMap<String, Vec<TicketChange>> = BTreeMap::new();
        for (key, _, change) in self.json_records::<TicketChange>(platform::TICKETS, "")? {
            let ticket = key.split('/').next().unwrap_or_default().to_owned();
            by_ticket.entry(ticket).or_default().push(change);
        }
        let wanted = |ticket: &Ticket| {
            filter.incident.as_ref().is_none_or(|id| *id == ticket.incident.to_string())
                && filter.queue.as_ref().is_none_or(|queue| *queue == ticket.queue)
                && filter.state.is_none_or(|wanted| wanted == state(ticket.state))
        };
        let mut tickets: Vec<Ticket> = by_ticket.into_values().filter_map(Ticket::fold).filter(wanted).collect();
        tickets.sort_by_key(|ticket| std::cmp::Reverse((ticket.updated_ms, ticket.id)));
        let (tickets, next) = paged(tickets, &filter.page)?;
        let seen = |ticket: Ticket| self.head(&ticket.id.to_string()).and_then(|head| view(ticket, &head));
        Ok(TicketList { tickets: tickets.into_iter().map(seen).collect::<Answer<_>>()?, next })
    }

    /// One ticket.
    pub(crate) async fn ticket(&self, caller: &Caller, session: &Session, id: &str) -> Answer<TicketView> {
        self.may_see(caller, session, &resource("tickets", id)).await?;
        let ticket = self.stored_ticket(id)?.0;
        view(ticket, &self.head(id)?)
    }

    /// Opens the ticket of an incident in a queue.
    pub(crate) async fn open_ticket(
        &self,
        caller: &Caller,
        session: &Session,
        request: NewTicket,
    ) -> Answer<TicketView> {
        let what = resource("tickets", &request.incident);
        self.may_manage(caller, session, &what).await?;
        let done = self.open_new_ticket(caller, session, request).await;
        self.noting(caller, session, "ticket.update", what, done).await
    }

    async fn open_new_ticket(&self, caller: &Caller, session: &Session, request: NewTicket) -> Answer<TicketView> {
        let incident = incident_id(&request.incident)?;
        let known_title = self.with_incident(incident, |_, incident| Ok(incident.title.to_string())).await?;
        if self.stored_ticket(&ticket_id(incident, &request.queue).to_string()).is_ok() {
            return Err(Problem::conflict("the incident has a ticket in this queue"));
        }
        let opened = TicketAct::Opened {
            incident,
            queue: request.queue,
            title: request.title.unwrap_or(known_title),
            description: request.description,
        };
        opened.check().map_err(not_done)?;
        let change = self.ticket_change(Hlc::ZERO, session.account().login.as_str(), opened);
        let ticket = Ticket::fold([change.clone()]).ok_or(Problem::Internal)?;
        self.keep_ticket(caller, session, ticket, vec![change], Head::default()).await
    }

    /// Changes a ticket.
    pub(crate) async fn change_ticket(
        &self,
        caller: &Caller,
        session: &Session,
        id: &str,
        request: ChangeTicket,
        precondition: Precondition,
    ) -> Answer<TicketView> {
        let what = resource("tickets", id);
        self.may_manage(caller, session, &what).await?;
        let done = self.do_to_ticket(caller, session, id, request, precondition).await;
        self.noting(caller, session, "ticket.update", what, done).await
    }

    async fn do_to_ticket(
        &self,
        caller: &Caller,
        session: &Session,
        id: &str,
        request: ChangeTicket,
        precondition: Precondition,
    ) -> Answer<TicketView> {
        for _ in 0..ATTEMPTS {
            // Before the ticket: what it is, is at least what the head stands for.
            let head = self.head(id)?;
            let (mut ticket, mut last) = self.stored_ticket(id)?;
            let revision = ticket.revision.to_string();
            let is_it = |tags: &[Etag]| tags.iter().any(|tag| tag.as_str() == revision);
            if matches!(&precondition, Precondition::Matches(tags) if !is_it(tags)) {
                return Err(Problem::PreconditionFailed { operation: None });
            }
            let mut changes = Vec::new();
            for act in acts(request.clone()) {
                act.check().map_err(not_done)?;
                if act == TicketAct::Retried && ticket.sync(&head.sinks) == Sync::Sent {
                    return Err(not_done(NotDone::NoEffect));
                }
                let change = self.ticket_change(last, session.account().login.as_str(), act);
                ticket.apply(&change).map_err(not_done)?;
                last = change.hlc;
                changes.push(change);
            }
            match self.keep_ticket(caller, session, ticket, changes, head).await {
                // Somebody changed it at the same time: this is done to what it is now, if that is what was seen.
                Err(Problem::Conflict { .. }) => {}
                other => return other,
            }
        }
        Err(Problem::conflict("others change the ticket all the time; look again, then decide"))
    }

    fn ticket_change(&self, last: Hlc, by: &str, act: TicketAct) -> TicketChange {
        let hlc = last.advance(Hlc::new(self.now_ms(), 0));
        TicketChange { hlc, region: self.region.id, version: VERSION, by: by.to_owned(), act }
    }

    /// A ticket, and when it was last changed.
    fn stored_ticket(&self, id: &str) -> Answer<(Ticket, Hlc)> {
        let id: TicketId = id.parse().map_err(|_| Problem::not_found("ticket"))?;
        let changes = self.json_records::<TicketChange>(platform::TICKETS, &format!("{id}/"))?;
        let last = changes.iter().map(|(_, _, change)| change.hlc).max().unwrap_or(Hlc::ZERO);
        let ticket = Ticket::fold(changes.into_iter().map(|(_, _, change)| change));
        Ok((ticket.ok_or(Problem::not_found("ticket"))?, last))
    }

    /// Stores changes, and the notice of what the ticket is after them.
    async fn keep_ticket(
        &self,
        caller: &Caller,
        session: &Session,
        ticket: Ticket,
        changes: Vec<TicketChange>,
        head: Head,
    ) -> Answer<TicketView> {
        let id = ticket.id.to_string();
        let mut acts = Vec::with_capacity(changes.len() + 2);
        for change in &changes {
            acts.push(stored(&id, change)?);
        }
        let when = changes.last().map(|change| change.hlc).unwrap_or_default();
        // Two regions that change it at once make two revisions of the same number.
        let notice = self.ticket_notice(&ticket, &format!("{:x}-{}", when.bits(), self.region.id.get())).await?;
        let wants = |sink: &&Arc<dyn Sink>| sink.wants(&notice);
        let sinks = self.sinks.iter().filter(wants).map(|sink| sink.name().to_owned()).collect();
        let must = head.version.map_or(Must::BeAbsent, |version| Must::BeAt(vec![version]));
        let head = Head { last: when, sinks, ..Head::default() };
        let view = view(ticket, &head)?;
        acts.push(put(platform::TICKET_HEADS, id.clone(), must, &head, format!("tickets/{id}"))?);
        acts.push(put(platform::NOTICES, notice.key.clone(), Must::BeAbsent, &notice, notice.key.clone())?);
        self.keep_all(acts, self.note(caller, session, "ticket.update")).await?;
        Ok(view)
    }

    /// What others are told of a ticket as it stands.
    async fn ticket_notice(&self, ticket: &Ticket, of: &str) -> Answer<Notice> {
        let about = self.with_incident(ticket.incident, |_, one| Ok((one.severity, one.tenant.to_string()))).await;
        let (severity, tenant) = about.unwrap_or((Severity::Medium, "platform".into()));
        let view = view(ticket.clone(), &Head::default())?;
        let notice = Notice {
            key: format!("{NOTICE}{}/{}-{of}", view.id, view.revision),
            topic: Topic::Ticket,
            tenant,
            at_ms: view.updated_ms,
            severity,
            subject: view.title.clone(),
            to: Vec::new(),
            body: String::new(),
        };
        fitting(notice, view)
    }

    /// Who changed a ticket last, and who is to know; nothing before anybody did.
    fn head(&self, id: &str) -> Answer<Head> {
        let found = self.json_record::<Head>(platform::TICKET_HEADS, id)?;
        Ok(found.map_or_else(Head::default, |(version, head)| Head { version: Some(version), ..head }))
    }

    /// Notices of tickets that two regions changed at once: each told what it knew, and nobody what both did. The key
    /// does not depend on who makes it.
    pub(crate) async fn untold_tickets(&self) -> Answer<Vec<Notice>> {
        let mut by_ticket: BTreeMap<String, Vec<TicketChange>> = BTreeMap::new();
        for (key, _, change) in self.json_records::<TicketChange>(platform::TICKETS, "")? {
            by_ticket.entry(key.split('/').next().unwrap_or_default().to_owned()).or_default().push(change);
        }
        let mut notices = Vec::new();
        for (id, changes) in by_ticket {
            let done = || changes.iter().filter(|change| change.by != OUTBOX);
            let regions: BTreeSet<_> = done().map(|change| change.region).collect();
            let last = done().map(|change| change.hlc).max().unwrap_or_default();
            let is_quiet = last.wall_ms().saturating_add(SETTLED_MS) < self.now_ms();
            let Some(ticket) = Ticket::fold(changes.iter().cloned()).filter(|_| regions.len() > 1 && is_quiet) else {
                continue;
            };
            let told = format!("{NOTICE}{id}/{}-", ticket.revision);
            if self.first_json_record::<Notice>(platform::NOTICES, &told)?.is_none() {
                notices.push(self.ticket_notice(&ticket, &format!("{:x}-0", last.bits())).await?);
            }
        }
        Ok(notices)
    }

    /// What is stored once a sink has taken a notice, or refused it for good; nothing where it was not of a ticket.
    pub(crate) fn ticket_heard(
        &self,
        sink: &str,
        notice: &Notice,
        refused: Option<String>,
        note: &Note,
    ) -> Option<Transact> {
        let (id, revision) = told(&notice.key)?;
        let (_, last) = self.stored_ticket(id).ok()?;
        let sink = sink.to_owned();
        let act = match refused {
            Some(reason) => TicketAct::Failed { sink, revision, reason },
            None => TicketAct::Sent { sink, revision },
        };
        let change = self.ticket_change(last, OUTBOX, act);
        Some(super::stored::transact(vec![stored(id, &change).ok()?], note.clone()))
    }
}

/// The ticket and the revision that a notice tells, by its key; nothing where it is of no ticket.
pub(crate) fn told(key: &str) -> Option<(&str, u64)> {
    let (id, rest) = key.strip_prefix(NOTICE)?.split_once('/')?;
    Some((id, rest.split('-').next()?.parse().ok()?))
}

/// A notice that fits into a field: where it would be too long, the oldest comments go, then the rest of the texts.
/// The other side has them from earlier revisions, and the ticket keeps them.
fn fitting(notice: Notice, mut view: TicketView) -> Answer<Notice> {
    let json = |error| super::wait::internal("a ticket has no JSON", &error);
    loop {
        let notice = Notice { body: serde_json::to_string(&view).map_err(json)?, ..notice.clone() };
        if serde_json::to_string(&notice).map_err(json)?.len() <= NOTICE_BYTES_MAX {
            return Ok(notice);
        }
        if view.comments.is_empty() {
            (view.description, view.fields, view.links) = (String::new(), BTreeMap::new(), Vec::new());
        } else {
            view.comments.remove(0);
        }
    }
}

fn stored(id: &str, change: &TicketChange) -> Answer<Act> {
    let ticket = id.parse().map_err(|_| Problem::not_found("ticket"))?;
    put(platform::TICKETS, change.key(ticket), Must::BeAbsent, change, format!("tickets/{id}"))
}

/// What is asked for, in the order in which it is done.
fn acts(request: ChangeTicket) -> Vec<TicketAct> {
    let ChangeTicket { title, state, fields, comment, link, unlink, retry } = request;
    let state = state.map(|state| match state {
        said::TicketState::Open => TicketState::Open,
        said::TicketState::InProgress => TicketState::InProgress,
        said::TicketState::Waiting => TicketState::Waiting,
        said::TicketState::Done => TicketState::Done,
    });
    let fields = fields.into_iter().map(|(name, value)| TicketAct::FieldSet { name, value });
    let single = [
        title.map(|title| TicketAct::Titled { title }),
        comment.map(|text| TicketAct::Commented { text }),
        link.map(|to| TicketAct::Linked { to }),
        unlink.map(|to| TicketAct::Unlinked { to }),
        state.map(|to| TicketAct::StateSet { to }),
        retry.then_some(TicketAct::Retried),
    ];
    fields.chain(single.into_iter().flatten()).collect()
}

fn not_done(why: NotDone) -> Problem {
    match why {
        NotDone::BadText => Problem::invalid("body", why.to_string()),
        NotDone::NoEffect | NotDone::Full => Problem::conflict(why.to_string()),
    }
}

const fn state(state: TicketState) -> said::TicketState {
    match state {
        TicketState::Open => said::TicketState::Open,
        TicketState::InProgress => said::TicketState::InProgress,
        TicketState::Waiting => said::TicketState::Waiting,
        TicketState::Done => said::TicketState::Done,
    }
}

fn view(ticket: Ticket, head: &Head) -> Answer<TicketView> {
    let sync = match ticket.sync(&head.sinks) {
        Sync::Pending => TicketSync::Pending,
        Sync::Sent => TicketSync::Sent,
        Sync::Failed => TicketSync::Failed,
    };
    let sink = |(sink, state): (String, SyncState)| match state {
        SyncState::Sent { revision, at_ms } => TicketSink { sink, revision, at_ms, refused: None },
        SyncState::Failed { revision, at_ms, reason } => TicketSink { sink, revision, at_ms, refused: Some(reason) },
    };
    let comments = ticket.comments.into_iter();
    Ok(TicketView {
        id: ticket.id.to_string(),
        incident: ticket.incident.to_string(),
        queue: ticket.queue,
        title: ticket.title,
        description: ticket.description,
        state: state(ticket.state),
        fields: ticket.fields,
        comments: comments.map(|one| TicketComment { at_ms: one.at_ms, by: one.by, text: one.text }).collect(),
        links: ticket.links.into_iter().collect(),
        opened_ms: ticket.opened_ms,
        updated_ms: ticket.updated_ms,
        revision: ticket.revision,
        sync,
        sinks: ticket.sync.into_iter().map(sink).collect(),
        etag: Etag::new(ticket.revision.to_string()).ok_or(Problem::Internal)?,
    })
}
