//! rsigma beside Holdfast: reads rules and events once, then does on one thread what lines of stdin ask for.
//!
//! `round WAY` judges all events once, from their bytes, and tells the processor time; `matches WAY` tells the ids of
//! the rules that match each event. Every answer ends with a line. All ways but `pruned` give the same answer.

use rsigma_eval::{Engine, EvaluationResult, JsonEvent, LogSourceExtractor};
use rsigma_parser::{LogSource, SigmaRule, parse_sigma_directory};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead as _, Write as _};
use std::path::Path;

/// What of a log source routes: product, category, service.
type Route = [Option<String>; 3];

/// Every way of asking.
const WAYS: [&str; 6] = ["pruned", "strict", "strict+bloom", "strict+index", "parted", "parted+index"];

struct Beside {
    rules: Vec<SigmaRule>,
    engine: Engine,
    indexed: Option<Engine>,
    /// An engine for each log source of an event, with the rules for it alone.
    parted: HashMap<Route, Engine>,
    parted_indexed: HashMap<Route, Engine>,
    extractor: LogSourceExtractor,
}

fn route(source: &LogSource) -> Route {
    [&source.product, &source.category, &source.service].map(Clone::clone)
}

/// Whether a rule is for events of a log source: what it names, the event must have.
fn admits(rule: &LogSource, event: &Route) -> bool {
    let same = |(want, is): (&Option<String>, &Option<String>)| {
        want.as_ref().is_none_or(|want| is.as_ref().is_some_and(|is| is.eq_ignore_ascii_case(want)))
    };
    route(rule).iter().zip(event).all(same)
}

impl Beside {
    fn new(rules: Vec<SigmaRule>) -> Self {
        let mut engine = Engine::new();
        for (place, error) in engine.add_rules(&rules) {
            eprintln!("rsigma left out {:?}: {error}", rules[place].id);
        }
        let (parted, parted_indexed) = (HashMap::new(), HashMap::new());
        Self { rules, engine, indexed: None, parted, parted_indexed, extractor: LogSourceExtractor::new() }
    }

    /// Makes what a way needs before it is measured.
    fn prepare(&mut self, way: &str, lines: &[&str]) -> Result<(), Box<dyn Error>> {
        let Self { rules, engine, indexed, parted, parted_indexed, extractor } = self;
        engine.set_logsource_extractor((way == "pruned").then(|| extractor.clone()));
        engine.set_bloom_prefilter(way == "strict+bloom");
        if way == "strict+index" && indexed.is_none() {
            let mut engine = Engine::new();
            engine.add_rules(&*rules);
            engine.set_cross_rule_ac(true);
            *indexed = Some(engine);
        }
        let parts = match way {
            "parted" => parted,
            "parted+index" => parted_indexed,
            _ => return Ok(()),
        };
        for line in lines {
            let value: Value = serde_json::from_str(line)?;
            let source = route(&extractor.extract(&JsonEvent::borrow(&value)));
            parts.entry(source).or_insert_with_key(|source| {
                let mut engine = Engine::new();
                engine.add_rules(rules.iter().filter(|rule| admits(&rule.logsource, source)));
                engine.set_cross_rule_ac(way == "parted+index");
                engine
            });
        }
        Ok(())
    }

    fn judge(&self, way: &str, line: &str) -> Result<Vec<EvaluationResult>, Box<dyn Error>> {
        let event = JsonEvent::owned(serde_json::from_str(line)?);
        if way == "pruned" {
            return Ok(self.engine.evaluate(&event));
        }
        let source = self.extractor.extract(&event);
        let of_part = |parts: &HashMap<Route, Engine>| {
            parts.get(&route(&source)).map_or_else(Vec::new, |engine| engine.evaluate(&event))
        };
        Ok(match way {
            "strict" | "strict+bloom" => self.engine.evaluate_with_logsource(&event, &source),
            "strict+index" => self.indexed.as_ref().ok_or("not prepared")?.evaluate_with_logsource(&event, &source),
            "parted" => of_part(&self.parted),
            "parted+index" => of_part(&self.parted_indexed),
            _ => return Err(format!("no such way: {way}").into()),
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, rules, events] = &arguments[..] else { return Err("rsigma-beside RULES EVENTS".into()) };
    let text = std::fs::read_to_string(events)?;
    let lines: Vec<&str> = text.lines().collect();
    let (memory, begun) = (memory_bytes(), thread_seconds());
    let collection = parse_sigma_directory(Path::new(rules))?;
    for error in &collection.errors {
        eprintln!("rsigma says: {error}");
    }
    let mut beside = Beside::new(collection.rules);
    let load_ms = (thread_seconds() - begun) * 1e3;
    let rules_bytes = memory.zip(memory_bytes()).map(|(before, after)| after.saturating_sub(before));
    let mut out = std::io::stdout().lock();
    let loaded = beside.engine.rule_count();
    let hello = json!({"rules": loaded, "load_ms": load_ms, "rules_bytes": rules_bytes, "ways": WAYS});
    writeln!(out, "{hello}")?;
    out.flush()?;
    for command in std::io::stdin().lock().lines() {
        let command = command?;
        let (verb, way) = command.split_once(' ').ok_or("VERB WAY")?;
        beside.prepare(way, &lines)?;
        match verb {
            "round" => {
                let (mut hits, begun) = (0, thread_seconds());
                for line in &lines {
                    hits += beside.judge(way, line)?.len();
                }
                let seconds = thread_seconds() - begun;
                writeln!(out, "{}", json!({"events": lines.len(), "hits": hits, "seconds": seconds}))?;
            }
            "matches" => {
                for line in &lines {
                    let results = beside.judge(way, line)?;
                    let ids: Vec<_> = results.iter().map(|result| result.header.rule_id.as_deref()).collect();
                    writeln!(out, "{}", json!(ids))?;
                }
                writeln!(out, "end")?;
            }
            _ => return Err(format!("no such verb: {verb}").into()),
        }
        out.flush()?;
    }
    Ok(())
}

/// Processor time of this thread.
fn thread_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = text.lines().find(|line| line.starts_with("Private_Dirty:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1_024)
}
