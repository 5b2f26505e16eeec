//! `holdfast incidents`: what happened, worked on from the command line over the API of a running node.

mod view;

use super::remote::{Client, Remote};
use super::show::{self, print, query, text, time};
use crate::world::SystemClock;
use anyhow::bail;
use clap::{Args, Subcommand};
use model::time::Clock as _;
use reqwest::Method;
use serde_json::{Value, json};
use view::{list_table, moments, mutes, note, whole};

/// What happened: look, decide, work on it, report it, close it.
#[derive(Subcommand)]
#[command(after_help = "A morning's work:\n  \
    holdfast incidents list --status open --sort priority\n  \
    holdfast incidents show 3f2a91c0\n  \
    holdfast incidents ack 3f2a91c0\n  \
    holdfast incidents clock start 3f2a91c0 gdpr_authority CNIL\n  \
    holdfast incidents close 3f2a91c0 --cause 'a forgotten script' --actions 'stopped it'\n\n\
    Ids may be cut short as long as one incident begins so. Say how to reach a node by HOLDFAST_API,\n\
    HOLDFAST_CA and HOLDFAST_TOKEN, or by --api, --ca and --login.")]
#[allow(missing_docs, reason = "what is flattened is described at its type")]
pub enum IncidentsCommand {
    /// List incidents: what is open, how grave, how urgent, whose, and what must be reported by when.
    List(List),
    /// Everything about one: risk and its parts, ATT&CK, entities, clocks, alerts, history.
    Show(One),
    /// Events, alerts and acts in the order of time.
    Timeline(One),
    /// "I have seen it": whoever is called about it is called no more.
    Ack(One),
    /// Give it to somebody, or to nobody.
    Assign {
        #[command(flatten)]
        one: One,
        /// The login; with none, it is nobody's.
        assignee: Option<String>,
    },
    /// Say something about it.
    Comment {
        #[command(flatten)]
        one: One,
        /// What.
        text: String,
    },
    /// Move it in its life: in_progress, on_hold or resolved. Closing has its own command.
    Status {
        #[command(flatten)]
        one: One,
        /// Where.
        #[arg(value_parser = ["in_progress", "on_hold", "resolved"])]
        status: String,
        /// Why; required to open a closed one again.
        #[arg(long)]
        why: Option<String>,
    },
    /// Say how grave it is; `auto` leaves it to its alerts.
    Severity {
        #[command(flatten)]
        one: One,
        /// How grave.
        #[arg(value_parser = ["informational", "low", "medium", "high", "critical", "auto"])]
        severity: String,
        /// Why.
        #[arg(long)]
        why: Option<String>,
    },
    /// Say how urgent it is; `auto` leaves it to its risk.
    Priority {
        #[command(flatten)]
        one: One,
        /// How urgent.
        #[arg(value_parser = ["low", "medium", "high", "critical", "auto"])]
        priority: String,
        /// Why.
        #[arg(long)]
        why: Option<String>,
    },
    /// Make others part of it. Each merge can be undone.
    Merge {
        #[command(flatten)]
        one: One,
        /// Those that go up in it.
        #[arg(required = true)]
        others: Vec<String>,
        /// Why.
        #[arg(long)]
        why: Option<String>,
    },
    /// Make another incident of some of its alerts.
    Split {
        #[command(flatten)]
        one: One,
        /// The alerts, as `show` lists them.
        #[arg(required = true)]
        alerts: Vec<String>,
        /// Why.
        #[arg(long)]
        why: Option<String>,
    },
    /// Undo a merge or a split: the change's id is in the history of `show`.
    Undo {
        #[command(flatten)]
        one: One,
        /// The change.
        change: String,
        /// Why.
        #[arg(long)]
        why: String,
    },
    /// Call nobody for a while: about one incident, or about all alerts of an entity or a rule. Risk goes on.
    Suppress(Suppress),
    /// Call people again: about an incident, or about what `suppressed` lists.
    Unsuppress(One),
    /// List the entities and rules about which nobody is called.
    Suppressed {
        #[command(flatten)]
        remote: Remote,
    },
    /// Duties to report: start, meet, or stop a clock.
    #[command(subcommand)]
    Clock(ClockCommand),
    /// Write the post-mortem before it is closed; a later one replaces it, and the history keeps both.
    PostMortem {
        #[command(flatten)]
        one: One,
        /// What happened, why, and what is changed so that it does not again.
        text: String,
    },
    /// Close it: with why it happened and what was done so that it does not again, unless its post-mortem is written.
    Close {
        #[command(flatten)]
        one: One,
        /// Why it happened.
        #[arg(long, requires = "actions")]
        cause: Option<String>,
        /// What was done.
        #[arg(long, requires = "cause")]
        actions: Option<String>,
    },
}

