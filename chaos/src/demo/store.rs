//! Step 1: the store. Control plane, sessions, replication, merge per field, conflicts.

use super::{TABLE, TENANT, Tour, ms};
use crate::client::{Answer, Call, Door};
use crate::tenancy::{AGENT, MANAGER, Person};
use anyhow::{Context as _, Result, bail};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long a change may take to reach the other regions.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);
/// Tries to have two regions write the same field before either hears of the other.
const COLLISIONS: usize = 10;
const POLL: Duration = Duration::from_millis(10);

const BORIS: Person = Person {
    login: "boris",
    name: "Boris Boston",
    role: "agent",
    first_password: "First-Key-4713-Valley",
    password: "Osprey-43-Lagoon",
};
const CHEN: Person = Person {
    login: "chen",
    name: "Chen Changi",
    role: "agent",
    first_password: "First-Key-4714-Desert",
    password: "Heron-44-Monsoon",
};

pub(super) async fn step(tour: &mut Tour) -> Result<()> {
    tour.keep_login(tour.site.admin.request.clone());
    people(tour).await?;
    tour.site.everywhere(&tour.agents[0].clone(), TENANT, TABLE).await?;
    everywhere(tour).await?;
    different_fields(tour).await?;
    same_field(tour).await
}

async fn people(tour: &mut Tour) -> Result<()> {
    let (tenant, created) = tour.site.create_tenant(TENANT, 1).await?;
    tour.group = tour.lab.description().group(tenant).get().to_string();
    tour.keep(created.request, &["tenant.create"], "success", None);
    let mut enrolled = vec![tour.site.enrol(&tour.site.admin, MANAGER, TENANT).await?];
    let manager = enrolled[0].pass.clone();
    let mut fields = crate::workload::fields().as_array().cloned().unwrap_or_default();
    fields.extend([json!({"name": "customer", "kind": "text"}), json!({"name": "state", "kind": "text"})]);
    fields.push(json!({"name": "calls", "kind": "int", "merge": "counter"}));
    let created = tour.site.create_table(&manager, TENANT, TABLE, &Value::Array(fields)).await?;
    tour.keep(created.request, &["table.create"], "success", None);
    for person in [AGENT, BORIS, CHEN] {
        enrolled.push(tour.site.enrol(&manager, person, TENANT).await?);
    }
    for one in enrolled {
        one.logins.into_iter().for_each(|request| tour.keep_login(request));
        one.changes.into_iter().for_each(|request| tour.keep(request, &["user."], "success", None));
        tour.agents.push(one.pass);
    }
    // The first one manages the tenant and reaches no record of it.
    tour.agents.remove(0);
    tour.say(format!("tenant {TENANT} in all regions, of class 1; table {TABLE} with text, int and counter fields"));
    tour.say("tessa (tenant-admin, with one-time codes), olga, boris and chen (agents): created, passwords changed, logged in");
    Ok(())
}

/// One write in each region, read in all others with the writer's token.
async fn everywhere(tour: &mut Tour) -> Result<()> {
    let mut worst = Duration::ZERO;
    for region in 0..tour.site.regions.len() {
        let key = format!("o-{}", tour.site.regions[region]);
        let fields = json!({"fields": {"customer": "Fen Limited", "state": "new", "value": 12_900}});
        let written = create(tour, region, &key, &fields).await?;
        let seen = written.seen.context("a write answers what its session has seen")?;
        for other in (0..tour.site.regions.len()).filter(|other| *other != region) {
            let began = Instant::now();
            let answer = read(tour, other, &key, Some(&seen)).await?;
            worst = worst.max(began.elapsed());
            if answer.body["fields"]["value"] != 12_900 {
                tour.fall_short(format!("{} reads {} of {key}", tour.site.regions[other], answer.body["fields"]));
            }
        }
    }
    tour.measured("read_in_other_region_ms", worst.as_millis());
    tour.say(format!(
        "a record written in each region was read in both others with the writer's token, within {}",
        ms(worst)
    ));
    Ok(())
}

async fn different_fields(tour: &mut Tour) -> Result<()> {
    let key = "o-shared";
    let made = create(tour, 0, key, &json!({"fields": {"customer": "Fen Limited", "state": "new"}})).await?;
    for region in 1..tour.site.regions.len() {
        read(tour, region, key, made.seen.as_deref()).await?;
    }
    let (one, other) =
        (json!({"set": {"state": "paid"}}), json!({"set": {"customer": "Fen & Sons"}, "increment": {"calls": 2}}));
    both(tour, key, &one, &other).await?;
    let wanted =
        |fields: &Value| fields["state"] == "paid" && fields["customer"] == "Fen & Sons" && fields["calls"] == 2;
    let took = agree(tour, key, wanted).await?;
    tour.say(format!(
        "eu changed its state and us its customer at once: both survive in all regions, after {}",
        ms(took)
    ));
    Ok(())
}

