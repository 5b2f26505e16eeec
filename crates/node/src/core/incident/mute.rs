//! Whose notifications rest: one record for each entity or rule, replaced by a later one about the same.

use super::resource;
use crate::machine::command::Must;
use crate::machine::control::platform;
use crate::machine::note::Note;
use crate::node::Node;
use api::core::Answer;
use api::problem::Problem;
use api::types::{Caller, MuteList, MuteView, NewMute};
use detection::incident::entity;
use detection::incident::mute::{MUTES_MAX, Mute, NotMuted, Subject, VERSION};
use identity::Session;

impl Node {
    /// What rests now, the one that ends first, first.
    pub(crate) async fn mutes(&self, caller: &Caller, session: &Session) -> Answer<MuteList> {
        self.may_see(caller, session, "mutes").await?;
        let mut mutes = self.active_mutes()?;
        mutes.sort_by_key(|mute| (mute.until_ms, mute.id()));
        Ok(MuteList { mutes: mutes.iter().map(view).collect() })
    }

    /// Lets notifications about an entity or a rule rest.
    pub(crate) async fn mute(&self, caller: &Caller, session: &Session, request: NewMute) -> Answer<MuteView> {
        self.may_manage(caller, session, "mutes").await?;
        let done = self.new_mute(caller, session, request).await;
        self.noting(caller, session, "incident.mute", "mutes".to_owned(), done).await
    }

    async fn new_mute(&self, caller: &Caller, session: &Session, request: NewMute) -> Answer<MuteView> {
        if let Some(name) = &request.tenant
            && self.control().tenant(name).is_none()
        {
            return Err(Problem::invalid("tenant", "there is no such tenant"));
        }
        let mute = Mute {
            version: VERSION,
            subject: subject(&request)?,
            tenant: request.tenant.map(Into::into),
            until_ms: request.until_ms,
            by: session.account().login.as_str().into(),
            why: request.why.into(),
        };
        mute.check(self.world.clock.wall_ms()).map_err(|error| match error {
            NotMuted::TimeOutOfRange => Problem::invalid("until_ms", error.to_string()),
            NotMuted::ReasonRequired => Problem::invalid("why", error.to_string()),
            NotMuted::RuleRequired => Problem::invalid("rule", error.to_string()),
        })?;
        if self.active_mutes()?.len() >= MUTES_MAX {
            return Err(Problem::conflict(format!("{MUTES_MAX} entities and rules rest already")));
        }
        self.keep_mute(caller, session, "incident.mute", &mute).await?;
        Ok(view(&mute))
    }

    /// They rest no longer.
    pub(crate) async fn unmute(&self, caller: &Caller, session: &Session, id: &str) -> Answer<()> {
        self.may_manage(caller, session, &resource("mutes", id)).await?;
        let mutes = self.active_mutes()?;
        let mute = mutes.into_iter().find(|mute| mute.id().to_string() == id).ok_or(Problem::not_found("mute"))?;
        let ended = Mute { until_ms: 0, by: session.account().login.as_str().into(), ..mute };
        self.keep_mute(caller, session, "incident.unmute", &ended).await
    }

    async fn keep_mute(&self, caller: &Caller, session: &Session, action: &str, mute: &Mute) -> Answer<()> {
        let id = mute.id().to_string();
        let note = Note { resource: Some(format!("mutes/{id}")), ..self.note(caller, session, action) };
        self.keep_json(platform::MUTES, id, Must::Nothing, mute, note).await
    }

    /// What rests now.
    pub(crate) fn active_mutes(&self) -> Answer<Vec<Mute>> {
        let now_ms = self.world.clock.wall_ms();
        let all = self.json_records::<Mute>(platform::MUTES, "")?;
        Ok(all.into_iter().map(|(_, _, mute)| mute).filter(|mute| now_ms < mute.until_ms).collect())
    }
}

fn subject(request: &NewMute) -> Answer<Subject> {
    match (&request.entity, &request.rule) {
        (Some(text), None) => {
            let entity = text.split_once(':').and_then(|(kind, name)| entity::parse(kind, name));
            entity.map(Subject::Entity).ok_or_else(|| Problem::invalid("entity", "kind and name, such as user:ann"))
        }
        (None, Some(rule)) => Ok(Subject::Rule(rule.as_str().into())),
        _ => Err(Problem::invalid("entity", "say either entity or rule")),
    }
}

fn view(mute: &Mute) -> MuteView {
    let (entity, rule) = match &mute.subject {
        Subject::Entity(entity) => (Some(entity::text(entity)), None),
        Subject::Rule(rule) => (None, Some(rule.to_string())),
    };
    MuteView {
        id: mute.id().to_string(),
        entity,
        rule,
        tenant: mute.tenant.as_ref().map(ToString::to_string),
        until_ms: mute.until_ms,
        by: mute.by.to_string(),
        why: mute.why.to_string(),
    }
}
