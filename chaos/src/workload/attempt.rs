//! One operation, with as many attempts as its time allows, and an honest outcome.

use super::Shared;
use crate::client::{Answer, CALL_WITHIN, Call, CallError, WAITING_CALL_WITHIN};
use crate::history::{Act, Operation, Outcome};
use reqwest::Method;
use serde_json::json;
use std::time::Duration;

/// From asking to giving up.
const OPERATION_WITHIN_US: u64 = 10_000_000;
/// After every node of the region was tried in vain.
const ROUND_PAUSE: Duration = Duration::from_millis(25);

/// What a client is asked to do.
pub(super) struct Errand {
    pub(super) act: Act,
    /// The client's region.
    pub(super) home: usize,
    /// What its session has seen.
    pub(super) seen: Option<String>,
    /// Names the operation: part of its idempotency key.
    pub(super) number: u64,
    /// Whether another region will do when none of its own nodes takes connections.
    pub(super) may_leave: bool,
}

/// What one attempt came to.
enum Attempt {
    Done(Box<Answer>),
    /// It certainly did not happen, and no other node will do it either.
    Refused(String),
    /// It did not happen here; elsewhere it may.
    Elsewhere(String),
    /// Nobody knows.
    Lost(String),
}

impl Shared {
    /// Carries an operation out; answers what happened, and what the session has seen now.
    pub(super) async fn carry_out(&self, mut errand: Errand) -> (Operation, Option<String>) {
        let invoked_us = self.now_us();
        let mut may_have_happened = false;
        let mut error = None;
        let mut region = errand.home;
        while self.now_us() < invoked_us + OPERATION_WITHIN_US {
            if errand.may_leave && !may_have_happened && self.compass.is_gone(region) {
                region = (region + 1) % self.settings.regions.len();
                self.leave(&mut errand);
            }
            for index in self.compass.round(region) {
                match self.attempt(&errand, index).await {
                    Attempt::Done(answer) => return self.done(errand, invoked_us, index, *answer, error),
                    Attempt::Refused(why) => {
                        let outcome = if may_have_happened { Outcome::Unknown } else { Outcome::Failed };
                        return (self.undone(errand, invoked_us, outcome, Some(why)), None);
                    }
                    Attempt::Elsewhere(why) => error = Some(why),
                    Attempt::Lost(why) => {
                        may_have_happened |= errand.act.is_write();
                        error = Some(why);
                    }
                }
                if self.now_us() >= invoked_us + OPERATION_WITHIN_US {
                    break;
                }
            }
            if may_have_happened || !errand.may_leave || !self.compass.is_gone(region) {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
        }
        let outcome = if may_have_happened { Outcome::Unknown } else { Outcome::Failed };
        (self.undone(errand, invoked_us, outcome, error), None)
    }

    /// Registers belong to their region: a client that leaves it does something else instead.
    fn leave(&self, errand: &mut Errand) {
        if matches!(errand.act, Act::RegisterRead { .. } | Act::RegisterWrite { .. }) {
            errand.act = self.create(errand.home, errand.number);
        }
    }

    async fn attempt(&self, errand: &Errand, index: usize) -> Attempt {
        let call = self.call(errand);
        match self.client.send(self.door(index), &call).await {
            Ok(answer) if answer.is_success() => Attempt::Done(Box::new(answer)),
            Ok(answer) if answer.status == 404 && !errand.act.is_write() => Attempt::Done(Box::new(answer)),
            Ok(answer) => {
                let why = format!("{}: {}", self.door(index).node, answer.problem());
                match answer.status {
                    // Not applied yet, here: 425 (behind), 429 (too many).
                    425 | 429 => Attempt::Elsewhere(why),
                    500.. => {
                        self.compass.slow(index);
                        Attempt::Lost(why)
                    }
                    _ => Attempt::Refused(why),
                }
            }
            Err(CallError::NotSent(why)) => {
                self.compass.refused(index);
                Attempt::Elsewhere(format!("{}: {why}", self.door(index).node))
            }
            Err(CallError::Lost(why)) => {
                self.compass.slow(index);
                Attempt::Lost(format!("{}: {why}", self.door(index).node))
            }
        }
    }

    fn call(&self, errand: &Errand) -> Call<'_> {
        let path = format!("{}/records/{}", self.settings.table, errand.act.key());
        let (method, query, body) = match &errand.act {
            Act::Create { .. } => (Method::PUT, "", Some(json!({"fields": {"value": errand.number}}))),
            Act::RegisterWrite { value, .. } | Act::HotWrite { value, .. } | Act::RoamWrite { value, .. } => {
                (Method::PATCH, "", Some(json!({"set": {"value": value}})))
            }
            Act::Add { .. } => (Method::PATCH, "", Some(json!({"increment": {"count": 1}}))),
            Act::RegisterRead { .. } => (Method::GET, "?level=linearizable", None),
            Act::RoamRead { .. } => (Method::GET, "?level=session", None),
        };
        let is_patch = method == Method::PATCH;
        let within = if matches!(errand.act, Act::RoamRead { .. }) { WAITING_CALL_WITHIN } else { CALL_WITHIN };
        let mut call = Call::new(method, format!("{path}{query}"), &self.settings.token).within(within);
        if let Some(body) = body {
            let home = &self.settings.regions[errand.home];
            call = call.json(&body).header("idempotency-key", format!("{}-{home}-{}", self.run, errand.number));
        }
        if is_patch {
            call = call.header("if-match", "*");
        }
        match &errand.seen {
            Some(seen) => call.header("holdfast-session", seen.clone()),
            None => call,
        }
    }

    fn done(
        &self,
        errand: Errand,
        invoked_us: u64,
        index: usize,
        answer: Answer,
        error: Option<String>,
    ) -> (Operation, Option<String>) {
        let mut act = errand.act;
        if let Act::RegisterRead { value, .. } | Act::RoamRead { value, .. } = &mut act {
            *value = answer.body["fields"]["value"].as_u64();
        }
        let operation = Operation {
            act,
            home: errand.home,
            served: Some(self.door(index).region),
            invoked_us,
            completed_us: self.now_us(),
            outcome: Outcome::Ok,
            request: Some(answer.request),
            is_replayed: answer.is_replayed,
            error,
        };
        (operation, answer.seen)
    }

    fn undone(&self, errand: Errand, invoked_us: u64, outcome: Outcome, error: Option<String>) -> Operation {
        Operation {
            act: errand.act,
            home: errand.home,
            served: None,
            invoked_us,
            completed_us: self.now_us(),
            outcome,
            request: None,
            is_replayed: false,
            error,
        }
    }
}
