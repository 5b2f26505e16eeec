//! One request of a client: to a living node of its region, with a deadline, and an outcome it can be sure of.

use crate::history::{Kind, Op, Outcome, Seen};
use crate::plant::Plant;
use crate::plot::Signal;
use crate::random::Random;
use crate::setup::{ANALYST, CALLS, METERS, PASSWORD, TENANTS, address};
use crate::trace::Trace;
use crate::world::{Seat, Seats, region_of};
use api::Core;
use api::core::Answer;
use api::problem::{Problem, Unavailable};
use api::types::{
    Caller, Change, Etag, Level, Login, Operation, Patch, Precondition, ReadOptions, RecordAt, WriteOptions, Written,
};
use bytes::Bytes;
use model::{Hlc, Origin, RegionId, Stamp};
use node::core::NodeCore;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a client waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(9);

/// What clients know and share.
pub struct Office {
    /// The nodes that live.
    pub seats: Seats,
    /// Where answers are written down.
    pub trace: Arc<Trace>,
    /// What is planted.
    pub plant: Option<Plant>,
    /// Bearer tokens by login.
    pub tokens: BTreeMap<&'static str, String>,
    /// The number of the next request.
    pub requests: AtomicU64,
}

/// What a request that was done brought.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// The request.
    pub request: u128,
    /// It is the stored answer to an earlier attempt.
    pub replayed: bool,
    /// The record's version afterwards.
    pub version: Option<Stamp>,
    /// What a read found.
    pub seen: Option<Seen>,
    /// The consistency token.
    pub token: Option<String>,
}

/// What became of a request.
#[derive(Debug)]
pub enum Asked {
    /// Done.
    Ok(Done),
    /// Certainly not done, and why.
    Failed(String),
    /// No answer, or one that does not know.
    Unknown,
}

/// The version in an entity tag.
pub fn stamp_of(tag: &Etag) -> Option<Stamp> {
    let mut parts = tag.as_str().split('-');
    let hlc = u64::from_str_radix(parts.next()?, 16).ok()?;
    let (region, incarnation) = parts.next()?.split_once('.')?;
    let sequence = parts.next()?.parse().ok()?;
    let origin = Origin::new(RegionId::new(region.parse().ok()?), incarnation.parse().ok()?);
    Some(Stamp { hlc: Hlc::from_bits(hlc), origin, sequence })
}

fn tag_of(stamp: Stamp) -> Option<Etag> {
    let Stamp { hlc, origin, sequence } = stamp;
    Etag::new(format!("{:x}-{}.{}-{sequence}", hlc.bits(), origin.region.get(), origin.incarnation))
}

impl Office {
    fn seat(&self, region: usize, random: &mut Random) -> Option<Seat> {
        let seats = self.seats.lock();
        let here: Vec<&Seat> = seats.iter().filter(|(id, _)| region_of(**id) == region).map(|(_, seat)| seat).collect();
        random.pick(&here).map(|seat| (*seat).clone())
    }

    fn caller(&self, login: Option<&str>) -> Caller {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let bearer = login.and_then(|login| self.tokens.get(login).cloned());
        Caller { address: address(), request: (0x51 << 120) | u128::from(number), trace: None, bearer }
    }

    /// Asks a node of the operation's region.
    pub async fn ask(&self, op: &Op, token: Option<String>, random: &mut Random) -> Asked {
        let Some(mut seat) = self.seat(op.region, random) else { return Asked::Failed("nobody is there".into()) };
        let login = match op.kind {
            Kind::Login | Kind::WrongLogin => None,
            Kind::Ingest(_) => Some(ANALYST),
            _ => Some(TENANTS[op.tenant].login),
        };
        let caller = self.caller(login);
        let answer = tokio::select! {
            biased;
            _ = seat.ended.wait_for(|ended| *ended) => None,
            answer = tokio::time::timeout(PATIENCE, self.perform(&seat.core, &caller, op, token)) => answer.ok(),
        };
        let asked = match answer {
            None => Asked::Unknown,
            Some(Ok(done)) => Asked::Ok(Done { request: caller.request, ..done }),
            Some(Err(problem)) => self.judge(op, &problem),
        };
        self.trace.event("told", &[op.id, op.region as u64], format!("{asked:?}").as_bytes());
        asked
    }

