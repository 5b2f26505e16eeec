//! Why a correlation fired among events, or what is missing: which of its rules match, what each group comes to.
//!
//! Whether it fired the detector says. What a group comes to is counted here, for the reader: it decides nothing.

use crate::alert::Alert;
use crate::correlation::{Measure, Shape, number, parts};
use crate::engine::{Detector, Effect, Input, Options, text_of};
use crate::event::Event;
use crate::rules::{CorrelationPlan, Feed, Origin, RuleSet};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most groups of one correlation that are told.
const GROUPS_MAX: usize = 16;
/// Most events of one group that are looked through for what it came to.
const ENTRIES_MAX: usize = 1_000;
/// A time after all events.
const NOW_MS: u64 = u64::MAX / 4;

/// What a correlation found among events.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CorrelationExplained {
    /// Its id.
    pub rule: String,
    /// Its title.
    pub title: String,
    /// What it waits for, in words.
    pub waits_for: String,
    /// Within what time.
    pub timespan_ms: u64,
    /// What it groups by.
    pub group_by: Vec<String>,
    /// How often it fired.
    pub fired: usize,
    /// The rules it is about.
    pub feeds: Vec<FeedExplained>,
    /// The groups that fired or came nearest, at most a few.
    pub groups: Vec<GroupExplained>,
    /// How many groups there are.
    pub groups_total: usize,
}

/// One of the rules a correlation is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FeedExplained {
    /// Its id.
    pub rule: String,
    /// How many events it matched, or how often it fired where it is a correlation.
    pub matched: usize,
    /// How many of them counted for nothing, because a field that is grouped by or reckoned with is not there.
    pub left_out: usize,
    /// Those fields.
    pub lacking: BTreeSet<String>,
}

/// One group of a correlation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupExplained {
    /// The values it has in common.
    pub group: BTreeMap<String, String>,
    /// How often it fired.
    pub fired: usize,
    /// How many events count for it.
    pub events: usize,
    /// What it came to at most within the timespan, and what was missing.
    pub best: String,
}

/// What counts for a group.
#[derive(Clone)]
struct Entry {
    time_ms: u64,
    slot: u32,
    value: String,
}

/// Explains the correlation of an id or name; where none is given, all that any event counts for. Nothing where no
/// correlation is called so.
pub fn explain_correlations(rules: &RuleSet, key: Option<&str>, events: &[Event]) -> Vec<CorrelationExplained> {
    let is_wanted = |plan: &CorrelationPlan| {
        let header = &plan.header;
        key.is_none_or(|key| &*header.reference.id == key || header.name.as_deref() == Some(key))
    };
    if !rules.correlations.iter().any(|plan| is_wanted(plan)) {
        return Vec::new();
    }
    let fired = fired(rules, events);
    let hits = hits(rules, events);
    let wanted = rules.correlations.iter().filter(|plan| is_wanted(plan));
    let explained = wanted.map(|plan| one(rules, plan, events, &hits, &fired));
    explained.filter(|one| key.is_some() || one.feeds.iter().any(|feed| feed.matched > 0)).collect()
}

/// The alerts that each correlation raises, by its id; also of those that only feed others.
fn fired(rules: &RuleSet, events: &[Event]) -> BTreeMap<Arc<str>, Vec<Arc<Alert>>> {
    let mut set = rules.clone();
    for plan in &mut set.correlations {
        let plan = Arc::make_mut(plan);
        plan.alerts = true;
        plan.header.shadow = false;
    }
    let options = Options { allowed_lateness_ms: u64::MAX / 8, ..Options::default() };
    let (mut detector, mut effects) = (Detector::new(set, options), Vec::new());
    for event in events {
        detector.step(NOW_MS, Input::Event(event.clone()), &mut effects);
    }
    detector.finish(NOW_MS, &mut effects);
    let mut standing = BTreeMap::new();
    for effect in effects {
        match effect {
            Effect::Alert(alert) => drop(standing.insert(alert.id, alert)),
            Effect::Superseded { old, .. } => drop(standing.remove(&old)),
            Effect::Extended { .. } => {}
        }
    }
    let mut by_rule: BTreeMap<Arc<str>, Vec<Arc<Alert>>> = BTreeMap::new();
    for alert in standing.into_values() {
        by_rule.entry(alert.rule.id.clone()).or_default().push(alert);
    }
    by_rule
}

