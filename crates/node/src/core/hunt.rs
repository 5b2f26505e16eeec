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
use std::sync::Arc;

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
        let asked = serde_json::json!({"rules": question, "from_ms": span.from_ms, "to_ms": span.to_ms});
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