    fn judge(&self, op: &Op, problem: &Problem) -> Asked {
        match problem {
            Problem::Unavailable { reason: Unavailable::Timeout, .. } => Asked::Unknown,
            Problem::Internal | Problem::IdempotencyReuse => {
                self.trace.finding(format!("{:?} {} was answered with: {problem}", op.kind, op.key));
                Asked::Unknown
            }
            other => Asked::Failed(other.to_string()),
        }
    }

    async fn perform(&self, core: &NodeCore, caller: &Caller, op: &Op, token: Option<String>) -> Answer<Done> {
        if matches!(op.kind, Kind::Login | Kind::WrongLogin) {
            return self.log_in(core, caller, op).await;
        }
        let session = core.authenticate(caller).await?;
        let tenant = TENANTS[op.tenant].name;
        let at = |table: &str| RecordAt { tenant: tenant.into(), table: table.into(), key: op.key.clone() };
        let write = WriteOptions {
            idempotency_key: Some(op.idempotency()),
            fingerprint: Some(*blake3::hash(op.idempotency().as_bytes()).as_bytes()),
            ..WriteOptions::default()
        };
        let text = |text: String| Json::String(text);
        let patch = |name: &str, value: Json| Patch { set: [(name.to_owned(), value)].into(), ..Patch::default() };
        let add = |by: i64| Patch { increment: [("n".to_owned(), by)].into(), ..Patch::default() };
        let anything = Precondition::Differs(Vec::new());
        let both = [("owner".to_owned(), text(op.owner())), ("note".to_owned(), text(op.note()))];
        let (at, change, precondition) = match &op.kind {
            Kind::Put => (at(CALLS), Change::Put(both.into_iter().collect()), anything),
            Kind::Swap(seen) => {
                let precondition = Precondition::Matches(tag_of(*seen).into_iter().collect());
                (at(CALLS), Change::Patch(patch("owner", text(op.owner()))), precondition)
            }
            Kind::Patch => (at(CALLS), Change::Patch(patch("note", text(op.note()))), Precondition::Exists),
            Kind::Delete => (at(CALLS), Change::Delete, Precondition::Exists),
            Kind::Increment(by) => (at(METERS), Change::Patch(add(*by)), Precondition::Exists),
            Kind::Transact(by) => {
                let operation = |table: &str, key: &str, precondition, change| Operation {
                    table: table.into(),
                    key: key.into(),
                    precondition,
                    change: Some(change),
                };
                let put = operation(CALLS, &op.key, anything, Change::Patch(patch("owner", text(op.owner()))));
                let add = operation(METERS, "m0", Precondition::Exists, Change::Patch(add(*by)));
                let done = core.transact(caller, &session, tenant, vec![put, add], &write).await?;
                let version = done.results.first().and_then(|result| stamp_of(result.etag.as_ref()?));
                return Ok(Done { replayed: done.replayed, version, token: Some(done.token), ..Done::default() });
            }
            Kind::Ingest(signal) => {
                let key = signal.is_keyed.then(|| op.idempotency());
                core.ingest(caller, &session, "doors", vec![line(op, signal)], key.as_deref()).await?;
                return Ok(Done::default());
            }
            Kind::Probe => {
                let other = TENANTS[1 - op.tenant].name;
                let at = RecordAt { tenant: other.into(), table: CALLS.into(), key: op.key.clone() };
                core.get_record(caller, &session, &at, &ReadOptions::default()).await?;
                return Ok(Done::default());
            }
            _ => return self.read(core, caller, &session, op, token).await,
        };
        let written: Written = core.write_record(caller, &session, &at, change, precondition, &write).await?;
        let version = written.etag.as_ref().and_then(stamp_of);
        Ok(Done { replayed: written.replayed, version, token: Some(written.token), ..Done::default() })
    }

    async fn log_in(&self, core: &NodeCore, caller: &Caller, op: &Op) -> Answer<Done> {
        let right = op.kind == Kind::Login;
        let login = if right { TENANTS[op.tenant].login } else { "mallory" };
        let password = if right { PASSWORD } else { "Wrong-horse-8-battery" };
        let caller = Caller { address: if right { caller.address } else { op_address(op) }, ..caller.clone() };
        let request = Login { login: login.into(), password: password.into(), totp: None };
        match core.login(&caller, request).await {
            Ok(_) => Ok(Done::default()),
            // A refusal is what this operation wants.
            Err(Problem::Unauthenticated(_)) if !right => Ok(Done::default()),
            Err(problem) => Err(problem),
        }
    }

