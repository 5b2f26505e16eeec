//! Alerts and incidents on their way out: a topology's sinks as those who tell the outside see them.
//!
//! Whoever keeps the outbox asks for each notice whether a sink wants it, and delivers it in order; what the topology
//! has between `alerts` or `incidents` and a sink is done on the way.

use crate::plan::{Entry, NoPlan, Plan};
use crate::record::{Record, nested};
use crate::resource::OpenError;
use crate::runtime::Sinks;
use crate::sink::{Notice, Refused, Sink, Topic};
use crate::topology::{ALERTS, INCIDENTS, Topology};
use async_trait::async_trait;
use detection::SourceKind;
use detection::event::Fields;
use model::time::Clock;
use serde_json::Value;
use std::sync::Arc;

/// Opens all sinks that a topology describes.
///
/// # Errors
/// The first that does not open, by its name.
pub fn open_sinks(topology: &Topology, clock: &Arc<dyn Clock>) -> Result<Sinks, (Arc<str>, OpenError)> {
    let described = topology.sinks.iter().filter_map(|sink| Some((&sink.name, sink.config.as_ref()?)));
    let open = |(name, config): (&Arc<str>, &crate::sink::SinkConfig)| match config.open(name, clock) {
        Ok(sink) => Ok((Arc::clone(name), Arc::from(sink))),
        Err(error) => Err((Arc::clone(name), error)),
    };
    described.map(open).collect()
}

/// The sinks that alerts or incidents can reach, each behind its way.
///
/// # Errors
/// The topology does not open.
pub fn outbound(topology: &Topology, sinks: &Sinks) -> Result<Vec<Arc<dyn Sink>>, NoPlan> {
    let plan = Arc::new(Plan::new(topology)?);
    let reached = |source| plan.reached_from(source);
    let (alerts, incidents) = (reached(ALERTS), reached(INCIDENTS));
    let told = sinks.iter().filter(|(name, _)| alerts.contains(name) || incidents.contains(name));
    Ok(told
        .map(|(name, sink)| {
            let way = Way { name: Arc::clone(name), sink: Arc::clone(sink), plan: Arc::clone(&plan) };
            Arc::new(way) as Arc<dyn Sink>
        })
        .collect())
}

/// A sink behind its way through the topology.
struct Way {
    name: Arc<str>,
    sink: Arc<dyn Sink>,
    plan: Arc<Plan>,
}

impl Way {
    /// The notice as it arrives; `None` where it does not.
    fn arrives(&self, notice: &Notice) -> Option<Notice> {
        let source = match notice.topic {
            Topic::Alert => ALERTS,
            // People are called and tickets are opened because of incidents.
            Topic::Incident | Topic::Page | Topic::Ticket => INCIDENTS,
            Topic::Event => return None,
        };
        let before = record(notice);
        let made = self.plan.run(&Entry::From(source.into()), vec![before.clone()])?;
        // By several ways it is still one notice.
        let after = made.arrived.into_iter().find(|(name, _)| *name == self.name)?.1.into_iter().next()?;
        if after == before {
            return Some(notice.clone());
        }
        let mut body = nested(after.fields());
        body.remove("topic");
        let subject = after.text("subject").map_or_else(String::new, str::to_owned);
        Some(Notice { body: Value::Object(body).to_string(), subject, ..notice.clone() })
    }
}

/// A notice as conditions see it: the fields of its body, and what it says of itself.
fn record(notice: &Notice) -> Record {
    let mut fields = Fields::new();
    if let Ok(Value::Object(body)) = serde_json::from_str(&notice.body) {
        // What is too deep or too wide to be looked at is told all the same.
        let _ = detection::normalise::flatten(&body, &mut fields);
    }
    let topic = serde_json::to_value(notice.topic).unwrap_or_default();
    let severity = notice.severity.name();
    fields.extend([
        ("topic".to_owned(), topic),
        ("tenant".to_owned(), notice.tenant.as_str().into()),
        ("severity".to_owned(), severity.into()),
        ("severity_id".to_owned(), (notice.severity as u64 + 1).into()),
        ("subject".to_owned(), notice.subject.as_str().into()),
    ]);
    let (source, received_ms) = (SourceKind::Ndjson, notice.at_ms);
    Record { source, received_ms, position: None, tenant: None, raw: notice.body.clone().into(), fields: Some(fields) }
}

#[async_trait]
impl Sink for Way {
    fn name(&self) -> &str {
        &self.name
    }
    fn wants(&self, notice: &Notice) -> bool {
        self.sink.wants(notice) && self.arrives(notice).is_some()
    }
    fn calls_people(&self) -> bool {
        self.sink.calls_people()
    }
    async fn deliver(&self, notices: &[Notice]) -> (usize, Result<(), Refused>) {
        // Every notice was wanted; one that a list which has changed since keeps back is told as it is.
        let arrived: Vec<Notice> =
            notices.iter().map(|notice| self.arrives(notice).unwrap_or_else(|| notice.clone())).collect();
        self.sink.deliver(&arrived).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use detection::Severity;
    use parking_lot::Mutex;

    struct Told(Mutex<Vec<Notice>>);
    #[async_trait]
    impl Sink for Told {
        fn name(&self) -> &str {
            "pager"
        }
        fn wants(&self, notice: &Notice) -> bool {
            notice.tenant != "nobody"
        }
        async fn deliver(&self, notices: &[Notice]) -> (usize, Result<(), Refused>) {
            self.0.lock().extend(notices.iter().cloned());
            (notices.len(), Ok(()))
        }
    }

    fn notice(topic: Topic, severity: Severity) -> Notice {
        Notice {
            key: "k".into(),
            topic,
            tenant: "acme".into(),
            at_ms: 5,
            severity,
            subject: "login by ann@example.org".into(),
            to: Vec::new(),
            body: r#"{"rule":{"title":"t"},"user":"ann@example.org"}"#.into(),
        }
    }

    #[tokio::test]
    async fn what_stands_between_alerts_and_a_sink_is_done_on_the_way() {
        let text = "
            [transforms.grave]
            type = 'filter'
            inputs = ['alerts']
            where = { severity = ['high', 'critical'] }
            [transforms.clean]
            type = 'redact'
            inputs = ['grave']
            patterns = ['e_mail']
            [sinks.pager]
            type = 'directory'
            folder = 'x'
            inputs = ['clean', 'incidents']";
        let (topology, findings) = Topology::read("t", text, ".".into());
        assert!(findings.is_empty(), "{findings:?}");
        let told = Arc::new(Told(Mutex::default()));
        let sinks = Sinks::from([("pager".into(), Arc::clone(&told) as Arc<dyn Sink>)]);
        let all = outbound(&topology, &sinks).unwrap();
        let pager = &all[0];
        assert!(!pager.wants(&notice(Topic::Alert, Severity::Low)));
        assert!(!pager.wants(&Notice { tenant: "nobody".into(), ..notice(Topic::Page, Severity::Low) }));
        let page = notice(Topic::Page, Severity::Low);
        let alert = notice(Topic::Alert, Severity::High);
        assert!(pager.wants(&page) && pager.wants(&alert));
        assert_eq!(pager.deliver(&[page.clone(), alert]).await, (2, Ok(())));
        let told = told.0.lock();
        assert_eq!(told[0], page);
        assert_eq!(told[1].subject, "login by [redacted]");
        assert!(!told[1].body.contains("ann@") && told[1].body.contains(r#""title":"t""#));
    }
}
