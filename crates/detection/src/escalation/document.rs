//! The policy document: TOML in, a book or errors with file, line and reason out.
//!
//! Everything is checked here, once: names, references, ranges, limits. A document with a fault is not taken
//! at all, for half a rota is worse than the one before it; all faults are told, at most [`ERRORS_MAX`].

mod calendar;
mod raw;

use super::book::{Book, Person, Policy, Step, Target, Team, Webhook};
use super::error::{PolicyError, Reason};
use super::{
    ACKNOWLEDGE_MS, DOCUMENT_SIZE_BYTES_MAX, ERRORS_MAX, ITEMS_MAX, MEMBERS_MAX, NAME_SIZE_BYTES_MAX, REPEATS_MAX,
    STEPS_MAX, TARGETS_MAX,
};
use crate::alert::{Entity, Severity};
use crate::incident::entity;
use crate::incident::risk::Criticality;
use raw::{RawAsset, RawBook, RawPerson, RawPolicy, RawStep, RawTeam, RawWebhook};
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use toml::Spanned;

/// Shortest and longest window in which alerts join.
const JOIN_WINDOW_MS: RangeInclusive<u64> = 5 * 60_000..=24 * 3_600_000;
/// Shortest and longest time after which an alert counts half.
const HALF_LIFE_MS: RangeInclusive<u64> = 3_600_000..=720 * 3_600_000;
/// Most characters of a text that an error repeats.
const SHOWN_MAX: usize = 120;

type Place = Range<usize>;
type Name = Spanned<String>;

/// The book of a document, or all that is wrong with it.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Book, Vec<PolicyError>> {
    let file: Arc<str> = file.into();
    let at_start = |reason| vec![PolicyError { file: Arc::clone(&file), line: 1, reason }];
    if bytes.len() > DOCUMENT_SIZE_BYTES_MAX {
        return Err(at_start(Reason::TooLarge));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| at_start(Reason::NotUtf8))?;
    let mut reader = Reader { file: Arc::clone(&file), text, errors: Vec::new(), book: Book::default() };
    match toml::from_str::<RawBook>(text) {
        Ok(raw) => reader.book(raw),
        Err(error) => reader.fault(error.span().unwrap_or(0..0), Reason::NotToml { cause: shown(error.message()) }),
    }
    if reader.errors.is_empty() { Ok(reader.book) } else { Err(reader.errors) }
}

struct Reader<'a> {
    file: Arc<str>,
    text: &'a str,
    errors: Vec<PolicyError>,
    book: Book,
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

