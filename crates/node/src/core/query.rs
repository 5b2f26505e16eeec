//! Reading: one record, a range of keys, conflicts, and how far writes are durable.

use super::resolve::Target;
use super::tag;
use super::wait::{failed, internal};
use crate::machine::command::{Command, Found, Outcome, Read as ReadCommand, Select};
use crate::machine::note::Note;
use crate::node::Node;
use api::core::Answer;
use api::problem::Problem;
use api::types::{
    Caller, ConflictList, ConflictView, DurabilityView, KeyRange, Level, Page, Read, ReadOptions, RecordAt, RecordPage,
    RecordView,
};
use identity::{Action, Session};
use model::{Field, FieldId, Record, Stamp, TenantId};
use replication::Conflict;
use std::collections::BTreeSet;

impl Node {
    /// Reads one record.
    pub(crate) async fn get_record(
        &self,
        caller: &Caller,
        session: &Session,
        at: &RecordAt,
        options: &ReadOptions,
    ) -> Answer<Read<RecordView>> {
        let target = self.target(caller, session, Action::RecordRead, &at.tenant, &at.table).await?;
        let wanted = wanted(&target, options)?;
        let note = self.view_note(caller, session, "record.view", target.resource(&at.key), &wanted);
        let found = self.find(&target, Select::Key(at.key.clone()), options, note).await?;
        let view = found.records.iter().find_map(|(key, record)| view(&target, &wanted, key, record));
        let value = view.ok_or(Problem::not_found("record"))?;
        Ok(Read { value, token: self.sign(target.tenant.id, found.vector)? })
    }

    /// Reads a range of keys.
    pub(crate) async fn query(
        &self,
        caller: &Caller,
        session: &Session,
        tenant: &str,
        table: &str,
        range: &KeyRange,
        options: &ReadOptions,
    ) -> Answer<Read<RecordPage>> {
        let target = self.target(caller, session, Action::RecordRead, tenant, table).await?;
        let wanted = wanted(&target, options)?;
        let resource = format!("{}*", target.resource(range.prefix.as_deref().unwrap_or("")));
        let note = self.view_note(caller, session, "record.query", resource, &wanted);
        let found = self.find(&target, select(range), options, note).await?;
        let records = found.records.iter().filter_map(|(key, record)| view(&target, &wanted, key, record)).collect();
        let value = RecordPage { records, more: found.more };
        Ok(Read { value, token: self.sign(target.tenant.id, found.vector)? })
    }

    fn view_note(&self, caller: &Caller, session: &Session, action: &str, resource: String, wanted: &[Field]) -> Note {
        let fields = wanted.iter().map(|field| field.name.clone()).collect();
        Note { resource: Some(resource), fields, ..self.note(caller, session, action) }
    }

    /// Reads at the level that was asked for. What was seen is in the audit log before this returns.
    async fn find(&self, target: &Target, select: Select, options: &ReadOptions, note: Note) -> Answer<Found> {
        let (tenant, table) = (target.tenant.id, target.table.id);
        let group = self.cluster.group(tenant);
        self.catch_up(tenant, options.token.as_deref()).await?;
        if options.level == Level::Linearizable {
            let read = Command::Read(ReadCommand { tenant, table, select, note });
            return match self.propose(group, &read).await.map_err(failed)? {
                Outcome::Records(found) => Ok(found),
                other => Err(internal("a read came to something else", &format!("{other:?}"))),
            };
        }
        let machine = &self.data_of(tenant).machine;
        let found =
            machine.read_local(tenant, table, &select).map_err(|error| internal("a local read failed", &error))?;
        let seen: Vec<String> =
            found.records.iter().map(|(key, record)| format!("{key}@{}", record.version().hlc)).collect();
        self.record(tenant, Note { values: Some((None, serde_json::to_string(&seen).ok())), ..note }).await?;
        Ok(found)
    }

    /// Concurrent overwrites whose loser was kept, newest first.
    pub(crate) async fn conflicts(
        &self,
        caller: &Caller,
        session: &Session,
        tenant: &str,
        page: &Page,
    ) -> Answer<ConflictList> {
        let tenant = self.own_tenant(caller, session, tenant).await?;
        let after = page
            .after
            .as_deref()
            .map(hex::decode)
            .transpose()
            .map_err(|_| Problem::invalid("page_token", "not one of ours"))?;
        let machine = &self.data_of(tenant.id).machine;
        let rows = machine
            .conflicts(tenant.id, after.as_deref(), page.limit)
            .map_err(|error| internal("the conflict list cannot be read", &error))?;
        let next = (rows.len() == page.limit).then(|| rows.last().map(|(id, _)| hex::encode(id))).flatten();
        let capability = self.capability(session);
        let conflicts: Vec<ConflictView> = rows
            .iter()
            .filter(|(_, conflict)| {
                capability.allows(Action::RecordRead, conflict.table).is_ok_and(|mask| mask.allows(conflict.field))
            })
            .map(|(_, conflict)| self.conflict_view(&tenant, conflict))
            .collect();
        let resource = Some(format!("tenants/{}/conflicts", tenant.name));
        let fields = conflicts.iter().map(|conflict| format!("{}/{}", conflict.table, conflict.key)).collect();
        self.record(tenant.id, Note { resource, fields, ..self.note(caller, session, "record.view") }).await?;
        Ok(ConflictList { conflicts, next })
    }