/// For each rule, the places of the events that it matches.
fn hits(rules: &RuleSet, events: &[Event]) -> BTreeMap<usize, Vec<usize>> {
    let mut hits: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut worker = rules.program.worker();
    for (place, event) in events.iter().enumerate() {
        rules.program.run(&mut worker, event);
        for rule in worker.hits() {
            hits.entry(rule).or_default().push(place);
        }
    }
    hits
}

fn one(
    rules: &RuleSet,
    plan: &CorrelationPlan,
    events: &[Event],
    hits: &BTreeMap<usize, Vec<usize>>,
    fired: &BTreeMap<Arc<str>, Vec<Arc<Alert>>>,
) -> CorrelationExplained {
    let mut groups: BTreeMap<Vec<String>, Vec<Entry>> = BTreeMap::new();
    let mut feeds = Vec::new();
    for feed in &plan.feeds {
        let mut take = Taking { feed, groups: &mut groups, left_out: 0, lacking: BTreeSet::new() };
        let (header, matched) = match feed.origin {
            Origin::Rule(rule) => {
                let places = hits.get(&rule).map_or(&[][..], Vec::as_slice);
                for event in places.iter().map(|place| &events[*place]) {
                    take.entry(event.time_ms, &|field| text_of(&event.fields, field));
                }
                (&rules.rules[rule].header, places.len())
            }
            Origin::Correlation(other) => {
                let header = &rules.correlations[other].header;
                let alerts = fired.get(&header.reference.id).map_or(&[][..], Vec::as_slice);
                for alert in alerts {
                    take.entry(alert.last_ms, &|field| alert.group_key.get(field).cloned());
                }
                (header, alerts.len())
            }
        };
        let Taking { left_out, lacking, .. } = take;
        feeds.push(FeedExplained { rule: header.reference.id.to_string(), matched, left_out, lacking });
    }
    let alerts = fired.get(&plan.header.reference.id).map_or(&[][..], Vec::as_slice);
    let reader = Reader { rules, plan };
    let groups_total = groups.len();
    let mut groups: Vec<GroupExplained> = groups
        .into_iter()
        .map(|(group, mut entries)| {
            entries.sort_by_key(|entry| entry.time_ms);
            let group: BTreeMap<String, String> = plan.group_by.iter().cloned().zip(group).collect();
            let fired = alerts.iter().filter(|alert| alert.group_key == group).count();
            GroupExplained { fired, events: entries.len(), best: reader.best(&entries), group }
        })
        .collect();
    groups.sort_by(|a, b| (b.fired, b.events).cmp(&(a.fired, a.events)).then_with(|| a.group.cmp(&b.group)));
    groups.truncate(GROUPS_MAX);
    CorrelationExplained {
        rule: plan.header.reference.id.to_string(),
        title: plan.header.reference.title.to_string(),
        waits_for: reader.waits_for(),
        timespan_ms: plan.timespan_ms,
        group_by: plan.group_by.clone(),
        fired: alerts.len(),
        feeds,
        groups,
        groups_total,
    }
}

/// Takes what a rule matched into groups, as the detector does.
struct Taking<'a> {
    feed: &'a Feed,
    groups: &'a mut BTreeMap<Vec<String>, Vec<Entry>>,
    left_out: usize,
    lacking: BTreeSet<String>,
}

