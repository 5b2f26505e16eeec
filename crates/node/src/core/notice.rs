//! Notices that a sink refused for good, over the API: looked at, told again, dropped; each in the audit log.

use super::incident::paged;
use crate::driver::outbox::letter::Letter;
use crate::machine::command::Act;
use crate::node::Node;
use api::core::Answer;
use api::problem::Problem;
use api::types::{Caller, ChosenNotices, NoticesDone, RefusedFilter, RefusedList, RefusedNotice};
use identity::Session;
use std::collections::BTreeSet;

/// Letters of one transaction.
const AT_ONCE: usize = 64;

impl Node {
    /// What was refused, the newest first.
    pub(crate) async fn refused_notices(
        &self,
        caller: &Caller,
        session: &Session,
        filter: &RefusedFilter,
    ) -> Answer<RefusedList> {
        self.may_see(caller, session, "notices/refused").await?;
        let mut letters = self.letters(filter.sink.as_deref())?;
        letters.sort_by(|one, other| (other.refused_ms, &other.key).cmp(&(one.refused_ms, &one.key)));
        let total = letters.len() as u64;
        let (letters, next) = paged(letters, &filter.page)?;
        Ok(RefusedList { notices: letters.into_iter().map(|letter| self.refused_view(letter)).collect(), total, next })
    }

    fn refused_view(&self, letter: Letter) -> RefusedNotice {
        RefusedNotice {
            region: self.region_name(letter.region),
            topic: letter.topic.name().to_owned(),
            severity: super::incident::severity(letter.severity),
            sink: letter.sink,
            key: letter.key,
            tenant: letter.tenant,
            subject: letter.subject,
            at_ms: letter.at_ms,
            refused_ms: letter.refused_ms,
            reason: letter.reason,
            is_asked_for: letter.is_asked_for,
        }
    }

    /// Has the outbox of the sink tell them again.
    pub(crate) async fn replay_notices(
        &self,
        caller: &Caller,
        session: &Session,
        chosen: ChosenNotices,
    ) -> Answer<NoticesDone> {
        self.to_letters(caller, session, chosen, |letter| letter.asked_for().put()).await
    }

    /// Drops them.
    pub(crate) async fn drop_notices(
        &self,
        caller: &Caller,
        session: &Session,
        chosen: ChosenNotices,
    ) -> Answer<NoticesDone> {
        self.to_letters(caller, session, chosen, |letter| Ok(Letter::delete(&letter.sink, &letter.key))).await
    }

    async fn to_letters(
        &self,
        caller: &Caller,
        session: &Session,
        chosen: ChosenNotices,
        act: impl Fn(&Letter) -> Answer<Act>,
    ) -> Answer<NoticesDone> {
        let ChosenNotices { sink, keys } = chosen;
        self.may_manage(caller, session, &super::incident::resource("sinks", &sink)).await?;
        let known = self.letters(Some(&sink))?;
        let wanted: Option<BTreeSet<String>> = keys.map(|keys| keys.into_iter().collect());
        if let Some(wanted) = &wanted
            && !wanted.iter().all(|key| known.iter().any(|letter| letter.key == *key))
        {
            return Err(Problem::not_found("notice"));
        }
        let is_wanted = |letter: &&Letter| wanted.as_ref().is_none_or(|wanted| wanted.contains(&letter.key));
        let acts = known.iter().filter(is_wanted).map(act).collect::<Answer<Vec<Act>>>()?;
        for some in acts.chunks(AT_ONCE) {
            self.keep_all(some.to_vec(), self.note(caller, session, "notice.update")).await?;
        }
        Ok(NoticesDone { count: acts.len() as u64 })
    }
}