    fn conflict_view(&self, tenant: &model::Tenant, conflict: &Conflict) -> ConflictView {
        let table = tenant.tables.iter().find(|table| table.id == conflict.table);
        let field = table.and_then(|table| table.field_by_id(conflict.field)).map(|field| field.name.clone());
        let json =
            |side: &replication::Side| side.value.as_ref().map_or(serde_json::Value::Null, model::Value::to_json);
        let region = |stamp: Stamp| self.region_name(stamp.origin.region);
        ConflictView {
            table: table.map_or_else(|| conflict.table.to_string(), |table| table.name.clone()),
            key: conflict.key.clone(),
            field,
            lost: json(&conflict.loser),
            won: json(&conflict.winner),
            lost_region: region(conflict.loser.stamp),
            won_region: region(conflict.winner.stamp),
            lost_ms: conflict.loser.stamp.hlc.wall_ms(),
            won_ms: conflict.winner.stamp.hlc.wall_ms(),
        }
    }

    /// Which other regions have everything a token has seen.
    pub(crate) async fn durability(
        &self,
        caller: &Caller,
        session: &Session,
        tenant: &str,
        token: &str,
    ) -> Answer<DurabilityView> {
        let tenant = self.own_tenant(caller, session, tenant).await?;
        let seen = self.seen_by(tenant.id, token)?;
        let progress = self.data_of(tenant.id).machine.progress();
        let partition = self.cluster.partition(tenant.id);
        let (durable, pending) = self.other_regions(&tenant).into_iter().partition::<Vec<_>, _>(|region| {
            let vector = progress.get(region).and_then(|partitions| partitions.get(&partition));
            vector.is_some_and(|vector| vector.covers(&seen))
        });
        let names =
            |regions: Vec<model::RegionId>| regions.into_iter().map(|region| self.region_name(region)).collect();
        Ok(DurabilityView { durable_in: names(durable), pending_in: names(pending) })
    }

    /// Records of the platform's own tenant, read where this node stands.
    pub(crate) fn platform_records(&self, table: model::TableId, select: &Select) -> Answer<Found> {
        let machine = &self.data_of(TenantId::PLATFORM).machine;
        machine
            .read_local(TenantId::PLATFORM, table, select)
            .map_err(|error| internal("the platform's records cannot be read", &error))
    }
}

/// The fields to answer: those asked for, or all the session knows.
fn wanted(target: &Target, options: &ReadOptions) -> Answer<Vec<Field>> {
    let Some(names) = &options.fields else { return Ok(target.table.fields.clone()) };
    let field = |name: &String| {
        target.table.field(name).cloned().ok_or_else(|| Problem::invalid("fields", format!("no field '{name}'")))
    };
    names.iter().map(field).collect()
}

/// A record as the session knows it; none where it knows nothing of it.
fn view(target: &Target, wanted: &[Field], key: &str, record: &Record) -> Option<RecordView> {
    let known = target.mask.record(record);
    if !known.exists() {
        return None;
    }
    let ids: BTreeSet<FieldId> = wanted.iter().map(|field| field.id).collect();
    let name = |id: FieldId| target.table.field_by_id(id).map(|field| field.name.clone());
    let fields = known
        .visible()
        .filter(|(id, _)| ids.contains(id))
        .filter_map(|(id, state)| Some((name(id)?, state.value().to_json())))
        .collect();
    let version = known.version();
    Some(RecordView { key: key.to_owned(), etag: tag::of(version), updated_ms: version.hlc.wall_ms(), fields })
}

fn select(range: &KeyRange) -> Select {
    let prefix = range.prefix.as_deref().unwrap_or("");
    let from = range.from.as_deref().unwrap_or("").max(prefix).to_owned();
    let end = after_prefix(prefix);
    let to = match (range.to.clone(), end) {
        (Some(to), Some(end)) => Some(to.min(end)),
        (to, end) => to.or(end),
    };
    Select::Range { from, to, after: range.after.clone(), limit: u32::try_from(range.limit).unwrap_or(u32::MAX) }
}

/// The first key after all that begin with `prefix`.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        // The next scalar value: surrogates are no characters.
        let next = if last as u32 == 0xD7FF { Some('\u{E000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_prefix_holds_exactly_the_keys_that_begin_with_it(prefix in "\\PC{1,6}", key in "\\PC{0,8}") {
            let end = after_prefix(&prefix);
            let inside = key.as_str() >= prefix.as_str() && end.as_ref().is_none_or(|end| key < *end);
            prop_assert_eq!(inside, key.starts_with(&prefix));
        }
    }
}
