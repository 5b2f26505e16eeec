//! What a node counts and measures, in Prometheus' terms (`/metrics`).
//!
//! Names follow Prometheus' conventions: base units, `_total` for counters. Labels never hold what
//! a client can choose freely.

use prometheus::{
    Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Every instrument of a node.
pub struct Metrics {
    registry: Registry,
    /// Requests by route and status.
    pub requests: IntCounterVec,
    /// Time to answer a request, by route.
    pub request_seconds: HistogramVec,
    /// Commands applied by group and kind.
    pub commands: IntCounterVec,
    /// The applied index of each group.
    pub applied_index: IntGaugeVec,
    /// 1 where this node leads the group.
    pub leading: IntGaugeVec,
    /// Log writes: syncs, entries, bytes.
    pub log: GaugeVec,
    /// From a change's commit in its region to its commit here.
    pub remote_durable_seconds: HistogramVec,
    /// The oldest change of this region that no other region has yet.
    pub exposure_seconds: GaugeVec,
    /// State of each link between regions: 1 for the state it is in.
    pub link_state: IntGaugeVec,
    /// Concurrent writes that lost, by group.
    pub conflicts: IntCounterVec,
    /// Detector's counts, by shard and what was counted.
    pub detection: IntCounterVec,
    /// How long what a shard reads next has waited, by stream; on the node that has the shard.
    pub detection_lag_seconds: GaugeVec,
    /// What a shard keeps: group keys, remembered events, late spans that wait.
    pub detection_state: IntGaugeVec,
    /// 1 for where a shard's rollout of rules is.
    pub rollout: IntGaugeVec,
    /// What went wrong with duties, by duty.
    pub duties: IntCounterVec,
    /// Rule sets that were read again, by what became of them.
    pub rules: IntCounterVec,
    /// Notices to sinks by what became of them.
    pub notices: IntCounterVec,
    /// Incidents by status and severity, on the node that calls people.
    pub incidents: IntGaugeVec,
    /// Duties to report that are open, by whether they are overdue, on the node that calls people.
    pub clocks: IntGaugeVec,
    /// Calls to people by what became of them.
    pub pages: IntCounterVec,
    /// Transactions of a duty's report that were refused, by what they were about.
    pub reports_refused: IntCounterVec,
    /// Whom an escalation policy names and no sink of this node reaches, on the node that calls people.
    pub unreached: IntGaugeVec,
    /// How far this node's clock is ahead of the log of its region.
    pub clock_ahead_seconds: Gauge,
    /// From the call for people to somebody's acknowledgement, by severity.
    pub acknowledge_seconds: HistogramVec,
    /// From the opening of an incident to its end, by severity.
    pub close_seconds: HistogramVec,
    /// The archive: files, events and bytes, and what is broken.
    pub archive: GaugeVec,
    /// Leaves of the audit log, by group.
    pub audit_leaves: IntGaugeVec,
    /// Bytes of this process in memory.
    pub resident_bytes: Gauge,
    /// Events of others that were delivered again, and left out of the region's log.
    pub events_repeated: IntCounter,
    /// When each of this node's certificates expires, in seconds since 1970; 0 where it cannot be read.
    pub certificates: IntGaugeVec,
    /// Open QUIC work: calls, streams, bytes, by kind.
    pub transport: GaugeVec,
}

const SECONDS: [f64; 14] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// What people do takes minutes to weeks.
const PEOPLE_SECONDS: [f64; 12] =
    [30.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0, 2_592_000.0];

impl Metrics {
    /// Creates and registers every instrument.
    pub fn new() -> Self {
        let registry = Registry::new();
        let metrics = Self {
            requests: counter("holdfast_api_requests_total", "Requests answered.", &["method", "route", "status"]),
            request_seconds: histogram(
                "holdfast_api_request_duration_seconds",
                "Time to answer a request.",
                &["method", "route"],
            ),
            commands: counter("holdfast_commands_total", "Commands applied by the state machine.", &["group", "kind"]),
            applied_index: int_gauge("holdfast_raft_applied_index", "Applied log index.", &["group"]),
            leading: int_gauge("holdfast_raft_leading", "1 where this node leads the group.", &["group"]),
            log: gauge("holdfast_log_writes", "Shared log since the start: syncs, entries, bytes.", &["what"]),
            remote_durable_seconds: histogram(
                "holdfast_replication_remote_durable_seconds",
                "From a change's commit in its region to its commit here.",
                &["from"],
            ),
            exposure_seconds: gauge(
                "holdfast_replication_exposure_seconds",
                "Age of the oldest change of this region that the other region has not made durable.",
                &["group", "to"],
            ),
            link_state: int_gauge(
                "holdfast_replication_link_state",
                "1 for the state the link is in.",
                &["group", "from", "state"],
            ),
            conflicts: counter("holdfast_conflicts_total", "Concurrent writes that lost.", &["group"]),
            detection: counter(
                "holdfast_detection_events_total",
                "Events and what followed from them.",
                &["shard", "what"],
            ),
            detection_lag_seconds: gauge(
                "holdfast_detection_lag_seconds",
                "How long what a shard reads next has waited.",
                &["shard", "stream"],
            ),
            detection_state: int_gauge("holdfast_detection_state", "What a shard keeps.", &["shard", "what"]),
            rollout: int_gauge("holdfast_rules_rollout", "1 for where the rollout is.", &["shard", "phase"]),
            duties: counter("holdfast_duty_faults_total", "What went wrong with duties.", &["duty", "what"]),
            rules: counter("holdfast_rules_read_total", "Rule sets read again by what became of them.", &["what"]),
            notices: counter("holdfast_notices_total", "Notices by what became of them.", &["sink", "what"]),
            incidents: int_gauge("holdfast_incidents", "Incidents as they stand.", &["status", "severity"]),
            clocks: int_gauge("holdfast_incident_clocks", "Open duties to report.", &["state"]),
            pages: counter("holdfast_escalation_pages_total", "Calls to people by what became of them.", &["what"]),
            reports_refused: counter(
                "holdfast_reports_refused_total",
                "Transactions of a duty's report that were refused.",
                &["action"],
            ),
            unreached: int_gauge(
                "holdfast_escalation_unreached",
                "Whom the policy names and no sink reaches.",
                &["policy"],
            ),
            clock_ahead_seconds: Gauge::with_opts(Opts::new(
                "holdfast_clock_ahead_seconds",
                "How far this node's clock is ahead of the log of its region; negative where it is behind.",
            ))
            .expect("the name is well formed"),
            acknowledge_seconds: histogram_of(
                "holdfast_incident_acknowledge_seconds",
                "From the call for people to an acknowledgement.",
                &["severity"],
                &PEOPLE_SECONDS,
            ),
            close_seconds: histogram_of(
                "holdfast_incident_close_seconds",
                "From the opening of an incident to its end.",
                &["severity"],
                &PEOPLE_SECONDS,
            ),
            archive: gauge("holdfast_archive", "Events of the past: files, rows, bytes, open, broken.", &["what"]),
            audit_leaves: int_gauge("holdfast_audit_leaves", "Leaves of the audit log.", &["group"]),
            resident_bytes: Gauge::with_opts(Opts::new("holdfast_resident_memory_bytes", "Memory of this process."))
                .expect("the name is well formed"),
            events_repeated: IntCounter::new(
                "holdfast_ingest_repeated_events_total",
                "Events that were delivered again, and left out of the region's log.",
            )
            .expect("the name is well formed"),
            certificates: int_gauge(
                "holdfast_certificate_expiry_timestamp_seconds",
                "When this node's certificates expire; 0 where one cannot be read.",
                &["certificate"],
            ),
            transport: gauge("holdfast_transport", "Links between nodes, by what is counted.", &["what"]),
            registry,
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let instruments: Vec<Box<dyn prometheus::core::Collector>> = vec![
            Box::new(self.requests.clone()),
            Box::new(self.request_seconds.clone()),
            Box::new(self.commands.clone()),
            Box::new(self.applied_index.clone()),
            Box::new(self.leading.clone()),
            Box::new(self.log.clone()),
            Box::new(self.remote_durable_seconds.clone()),
            Box::new(self.exposure_seconds.clone()),
            Box::new(self.link_state.clone()),
            Box::new(self.conflicts.clone()),
            Box::new(self.detection.clone()),
            Box::new(self.detection_lag_seconds.clone()),
            Box::new(self.detection_state.clone()),
            Box::new(self.rollout.clone()),
            Box::new(self.duties.clone()),
            Box::new(self.rules.clone()),
            Box::new(self.notices.clone()),
            Box::new(self.incidents.clone()),
            Box::new(self.clocks.clone()),
            Box::new(self.pages.clone()),
            Box::new(self.reports_refused.clone()),
            Box::new(self.unreached.clone()),
            Box::new(self.clock_ahead_seconds.clone()),
            Box::new(self.acknowledge_seconds.clone()),
            Box::new(self.close_seconds.clone()),
            Box::new(self.archive.clone()),
            Box::new(self.audit_leaves.clone()),
            Box::new(self.resident_bytes.clone()),
            Box::new(self.events_repeated.clone()),
            Box::new(self.certificates.clone()),
            Box::new(self.transport.clone()),
        ];
        for instrument in instruments {
            self.registry.register(instrument).expect("every name is registered once");
        }
    }

    /// The text exposition.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory cannot fail");
        String::from_utf8(text).expect("the encoder writes text")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("names and labels are well formed")
}
fn gauge(name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    GaugeVec::new(Opts::new(name, help), labels).expect("names and labels are well formed")
}
fn int_gauge(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect("names and labels are well formed")
}
fn histogram(name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    histogram_of(name, help, labels, &SECONDS)
}
fn histogram_of(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    HistogramVec::new(options, labels).expect("names and labels are well formed")
}
