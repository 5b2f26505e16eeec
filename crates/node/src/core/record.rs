//! Reading and writing records, one or several.

use super::resolve::Target;
use super::tag;
use super::wait::{failed, internal};
use crate::machine::command::{
    Act, ActChange, Command, Idempotency, Must, Outcome, Refusal, Transact, Written as Done,
};
use crate::node::Node;
use crate::telemetry::trace;
use api::core::Answer;
use api::problem::{Problem, Violation};
use api::types::{
    Caller, Change, Fields, Operation, OperationResult, Patch, Precondition, RecordAt, Transacted, WriteOptions,
    Written,
};
use identity::{Action, Session};
use model::{FieldId, Merge, Tenant, Value};
use std::collections::BTreeSet;

type Sets = Vec<(FieldId, Merge, Value)>;

impl Node {
    /// Changes one record.
    pub(crate) async fn write_record(
        &self,
        caller: &Caller,
        session: &Session,
        at: &RecordAt,
        change: Change,
        precondition: Precondition,
        write: &WriteOptions,
    ) -> Answer<Written> {
        let target = self.target(caller, session, action_of(&change), &at.tenant, &at.table).await?;
        let act = act(&target, &at.key, Some(change), precondition, "")?;
        let done = self.commit(caller, session, &target.tenant, vec![act], write).await?;
        let (existed, version) = done.acts.first().copied().unwrap_or((false, None));
        Ok(Written {
            durable: self.durable(&target.tenant, done.stamp, write.durability).await,
            created: !existed && version.is_some(),
            etag: version.map(tag::of),
            token: self.sign(target.tenant.id, done.vector)?,
            replayed: done.replayed,
        })
    }

    /// Changes several records of one tenant, all or nothing.
    pub(crate) async fn transact(
        &self,
        caller: &Caller,
        session: &Session,
        tenant: &str,
        operations: Vec<Operation>,
        write: &WriteOptions,
    ) -> Answer<Transacted> {
        let owner = self.own_tenant(caller, session, tenant).await?;
        let mut acts = Vec::with_capacity(operations.len());
        let mut touched = BTreeSet::new();
        for (index, operation) in operations.into_iter().enumerate() {
            let action = operation.change.as_ref().map_or(Action::RecordRead, action_of);
            let target = self.target(caller, session, action, tenant, &operation.table).await?;
            let at = format!("operations[{index}]");
            if !touched.insert((target.table.id, operation.key.clone())) {
                return Err(Problem::invalid(at, "this record already has an operation in the transaction"));
            }
            acts.push(act(&target, &operation.key, operation.change, operation.precondition, &at)?);
        }
        let done = self.commit(caller, session, &owner, acts, write).await?;
        let results = done.acts.iter().map(|(_, version)| OperationResult { etag: version.map(tag::of) }).collect();
        Ok(Transacted {
            durable: self.durable(&owner, done.stamp, write.durability).await,
            results,
            token: self.sign(owner.id, done.vector)?,
            replayed: done.replayed,
        })
    }

    async fn commit(
        &self,
        caller: &Caller,
        session: &Session,
        tenant: &Tenant,
        acts: Vec<Act>,
        write: &WriteOptions,
    ) -> Answer<Done> {
        self.check_durability(tenant, write.durability)?;
        self.catch_up(tenant.id, write.token.as_deref()).await?;
        let several = acts.len() > 1;
        let transact = Transact {
            tenant: tenant.id,
            schema_version: tenant.tables.iter().map(|table| table.version).max().unwrap_or(0),
            acts,
            idempotency: write.idempotency_key.clone().map(|key| idempotency(session, &key, write)),
            note: self.note(caller, session, ""),
            trace: trace::current(),
        };
        let outcome =
            self.propose(self.cluster.group(tenant.id), &Command::Transact(transact)).await.map_err(failed)?;
        match outcome {
            Outcome::Written(done) => Ok(done),
            Outcome::Refused(refusal) => Err(refused(refusal, several)),
            other => Err(internal("a transaction came to something else", &format!("{other:?}"))),
        }
    }
}

/// A key belongs to its user: nobody finds out what another's request came to.
fn idempotency(session: &Session, key: &str, write: &WriteOptions) -> Idempotency {
    let owned = [session.user().get().to_be_bytes().as_slice(), key.as_bytes()].concat();
    let key = blake3::hash(&owned).to_hex().to_string();
    Idempotency { key, digest: write.fingerprint.unwrap_or_default() }
}

