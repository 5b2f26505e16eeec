//! Whether whom a policy names can be called at all: a channel that no sink serves is silence that nobody hears.

use crate::node::Node;
use detection::escalation::{Book, Channel, Policy};
use pipeline::sink::{Notice, Sink, Topic};
use std::sync::Arc;

/// Whom the policies of a document name and no sink calls.
pub(crate) fn unreached(book: &Book, sinks: &[Arc<dyn Sink>]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for policy in &book.policies {
        for (target, channel) in book.reaches(policy) {
            let is_served = probes(policy, &channel)
                .iter()
                .all(|probe| sinks.iter().any(|sink| sink.calls_people() && sink.wants(probe)));
            if !is_served {
                found.push((policy.name.to_string(), format!("{target} by {}", way(&channel))));
            }
        }
    }
    found
}

fn way(channel: &Channel) -> &'static str {
    match channel {
        Channel::Email { .. } => "mail",
        Channel::Webhook { .. } => "webhook",
    }
}

/// The least that a policy calls about, for each tenant it names.
fn probes(policy: &Policy, channel: &Channel) -> Vec<Notice> {
    let everyone = [Arc::from("")];
    let tenants = if policy.tenants.is_empty() { &everyone[..] } else { &policy.tenants };
    let (to, receiver) = super::reached(channel);
    let probe = |tenant: &Arc<str>| Notice {
        key: "page/probe".to_owned(),
        topic: Topic::Page,
        tenant: tenant.to_string(),
        at_ms: 0,
        severity: policy.severity_min,
        subject: String::new(),
        to: to.clone(),
        body: serde_json::json!({ "receiver": receiver }).to_string(),
    };
    tenants.iter().map(probe).collect()
}

/// Says so, where whoever looks at the node sees it.
pub(super) fn observe(node: &Node, book: &Book) {
    node.metrics.unreached.reset();
    for (policy, who) in unreached(book, &node.sinks) {
        tracing::error!(policy, who, "no sink of this node calls whom the policy names");
        node.metrics.unreached.with_label_values(&[&policy]).inc();
    }
    for warning in book.warnings() {
        tracing::warn!(warning, "the escalation policy");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use pipeline::sink::Refused;

    struct Takes {
        calls: bool,
        wants: fn(&Notice) -> bool,
    }

    #[async_trait]
    impl Sink for Takes {
        fn name(&self) -> &'static str {
            "takes"
        }
        fn wants(&self, notice: &Notice) -> bool {
            (self.wants)(notice)
        }
        fn calls_people(&self) -> bool {
            self.calls
        }
        async fn deliver(&self, notices: &[Notice]) -> (usize, Result<(), Refused>) {
            (notices.len(), Ok(()))
        }
    }

    fn found(calls: bool, wants: fn(&Notice) -> bool) -> Vec<String> {
        let text = "version = 1\n[[webhook]]\nname = \"pager\"\nurl = \"https://pager.example\"\n\
            [[person]]\nlogin = \"ann\"\nemail = \"ann@example.org\"\n\
            [[policy]]\nname = \"all\"\nseverity_min = \"medium\"\nfallback = [\"webhook:pager\"]\n\
            [[policy.step]]\nnotify = [\"person:ann\"]\nacknowledge_within = \"5m\"\n";
        let book = detection::escalation::parse("t", text.as_bytes()).unwrap();
        let sinks = [Arc::new(Takes { calls, wants }) as Arc<dyn Sink>];
        unreached(&book, &sinks).into_iter().map(|(_, who)| who).collect()
    }

    #[test]
    fn channels_that_no_sink_serves_are_known_before_anybody_is_called() {
        let both = ["person:ann by mail", "webhook:pager by webhook"];
        assert!(found(true, |_| true).is_empty());
        assert_eq!(found(false, |_| true), both, "a file calls nobody");
        assert_eq!(found(true, |notice| notice.severity >= detection::Severity::High), both);
        assert_eq!(found(true, |notice| notice.tenant == "acme"), both, "the policy is for all tenants");
        assert_eq!(found(true, |notice| !notice.to.is_empty()), both[1..]);
    }
}