/// Duties to report.
#[derive(Subcommand)]
#[allow(missing_docs, reason = "what is flattened is described at its type")]
pub enum ClockCommand {
    /// It must be reported: the clock runs from the moment it became known.
    Start {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        duty: Duty,
        /// Since when it has been known, such as 2026-03-02T09:00:00Z; now when not given.
        #[arg(long)]
        aware: Option<String>,
        /// How many hours a contract leaves; never more than the law.
        #[arg(long)]
        limit_hours: Option<u64>,
    },
    /// It was reported.
    Met {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        duty: Duty,
        /// The receiver's reference.
        #[arg(long)]
        reference: String,
        /// When; now when not given.
        #[arg(long)]
        at: Option<String>,
    },
    /// It need not be reported after all.
    Stop {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        duty: Duty,
        /// Why.
        #[arg(long)]
        why: String,
    },
}

/// A duty.
#[derive(Args)]
pub struct Duty {
    /// gdpr_authority (72 h), nis2_early_warning (24 h), nis2_notification (72 h) or processor_notice (24 h).
    #[arg(value_parser = ["gdpr_authority", "nis2_early_warning", "nis2_notification", "processor_notice"])]
    clock: String,
    /// To or about whom: an authority, a controller, a tenant.
    subject: String,
}

/// One incident.
#[derive(Args)]
pub struct One {
    #[command(flatten)]
    remote: Remote,
    /// The incident: its id, or enough of its beginning.
    id: String,
}

/// Which incidents.
#[derive(Args)]
pub struct List {
    #[command(flatten)]
    remote: Remote,
    /// new, in_progress, on_hold, resolved, closed, or open for all but closed; several with commas.
    #[arg(long, default_value = "open")]
    status: String,
    /// Only so grave or graver.
    #[arg(long)]
    severity: Option<String>,
    /// Only so urgent or more.
    #[arg(long)]
    priority: Option<String>,
    /// Only of this login; `nobody` for those of nobody.
    #[arg(long)]
    assignee: Option<String>,
    /// Only of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Only those that concern this entity, such as user:ann or address:203.0.113.9.
    #[arg(long)]
    entity: Option<String>,
    /// Only those with this in their title, entities, rules or comments.
    #[arg(long)]
    text: Option<String>,
    /// newest, updated, risk, priority, severity or due.
    #[arg(long, default_value = "priority")]
    sort: String,
    /// At most so many.
    #[arg(long, default_value_t = 50)]
    limit: u32,
}

/// What rests, and for how long.
#[derive(Args)]
pub struct Suppress {
    #[command(flatten)]
    remote: Remote,
    /// The incident; or say --entity or --rule.
    #[arg(required_unless_present_any = ["entity", "rule"], conflicts_with_all = ["entity", "rule"])]
    id: Option<String>,
    /// All alerts that concern this entity, such as user:ann.
    #[arg(long, conflicts_with = "rule")]
    entity: Option<String>,
    /// All alerts of this rule's id.
    #[arg(long)]
    rule: Option<String>,
    /// Only this tenant's.
    #[arg(long, conflicts_with = "id")]
    tenant: Option<String>,
    /// For how long, such as 30m, 2h or 3d; at most 7d.
    #[arg(long = "for")]
    span: String,
    /// Why.
    #[arg(long)]
    why: String,
}

