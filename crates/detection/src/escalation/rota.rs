//! Who is on call: turns by the calendar of a place, with overrides.
//!
//! Times of day are local: a turn begins at nine in summer and in winter. A hand-over at a time that a change
//! of clocks skips is as long after midnight as it would have been; one that comes twice is at the first.
//! Zones come with the program, so two nodes never disagree.

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How far ahead the edges of days are looked at for the next hand-over.
const DAYS_AHEAD: i64 = 15;

/// One rota: members take turns.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Logins, in the order of their turns; not empty.
    pub members: Vec<Arc<str>>,
    /// The day of the first turn.
    pub from: Date,
    /// When turns begin, by local time.
    pub hand_over: Time,
    /// How many days a turn has; at least one.
    pub every_days: u32,
    /// On which days somebody is on call, from 0 for Monday; a shift that passes midnight counts by its beginning.
    pub days: [bool; 7],
    /// From when until when on these days; past midnight where it ends before it begins. `None` for all day.
    pub hours: Option<(Time, Time)>,
}

/// Someone stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Who.
    pub login: Arc<str>,
    /// From when, in milliseconds since 1970.
    pub from_ms: u64,
    /// Until when; no longer then.
    pub to_ms: u64,
}

/// Who is on call when.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Its name.
    pub name: Arc<str>,
    /// Where its days begin.
    pub zone: TimeZone,
    /// Rotas: the last that has somebody at a time is the one.
    pub layers: Vec<Layer>,
    /// Those who stand in: the last that covers a time is the one, before all layers.
    pub overrides: Vec<Override>,
}

impl Schedule {
    /// Who is on call at a time; `None` where nobody is.
    pub fn on_call(&self, at_ms: u64) -> Option<&str> {
        let stands_in = self.overrides.iter().rev().find(|one| (one.from_ms..one.to_ms).contains(&at_ms));
        if let Some(one) = stands_in {
            return Some(&one.login);
        }
        let at = timestamp(at_ms)?;
        self.layers.iter().rev().find_map(|layer| layer.on_call(&self.zone, at))
    }

    /// Everybody who can ever be on call.
    pub fn people(&self) -> BTreeSet<Arc<str>> {
        let members = self.layers.iter().flat_map(|layer| &layer.members);
        members.chain(self.overrides.iter().map(|one| &one.login)).cloned().collect()
    }

    /// When somebody else is on call next, and who; `None` where nobody is. Looks ahead over every member's
    /// next turn and the days of [`DAYS_AHEAD`].
    pub fn next_hand_over(&self, at_ms: u64) -> Option<(u64, Option<&str>)> {
        let now = self.on_call(at_ms);
        let mut edges: BTreeSet<u64> = self.overrides.iter().flat_map(|one| [one.from_ms, one.to_ms]).collect();
        let at = timestamp(at_ms)?;
        edges.extend(self.layers.iter().flat_map(|layer| layer.edges(&self.zone, at)));
        edges.range(at_ms + 1..).map(|edge| (*edge, self.on_call(*edge))).find(|(_, next)| *next != now)
    }
}

impl Layer {
    fn on_call(&self, zone: &TimeZone, at: Timestamp) -> Option<&str> {
        if !self.covers(zone, at) {
            return None;
        }
        let turn = self.turn(zone, at)?;
        let place = usize::try_from(turn).ok()? % self.members.len().max(1);
        self.members.get(place).map(|login| &**login)
    }

    /// How many turns were before the one at a time.
    fn turn(&self, zone: &TimeZone, at: Timestamp) -> Option<i64> {
        let mut day = zone.to_datetime(at).date();
        if at < zone.to_timestamp(day.to_datetime(self.hand_over)).ok()? {
            day = day.yesterday().ok()?;
        }
        let days = days_between(self.from, day);
        (days >= 0).then(|| days / i64::from(self.every_days.max(1)))
    }

    fn covers(&self, zone: &TimeZone, at: Timestamp) -> bool {
        let local = zone.to_datetime(at);
        let on = |date: Date| self.days[weekday(date)];
        match self.hours {
            None => on(local.date()),
            Some((from, to)) if from < to => on(local.date()) && (from..to).contains(&local.time()),
            // The shift passes midnight: before `to` it is yesterday's.
            Some((from, _)) if local.time() >= from => on(local.date()),
            Some((_, to)) => local.time() < to && local.date().yesterday().is_ok_and(on),
        }
    }

    /// When it may change who is on call.
    fn edges(&self, zone: &TimeZone, at: Timestamp) -> Vec<u64> {
        let today = zone.to_datetime(at).date();
        let every = i64::from(self.every_days.max(1));
        let turn = days_between(self.from, today).max(0) / every;
        let turns = (turn..=turn + self.members.len() as i64 + 1).map(|turn| (turn * every, self.hand_over));
        let turns = turns.filter_map(|(days, time)| Some(plus(self.from, days)?.to_datetime(time)));
        let times = self.hours.map_or([Time::midnight(); 2], |(from, to)| [from, to]);
        let days = (0..=DAYS_AHEAD).filter_map(|days| plus(today, days));
        let days = days.flat_map(|day| times.map(|time| day.to_datetime(time)));
        turns.chain(days).filter_map(|local| millisecond(zone.to_timestamp(local).ok()?)).collect()
    }
}

/// From 0 for Monday.
pub(super) fn weekday(date: Date) -> usize {
    usize::try_from(date.weekday().to_monday_zero_offset()).unwrap_or(0) % 7
}

fn plus(date: Date, days: i64) -> Option<Date> {
    date.checked_add(jiff::SignedDuration::from_hours(days.checked_mul(24)?)).ok()
}

fn days_between(from: Date, to: Date) -> i64 {
    to.duration_since(from).as_hours() / 24
}

fn timestamp(at_ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(at_ms).ok()?).ok()
}

pub(super) fn millisecond(at: Timestamp) -> Option<u64> {
    u64::try_from(at.as_millisecond()).ok()
}