impl Reader<'_> {
    fn fault(&mut self, at: Place, reason: Reason) {
        if self.errors.len() >= ERRORS_MAX {
            return;
        }
        let before = &self.text.as_bytes()[..at.start.min(self.text.len())];
        let line = u32::try_from(before.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(u32::MAX - 1) + 1;
        self.errors.push(PolicyError { file: Arc::clone(&self.file), line, reason });
    }

    fn book(&mut self, raw: RawBook) {
        if *raw.version.get_ref() != 1 {
            return self.fault(raw.version.span(), Reason::Version { found: *raw.version.get_ref() });
        }
        let counts = [raw.person.len(), raw.team.len(), raw.webhook.len(), raw.schedule.len(), raw.policy.len()];
        if counts.into_iter().chain([raw.asset.len()]).any(|count| count > ITEMS_MAX) {
            return self.fault(0..0, Reason::TooMany { what: "entries of a kind", max: ITEMS_MAX });
        }
        for webhook in raw.webhook {
            self.webhook(webhook);
        }
        for person in raw.person {
            self.person(person);
        }
        for team in raw.team {
            self.team(team);
        }
        for schedule in raw.schedule {
            self.schedule(schedule);
        }
        for asset in raw.asset {
            self.asset(asset.into_inner());
        }
        if raw.joining.never.len() > ITEMS_MAX {
            self.fault(0..0, Reason::TooMany { what: "entities that join nothing", max: ITEMS_MAX });
        }
        for text in &raw.joining.never {
            let entity = self.entity(text);
            self.book.join_never.extend(entity);
        }
        let (window, half_life) = (raw.joining.window.as_ref(), raw.risk.half_life.as_ref());
        self.book.join_window_ms = window.and_then(|text| self.span(text, "window", &JOIN_WINDOW_MS));
        self.book.half_life_ms = half_life.and_then(|text| self.span(text, "half_life", &HALF_LIFE_MS));
        let mut names = BTreeMap::new();
        for policy in raw.policy {
            if let Some(name) = self.name(&policy.get_ref().name, "the policy's name")
                && names.insert(name.clone(), ()).is_some()
            {
                self.fault(policy.get_ref().name.span(), Reason::Duplicate { name: shown(&name) });
            }
            self.policy(policy);
        }
        if self.book.policies.is_empty() && self.errors.is_empty() {
            self.fault(0..0, Reason::Empty { what: "policy" });
        }
    }

    /// A text that is neither empty nor too long.
    fn name(&mut self, name: &Name, what: &'static str) -> Option<Arc<str>> {
        let text = name.get_ref();
        if text.trim().is_empty() || text.len() > NAME_SIZE_BYTES_MAX || text.chars().any(char::is_control) {
            self.fault(name.span(), Reason::BadText { what });
            return None;
        }
        Some(text.as_str().into())
    }

    fn within(&mut self, at: Place, count: usize, max: usize, what: &'static str) -> bool {
        if count == 0 {
            self.fault(at, Reason::Empty { what });
        } else if count > max {
            self.fault(at, Reason::TooMany { what, max });
        } else {
            return true;
        }
        false
    }

    fn twice(&mut self, name: &Name) {
        self.fault(name.span(), Reason::Duplicate { name: shown(name.get_ref()) });
    }

    fn entity(&mut self, text: &Name) -> Option<Entity> {
        let found = text.get_ref().split_once(':').and_then(|(kind, name)| entity::parse(kind, name));
        if found.is_none() {
            self.fault(text.span(), Reason::BadEntity { text: shown(text.get_ref()) });
        }
        found
    }

    fn span(&mut self, text: &Name, what: &'static str, range_ms: &RangeInclusive<u64>) -> Option<u64> {
        let found = span_ms(text.get_ref()).filter(|span_ms| range_ms.contains(span_ms));
        if found.is_none() {
            let range = "5m to 24h for a window and 1h to 720h for a half-life, written as 90m or 2h";
            self.fault(text.span(), Reason::OutOfRange { what, range });
        }
        found
    }

    fn asset(&mut self, raw: RawAsset) {
        let found = self.entity(&raw.entity);
        let criticality = Criticality::from_name(raw.criticality.get_ref());
        if criticality.is_none() {
            self.unknown("criticality (low, normal, high, vital)", &raw.criticality);
        }
        if let (Some(entity), Some(criticality)) = (found, criticality)
            && self.book.assets.insert(entity, criticality).is_some()
        {
            self.twice(&raw.entity);
        }
    }

    fn webhook(&mut self, raw: Spanned<RawWebhook>) {
        let raw = raw.into_inner();
        let (Some(name), Some(url)) = (self.name(&raw.name, "the webhook's name"), self.name(&raw.url, "the URL"))
        else {
            return;
        };
        let host = url.strip_prefix("https://").unwrap_or_default();
        if host.is_empty() || host.starts_with('/') || url.contains(char::is_whitespace) {
            self.fault(raw.url.span(), Reason::NotHttps { url: shown(&url) });
        }
        if self.book.webhooks.insert(name.clone(), Webhook { name, url }).is_some() {
            self.twice(&raw.name);
        }
    }

    fn person(&mut self, raw: Spanned<RawPerson>) {
        let raw = raw.into_inner();
        let Some(login) = self.name(&raw.login, "the login") else { return };
        let email = raw.email.as_ref().and_then(|email| {
            let address = self.name(email, "the e-mail address")?;
            let parts = address.split_once('@');
            let fits = parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'));
            if !fits || address.contains(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | ',' | ';')) {
                self.fault(email.span(), Reason::BadAddress { address: shown(&address) });
            }
            Some(address)
        });
        let webhook = raw.webhook.as_ref().and_then(|name| {
            let found = self.book.webhooks.get(name.get_ref().as_str()).map(|webhook| webhook.name.clone());
            if found.is_none() {
                self.unknown("webhook", name);
            }
            found
        });
        if raw.email.is_none() && raw.webhook.is_none() {
            self.fault(raw.login.span(), Reason::Unreachable { login: shown(&login) });
        }
        if self.book.people.insert(login.clone(), Person { login, email, webhook }).is_some() {
            self.twice(&raw.login);
        }
    }

    fn unknown(&mut self, what: &'static str, name: &Name) {
        self.fault(name.span(), Reason::Unknown { what, name: shown(name.get_ref()) });
    }

    fn members(&mut self, at: Place, names: &[Name]) -> Vec<Arc<str>> {
        if !self.within(at, names.len(), MEMBERS_MAX, "members") {
            return Vec::new();
        }
        let mut members = Vec::new();
        for name in names {
            match self.book.people.get_key_value(name.get_ref().as_str()) {
                Some((login, _)) => members.push(login.clone()),
                None => self.unknown("person", name),
            }
        }
        members
    }

    fn team(&mut self, raw: Spanned<RawTeam>) {
        let raw = raw.into_inner();
        let members = self.members(raw.members.span(), raw.members.get_ref());
        let Some(name) = self.name(&raw.name, "the team's name") else { return };
        if self.book.teams.insert(name.clone(), Team { name, members }).is_some() {
            self.twice(&raw.name);
        }
    }

    fn policy(&mut self, raw: Spanned<RawPolicy>) {
        let (at, raw) = (raw.span(), raw.into_inner());
        let severity_min = Severity::from_name(raw.severity_min.get_ref());
        if severity_min.is_none() {
            self.unknown("severity", &raw.severity_min);
        }
        if *raw.repeats.get_ref() > REPEATS_MAX {
            self.fault(raw.repeats.span(), Reason::OutOfRange { what: "repeats", range: "0 to 10" });
        }
        if raw.tenants.len() > ITEMS_MAX {
            self.fault(at.clone(), Reason::TooMany { what: "tenants", max: ITEMS_MAX });
        }
        if !self.within(at, raw.step.len(), STEPS_MAX, "steps") {
            return;
        }
        let steps: Vec<Step> = raw.step.into_iter().filter_map(|step| self.step(step)).collect();
        let fallback = self.targets(&raw.fallback);
        let has_gaps = |targets: &[Target]| targets.iter().any(|target| matches!(target, Target::Schedule(_)));
        let is_certain = !fallback.is_empty() && !has_gaps(&fallback);
        if !is_certain && (has_gaps(&fallback) || steps.iter().any(|step| has_gaps(&step.notify))) {
            self.fault(raw.name.span(), Reason::NoFallback { name: shown(raw.name.get_ref()) });
        }
        let tenants = raw.tenants.iter().filter_map(|tenant| self.name(tenant, "the tenant")).collect();
        let name = raw.name.get_ref().as_str().into();
        let Some(severity_min) = severity_min else { return };
        let repeats = *raw.repeats.get_ref();
        self.book.policies.push(Policy { name, severity_min, tenants, repeats, steps, fallback });
    }

    fn step(&mut self, raw: Spanned<RawStep>) -> Option<Step> {
        let (at, raw) = (raw.span(), raw.into_inner());
        if !self.within(at, raw.notify.len(), TARGETS_MAX, "targets") {
            return None;
        }
        let notify = self.targets(&raw.notify);
        let within = &raw.acknowledge_within;
        let Some(acknowledge_within_ms) = span_ms(within.get_ref()).filter(|span_ms| ACKNOWLEDGE_MS.contains(span_ms))
        else {
            let range = "5s to 24h, written as 90s, 15m or 1h";
            self.fault(within.span(), Reason::OutOfRange { what: "acknowledge_within", range });
            return None;
        };
        Some(Step { notify, acknowledge_within_ms })
    }

    fn targets(&mut self, raw: &[Name]) -> Vec<Target> {
        if raw.len() > TARGETS_MAX {
            let at = raw.first().map_or(0..0, Spanned::span);
            self.fault(at, Reason::TooMany { what: "targets", max: TARGETS_MAX });
            return Vec::new();
        }
        raw.iter().filter_map(|text| self.target(text)).collect()
    }

    fn target(&mut self, text: &Name) -> Option<Target> {
        let (kind, name) = text.get_ref().split_once(':').unwrap_or_default();
        let (what, found) = match kind {
            "person" => ("person", self.book.people.get_key_value(name).map(|(name, _)| Target::Person(name.clone()))),
            "team" => ("team", self.book.teams.get_key_value(name).map(|(name, _)| Target::Team(name.clone()))),
            "schedule" => {
                ("schedule", self.book.schedules.get_key_value(name).map(|(name, _)| Target::Schedule(name.clone())))
            }
            "webhook" => {
                ("webhook", self.book.webhooks.get_key_value(name).map(|(name, _)| Target::Webhook(name.clone())))
            }
            _ => {
                self.fault(text.span(), Reason::BadTarget { text: shown(text.get_ref()) });
                return None;
            }
        };
        if found.is_none() {
            self.fault(text.span(), Reason::Unknown { what, name: shown(name) });
        }
        found
    }
}

/// A time span such as 90s, 15m or 1h.
fn span_ms(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit_ms = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(unit_ms)
}
