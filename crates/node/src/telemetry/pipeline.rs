//! What the pipeline counts, in Prometheus' terms: read where it is counted, when someone looks.

use pipeline::runtime::{Monitor, Status};
use pipeline::source::GAUGES as GAUGES_OF_SOURCES;
use prometheus::{Counter, CounterVec, Encoder, IntGaugeVec, Opts, Registry, TextEncoder};

/// The instruments of a running pipeline. Components are named by the configuration, so they are few.
pub struct PipelineMetrics {
    monitor: Monitor,
    registry: Registry,
    counters: Vec<(&'static str, f64, CounterVec)>,
    gauges: Vec<(&'static str, IntGaugeVec)>,
    sources: CounterVec,
    sources_now: IntGaugeVec,
    dead_letters: IntGaugeVec,
}

/// What is counted, how much one of it is in the unit of its name, the name and its help.
const COUNTERS: [(&str, f64, &str, &str); 8] = [
    ("received", 1.0, "received_events_total", "Events that came to a component."),
    ("sent", 1.0, "sent_events_total", "Events that went on from a component."),
    ("left_out", 1.0, "left_out_events_total", "Events left out because the topology says so."),
    ("dropped", 1.0, "dropped_events_total", "Events dropped by a full buffer that was told to."),
    ("dead_lettered", 1.0, "dead_letter_events_total", "Events that became dead letters."),
    ("waited_us", 1e-6, "waiting_seconds_total", "How long others have waited for a component."),
    ("retries", 1.0, "retries_total", "How often a sink said: later."),
    ("restarts", 1.0, "restarts_total", "How often a component's task was begun again after it had ended."),
];
const GAUGES: [(&str, &str, &str); 3] = [
    ("buffered_events", "buffered_events", "Events that wait for a component."),
    ("buffered_bytes", "buffered_bytes", "Their bytes, in memory or on disk."),
    ("running", "running", "1 while a component's tasks run, 0 while one has ended that should not have."),
];

impl PipelineMetrics {
    /// Registers the instruments of a pipeline.
    pub fn new(monitor: Monitor) -> Self {
        let registry = Registry::new();
        let options = |name: &str, help: &str| Opts::new(format!("holdfast_pipeline_{name}"), help);
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = CounterVec::new(options(name, help), labels).expect("the name is well formed");
            registry.register(Box::new(counter.clone())).expect("every name is registered once");
            counter
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(options(name, help), labels).expect("the name is well formed");
            registry.register(Box::new(gauge.clone())).expect("every name is registered once");
            gauge
        };
        let counters = COUNTERS.map(|(what, one, name, help)| (what, one, counter(name, help, &["component"])));
        let gauges = GAUGES.map(|(what, name, help)| (what, gauge(name, help, &["component"])));
        let sources = counter("source_total", "What a source counts of its own.", &["component", "what"]);
        let sources_now = gauge("source_now", "What a source has now: connections, files.", &["component", "what"]);
        let dead_letters =
            gauge("dead_letters", "Dead letters that are kept: bytes, and files that had to go.", &["what"]);
        let (counters, gauges) = (counters.into(), gauges.into());
        Self { monitor, registry, counters, gauges, sources, sources_now, dead_letters }
    }

    /// Components of which a task has ended that should not have.
    pub fn down(&self) -> Vec<std::sync::Arc<str>> {
        self.monitor.down()
    }

    /// The text exposition of this moment.
    pub fn render(&self) -> String {
        let Status { components, sources, dead_letters_bytes, dead_letters_files_lost } = self.monitor.status();
        for (component, counts) in &components {
            for (what, value) in counts.named() {
                if let Some((_, one, counter)) = self.counters.iter().find(|(name, ..)| *name == what) {
                    catch_up(&counter.with_label_values(&[&**component]), value as f64 * one);
                } else if let Some((_, gauge)) = self.gauges.iter().find(|(name, _)| *name == what) {
                    gauge.with_label_values(&[&**component]).set(value.cast_signed());
                }
            }
        }
        for (component, counts) in &sources {
            for (what, value) in counts {
                if GAUGES_OF_SOURCES.contains(what) {
                    self.sources_now.with_label_values(&[&**component, what]).set(value.cast_signed());
                    continue;
                }
                catch_up(&self.sources.with_label_values(&[&**component, what]), *value as f64);
            }
        }
        for (what, value) in [("bytes", dead_letters_bytes), ("files_lost", dead_letters_files_lost)] {
            self.dead_letters.with_label_values(&[what]).set(value.cast_signed());
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory cannot fail");
        String::from_utf8(text).expect("the encoder writes text")
    }
}

/// What was counted elsewhere is so much by now.
fn catch_up(counter: &Counter, to: f64) {
    counter.inc_by((to - counter.get()).max(0.0));
}
