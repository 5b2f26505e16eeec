//! Tickets are told whole, whoever changes them at once.

use super::bed::{Bed, Scripted, until};
use api::core::Answer;
use api::problem::Problem;
use api::types::{ChangeTicket, ChosenNotices, Etag, NewTicket, Precondition, TicketSync, TicketView};
use detection::Severity;
use pipeline::sink::{Refused, Sink, Topic};
use std::sync::Arc;
use std::time::Duration;

impl Bed {
    async fn ticket(&self) -> TicketView {
        let incident = self.happens(1, "mallory", Severity::High).await.to_string();
        let (queue, description) = ("jira".to_owned(), String::new());
        let request = NewTicket { incident, queue, title: None, description };
        self.node.open_ticket(&self.caller, &self.session, request).await.unwrap()
    }

    async fn remark(&self, id: &str, text: &str, precondition: Precondition) -> Answer<TicketView> {
        let request = ChangeTicket { comment: Some(text.into()), ..ChangeTicket::default() };
        self.node.change_ticket(&self.caller, &self.session, id, request, precondition).await
    }
}

#[tokio::test(start_paused = true)]
async fn two_changes_at_once_are_told_together_and_only_one_was_made_to_what_both_saw() {
    let jira = Scripted::new("jira", |_| Ok(()));
    let bed = Bed::start(vec![Arc::clone(&jira) as Arc<dyn Sink>]).await;
    let ticket = bed.ticket().await;
    let as_seen = || Precondition::Matches(vec![Etag::new("1".to_owned()).unwrap()]);
    let (one, other) =
        tokio::join!(bed.remark(&ticket.id, "one", as_seen()), bed.remark(&ticket.id, "other", as_seen()));
    assert_eq!([one.is_ok(), other.is_ok()].into_iter().filter(|done| *done).count(), 1);
    assert!(
        [one, other].into_iter().filter_map(Result::err).all(|why| matches!(why, Problem::PreconditionFailed { .. }))
    );
    let all = (0..8).map(|number| {
        let (bed, id) = (&bed, &ticket.id);
        async move { bed.remark(id, &number.to_string(), Precondition::Unstated).await.unwrap() }
    });
    futures::future::join_all(all).await;
    let told = until("the last revision is told", async || {
        let told = jira.taken(Topic::Ticket);
        told.iter().any(|notice| notice.key.contains("/10-")).then_some(told)
    });
    let told = told.await;
    assert_eq!(told.len(), 10, "each revision once");
    let last: serde_json::Value = serde_json::from_str(&told.last().unwrap().body).unwrap();
    assert_eq!((last["revision"].as_u64(), last["comments"].as_array().map(Vec::len)), (Some(10), Some(9)));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_never_answers_does_not_hide_behind_one_that_did() {
    let jira = Scripted::new("jira", |_| Ok(()));
    let silent = Scripted::new("silent", |_| Err(pipeline::sink::Refused::Later("nothing is heard".into())));
    let bed = Bed::start([&jira, &silent].map(|sink| Arc::clone(sink) as Arc<dyn Sink>).into()).await;
    let id = bed.ticket().await.id;
    let seen = async || bed.node.ticket(&bed.caller, &bed.session, &id).await.unwrap();
    until("jira has taken it", async || seen().await.sinks.iter().any(|one| one.sink == "jira").then_some(())).await;
    assert_eq!(seen().await.sync, TicketSync::Pending);
    let retry = ChangeTicket { retry: true, ..ChangeTicket::default() };
    let again = bed.node.change_ticket(&bed.caller, &bed.session, &id, retry, Precondition::Unstated).await;
    assert_eq!(again.unwrap().revision, 2, "what is pending can be told again");
    silent.answers(|_| Ok(()));
    until("both know", async || (seen().await.sync == TicketSync::Sent).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_is_taken_late_does_not_take_the_letter_of_a_newer_one_with_it() {
    let jira = Scripted::new("jira", |_| Ok(()));
    let bed = Bed::start(vec![Arc::clone(&jira) as Arc<dyn Sink>]).await;
    jira.answers(|notice| match notice.topic {
        Topic::Ticket if notice.key.contains("/1-") => Err(Refused::Later("busy".into())),
        Topic::Ticket => Err(Refused::Never("no such field".into())),
        _ => Ok(()),
    });
    let id = bed.ticket().await.id;
    bed.remark(&id, "more", Precondition::Unstated).await.unwrap();
    let letters = || bed.node.letters(Some("jira")).unwrap();
    until("the second is refused", async || (letters().len() == 1).then_some(())).await;
    jira.answers(|_| Ok(()));
    until("the first is taken", async || (jira.taken(Topic::Ticket).len() == 1).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(letters().iter().all(|letter| letter.key.contains("/2-")) && letters().len() == 1);
    let chosen = ChosenNotices { sink: "jira".into(), keys: None };
    assert_eq!(bed.node.replay_notices(&bed.caller, &bed.session, chosen).await.unwrap().count, 1);
    let sync = async || bed.node.ticket(&bed.caller, &bed.session, &id).await.unwrap().sync;
    until("jira knows", async || (sync().await == TicketSync::Sent).then_some(())).await;
    until("the letter is gone", async || letters().is_empty().then_some(())).await;
}