async fn same_field(tour: &mut Tour) -> Result<()> {
    for attempt in 0..COLLISIONS {
        let key = format!("o-contested-{attempt}");
        let made = create(tour, 0, &key, &json!({"fields": {"state": "new"}})).await?;
        for region in 1..tour.site.regions.len() {
            read(tour, region, &key, made.seen.as_deref()).await?;
        }
        both(tour, &key, &json!({"set": {"state": "shipped"}}), &json!({"set": {"state": "cancelled"}})).await?;
        let took = agree(tour, &key, |fields| fields["state"] != "new").await?;
        if let Some(conflict) = conflict(tour, &key).await? {
            let text = |name: &str| conflict[name].as_str().unwrap_or("?").to_owned();
            let (won, lost) = (text("won"), text("lost"));
            tour.say(format!(
                "both changed the state at once: {won} of {} won everywhere after {}; {lost} of {} is in the conflict list",
                text("won_region"),
                ms(took),
                text("lost_region")
            ));
            tour.measured("conflict", conflict);
            return Ok(());
        }
    }
    tour.fall_short(format!("{COLLISIONS} concurrent changes of one field left nothing in the conflict list"));
    Ok(())
}

/// The record's entry in the conflict list of a region, once it is there; none if the writes were not concurrent.
async fn conflict(tour: &mut Tour, key: &str) -> Result<Option<Value>> {
    let call = Call::new(Method::GET, format!("/v1/tenants/{TENANT}/conflicts"), &tour.agents[0].token);
    for region in 0..tour.site.regions.len() {
        let answer = tour.site.client.must(tour.site.door(region), &call).await?;
        tour.kept.push(crate::check::audit::Expected {
            request: answer.request,
            actions: &["record.view", "conflict.view"],
            outcome: "success",
            resource: Some("/conflicts".into()),
        });
        let list = answer.body["conflicts"].as_array().cloned().unwrap_or_default();
        if let Some(found) = list.into_iter().find(|one| one["key"] == key) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

async fn create(tour: &mut Tour, region: usize, key: &str, body: &Value) -> Result<Answer> {
    let token = tour.agents[region % tour.agents.len()].token.clone();
    let call = Call::new(Method::PUT, format!("{}/records/{key}", tour.table()), &token).json(body);
    let answer = tour.site.client.must(tour.site.door(region), &call).await?;
    tour.keep_change(answer.request.clone(), key);
    Ok(answer)
}

/// Reads a record once it has arrived.
async fn read(tour: &mut Tour, region: usize, key: &str, seen: Option<&str>) -> Result<Answer> {
    let token = tour.agents[region % tour.agents.len()].token.clone();
    let level = if seen.is_some() { "session" } else { "linearizable" };
    let mut call = Call::new(Method::GET, format!("{}/records/{key}?level={level}", tour.table()), &token);
    if let Some(seen) = seen {
        call = call.header("holdfast-session", seen);
    }
    let began = Instant::now();
    loop {
        let door = tour.site.door(region).clone();
        match tour.site.client.send(&door, &call).await {
            Ok(answer) if answer.is_success() => {
                tour.keep_view(answer.request.clone(), key);
                return Ok(answer);
            }
            // Too early: the region has not heard of it yet.
            Ok(answer) if answer.status == 425 && began.elapsed() < ARRIVES_WITHIN => {}
            Ok(answer) => bail!("{key} cannot be read at {}: {}", door.node, answer.problem()),
            Err(error) => bail!("{key} cannot be read at {}: {error}", door.node),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Changes one record in the first two regions at the same moment.
async fn both(tour: &mut Tour, key: &str, one: &Value, other: &Value) -> Result<()> {
    let path = format!("{}/records/{key}", tour.table());
    let call = |region: usize, body: &Value| {
        Call::new(Method::PATCH, path.clone(), &tour.agents[region % tour.agents.len()].token)
            .json(body)
            .header("if-match", "*")
    };
    let (first, second) = (call(0, one), call(1, other));
    let doors: [&Door; 2] = [tour.site.door(0), tour.site.door(1)];
    let client = &tour.site.client;
    let (first, second) = tokio::join!(client.must(doors[0], &first), client.must(doors[1], &second));
    let (first, second) = (first?.request, second?.request);
    tour.keep_change(first, key);
    tour.keep_change(second, key);
    Ok(())
}

/// Waits until all regions answer the same, and that is what is wanted.
async fn agree(tour: &mut Tour, key: &str, is_wanted: impl Fn(&Value) -> bool) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let mut answers = Vec::new();
        for region in 0..tour.site.regions.len() {
            answers.push(read(tour, region, key, None).await?.body["fields"].take());
        }
        let is_same = answers.windows(2).all(|pair| pair[0] == pair[1]);
        if is_same && is_wanted(&answers[0]) {
            return Ok(began.elapsed());
        }
        if began.elapsed() >= ARRIVES_WITHIN {
            bail!("the regions do not agree on {key} after {ARRIVES_WITHIN:?}: {answers:?}");
        }
        tokio::time::sleep(POLL).await;
    }
}
