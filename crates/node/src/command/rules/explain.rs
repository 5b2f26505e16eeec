//! `holdfast rules explain`: why rules match events, and what correlations make of them.

use super::{Events, Rules};
use anyhow::{Result, bail};
use detection::normalise::normalise;
use detection::report::{
    self, CorrelationExplained, Explanation, FieldExplained, GroupExplained, Part, SelectionExplained,
};
use serde::Serialize;
use std::io::Write;

/// What is said, for programs.
#[derive(Serialize)]
struct Answer {
    /// For each event, the rules that were asked about or match.
    events: Vec<Line>,
    /// What is about all of them together.
    correlations: Vec<CorrelationExplained>,
}

/// What is said of one event.
#[derive(Serialize)]
struct Line {
    /// Its line among those that are not empty, from 1.
    event: usize,
    /// Why it cannot be read.
    rejected: Option<String>,
    rules: Vec<Explanation>,
}

pub(super) fn explain(rules: &Rules, rule: Option<&str>, events: &Events) -> Result<()> {
    let set = rules.load_all()?;
    if let Some(rule) = rule {
        let headers = set.rules().iter().map(|one| &one.header).chain(set.correlations().iter().map(|one| &one.header));
        let mut named = headers.filter(|one| &*one.reference.id == rule || one.name.as_deref() == Some(rule));
        if named.next().is_none() {
            bail!("no rule has the id or name '{rule}'");
        }
    }
    let mut answer = Answer { events: Vec::new(), correlations: Vec::new() };
    let mut read = Vec::new();
    for (place, raw) in events.read()?.iter().enumerate() {
        let event = place + 1;
        match normalise(raw) {
            Ok(normalised) => {
                let rules = report::explain_all(&set, rule, &normalised);
                answer.events.push(Line { event, rejected: None, rules });
                read.push(normalised);
            }
            Err(reject) => {
                answer.events.push(Line { event, rejected: Some(reject.reason.to_string()), rules: Vec::new() });
            }
        }
    }
    answer.correlations = report::explain_correlations(&set, rule, &read);
    if !rules.printed(&answer)? {
        let mut out = std::io::stdout().lock();
        for line in &answer.events {
            match &line.rejected {
                Some(reason) => writeln!(out, "event {}: rejected: {reason}", line.event)?,
                // Of a correlation only what all events come to is told.
                None if rule.is_some() && line.rules.is_empty() => {}
                None => writeln!(out, "event {}: {} rules explained", line.event, line.rules.len())?,
            }
            line.rules.iter().try_for_each(|explanation| tell(&mut out, explanation))?;
        }
        answer.correlations.iter().try_for_each(|explained| tell_correlation(&mut out, explained))?;
    }
    Ok(())
}

fn mark(holds: bool) -> &'static str {
    if holds { "yes" } else { "no " }
}

fn tell(out: &mut impl Write, explanation: &Explanation) -> Result<()> {
    let verdict = if explanation.matches { "matches" } else { "does not match" };
    writeln!(out, "\n{} ({}) {verdict}", explanation.title, explanation.rule)?;
    let (wanted, source) =
        (serde_json::to_string(&explanation.wanted_source)?, serde_json::to_string(&explanation.source)?);
    writeln!(out, "  {} log source: wants {wanted}, the event is {source}", mark(explanation.source_fits))?;
    for condition in &explanation.conditions {
        let alone = if condition.holds == condition.holds_alone { "" } else { " (but for what was added to it)" };
        writeln!(out, "  {} condition: {}{alone}", mark(condition.holds), condition.condition)?;
    }
    for selection in &explanation.selections {
        tell_selection(out, "", selection)?;
    }
    for added in &explanation.added {
        let who = if added.is_filter { "added by the filter " } else { "added: " };
        tell_selection(out, who, &added.selection)?;
    }
    Ok(())
}

fn tell_selection(out: &mut impl Write, what: &str, selection: &SelectionExplained) -> Result<()> {
    writeln!(out, "  {} {what}{}", mark(selection.holds), selection.name)?;
    tell_part(out, &selection.part, 2)
}

fn tell_part(out: &mut impl Write, part: &Part, depth: usize) -> Result<()> {
    let indent = "  ".repeat(depth);
    match part {
        Part::All { holds, parts } | Part::Any { holds, parts } => {
            let word = if matches!(part, Part::All { .. }) { "all of" } else { "one of" };
            writeln!(out, "{indent}{} {word}", mark(*holds))?;
            parts.iter().try_for_each(|part| tell_part(out, part, depth + 1))
        }
        Part::Not { holds, part } => {
            writeln!(out, "{indent}{} not", mark(*holds))?;
            tell_part(out, part, depth + 1)
        }
        Part::Field(FieldExplained { holds, field, written, met, unmet, values, .. }) => {
            let is = if values.is_empty() { "is not there".to_owned() } else { format!("is {}", values.join(", ")) };
            let written =
                if written.is_empty() { String::new() } else { format!(" (the rule's {})", written.join(", ")) };
            let (met, unmet) = (met.join(", "), unmet.join(", "));
            writeln!(out, "{indent}{} {field}{written} {is}; met: [{met}], unmet: [{unmet}]", mark(*holds))?;
            Ok(())
        }
    }
}

fn tell_correlation(out: &mut impl Write, explained: &CorrelationExplained) -> Result<()> {
    let CorrelationExplained { rule, title, waits_for, timespan_ms, group_by, fired, feeds, groups, groups_total } =
        explained;
    let verdict = if *fired == 0 { "did not fire".to_owned() } else { format!("fired {fired} times") };
    writeln!(out, "\n{title} ({rule}) {verdict}")?;
    let by = if group_by.is_empty() { String::new() } else { format!(", by {}", group_by.join(", ")) };
    writeln!(out, "  waits for {waits_for} within {} s{by}", timespan_ms / 1_000)?;
    for feed in feeds {
        let lacking: Vec<&str> = feed.lacking.iter().map(String::as_str).collect();
        let left_out = match feed.left_out {
            0 => String::new(),
            count => format!("; {count} of them count for nothing: they have no {}", lacking.join(", ")),
        };
        writeln!(
            out,
            "  {} {} matched {} times{left_out}",
            mark(feed.matched > feed.left_out),
            feed.rule,
            feed.matched
        )?;
    }
    for GroupExplained { group, fired, events, best } in groups {
        let key: Vec<String> = group.iter().map(|(field, value)| format!("{field}={value}")).collect();
        let key = if key.is_empty() { "all together".to_owned() } else { key.join(", ") };
        writeln!(out, "  {} {key}: {events} events, fired {fired} times; {best}", mark(*fired > 0))?;
    }
    if *groups_total > groups.len() {
        writeln!(out, "  and {} groups more", groups_total - groups.len())?;
    }
    Ok(())
}