impl List {
    /// The address of what is asked for.
    fn path(&self) -> String {
        let assignee = self.assignee.as_deref().map(|login| if login == "nobody" { "" } else { login });
        let named = [
            ("status", Some(self.status.as_str())),
            ("severity", self.severity.as_deref()),
            ("priority", self.priority.as_deref()),
            ("assignee", assignee),
            ("tenant", self.tenant.as_deref()),
            ("entity", self.entity.as_deref()),
            ("text", self.text.as_deref()),
            ("sort", Some(self.sort.as_str())),
        ];
        let mut path = format!("/v1/incidents?limit={}", self.limit);
        for (name, value) in named.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            path.push_str(&format!("&{name}={}", query(value)));
        }
        path
    }
}

/// Carries out a command.
pub async fn run(command: &IncidentsCommand) -> anyhow::Result<()> {
    match command {
        IncidentsCommand::List(list) => {
            let found = list.remote.connect().await?.get(&list.path()).await?;
            print(&list.remote, &found, list_table)
        }
        IncidentsCommand::Show(one) => {
            let (client, id) = one.find().await?;
            print(&one.remote, &client.get(&format!("/v1/incidents/{id}")).await?, whole)
        }
        IncidentsCommand::Timeline(one) => {
            let (client, id) = one.find().await?;
            print(&one.remote, &client.get(&format!("/v1/incidents/{id}/timeline")).await?, moments)
        }
        IncidentsCommand::Ack(one) => one.act("acknowledge", json!({})).await,
        IncidentsCommand::Assign { one, assignee: Some(login) } => one.act("assign", json!({"assignee": login})).await,
        IncidentsCommand::Assign { one, assignee: None } => one.act("unassign", json!({})).await,
        IncidentsCommand::Comment { one, text } => one.act("comments", json!({"text": text})).await,
        IncidentsCommand::Status { one, status, why } => one.act("status", json!({"status": status, "why": why})).await,
        IncidentsCommand::Severity { one, severity, why } => {
            one.act("severity", json!({"severity": unless_auto(severity), "why": why})).await
        }
        IncidentsCommand::Priority { one, priority, why } => {
            one.act("priority", json!({"priority": unless_auto(priority), "why": why})).await
        }
        IncidentsCommand::Merge { one, others, why } => {
            let client = one.remote.connect().await?;
            let mut incidents = Vec::with_capacity(others.len());
            for other in others {
                incidents.push(find(&client, other).await?);
            }
            one.act_by(&client, "merge", json!({"incidents": incidents, "why": why})).await
        }
        IncidentsCommand::Split { one, alerts, why } => one.act("split", json!({"alerts": alerts, "why": why})).await,
        IncidentsCommand::Undo { one, change, why } => one.act("undo", json!({"change": change, "why": why})).await,
        IncidentsCommand::Suppress(suppress) => suppress.run().await,
        IncidentsCommand::Unsuppress(one) => one.unsuppress().await,
        IncidentsCommand::Suppressed { remote } => {
            print(remote, &remote.connect().await?.get("/v1/mutes").await?, mutes)
        }
        IncidentsCommand::Clock(command) => clock(command).await,
        IncidentsCommand::PostMortem { one, text } => one.act("post-mortem", json!({"text": text})).await,
        IncidentsCommand::Close { one, cause, actions } => {
            one.act("close", json!({"cause": cause, "actions": actions})).await
        }
    }
}

