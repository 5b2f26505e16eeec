//! What happens at doors in a hunt: for each kind of correlation events that satisfy it, or just do not, out of their
//! order, late, and told again.
//!
//! Nothing here says what must come of it: that is for a detector to say that reads them in their order.

use crate::random::Random;

/// One event at a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// What the rules match.
    pub kind: &'static str,
    /// The host that says so: each has a watermark of its own.
    pub host: u64,
    /// When it happened, in virtual milliseconds.
    pub at_ms: u64,
    /// Where values are counted.
    pub value: u64,
    /// The identity that its source gave it.
    pub uid: Option<String>,
    /// Which telling of that identity it is.
    pub copy: u64,
    /// Whether the request that tells it has an idempotency key.
    pub is_keyed: bool,
}

/// Events of one door, each with when it is told: virtual milliseconds from now on.
pub type Plot = Vec<(u64, Signal)>;

/// One rule that every cluster detects by is about these: five at one door.
pub const FORCED: &str = "forced";
/// Hosts of a region.
const HOSTS: u64 = 3;
/// Beyond it detection calls an event late.
const LATENESS_MS: u64 = 60_000;
/// Rules of plots look back so far; all events of one lie closer.
const SPAN_MS: u64 = 20_000;

/// The rules that alert, by their titles.
pub const ALERTING: [&str; 10] = [
    "doors_forced",
    "forced_anywhere",
    "many_badges",
    "wedged",
    "way_out",
    "heavy",
    "few_knocks",
    "fast",
    "left_open",
    "cracked",
];

/// How a rule is satisfied.
struct Shape {
    steps: &'static [&'static str],
    /// One event more or less, and it is not.
    spoil: Spoil,
    /// Judged at once: then also what comes too late must be found.
    is_eager: bool,
}