    async fn read(
        &self,
        core: &NodeCore,
        caller: &Caller,
        session: &identity::Session,
        op: &Op,
        token: Option<String>,
    ) -> Answer<Done> {
        let at = RecordAt { tenant: TENANTS[op.tenant].name.into(), table: CALLS.into(), key: op.key.clone() };
        let level = match op.kind {
            Kind::Read if self.plant == Some(Plant::StaleRead) => Level::Local,
            Kind::Read => Level::Linearizable,
            Kind::SessionRead(_) => Level::Session,
            _ => Level::Local,
        };
        let options = ReadOptions { level, fields: None, token };
        let seen = match core.get_record(caller, session, &at, &options).await {
            Ok(read) => {
                let field = |name: &str| read.value.fields.get(name).and_then(Json::as_str).map(str::to_owned);
                Seen { version: stamp_of(&read.value.etag), owner: field("owner"), note: field("note") }
            }
            Err(Problem::NotFound { what: "record" }) => Seen::default(),
            Err(problem) => return Err(problem),
        };
        Ok(Done { seen: Some(seen), ..Done::default() })
    }

    /// Begins the sessions of the run; retried until every login has one.
    pub async fn log_in_all(&mut self) -> anyhow::Result<()> {
        let logins: Vec<&'static str> = TENANTS.iter().map(|plan| plan.login).chain([ANALYST]).collect();
        for login in logins {
            let core = {
                let seats = self.seats.lock();
                let seat = seats.values().next().ok_or_else(|| anyhow::anyhow!("nobody is there"))?;
                Arc::clone(&seat.core)
            };
            let caller = self.caller(None);
            let request = Login { login: login.into(), password: PASSWORD.into(), totp: None };
            let begun = core.login(&caller, request).await.map_err(|problem| anyhow::anyhow!("{login}: {problem}"))?;
            self.tokens.insert(login, begun.token);
        }
        Ok(())
    }

    /// Creates the meters.
    pub async fn create_meters(&self, random: &mut Random) -> anyhow::Result<()> {
        for (tenant, plan) in TENANTS.iter().enumerate() {
            for key in crate::setup::METER_KEYS {
                let seat = self.seat(0, random).ok_or_else(|| anyhow::anyhow!("nobody is there"))?;
                let caller = self.caller(Some(TENANTS[tenant].login));
                let failed = |problem: Problem| anyhow::anyhow!("{key}: {problem}");
                let session = seat.core.authenticate(&caller).await.map_err(failed)?;
                let at = RecordAt { tenant: plan.name.into(), table: METERS.into(), key: key.into() };
                let change = Change::Put([("n".to_owned(), Json::from(0))].into_iter().collect());
                let write = WriteOptions::default();
                let put = seat.core.write_record(&caller, &session, &at, change, Precondition::Absent, &write);
                put.await.map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// An event as it is told: each time the same.
fn line(op: &Op, signal: &Signal) -> Bytes {
    let Signal { kind, host, at_ms, value, uid, copy, .. } = signal;
    let mut line = serde_json::json!({
        "product": "doors", "kind": kind, "door": op.key, "value": value, "event": format!("ev~{}~", op.id),
        "device": {"hostname": format!("h{host}")}, "time": crate::clock::EPOCH_MS + at_ms,
    });
    if let Some(uid) = uid {
        line["metadata"] = serde_json::json!({"uid": uid});
        line["copy"] = (*copy).into();
    }
    line.to_string().into()
}

/// Wrong logins come from many addresses, so that none is locked out.
fn op_address(op: &Op) -> std::net::IpAddr {
    let [.., high, low] = op.id.to_be_bytes();
    std::net::IpAddr::from([198, 18, high, low])
}

/// An outcome as the history keeps it.
pub const fn outcome_of(asked: &Asked) -> Outcome {
    match asked {
        Asked::Ok(_) => Outcome::Ok,
        Asked::Failed(_) => Outcome::Failed,
        Asked::Unknown => Outcome::Unknown,
    }
}