async fn clock(command: &ClockCommand) -> anyhow::Result<()> {
    let ms = |text: &Option<String>| text.as_deref().map(show::parse_time).transpose();
    match command {
        ClockCommand::Start { one, duty: Duty { clock, subject }, aware, limit_hours } => {
            let body = json!({"clock": clock, "subject": subject, "aware_ms": ms(aware)?, "limit_hours": limit_hours});
            one.act("clocks", body).await
        }
        ClockCommand::Met { one, duty: Duty { clock, subject }, reference, at } => {
            let body = json!({"clock": clock, "subject": subject, "reference": reference, "at_ms": ms(at)?});
            one.act("clocks/met", body).await
        }
        ClockCommand::Stop { one, duty: Duty { clock, subject }, why } => {
            one.act("clocks/stopped", json!({"clock": clock, "subject": subject, "why": why})).await
        }
    }
}

fn unless_auto(word: &str) -> Option<&str> {
    (word != "auto").then_some(word)
}

impl One {
    async fn find(&self) -> anyhow::Result<(Client, String)> {
        let client = self.remote.connect().await?;
        let id = find(&client, &self.id).await?;
        Ok((client, id))
    }

    async fn act(&self, what: &str, body: Value) -> anyhow::Result<()> {
        self.act_by(&self.remote.connect().await?, what, body).await
    }

    async fn act_by(&self, client: &Client, what: &str, body: Value) -> anyhow::Result<()> {
        let id = find(client, &self.id).await?;
        let after = client.ask(Method::POST, &format!("/v1/incidents/{id}/{what}"), Some(body)).await?;
        print(&self.remote, &after, |after| {
            let list = json!({"incidents": [after]});
            let last = after["history"].as_array().and_then(|history| history.last()).cloned().unwrap_or_default();
            format!("{}\n{}", note(&last), list_table(&list))
        })
    }

    async fn unsuppress(&self) -> anyhow::Result<()> {
        let client = self.remote.connect().await?;
        let mutes = client.get("/v1/mutes").await?;
        let known = mutes["mutes"].as_array().into_iter().flatten().map(|mute| text(&mute["id"]));
        let fits: Vec<String> = known.filter(|id| id.starts_with(&self.id)).collect();
        match fits.as_slice() {
            [] => self.act_by(&client, "unsuppress", json!({})).await,
            [id] => client.ask(Method::DELETE, &format!("/v1/mutes/{id}"), None).await.map(|_| ()),
            several => bail!("{} begins more than one: {}", self.id, several.join(", ")),
        }
    }
}

impl Suppress {
    async fn run(&self) -> anyhow::Result<()> {
        let client = self.remote.connect().await?;
        let until_ms = SystemClock::new().wall_ms() + show::parse_span(&self.span)?;
        let (path, mut body) = match &self.id {
            Some(id) => (format!("/v1/incidents/{}/suppress", find(&client, id).await?), json!({})),
            None => {
                let body = json!({"entity": self.entity, "rule": self.rule, "tenant": self.tenant});
                (String::from("/v1/mutes"), body)
            }
        };
        body["until_ms"] = until_ms.into();
        body["why"] = self.why.as_str().into();
        let done = client.ask(Method::POST, &path, Some(body)).await?;
        print(&self.remote, &done, |_| format!("nobody is called until {}; the risk goes on", time(&until_ms.into())))
    }
}

/// The incident whose id begins so.
pub(super) async fn find(client: &Client, id: &str) -> anyhow::Result<String> {
    const WHOLE: usize = 32;
    if id.len() >= WHOLE {
        return Ok(id.to_owned());
    }
    let found = client.get(&format!("/v1/incidents?text={}", query(id))).await?;
    let ids = found["incidents"].as_array().into_iter().flatten().map(|one| text(&one["id"]));
    let fits: Vec<String> = ids.filter(|known| known.starts_with(id)).collect();
    match fits.as_slice() {
        [one] => Ok(one.clone()),
        [] => bail!("no incident's id begins with '{id}'; those that were merged need their whole id"),
        several => bail!("'{id}' begins more than one: {}", several.join(", ")),
    }
}
