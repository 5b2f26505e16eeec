//! Schedules of a policy document: zones, days, times of day, turns and overrides.

use super::raw::{RawLayer, RawOverride, RawSchedule};
use super::{Name, Reader, shown};
use crate::escalation::error::Reason;
use crate::escalation::rota::{Layer, Override, Schedule, millisecond};
use crate::escalation::{LAYERS_MAX, OVERRIDES_MAX, TURN_DAYS_MAX};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use toml::Spanned;

impl Reader<'_> {
    pub(super) fn schedule(&mut self, raw: Spanned<RawSchedule>) {
        let (at, raw) = (raw.span(), raw.into_inner());
        let Some(zone) = zone(raw.time_zone.get_ref()) else {
            return self.fault(raw.time_zone.span(), Reason::BadZone { name: shown(raw.time_zone.get_ref()) });
        };
        if !self.within(at.clone(), raw.layer.len(), LAYERS_MAX, "layers") {
            return;
        }
        if raw.stand_in.len() > OVERRIDES_MAX {
            return self.fault(at, Reason::TooMany { what: "overrides", max: OVERRIDES_MAX });
        }
        let layers: Vec<Layer> = raw.layer.into_iter().filter_map(|layer| self.layer(layer)).collect();
        let overrides = raw.stand_in.into_iter().filter_map(|one| self.stand_in(&zone, one)).collect();
        let Some(name) = self.name(&raw.name, "the schedule's name") else { return };
        if self.book.schedules.insert(name.clone(), Schedule { name, zone, layers, overrides }).is_some() {
            self.twice(&raw.name);
        }
    }

    fn layer(&mut self, raw: Spanned<RawLayer>) -> Option<Layer> {
        let raw = raw.into_inner();
        let members = self.members(raw.members.span(), raw.members.get_ref());
        let every_days = *raw.every_days.get_ref();
        if !(1..=TURN_DAYS_MAX).contains(&every_days) {
            self.fault(raw.every_days.span(), Reason::OutOfRange { what: "every_days", range: "1 to 366" });
        }
        let mut days = [raw.days.is_none(); 7];
        for name in raw.days.iter().flatten() {
            const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
            match DAYS.iter().position(|day| day == name.get_ref()) {
                Some(day) => days[day] = true,
                None => self.bad_time(name, "a day such as monday"),
            }
        }
        let hours = match raw.hours.as_ref().map(|hours| (hours.span(), hours.get_ref().as_slice())) {
            None => None,
            Some((_, [from, to])) => {
                let (from, to) = (self.time(from)?, self.time(to)?);
                (from != to).then_some((from, to))
            }
            Some((at, _)) => {
                self.fault(
                    at,
                    Reason::OutOfRange { what: "hours", range: "two times of day, such as 08:00 and 18:00" },
                );
                None
            }
        };
        if !days.contains(&true) {
            let at = raw.days.as_ref().and_then(|days| days.first()).map_or(raw.members.span(), Spanned::span);
            self.fault(at, Reason::Empty { what: "days" });
        }
        let from = civil::<Date>(raw.from.get_ref(), 10);
        if from.is_none() {
            self.bad_time(&raw.from, "a day such as 2026-01-05");
        }
        Some(Layer { members, from: from?, hand_over: self.time(&raw.hand_over)?, every_days, days, hours })
    }

    fn stand_in(&mut self, zone: &TimeZone, raw: Spanned<RawOverride>) -> Option<Override> {
        let raw = raw.into_inner();
        let mut at = |name: &Name| {
            let local = civil::<DateTime>(name.get_ref(), 16).and_then(|local| zone.to_timestamp(local).ok());
            let found = local.and_then(millisecond);
            if found.is_none() {
                self.bad_time(name, "a day and time such as 2026-12-24T09:00");
            }
            found
        };
        let (from_ms, to_ms) = (at(&raw.from)?, at(&raw.to)?);
        if to_ms <= from_ms {
            self.fault(raw.to.span(), Reason::Backwards);
        }
        let Some((login, _)) = self.book.people.get_key_value(raw.login.get_ref().as_str()) else {
            self.unknown("person", &raw.login);
            return None;
        };
        Some(Override { login: login.clone(), from_ms, to_ms })
    }

    fn bad_time(&mut self, name: &Name, expected: &'static str) {
        self.fault(name.span(), Reason::BadTime { text: shown(name.get_ref()), expected });
    }

    fn time(&mut self, name: &Name) -> Option<Time> {
        let time = civil::<Time>(name.get_ref(), 5);
        if time.is_none() {
            self.bad_time(name, "a time of day such as 09:00");
        }
        time
    }
}

/// A zone by its name, from the program's own database.
fn zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

/// A date or time written in full and no longer.
fn civil<T: std::str::FromStr>(text: &str, length: usize) -> Option<T> {
    (text.len() == length).then(|| text.parse().ok()).flatten()
}
