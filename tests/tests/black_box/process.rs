//! Processes: killed, stopped, restarted, without their disk, with a stranger's certificate.

use crate::bed::{Bed, until};
use crate::client::Client;
use crate::people::{self, Tenant, record};
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

/// Writes keys of its own until a request is not answered; the keys that were acknowledged.
async fn write_until_lost(agent: Client, writer: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    loop {
        let key = format!("w{writer}-{}", acknowledged.len());
        let ask = agent.ask(Method::PUT, &record("acme", &key)).json(&json!({"fields": {"name": key.clone()}}));
        match ask.try_send().await {
            Ok(answer) if answer.status == 201 => acknowledged.push(key),
            _ => return acknowledged,
        }
    }
}

/// A record that must be there; while a region has no leader, its nodes say 503 and mean "again".
async fn read(client: &Client, key: &str) -> serde_json::Value {
    until(&format!("{key} is answered"), async || {
        let answer = client.ask(Method::GET, &record("acme", key)).try_send().await.ok()?;
        (answer.status != 503).then(|| answer.is(200).json())
    })
    .await
}

#[tokio::test]
async fn acknowledged_writes_survive_kill_and_restart() {
    let Some(mut bed) = Bed::start("eu", "1").await else { return };
    let agent = Tenant::create(&people::first(&bed, &bed.client("eu-1")).await, "acme").await.agent;
    for round in 0..2 {
        let mut writers = JoinSet::new();
        for writer in 0..8 {
            writers.spawn(write_until_lost(agent.clone(), round * 8 + writer));
        }
        let probe = record("acme", &format!("w{}-5", round * 8));
        until("some writes", async || (agent.get(&probe).await.status == 200).then_some(())).await;
        bed.kill("eu-1");
        let acknowledged = writers.join_all().await.concat();
        bed.restart("eu-1").await;
        assert!(acknowledged.len() >= 6, "{acknowledged:?}");
        for key in &acknowledged {
            let found = until("an answer", async || {
                let answer = agent.ask(Method::GET, &record("acme", key)).try_send().await.ok()?;
                (answer.status != 503).then_some(answer)
            });
            assert_eq!(found.await.is(200).json()["fields"]["name"], **key);
        }
    }
    bed.assert_no_panic();
}

#[tokio::test]
async fn a_region_goes_on_without_one_node_and_takes_it_back() {
    let Some(mut bed) = Bed::start("eu", "3").await else { return };
    let admin = people::first(&bed, &bed.client("eu-1")).await;
    let agent = Tenant::create(&admin, "acme").await.agent;
    let on = |node: &str| bed.client(node).with(agent.token.as_deref().unwrap());
    let (one, two, three) = (on("eu-1"), on("eu-2"), on("eu-3"));
    // A new session and a new table are known to each node a moment later.
    for client in [&two, &three] {
        until("the table is known", async || {
            (client.get("/v1/tenants/acme/tables/contacts").await.status == 200).then_some(())
        })
        .await;
    }
    one.put(&record("acme", "before"), json!({"fields": {"name": "a"}})).await.is(201);
    for client in [&two, &three] {
        assert_eq!(read(client, "before").await["fields"]["name"], "a");
    }
    let status = admin.get("/v1/cluster/status").await.is(200).json();
    let leader = status["groups"].as_array().unwrap().iter().find(|group| group["group"] == "1").unwrap()["leader"]
        .as_str()
        .unwrap()
        .to_owned();
    bed.kill(&leader);
    let rest = [("eu-1", &one), ("eu-2", &two), ("eu-3", &three)];
    let alive: Vec<&Client> = rest.iter().filter(|(name, _)| *name != leader).map(|(_, client)| *client).collect();
    until("writes go on", async || {
        let ask = alive[0].ask(Method::PUT, &record("acme", "during")).header("idempotency-key", "during");
        let answer = ask.json(&json!({"fields": {"name": "b"}})).try_send().await.ok()?;
        answer.status.is_success().then_some(())
    })
    .await;
    assert_eq!(read(alive[1], "during").await["fields"]["name"], "b");

    // It comes back, and then without its disk.
    bed.restart(&leader).await;
    bed.kill(&leader);
    std::fs::remove_dir_all(bed.path(&format!("nodes/{leader}/data"))).unwrap();
    bed.spawn(&leader, &["--rejoin"]);
    bed.ready(&leader).await;
    let back = rest.iter().find(|(name, _)| *name == leader).unwrap().1;
    for key in ["before", "during"] {
        until("the node has everything", async || {
            let answer = back.ask(Method::GET, &record("acme", key)).try_send().await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }
    bed.assert_no_panic();
}

#[tokio::test]
async fn a_node_that_is_asked_to_stop_ends_in_order() {
    let Some(mut bed) = Bed::start("eu", "1").await else { return };
    let agent = Tenant::create(&people::first(&bed, &bed.client("eu-1")).await, "acme").await.agent;
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        writers.spawn(write_until_lost(agent.clone(), writer));
    }
    until("some writes", async || (agent.get(&record("acme", "w0-3")).await.status == 200).then_some(())).await;
    let status = bed.stop("eu-1").await;
    assert!(status.success(), "{status}");
    let acknowledged = writers.join_all().await.concat();
    let log = std::fs::read_to_string(bed.log("eu-1")).unwrap();
    assert!(log.contains("\"stopped\""), "{log}");
    for line in log.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "logs are JSON lines: {line}");
    }
    bed.restart("eu-1").await;
    for key in &acknowledged {
        read(&agent, key).await;
    }
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_refused() {
    let Some(other) = Bed::described(&["--regions", "eu", "--nodes", "3"]) else { return };
    let Some(mut bed) = Bed::start("eu", "3").await else { return };
    bed.kill("eu-3");
    for file in ["node.pem", "node.key"] {
        std::fs::copy(other.path(&format!("nodes/eu-3/{file}")), bed.path(&format!("nodes/eu-3/{file}"))).unwrap();
    }
    // It trusts the others' authority, but shows a certificate that another cluster's signed.
    bed.spawn("eu-3", &[]);
    let refusals = async || {
        let (_, metrics) = bed.plain("eu-1", "/metrics").await?;
        let line = metrics.lines().find(|line| line.starts_with("holdfast_transport{what=\"refused\"}"))?.to_owned();
        line.rsplit(' ').next()?.parse::<f64>().ok().filter(|count| *count > 0.0)
    };
    until("the others refuse it", refusals).await;
    assert!(!bed.is_ready("eu-3").await, "it takes part all the same");
    bed.ready("eu-1").await;
    bed.ready("eu-2").await;
}