impl Taking<'_> {
    fn entry(&mut self, time_ms: u64, text: &dyn Fn(&str) -> Option<String>) {
        let first = |names: &Vec<String>| names.iter().find_map(|name| text(name)).ok_or_else(|| names.join(" or "));
        let all = |fields: &[Vec<String>]| fields.iter().map(first).collect::<Result<Vec<_>, _>>();
        match (all(&self.feed.group_fields), all(&self.feed.value_fields)) {
            (Ok(group), Ok(values)) => {
                let entry = Entry { time_ms, slot: self.feed.slot, value: values.join(", ") };
                self.groups.entry(group).or_default().push(entry);
            }
            (group, values) => {
                self.left_out += 1;
                self.lacking.extend([group.err(), values.err()].into_iter().flatten());
            }
        }
    }
}

/// Says what groups of one correlation came to.
struct Reader<'a> {
    rules: &'a RuleSet,
    plan: &'a CorrelationPlan,
}

impl Reader<'_> {
    fn name(&self, slot: u32) -> &str {
        let feed = self.plan.feeds.iter().find(|feed| feed.slot == slot);
        feed.map_or("", |feed| match feed.origin {
            Origin::Rule(rule) => &*self.rules.rules[rule].header.reference.id,
            Origin::Correlation(other) => &*self.rules.correlations[other].header.reference.id,
        })
    }

    fn names(&self, slots: impl IntoIterator<Item = u32>) -> String {
        slots.into_iter().map(|slot| self.name(slot)).collect::<Vec<_>>().join(", ")
    }

    fn counts_rules(&self) -> bool {
        self.plan.feeds.iter().all(|feed| feed.value_fields.is_empty())
    }

    fn waits_for(&self) -> String {
        let ways = |ways: &[Vec<u32>]| {
            let each: Vec<String> = ways.iter().take(GROUPS_MAX).map(|way| self.names(way.iter().copied())).collect();
            each.join("; or ")
        };
        match &self.plan.shape {
            Shape::Count { at_least } => format!("at least {at_least} events"),
            Shape::Distinct { at_least } if self.counts_rules() => format!("at least {at_least} of the rules"),
            Shape::Distinct { at_least } => format!("at least {at_least} different values"),
            Shape::Sum { at_least } => format!("values that sum up to {}", number(*at_least)),
            Shape::Ordered { ways: all } => format!("in this order: {}", ways(all)),
            Shape::Either { ways: all } => format!("all of: {}", ways(all)),
            Shape::Window { measure, bounds } => {
                let bounds: Vec<String> =
                    bounds.iter().map(|bound| format!("{} {}", bound.comparison.sign(), bound.value)).collect();
                format!("a window whose {} is {}", measure_name(*measure), bounds.join(" and "))
            }
            Shape::Absent { ways, ordered } => {
                let each = ways.iter().take(GROUPS_MAX).map(|way| {
                    let matching = self.names(way.positive.iter().copied());
                    format!("{matching} without {}", self.names(way.negative.iter().copied()))
                });
                let order = if *ordered { "in order: " } else { "" };
                format!("{order}{}", each.collect::<Vec<_>>().join("; or "))
            }
        }
    }

    /// What a group came to at most; entries are in the order of their times.
    fn best(&self, entries: &[Entry]) -> String {
        let entries = &entries[..entries.len().min(ENTRIES_MAX)];
        let timespan_ms = self.plan.timespan_ms;
        let windows = move || {
            (0..entries.len()).map(move |from| {
                let end_ms = entries[from].time_ms.saturating_add(timespan_ms);
                let to = entries.partition_point(|entry| entry.time_ms <= end_ms);
                &entries[from..to]
            })
        };
        let distinct = |window: &[Entry]| {
            let value = |entry: &Entry| if self.counts_rules() { entry.slot.to_string() } else { entry.value.clone() };
            window.iter().map(value).collect::<BTreeSet<_>>().len()
        };
        match &self.plan.shape {
            Shape::Count { at_least } => {
                let most = windows().map(<[Entry]>::len).max().unwrap_or(0);
                format!("at most {most} of {at_least} events within the timespan")
            }
            Shape::Distinct { at_least } => {
                let most = windows().map(distinct).max().unwrap_or(0);
                let what = if self.counts_rules() { "rules" } else { "values" };
                format!("at most {most} of {at_least} different {what} within the timespan")
            }
            Shape::Sum { at_least } => {
                let positive = |entry: &Entry| entry.value.trim().parse().map_or(0, |value: f64| parts(value)).max(0);
                let most = windows().map(|window| window.iter().map(positive).sum::<i128>()).max().unwrap_or(0);
                format!("at most {} of {} within the timespan", number(most), number(*at_least))
            }
            Shape::Ordered { ways } => self.furthest(windows(), ways, true),
            Shape::Either { ways } => self.furthest(windows(), ways, false),
            Shape::Window { measure: Measure::Events, .. } => {
                format!(
                    "from {} to {} events in a window",
                    least(tiles(entries, self.plan), <[Entry]>::len),
                    most(tiles(entries, self.plan), <[Entry]>::len)
                )
            }
            Shape::Window { measure: Measure::Distinct, .. } => {
                format!(
                    "from {} to {} different ones in a window",
                    least(tiles(entries, self.plan), distinct),
                    most(tiles(entries, self.plan), distinct)
                )
            }
            Shape::Window { .. } => format!("{} windows were judged", tiles(entries, self.plan).count()),
            Shape::Absent { .. } => {
                let seen: BTreeSet<u32> = entries.iter().map(|entry| entry.slot).collect();
                format!("matched: {}", self.names(seen))
            }
        }
    }

    /// How far the ways were followed within one timespan, and what did not match.
    fn furthest<'e>(&self, windows: impl Iterator<Item = &'e [Entry]>, ways: &[Vec<u32>], ordered: bool) -> String {
        let mut best: Option<(usize, Vec<u32>)> = None;
        for window in windows {
            for way in ways {
                let missing: Vec<u32> = if ordered {
                    let mut rest = window.iter();
                    let followed = way.iter().take_while(|slot| rest.any(|entry| entry.slot == **slot)).count();
                    way[followed..].to_vec()
                } else {
                    way.iter().copied().filter(|slot| !window.iter().any(|entry| entry.slot == *slot)).collect()
                };
                if best.as_ref().is_none_or(|(_, known)| missing.len() < known.len()) {
                    best = Some((way.len() - missing.len(), missing));
                }
            }
        }
        let (followed, missing) = best.unwrap_or_default();
        if missing.is_empty() {
            return format!("all {followed} rules matched within the timespan");
        }
        let what = if ordered { "then was missing" } else { "missing were" };
        let missing = if ordered { self.name(missing[0]).to_owned() } else { self.names(missing) };
        format!("at most {followed} rules matched within the timespan; {what}: {missing}")
    }
}

