//! `holdfast`: the one program of the platform.

use clap::{Parser, Subcommand};
use node::command::{
    alerts, audit, detection, escalation, events, incidents, init, notices, pipeline, remote, rules, soc, tickets,
};
use node::config::Config;
use node::{host, telemetry};
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A multi-region, multi-master store of tenants' data with its security operations built in.
#[derive(Parser)]
#[command(name = "holdfast", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Describe a new cluster: regions, nodes, certificates, keys, the first administrator.
    Init(init::Init),
    /// Run a node until SIGTERM.
    Start {
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// The first start of a new cluster: this node's empty disk is new, not lost.
        #[arg(long)]
        first: bool,
        /// This node lost its disk: be let go by its groups and taken in again.
        #[arg(long, conflicts_with = "first")]
        rejoin: bool,
        /// The secrets of a new cluster, from `holdfast init`.
        #[arg(long, requires = "first")]
        bootstrap: Option<PathBuf>,
    },
    /// Check a node's configuration, keys, certificates and rules without starting.
    CheckConfig {
        /// The node's configuration.
        config: PathBuf,
    },
    /// Questions about the cluster.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// The audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Events of the past: search, hunt, retention.
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// Detection rules.
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    /// How detection does: shards, rules on trial, what waits and what was lost.
    #[command(subcommand)]
    Detection(detection::DetectionCommand),
    /// What rules said about which events.
    #[command(subcommand)]
    Alerts(alerts::AlertsCommand),
    /// What happened: look, decide, work on it, report it, close it.
    #[command(subcommand)]
    Incidents(incidents::IncidentsCommand),
    /// The incidents, live in the terminal.
    Soc(soc::Soc),
    /// Who is called when: the policy, who is on call, and what runs.
    #[command(subcommand)]
    Escalation(escalation::EscalationCommand),
    /// The work on incidents as other systems know it.
    #[command(subcommand)]
    Tickets(tickets::TicketsCommand),
    /// What could not be told outside: notices that a sink refused for good.
    #[command(subcommand)]
    Notices(notices::NoticesCommand),
    /// Events on their way: the topology, its tests, dead letters.
    #[command(subcommand)]
    Pipeline(pipeline::PipelineCommand),
    /// Print the one-time code of this moment for a base32 secret.
    Totp {
        /// The secret, from `holdfast init` or the enrolment address.
        secret: String,
    },
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// What runs, what is stuck, and why. Fails when something is stuck.
    Status {
        #[command(flatten)]
        remote: remote::Remote,
    },
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Fetch every log of a region and recompute it: entries, hashes, checkpoints, details.
    Verify {
        #[command(flatten)]
        remote: remote::Remote,
    },
}

fn main() -> ExitCode {
    rustls::crypto::aws_lc_rs::default_provider().install_default().expect("nothing was installed before");
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(init) => init::run(&init),
        Command::Start { config, first, rejoin, bootstrap } => {
            let (config, cluster) = Config::load(&config)?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(async {
                let tracer = telemetry::start(&config.telemetry, &config.node)?;
                let ended = host::run(config, cluster, first, rejoin, bootstrap.as_deref()).await;
                if let Err(error) = &ended {
                    tracing::error!(error = format!("{error:#}"), "ended");
                }
                telemetry::stop(tracer);
                ended
            })
        }
        Command::CheckConfig { config } => {
            let (loaded, cluster) = Config::load(&config)?;
            let refused = host::check(&loaded)?;
            for rule in &refused {
                println!("{rule}");
            }
            println!(
                "{}: node {} of cluster {} ({} regions)",
                config.display(),
                loaded.node,
                cluster.name,
                cluster.regions.len()
            );
            if refused.is_empty() { Ok(()) } else { anyhow::bail!("{} rules are refused", refused.len()) }
        }
        Command::Cluster(ClusterCommand::Status { remote }) => wait(remote::status(&remote)),
        Command::Audit(AuditCommand::Verify { remote }) => wait(audit::verify(&remote)),
        Command::Events(command) => wait(events::run(&command)),
        Command::Rules(command) => rules::run(&command),
        Command::Pipeline(command) => pipeline::run(&command),
        Command::Detection(command) => wait(detection::run(&command)),
        Command::Alerts(command) => wait(alerts::run(&command)),
        Command::Incidents(command) => wait(incidents::run(&command)),
        Command::Soc(soc) => wait(soc::run(&soc)),
        Command::Escalation(command) => wait(escalation::run(&command)),
        Command::Tickets(command) => wait(tickets::run(&command)),
        Command::Notices(command) => wait(notices::run(&command)),
        Command::Totp { secret } => {
            println!("{}", remote::totp(&secret)?);
            Ok(())
        }
    }
}

fn wait(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    // The verifier of the audit log waits inside synchronous code, which only this kind of runtime allows.
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(work)
}
