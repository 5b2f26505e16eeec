//! Who there is and who is told: the policy document once it is known to be right.
//!
//! Every name in it is of something in it; nothing here is checked again.

use super::rota::Schedule;
use crate::alert::{Entity, Severity};
use crate::incident::risk::Criticality;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Someone who can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The login.
    pub login: Arc<str>,
    /// The e-mail address.
    pub email: Option<Arc<str>>,
    /// The webhook that reaches them.
    pub webhook: Option<Arc<str>>,
}

/// People who are told together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Team {
    /// Its name.
    pub name: Arc<str>,
    /// Logins.
    pub members: Vec<Arc<str>>,
}

/// A receiver of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Its name.
    pub name: Arc<str>,
    /// Where it listens; `https://`.
    pub url: Arc<str>,
}

/// Whom a step tells.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// One person.
    Person(Arc<str>),
    /// Everyone of a team.
    Team(Arc<str>),
    /// Whoever is on call.
    Schedule(Arc<str>),
    /// A receiver.
    Webhook(Arc<str>),
}

/// How a notification travels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// By mail.
    Email {
        /// To whom.
        address: Arc<str>,
    },
    /// By request.
    Webhook {
        /// The receiver's name.
        name: Arc<str>,
        /// Where it listens.
        url: Arc<str>,
    },
}

/// One step of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whom it tells.
    pub notify: Vec<Target>,
    /// After how long the next step comes, unless somebody acknowledged.
    pub acknowledge_within_ms: u64,
}

/// What is done about an incident until somebody acknowledges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: Arc<str>,
    /// Incidents less grave are not its.
    pub severity_min: Severity,
    /// Whose incidents are its; empty for everyone's.
    pub tenants: Vec<Arc<str>>,
    /// How many times all steps come again.
    pub repeats: u32,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Who is told where nobody is on call, and when the last step had no answer.
    pub fallback: Vec<Target>,
}

impl Policy {
    /// How long one round of its steps takes.
    pub fn round_ms(&self) -> u64 {
        self.steps.iter().map(|step| step.acknowledge_within_ms).sum()
    }
}

/// A whole policy document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Book {
    /// People by login.
    pub people: BTreeMap<Arc<str>, Person>,
    /// Teams by name.
    pub teams: BTreeMap<Arc<str>, Team>,
    /// Receivers by name.
    pub webhooks: BTreeMap<Arc<str>, Webhook>,
    /// Schedules by name.
    pub schedules: BTreeMap<Arc<str>, Schedule>,
    /// Policies in the order of the document: the first that fits is the one.
    pub policies: Vec<Policy>,
    /// How much depends on what, where it is not as usual: raises and lowers risk.
    pub assets: BTreeMap<Entity, Criticality>,
    /// Entities that join no alerts, such as a monitor's address.
    pub join_never: BTreeSet<Entity>,
    /// How far an alert may be from an incident that it joins, where that is not as usual.
    pub join_window_ms: Option<u64>,
    /// After how long an alert counts half, where that is not as usual.
    pub half_life_ms: Option<u64>,
}

impl Book {
    /// The policy for incidents of a tenant that are so grave.
    pub fn policy(&self, tenant: &str, severity: Severity) -> Option<&Policy> {
        let fits = |policy: &&Policy| {
            severity >= policy.severity_min
                && (policy.tenants.is_empty() || policy.tenants.iter().any(|known| &**known == tenant))
        };
        self.policies.iter().find(fits)
    }

    /// The policy for the gravest incidents of a tenant.
    pub fn gravest(&self, tenant: &str) -> Option<&Policy> {
        self.policy(tenant, Severity::Critical)
    }

    /// Everybody whom a policy can tell, at whatever time, and how.
    pub fn reaches(&self, policy: &Policy) -> BTreeSet<(String, Channel)> {
        let targets = policy.steps.iter().flat_map(|step| &step.notify).chain(&policy.fallback);
        let each = targets.flat_map(|target| match target {
            Target::Schedule(name) => {
                let people = self.schedules.get(name).map(Schedule::people).unwrap_or_default();
                people.into_iter().map(|login| (format!("person:{login}"), self.channels_of(&login))).collect()
            }
            other => self.reach(other, 0),
        });
        each.flat_map(|(target, channels)| channels.into_iter().map(move |one| (target.clone(), one))).collect()
    }

    /// What is right and yet may leave people uncalled.
    pub fn warnings(&self) -> Vec<String> {
        let lonely = self.policies.iter().filter(|policy| policy.fallback.is_empty());
        lonely
            .map(|policy| {
                format!("policy {} has no fallback: nobody is told when its last step had no answer", policy.name)
            })
            .collect()
    }

    /// Whom a target stands for at a time: for each a name that does not depend on the time, and the channels.
    /// Empty where nobody is on call.
    pub fn reach(&self, target: &Target, at_ms: u64) -> Vec<(String, Vec<Channel>)> {
        match target {
            Target::Person(login) => vec![(format!("person:{login}"), self.channels_of(login))],
            Target::Team(name) => {
                let members = self.teams.get(name).map_or(&[][..], |team| &team.members);
                members.iter().map(|login| (format!("team:{name}/{login}"), self.channels_of(login))).collect()
            }
            Target::Schedule(name) => {
                let on_call = self.schedules.get(name).and_then(|schedule| schedule.on_call(at_ms));
                on_call.map(|login| (format!("schedule:{name}"), self.channels_of(login))).into_iter().collect()
            }
            Target::Webhook(name) => vec![(format!("webhook:{name}"), self.webhook(name).into_iter().collect())],
        }
    }

    fn webhook(&self, name: &str) -> Option<Channel> {
        let webhook = self.webhooks.get(name)?;
        Some(Channel::Webhook { name: webhook.name.clone(), url: webhook.url.clone() })
    }

    fn channels_of(&self, login: &str) -> Vec<Channel> {
        let Some(person) = self.people.get(login) else { return Vec::new() };
        let email = person.email.as_ref().map(|address| Channel::Email { address: address.clone() });
        let webhook = person.webhook.as_ref().and_then(|name| self.webhook(name));
        email.into_iter().chain(webhook).collect()
    }
}