/// Windows that do not overlap, each beginning with the first event after the one before.
fn tiles<'e>(entries: &'e [Entry], plan: &CorrelationPlan) -> impl Iterator<Item = &'e [Entry]> {
    let timespan_ms = plan.timespan_ms;
    let mut rest = entries;
    std::iter::from_fn(move || {
        let end_ms = rest.first()?.time_ms.saturating_add(timespan_ms);
        let (window, after) = rest.split_at(rest.partition_point(|entry| entry.time_ms <= end_ms));
        rest = after;
        Some(window)
    })
}

fn least<'e>(windows: impl Iterator<Item = &'e [Entry]>, count: impl Fn(&[Entry]) -> usize) -> usize {
    windows.map(count).min().unwrap_or(0)
}

fn most<'e>(windows: impl Iterator<Item = &'e [Entry]>, count: impl Fn(&[Entry]) -> usize) -> usize {
    windows.map(count).max().unwrap_or(0)
}

fn measure_name(measure: Measure) -> &'static str {
    match measure {
        Measure::Events => "number of events",
        Measure::Distinct => "number of different values or rules",
        Measure::InOrder => "number of rules in order",
        Measure::Sum => "sum",
        Measure::Average => "average",
        Measure::Percentile(_) => "percentile",
        Measure::Share => "share of one value, in percent,",
    }
}