fn refused(refusal: Refusal, several: bool) -> Problem {
    match refusal {
        Refusal::NotFound(_) => Problem::not_found("record"),
        Refusal::PreconditionRequired(_) => Problem::PreconditionRequired,
        Refusal::PreconditionFailed(index) => {
            Problem::PreconditionFailed { operation: several.then_some(index as usize) }
        }
        Refusal::IdempotencyReuse => Problem::IdempotencyReuse,
        Refusal::TooLarge => Problem::TooLarge { max_bytes: model::limit::TRANSACTION_BYTES_MAX as u64 },
    }
}

const fn action_of(change: &Change) -> Action {
    match change {
        Change::Put(_) | Change::Patch(_) => Action::RecordWrite,
        Change::Delete => Action::RecordDelete,
    }
}

/// One act of a command: names become ids, JSON becomes values, and everything wrong is listed at once.
fn act(target: &Target, key: &str, change: Option<Change>, precondition: Precondition, at: &str) -> Answer<Act> {
    let is_put = matches!(change, Some(Change::Put(_)));
    let mut violations = Vec::new();
    let change = match change {
        None => ActChange::Check,
        Some(Change::Delete) => ActChange::Delete,
        Some(Change::Put(fields)) => ActChange::Put(values(target, &fields, "fields", at, &mut violations)),
        Some(Change::Patch(patch)) => patched(target, &patch, at, &mut violations),
    };
    if !violations.is_empty() {
        return Err(Problem::Invalid { violations });
    }
    let stamps = |tags: Vec<api::types::Etag>| tags.iter().filter_map(tag::parse).collect();
    let must = match precondition {
        Precondition::Unstated if is_put => Must::BeAbsentOrStated,
        Precondition::Unstated => Must::Nothing,
        Precondition::Exists => Must::Exist,
        Precondition::Absent => Must::BeAbsent,
        Precondition::Matches(tags) => Must::BeAt(stamps(tags)),
        Precondition::Differs(tags) => Must::NotBeAt(stamps(tags)),
    };
    let resource = target.resource(key);
    let (seen, names) = (target.seen(), target.names());
    Ok(Act { table: target.table.id, key: key.to_owned(), must, seen, change, resource, names })
}

fn values(target: &Target, fields: &Fields, member: &str, at: &str, violations: &mut Vec<Violation>) -> Sets {
    let mut sets = Vec::with_capacity(fields.len());
    let path = |name: &str| format!("{at}{}{member}.{name}", if at.is_empty() { "" } else { "." });
    if fields.is_empty() {
        violations.push(Violation {
            at: path("").trim_end_matches('.').into(),
            message: "at least one field is needed".into(),
        });
    }
    for (name, json) in fields {
        let Some(field) = target.table.field(name) else {
            let known: Vec<&str> = target.table.fields.iter().map(|field| field.name.as_str()).collect();
            let message = format!("no such field; the table has {}", known.join(", "));
            violations.push(Violation { at: path(name), message });
            continue;
        };
        match Value::from_json(field.kind, json) {
            Ok(value) => sets.push((field.id, field.merge, value)),
            Err(error) => violations.push(Violation { at: path(name), message: error.to_string() }),
        }
    }
    sets
}

fn patched(target: &Target, patch: &Patch, at: &str, violations: &mut Vec<Violation>) -> ActChange {
    let dot = if at.is_empty() { "" } else { "." };
    let set = if patch.set.is_empty() { Vec::new() } else { values(target, &patch.set, "set", at, violations) };
    let mut increment = Vec::with_capacity(patch.increment.len());
    for (name, by) in &patch.increment {
        let path = format!("{at}{dot}increment.{name}");
        match target.table.field(name) {
            Some(field) if field.merge == Merge::Counter => increment.push((field.id, *by)),
            Some(_) => violations
                .push(Violation { at: path, message: "only fields with merge 'counter' can be incremented".into() }),
            None => violations.push(Violation { at: path, message: "no such field".into() }),
        }
        if patch.set.contains_key(name) {
            violations
                .push(Violation { at: format!("{at}{dot}set.{name}"), message: "set and incremented at once".into() });
        }
    }
    if patch.set.is_empty() && patch.increment.is_empty() {
        violations
            .push(Violation { at: at.to_owned(), message: "nothing to change: give 'set' or 'increment'".into() });
    }
    ActChange::Patch { set, increment }
}
