//! Looking at a cluster: who leads, what each replica holds, what the audit log says.

use crate::check::audit::Entry;
use crate::check::convergence::{Digest, Replica};
use crate::client::{Call, Client, Door};
use crate::tenancy::Site;
use anyhow::{Context as _, Result, bail};
use reqwest::Method;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PAGE: usize = 500;
/// Pages of one list: a list that never ends is a fault.
const PAGES_MAX: usize = 2_000;
const POLL: Duration = Duration::from_millis(200);

/// Who leads a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The node's name.
    pub node: String,
    /// The term.
    pub term: u64,
}

/// The leader of a group as one of a region's nodes knows it, asking those that answer.
pub async fn leader(site: &Site, region: usize, group: &str, not: Option<&str>) -> Option<Leader> {
    for door in site.doors.iter().filter(|door| door.region == region && Some(door.node.as_str()) != not) {
        let call = Call::new(Method::GET, "/v1/cluster/status", &site.admin.token).within(Duration::from_secs(2));
        let Ok(answer) = site.client.send(door, &call).await else { continue };
        let groups = answer.body["groups"].as_array().cloned().unwrap_or_default();
        let found = groups.iter().find(|one| one["group"] == group);
        let Some(found) = found else { continue };
        if let (Some(node), Some(term)) = (found["leader"].as_str(), found["term"].as_u64()) {
            return Some(Leader { node: node.to_owned(), term });
        }
    }
    None
}

/// All items of a list, page by page.
async fn pages(client: &Client, door: &Door, token: &str, path: &str, member: &str) -> Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut page_token: Option<String> = None;
    for _ in 0..PAGES_MAX {
        let separator = if path.contains('?') { '&' } else { '?' };
        let page = page_token.map(|token| format!("&page_token={token}")).unwrap_or_default();
        let call = Call::new(Method::GET, format!("{path}{separator}limit={PAGE}{page}"), token);
        let mut answer = client.must(door, &call).await?;
        if let Some(Value::Array(more)) = answer.body.get_mut(member).map(Value::take) {
            items.extend(more);
        }
        match answer.body["next_page_token"].as_str() {
            Some(next) => page_token = Some(next.to_owned()),
            None => return Ok(items),
        }
    }
    bail!("{path} at {} has more than {PAGES_MAX} pages", door.node)
}

/// Records of a table whose keys begin so, by key, as the region of the door has them now.
pub async fn records(
    client: &Client,
    door: &Door,
    token: &str,
    table: &str,
    prefix: &str,
) -> Result<BTreeMap<String, Value>> {
    let query = if prefix.is_empty() { String::new() } else { format!("?prefix={prefix}") };
    let items = pages(client, door, token, &format!("{table}/records{query}"), "records").await?;
    let entry = |mut item: Value| Some((item["key"].as_str()?.to_owned(), item["fields"].take()));
    Ok(items.into_iter().filter_map(entry).collect())
}

/// What each node holds, by the node's name.
pub async fn replicas(site: &Site, doors: &[&Door]) -> Result<BTreeMap<String, Replica>> {
    let mut replicas = BTreeMap::new();
    for door in doors {
        let call = Call::new(Method::GET, "/v1/cluster/convergence", &site.admin.token);
        let answer = site.client.must(door, &call).await?;
        let partitions = answer.body["partitions"].as_array().context("no partitions in the answer")?;
        let digest = |item: &Value| {
            let vector = serde_json::from_value(item["vector"].clone()).ok()?;
            Some((item["partition"].as_u64()?, Digest { vector, hash: item["hash"].as_str()?.to_owned() }))
        };
        let replica: Option<Replica> = partitions.iter().map(digest).collect();
        replicas.insert(door.node.clone(), replica.context("a partition is not as expected")?);
    }
    Ok(replicas)
}

/// Waits until all replicas are equal; answers what they are in the end, and how long it took.
pub async fn converge(site: &Site, doors: &[&Door], within: Duration) -> Result<(BTreeMap<String, Replica>, Duration)> {
    let began = Instant::now();
    loop {
        let found = replicas(site, doors).await;
        let elapsed = began.elapsed();
        match found {
            Ok(replicas) if crate::check::convergence::check(&replicas).holds() || elapsed >= within => {
                return Ok((replicas, elapsed));
            }
            Err(error) if elapsed >= within => return Err(error),
            _ => {}
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The audit entries of every region since a moment, each region's log read where it is kept.
pub async fn audit(site: &Site, regions: &[usize], from_ms: u64) -> Result<Vec<Entry>> {
    let mut entries: BTreeMap<(String, u64), Entry> = BTreeMap::new();
    for region in regions {
        let path = format!("/v1/audit/entries?from_ms={from_ms}");
        let mut once = BTreeMap::new();
        for item in pages(&site.client, site.door(*region), &site.admin.token, &path, "entries").await? {
            let entry = entry(&item).context("an audit entry is not as expected")?;
            if once.insert((entry.log.clone(), entry.index), ()).is_some() {
                bail!("entry {} of {} came on two pages", entry.index, entry.log);
            }
            // The control plane's log is the same in every region.
            entries.insert((entry.log.clone(), entry.index), entry);
        }
    }
    Ok(entries.into_values().collect())
}

fn entry(item: &Value) -> Option<Entry> {
    let event = &item["event"];
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    Some(Entry {
        log: item["log"].as_str()?.to_owned(),
        index: item["index"].as_u64()?,
        action: text("action"),
        outcome: text("outcome"),
        resource: text("resource"),
        request: text("request_id"),
    })
}

/// Whether a region's audit logs hold, and how many entries they have.
pub async fn verify(site: &Site, region: usize) -> Result<(bool, u64, Value)> {
    let call = Call::new(Method::GET, "/v1/audit/verification", &site.admin.token);
    let answer = site.client.must(site.door(region), &call).await?;
    let logs = answer.body["logs"].as_array().cloned().unwrap_or_default();
    let size = logs.iter().filter_map(|log| log["size"].as_u64()).sum();
    Ok((answer.body["verified"].as_bool().unwrap_or(false), size, answer.body["logs"].clone()))
}
