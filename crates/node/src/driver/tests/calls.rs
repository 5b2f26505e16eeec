//! A call reaches whom it is for, or it is known that it did not.

use super::bed::{Bed, Scripted, until};
use crate::driver::outbox::letter::Letter;
use crate::machine::control::platform;
use crate::machine::keys;
use api::types::{ChosenNotices, ClockKind, IncidentAction, StartClock};
use detection::Severity;
use model::TenantId;
use pipeline::sink::{Notice, Refused, Sink, Topic};
use std::sync::Arc;
use std::time::Duration;
use storage::Batch;

const PEOPLE: &str = "version = 1
[[person]]
login = \"ann\"
email = \"ann@example.org\"
[[person]]
login = \"bob\"
email = \"bob@example.org\"
[[person]]
login = \"carl\"
email = \"carl@example.org\"
[[team]]
name = \"soc\"
members = [\"ann\", \"bob\"]
";

fn policy(severity: &str, notify: &str, rest: &str) -> String {
    format!(
        "{PEOPLE}[[policy]]\nname = \"all\"\nseverity_min = \"{severity}\"\n{rest}\
         [[policy.step]]\nnotify = [{notify}]\nacknowledge_within = \"10m\"\n"
    )
}

fn sinks(sinks: &[&Arc<Scripted>]) -> Vec<Arc<dyn Sink>> {
    sinks.iter().map(|sink| Arc::clone(sink) as Arc<dyn Sink>).collect()
}

fn is_for(notice: &Notice, who: &str) -> bool {
    notice.to.iter().any(|to| to.starts_with(who))
}

fn full(notice: &Notice) -> Result<(), Refused> {
    if is_for(notice, "ann") { Err(Refused::Later("452 mailbox full".into())) } else { Ok(()) }
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_keeps_nobody_else_waiting_and_an_acknowledgement_stops_what_waits() {
    let mail = Scripted::new("mail", full);
    let bed = Bed::start(sinks(&[&mail])).await;
    bed.policy(&policy("low", "\"team:soc\"", "fallback = [\"person:bob\"]\n")).await;
    let id = bed.happens(1, "mallory", Severity::High).await;
    until("bob is called", async || mail.called().contains(&"bob@example.org".into()).then_some(())).await;
    bed.act(id, IncidentAction::Acknowledge).await;
    mail.answers(|_| Ok(()));
    until("ann's call is withdrawn", async || (bed.pages("withdrawn") > 0).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(mail.called(), ["bob@example.org"]);
    assert_eq!((bed.pages("queued"), bed.pages("taken"), bed.pages("withdrawn")), (2, 1, 1));
    let not_told = bed.acts(id, "not_notified").await;
    assert_eq!(not_told, ["team:soc/ann: somebody has acknowledged in the meantime"]);
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_nothing_else_that_is_told() {
    let mail = Scripted::new("mail", |notice| match notice.topic {
        Topic::Page => Ok(()),
        _ => Err(Refused::Later("busy".into())),
    });
    let bed = Bed::start(sinks(&[&mail])).await;
    bed.policy(&policy("low", "\"person:ann\"", "")).await;
    for number in 1..20 {
        bed.happens(number, &format!("user{number}"), Severity::High).await;
    }
    until("all calls are made", async || (mail.called().len() == 19).then_some(())).await;
    assert!(mail.taken(Topic::Alert).is_empty());
    mail.answers(|_| Ok(()));
    until("the rest is told", async || (mail.taken(Topic::Alert).len() == 19).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_kept_stands_in_the_timeline_and_is_told_again_when_somebody_says_so() {
    let mail = Scripted::new("mail", |notice| match notice.topic {
        Topic::Page => Err(Refused::Never("550 no such user".into())),
        _ => Ok(()),
    });
    let bed = Bed::start(sinks(&[&mail])).await;
    bed.policy(&policy("low", "\"person:ann\"", "")).await;
    let id = bed.happens(1, "mallory", Severity::High).await;
    let letters = || bed.node.letters(Some("mail")).unwrap();
    let letter: Letter = until("it is refused", async || letters().pop()).await;
    assert_eq!((letter.reason.as_str(), letter.topic), ("550 no such user", Topic::Page));
    let not_told = bed.acts(id, "not_notified").await;
    assert_eq!(not_told, ["person:ann: mail: 550 no such user"]);
    assert_eq!((bed.pages("queued"), bed.pages("refused"), bed.pages("taken")), (1, 1, 0));
    mail.answers(|_| Ok(()));
    let chosen = |keys| ChosenNotices { sink: "mail".into(), keys };
    let unknown = chosen(Some(vec!["page/none".into()]));
    assert!(bed.node.replay_notices(&bed.caller, &bed.session, unknown).await.is_err());
    let done = bed.node.replay_notices(&bed.caller, &bed.session, chosen(None)).await.unwrap();
    assert_eq!(done.count, 1);
    until("ann is called", async || (mail.called() == ["ann@example.org"]).then_some(())).await;
    until("the letter is gone", async || letters().is_empty().then_some(())).await;
    assert_eq!(mail.taken(Topic::Page)[0].key, letter.key, "under the key it had");
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_and_cannot_be_kept_yet_is_not_only_in_memory() {
    let mail = Scripted::new("mail", |_| Ok(()));
    let bed = Bed::start(sinks(&[&mail])).await;
    bed.policy(&policy("low", "\"person:ann\"", "")).await;
    let space = bed.node.world.engine.space(&format!("data-{}", bed.node.cluster.home().get()), &keys::KEYSPACES);
    let space = space.unwrap();
    // A letter that no disk gives back.
    let broken = keys::record(TenantId::PLATFORM, platform::REFUSED, "mail/a");
    let (key, disk) = (broken.clone(), Arc::clone(&space));
    mail.answers(move |notice| match notice.topic {
        Topic::Page => {
            let mut batch = Batch::default();
            batch.put(keys::DATA, key.clone(), b"?".as_slice());
            disk.write(batch).unwrap();
            Err(Refused::Never("550 no such user".into()))
        }
        _ => Ok(()),
    });
    bed.happens(1, "mallory", Severity::High).await;
    let waiting = || bed.node.home().machine.duty_rows("sink/mail/calls", b"w").unwrap();
    until("a successor would know of it", async || (waiting().len() == 1).then_some(())).await;
    mail.answers(|_| Err(Refused::Never("550 no such user".into())));
    let mut batch = Batch::default();
    batch.delete(keys::DATA, broken);
    space.write(batch).unwrap();
    let letters = || bed.node.letters(Some("mail")).unwrap();
    let is_call = |letter: &Letter| letter.topic == Topic::Page;
    until("it is kept", async || letters().iter().any(is_call).then_some(())).await;
    until("it waits no longer", async || waiting().is_empty().then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_can_be_dropped() {
    let hook = Scripted::new("hook", |_| Err(Refused::Never("answer 400".into())));
    let bed = Bed::start(sinks(&[&hook])).await;
    bed.happens(1, "mallory", Severity::High).await;
    // The alert, and the opening of its incident.
    until("both are refused", async || (bed.node.letters(None).unwrap().len() == 2).then_some(())).await;
    let chosen = ChosenNotices { sink: "hook".into(), keys: None };
    assert_eq!(bed.node.drop_notices(&bed.caller, &bed.session, chosen).await.unwrap().count, 2);
    assert!(bed.node.letters(None).unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_no_sink_takes_in_time_is_said_and_so_is_that_nobody_answers_without_a_fallback() {
    let file = Scripted::file();
    let bed = Bed::start(sinks(&[&file])).await;
    let warnings = bed.policy(&policy("low", "\"person:ann\"", "")).await;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("no fallback") && warnings[1].contains("person:ann"), "{warnings:?}");
    let id = bed.happens(1, "mallory", Severity::High).await;
    until("it is in the file", async || (!file.called().is_empty()).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(301)).await;
    until("nobody was told", async || (bed.pages("untold") == 1).then_some(())).await;
    assert_eq!(bed.acts(id, "not_notified").await, ["person:ann: no sink took it in time"]);
    assert_eq!((bed.pages("taken"), bed.pages("exhausted")), (0, 0));
    tokio::time::sleep(Duration::from_secs(300)).await;
    until("nobody answers", async || (bed.pages("exhausted") > 0).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((bed.pages("exhausted"), bed.pages("untold")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_reminders_and_more_at_once_are_all_told_whatever_the_policy_is_for() {
    let mail = Scripted::new("mail", |_| Ok(()));
    let bed = Bed::start(sinks(&[&mail])).await;
    let id = bed.happens(1, "mallory", Severity::Medium).await;
    let now_ms = bed.node.now_ms();
    for number in 0..64 {
        let start = StartClock {
            clock: ClockKind::ProcessorNotice,
            subject: format!("tenant {number}"),
            aware_ms: Some(now_ms - 13 * 3_600_000),
            limit_hours: None,
            why: None,
        };
        bed.act(id, IncidentAction::StartClock(start)).await;
    }
    let twice = "\"team:soc\", \"person:carl\", \"person:carl\"";
    bed.policy(&policy("critical", twice, "fallback = [\"person:bob\"]\n")).await;
    until("all are reminded", async || (mail.called().len() == 192).then_some(())).await;
    let stored = bed.node.json_records::<Notice>(platform::NOTICES, "reminder/").unwrap();
    assert_eq!((stored.len(), bed.pages("reminded"), bed.pages("queued")), (192, 192, 0));
}