enum Spoil {
    Drop,
    Add(&'static str),
    Swap,
}

const SHAPES: [Shape; 9] = [
    Shape { steps: &[FORCED; 5], spoil: Spoil::Drop, is_eager: true },
    Shape { steps: &["badge"; 3], spoil: Spoil::Drop, is_eager: true },
    Shape { steps: &["wedge", "alarm"], spoil: Spoil::Drop, is_eager: true },
    Shape { steps: &["unlock", "open", "leave"], spoil: Spoil::Swap, is_eager: true },
    Shape { steps: &["weight"; 3], spoil: Spoil::Drop, is_eager: true },
    Shape { steps: &["knock"; 2], spoil: Spoil::Add("knock"), is_eager: false },
    Shape { steps: &["speed"; 2], spoil: Spoil::Drop, is_eager: false },
    Shape { steps: &["opened"], spoil: Spoil::Add("closed"), is_eager: false },
    Shape { steps: &["tap", "tap", "tap", "twist", "pull"], spoil: Spoil::Drop, is_eager: false },
];

/// The rules of plots; those of [`FORCED`] are everybody's.
pub fn rules() -> String {
    let kinds = [
        "badge", "wedge", "alarm", "unlock", "open", "leave", "weight", "knock", "speed", "opened", "closed", "tap",
        "twist", "pull",
    ];
    let mut text = String::new();
    for kind in kinds {
        text += &format!(
            "---\ntitle: {kind}\nname: {kind}\nlogsource: {{product: doors}}\nlevel: informational\ndetection: {{s: {{kind: {kind}}}, condition: s}}\n"
        );
    }
    let correlations = [
        ("many_badges", "type: value_count, rules: [badge], condition: {field: value, gte: 3}"),
        ("wedged", "type: temporal, rules: [wedge, alarm]"),
        ("way_out", "type: temporal_ordered, rules: [unlock, open, leave]"),
        ("heavy", "type: value_sum, rules: [weight], condition: {field: value, gt: 5}"),
        ("few_knocks", "type: event_count, rules: [knock], condition: {lt: 3}"),
        ("fast", "type: value_avg, rules: [speed], condition: {field: value, gt: 1}"),
        ("left_open", "type: temporal, rules: [opened, closed], condition: opened and not closed"),
        ("tapped", "type: event_count, rules: [tap], condition: {gte: 3}"),
        ("turned", "type: temporal_ordered, rules: [twist, pull]"),
    ];
    for (name, what) in correlations {
        text += &format!(
            "---\ntitle: {name}\nname: {name}\ncorrelation: {{{what}, group-by: [door], timespan: 20s}}\nlevel: medium\n"
        );
    }
    text += "---\ntitle: cracked\nname: cracked\ncorrelation: {type: temporal, rules: [tapped, turned], group-by: [door], timespan: 60s}\nlevel: high\n";
    text
}

/// How events of a plot are told.
enum Way {
    /// Soon, one after the other.
    Straight,
    /// Each within the allowed lateness.
    Shuffled,
    /// One of them after it.
    Late,
}

/// A plot at random, whose events happen from `now_ms` on.
pub fn draw(random: &mut Random, door: &str, now_ms: u64) -> Plot {
    let index = usize::try_from(random.below(SHAPES.len() as u64)).unwrap_or(0);
    let shape = &SHAPES[index];
    let mut steps = shape.steps.to_vec();
    if random.percent(35) {
        match shape.spoil {
            Spoil::Drop => drop(steps.pop()),
            Spoil::Add(kind) => steps.push(kind),
            Spoil::Swap => steps.swap(0, 1),
        }
    }
    let way = match random.below(10) {
        0..=3 => Way::Straight,
        4..=7 => Way::Shuffled,
        _ if shape.is_eager => Way::Late,
        _ => Way::Straight,
    };
    let late = random.below(steps.len() as u64);
    let (first_host, is_alone, has_uids) = (random.below(HOSTS), random.percent(70), random.percent(25));
    let has_uids = has_uids && !matches!(way, Way::Late);
    let gap_ms_max = SPAN_MS / (steps.len() as u64 + 2);
    let mut at_ms = now_ms;
    let mut plot = Plot::new();
    for (place, kind) in steps.into_iter().enumerate() {
        at_ms += random.between(50, gap_ms_max);
        let delay_ms = match way {
            Way::Straight => random.below(500),
            Way::Shuffled => random.below(LATENESS_MS * 2 / 3),
            Way::Late if place as u64 == late => LATENESS_MS + random.between(15_000, 25_000),
            Way::Late => random.below(3_000),
        };
        let signal = Signal {
            kind,
            host: if is_alone { first_host } else { random.below(HOSTS) },
            at_ms,
            value: place as u64 + 1,
            uid: has_uids.then(|| format!("{door}/{place}")),
            copy: 0,
            is_keyed: random.percent(50),
        };
        let told_ms = at_ms - now_ms + delay_ms;
        if signal.uid.is_some() && random.percent(40) {
            let again_ms = told_ms + if random.percent(50) { random.below(20_000) } else { LATENESS_MS + 15_000 };
            plot.push((again_ms, Signal { copy: 1, ..signal.clone() }));
        }
        plot.push((told_ms, signal));
    }
    plot.sort_by_key(|(told_ms, _)| *told_ms);
    plot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_lie_within_what_their_rules_look_at_and_some_come_late() {
        let mut random = Random::new(1, 2);
        let (mut late, mut copies) = (0, 0);
        for _ in 0..1_000 {
            let plot = draw(&mut random, "d", 1_000_000);
            let times = plot.iter().map(|(_, signal)| signal.at_ms);
            assert!(times.clone().max() < times.min().map(|first| first + SPAN_MS));
            assert!(plot.iter().all(|(told_ms, signal)| 1_000_000 + told_ms >= signal.at_ms));
            late += plot.iter().filter(|(told, signal)| 1_000_000 + told > signal.at_ms + LATENESS_MS).count();
            copies += plot.iter().filter(|(_, signal)| signal.copy > 0).count();
        }
        assert!(late > 50 && copies > 50, "{late} late, {copies} copies");
    }
}
