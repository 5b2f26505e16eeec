//! Random faults under load: what was acknowledged stays, where it was acknowledged.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use consensus::{GroupOptions, Timing};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use support::{GROUP, Groups, World, node};

/// Commands that were acknowledged, by index.
type Acknowledged = Arc<parking_lot::Mutex<BTreeMap<u64, String>>>;

/// Proposes to anyone, again and again, without a pause that would let a fault pass unseen.
async fn client(number: u64, groups: Groups, acknowledged: Acknowledged) {
    for round in 0u64.. {
        let command = format!("{number}.{round}");
        let target = {
            let groups = groups.lock();
            groups.values().find(|group| group.is_leader()).or(groups.values().next()).cloned()
        };
        if let Some(group) = target {
            let proposing = group.propose(command.clone().into());
            if let Ok(Ok(applied)) = tokio::time::timeout(Duration::from_millis(400), proposing).await {
                let earlier = acknowledged.lock().insert(applied.index, command);
                assert_eq!(earlier, None, "two commands were acknowledged at one index");
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

async fn step(world: &mut World, random: &mut u64) {
    match draw(random, 8) {
        // The leader falls and is back before anyone has noticed.
        0 | 1 => {
            let leader = world.lives.iter().find(|(_, life)| life.group.is_leader()).map_or(1, |(number, _)| *number);
            world.crash(leader).await;
            world.start(leader).await.unwrap();
        }
        // The power fails everywhere.
        2 => {
            for number in [1, 2, 3] {
                world.crash(number).await;
            }
            for number in [1, 2, 3] {
                world.start(number).await.unwrap();
            }
        }
        // One node is away for a while.
        3 => {
            let number = 1 + draw(random, 3);
            world.crash(number).await;
            tokio::time::sleep(Duration::from_millis(draw(random, 1_500))).await;
            world.start(number).await.unwrap();
        }
        4 | 5 => {
            let (from, to) = (1 + draw(random, 3), 1 + draw(random, 3));
            world.network.cut(node(from), node(to));
        }
        6 => world.network.heal_all(),
        _ => {
            let number = 1 + draw(random, 3);
            let _ = world.lives[&number].group.checkpoint().await;
        }
    }
}

/// One run; the error says what was lost.
async fn storm(seed: u64, options: fn(model::NodeId) -> GroupOptions) -> Result<usize, String> {
    let mut world = World::new(seed);
    world.options = options;
    world.found(&[1, 2, 3]).await;
    let acknowledged = Acknowledged::default();
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..4 {
        clients.spawn(client(number, world.groups.clone(), acknowledged.clone()));
    }
    let mut random = seed;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(draw(&mut random, 600))).await;
        step(&mut world, &mut random).await;
        if let Some(fault) = world.statuses().into_iter().find_map(|status| status.fault) {
            return Err(fault);
        }
    }
    world.network.heal_all();
    world.write("healed").await;
    clients.shutdown().await;
    world.settle().await;
    let states: Vec<_> = world.lives.values().map(|life| life.journal.commands()).collect();
    if states.iter().any(|state| *state != states[0]) {
        return Err("the nodes hold different commands".to_owned());
    }
    let commands: BTreeMap<u64, Vec<u8>> = states.into_iter().next().unwrap_or_default().into_iter().collect();
    for (index, command) in &*acknowledged.lock() {
        if commands.get(index).map(Vec::as_slice) != Some(command.as_bytes()) {
            return Err(format!("{command} was acknowledged at {index} and is lost"));
        }
    }
    let count = acknowledged.lock().len();
    Ok(count)
}

fn honest(node: model::NodeId) -> GroupOptions {
    let timing = Timing { heartbeat_ms: 50, election_min_ms: 150, election_max_ms: 250, ..Timing::default() };
    GroupOptions { timing, checkpoint_entries: 200, keep_entries: 20, ..GroupOptions::new(GROUP, node) }
}

#[tokio::test(start_paused = true)]
async fn acknowledged_writes_survive_any_storm() {
    for seed in 100..104 {
        let acknowledged = storm(seed, honest).await.unwrap_or_else(|loss| panic!("seed {seed}: {loss}"));
        assert!(acknowledged > 100, "seed {seed}: only {acknowledged} writes came through");
    }
}

/// The planted bug that shows that the storm is strong enough: openraft's default.
#[tokio::test(start_paused = true)]
async fn a_leader_restored_without_an_election_is_caught() {
    for seed in 100..120 {
        let restoring = |node| GroupOptions { plant_leader_restore: true, ..honest(node) };
        if storm(seed, restoring).await.is_err() {
            return;
        }
    }
    panic!("twenty storms did not show the planted bug");
}
