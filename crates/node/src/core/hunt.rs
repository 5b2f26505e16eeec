//! Hunts as the SOC asks for them: which rules run over whose events of the past.

use super::search::{EVERY, Whose};
use crate::core::wait::internal;
use crate::driver::archive::Keeper;
use crate::node::Node;
use api::core::Answer;
use api::problem::Problem;
use api::types::{Caller, EventHunt, JobView};
use archive::hunt::{self, Hunt};
use archive::job::Outcome;
use archive::search::{Limits, Progress};
use archive::{Span, Tenants};
use detection::engine::Options;
use detection::packs;
use detection::rules::{RuleSet, load_texts_with};
use detection::sigma::{Pipeline, RuleError};
use identity::Session;
use model::TenantId;
use serde_json::{Value, json};
use std::sync::Arc;

/// Rules of a hunt that are named on record; the hash covers all.
const NAMED_MAX: usize = 64;

impl Node {
    /// Hunts.
    pub(crate) async fn hunt_events(&self, caller: &Caller, session: &Session, request: EventHunt) -> Answer<JobView> {
        let whose = self.whose(caller, session, request.tenant.as_deref()).await?;
        let span = self.span(request.from_ms, request.to_ms)?;
        let is_platform = session.tenant() == TenantId::PLATFORM;
        let hunt = self.hunt(is_platform, &whose, span, &request).await?;
        let question = if request.only.is_empty() {
            format!("{} rules", hunt.rules.rules().len() + hunt.rules.correlations().len())
        } else {
            request.only.join(", ")
        };
        let sent = sent(&request, &hunt.rules);
        let asked = json!({"rules": question, "sent": sent, "from_ms": span.from_ms, "to_ms": span.to_ms});
        self.on_record(caller, session, "events.hunt", &whose.name, (&asked, span)).await?;
        let archive = Arc::clone(&self.keeper()?.archive);
        let work = move |progress: &Arc<Progress>| match hunt::run(&archive, hunt, Limits::default(), progress) {
            Ok(found) => Outcome::Alerts(Arc::new(found)),
            Err(error) => Outcome::Failed(Arc::new(error)),
        };
        self.begin_job(session, "hunt", whose.name, question, request.wait_ms, work).await
    }

    async fn hunt(&self, is_platform: bool, whose: &Whose, span: Span, request: &EventHunt) -> Answer<Hunt> {
        let (rules, options, audit) = match &request.rules {
            // Rules that were sent are of whoever they are run for, and see what whoever sent them may.
            Some(text) => {
                let rules = sent_rules(text.clone(), request.pipelines.clone()).await?;
                let tenant = if whose.name == EVERY { Options::default().tenant } else { whose.name.as_str().into() };
                (rules.out_of_shadow(), Options { tenant, ..Options::default() }, whose.audit.clone())
            }
            // The platform's rules look at every log, live too, and their alerts carry tuples.
            None if is_platform => (own_rules(self.keeper()?).await?, Options::default(), Tenants::All),
            None => (own_rules(self.keeper()?).await?.for_tenant(&whose.name), Options::default(), whose.audit.clone()),
        };
        if rules.rules().is_empty() {
            return Err(Problem::invalid("rules", "there is no rule among them"));
        }
        // Who names a rule wants what it would have raised.
        let rules = if request.only.is_empty() { rules } else { rules.out_of_shadow() };
        let only = request.only.iter().cloned().collect();
        let known_ms = self.world.clock.wall_ms();
        Ok(Hunt { tenants: whose.tenants.clone(), audit, span, rules, only, options, known_ms })
    }
}

/// The words of a hunt with rules that were sent, for the record: which they are, and a hash by which whoever has them
/// can show that it was these.
fn sent(request: &EventHunt, rules: &RuleSet) -> Option<Value> {
    let text = request.rules.as_ref()?;
    let mut hash = blake3::Hasher::new();
    for text in std::iter::once(text).chain(&request.pipelines) {
        hash.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes());
    }
    let of_rules = rules.rules().iter().map(|rule| &rule.header.reference.id);
    let ids = of_rules.chain(rules.correlations().iter().map(|plan| &plan.header.reference.id));
    let named: Vec<&str> = ids.take(NAMED_MAX).map(AsRef::as_ref).collect();
    Some(json!({"ids": named, "blake3": hash.finalize().to_hex().as_str()}))
}

/// The node's own rules; one that is wrong was told when they were read.
async fn own_rules(keeper: &Keeper) -> Answer<RuleSet> {
    let Some(folder) = keeper.rules.clone() else {
        return Err(Problem::invalid("rules", "this node has no rules of its own: send some"));
    };
    let loaded = tokio::task::spawn_blocking(move || packs::load(&folder)).await;
    let loaded = loaded.map_err(|error| internal("rules could not be read", &error))?;
    loaded.map(|(rules, _)| rules).map_err(|error| Problem::invalid("rules", error.to_string()))
}

/// Rules that were sent, read through pipelines that were sent; all of them are good, or none is taken.
async fn sent_rules(text: String, pipelines: Vec<String>) -> Answer<RuleSet> {
    let read = move || -> Result<RuleSet, RuleError> {
        let mut pipeline = Pipeline::default();
        for (number, text) in pipelines.iter().enumerate() {
            let name = format!("pipeline {}", number + 1).into();
            pipeline = pipeline.then(if text == "ocsf" { Pipeline::ocsf() } else { Pipeline::read(&name, text)? });
        }
        let (rules, errors) = load_texts_with(vec![("rules".into(), text)], &pipeline);
        errors.into_iter().next().map_or(Ok(rules), Err)
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(|error| internal("rules could not be read", &error))?;
    read.map_err(|error| Problem::invalid("rules", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::bed::rules_of;

    #[test]
    fn which_rules_were_sent_is_on_record() {
        let rule = |value: u8| {
            format!("title: A\nid: one\nlogsource: {{product: p}}\ndetection: {{s: {{x: {value}}}, condition: s}}\n")
        };
        let of = |text: String, pipelines: &[&str]| {
            let pipelines = pipelines.iter().map(|text| (*text).to_owned()).collect();
            let rules = rules_of(&text);
            sent(&EventHunt { rules: Some(text), pipelines, ..EventHunt::default() }, &rules).unwrap()
        };
        let one = of(rule(1), &[]);
        assert_eq!(one["ids"], json!(["one"]));
        assert_eq!(one, of(rule(1), &[]));
        assert!(one["blake3"] != of(rule(2), &[])["blake3"] && one["blake3"] != of(rule(1), &["ocsf"])["blake3"]);
        assert_eq!(sent(&EventHunt::default(), &rules_of(&rule(1))), None, "the node's own are in its configuration");
    }
}
