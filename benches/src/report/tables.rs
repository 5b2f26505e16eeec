//! The tables on detection.

use crate::detection::{Agreement, Detection, Disagreement, Latency, Rate, Reload, Values};
use std::fmt::{Result, Write};

/// Disagreements that are listed.
const LISTED_MAX: usize = 40;

/// Writes all of them.
pub(super) fn write(out: &mut impl Write, detection: &Detection) -> Result {
    writeln!(out, "\n### Detection on one core\n")?;
    rates(out, &detection.rates)?;
    latency(out, &detection.latency)?;
    values(out, &detection.values)?;
    reload(out, &detection.reload)?;
    detection.agreement.as_ref().map_or(Ok(()), |agreement| agree(out, agreement))
}

fn rates(out: &mut impl Write, rates: &[Rate]) -> Result {
    writeln!(
        out,
        "From raw bytes to alerts through the live detector; medians of rounds, products in turn, of processor time.\n"
    )?;
    writeln!(
        out,
        "| events | mean bytes | rules + correlations | product | events per CPU-second | lowest – highest | \
         Holdfast ÷ this | alerts a round | rules loaded in ms | rules in MB |\n|---|--:|--:|---|--:|--:|--:|--:|--:|--:|"
    )?;
    for rate in rates {
        let lowest = rate.per_cpu_second.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = rate.per_cpu_second.iter().copied().fold(0.0, f64::max);
        writeln!(
            out,
            "| {} {} | {} | {} + {} | {} | {:.0} | {lowest:.0} – {highest:.0} | {} | {} | {:.0} | {} |",
            rate.events,
            rate.kind,
            rate.event_bytes,
            rate.rules,
            rate.correlations,
            rate.product,
            rate.median(),
            rate.ratio.map_or(String::new(), |ratio| format!("**{ratio:.2}**")),
            rate.alerts,
            rate.load_ms,
            rate.rules_bytes.map_or("–".to_owned(), |bytes| format!("{:.1}", bytes as f64 / 1e6))
        )?;
    }
    Ok(())
}

fn latency(out: &mut impl Write, all: &[Latency]) -> Result {
    if all.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\nAt half of that rate, from when an event was due until it was judged; *arithmetic*: the same in turn with it, \
         for steps of arithmetic that take as long as an event does:\n"
    )?;
    writeln!(
        out,
        "| events | rules | offered a second | p50 µs | p99 µs | target | p99.9 µs | longest µs | arithmetic: p99 µs | p99.9 µs |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    )?;
    for one in all {
        writeln!(
            out,
            "| {} {} | {} | {:.0} | {:.1} | {:.1} | < 1000 | {:.1} | {:.0} | {:.1} | {:.1} |",
            one.events,
            one.kind,
            one.rules,
            one.per_second,
            one.p50_us,
            one.p99_us,
            one.p999_us,
            one.max_us,
            one.machine_p99_us,
            one.machine_p999_us
        )?;
    }
    Ok(())
}

fn values(out: &mut impl Write, all: &[Values]) -> Result {
    let Some(first) = all.first() else { return Ok(()) };
    writeln!(out, "\nCounting distinct values (`value_count`), nanoseconds for each event; × the first row:\n")?;
    writeln!(
        out,
        "| distinct values in the window | below the threshold | above it | below it, one in ten in disorder |\n|--:|--:|--:|--:|"
    )?;
    for one in all {
        let cell = |of: fn(&Values) -> f64| format!("{:.0} (× {:.1})", of(one), of(one) / of(first));
        let (below, above) = (cell(|one| one.below_ns), cell(|one| one.above_ns));
        writeln!(out, "| {} | {below} | {above} | {} |", one.distinct, cell(|one| one.disorder_ns))?;
    }
    Ok(())
}

fn reload(out: &mut impl Write, all: &[Reload]) -> Result {
    if all.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nNew rules while events come:\n")?;
    writeln!(
        out,
        "| events | rules | read and compiled in ms | target | state taken over in ms | keys of state | alerts lost or \
         told twice |\n|---|--:|--:|--:|--:|--:|--:|"
    )?;
    for one in all {
        writeln!(
            out,
            "| {} | {} | {:.0} | < 1000 | {:.1} | {} | {} |",
            one.kind, one.rules, one.load_ms, one.pause_ms, one.keys, one.lost
        )?;
    }
    Ok(())
}

fn agree(out: &mut impl Write, agreement: &Agreement) -> Result {
    writeln!(
        out,
        "\nRules matched on the same {} events, by id, beside rsigma: {} by both, {} by one alone.",
        agreement.events,
        agreement.both,
        agreement.apart.len()
    )?;
    if agreement.apart.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n| line | rule | matched by |\n|--:|---|---|")?;
    for Disagreement { line, rule, ours } in agreement.apart.iter().take(LISTED_MAX) {
        writeln!(out, "| {line} | {rule} | {} alone |", if *ours { "Holdfast" } else { "rsigma" })?;
    }
    let more = agreement.apart.len().saturating_sub(LISTED_MAX);
    if more > 0 { writeln!(out, "| … | {more} more | |") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(product: &str, per_cpu_second: &[f64], ratio: Option<f64>) -> Rate {
        Rate {
            product: product.into(),
            kind: "events",
            events: 10,
            event_bytes: 400,
            per_cpu_second: per_cpu_second.to_vec(),
            alerts: 3,
            rules: 2,
            correlations: 1,
            load_ms: 12.4,
            rules_bytes: ratio.map(|_| 1_500_000),
            ratio,
        }
    }

    #[test]
    fn every_figure_stands_in_its_table() {
        let apart = vec![Disagreement { line: 7, rule: "some-rule".into(), ours: false }; LISTED_MAX + 2];
        let detection = Detection {
            rates: vec![rate("Holdfast", &[3.0, 1.0, 2.0], None), rate("rsigma", &[1.0], Some(2.0))],
            latency: vec![Latency {
                kind: "events",
                rules: 3,
                per_second: 50_000.4,
                events: 9,
                p50_us: 1.25,
                p99_us: 2.5,
                p999_us: 5.0,
                max_us: 9.9,
                machine_p99_us: 2.4,
                machine_p999_us: 4.5,
            }],
            values: vec![
                Values { distinct: 100, below_ns: 1000.0, above_ns: 2000.0, disorder_ns: 3000.0 },
                Values { distinct: 1000, below_ns: 1100.0, above_ns: 3000.0, disorder_ns: 30_000.0 },
            ],
            reload: vec![Reload { kind: "events", rules: 3, load_ms: 700.0, pause_ms: 1.23, keys: 4, lost: 1 }],
            agreement: Some(Agreement { events: 10, both: 5, apart }),
        };
        let mut text = String::new();
        write(&mut text, &detection).unwrap();
        for line in [
            "| 10 events | 400 | 2 + 1 | Holdfast | 2 | 1 – 3 |  | 3 | 12 | – |",
            "| 10 events | 400 | 2 + 1 | rsigma | 1 | 1 – 1 | **2.00** | 3 | 12 | 1.5 |",
            "| 9 events | 3 | 50000 | 1.2 | 2.5 | < 1000 | 5.0 | 10 | 2.4 | 4.5 |",
            "| 1000 | 1100 (× 1.1) | 3000 (× 1.5) | 30000 (× 10.0) |",
            "| events | 3 | 700 | < 1000 | 1.2 | 4 | 1 |",
            "Rules matched on the same 10 events, by id, beside rsigma: 5 by both, 42 by one alone.",
            "| 7 | some-rule | rsigma alone |",
            "| … | 2 more | |",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
    }
}
