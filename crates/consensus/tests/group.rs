//! Groups of several nodes over memory disks and a memory network.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use bytes::Bytes;
use consensus::{Group, GroupOptions, ProposeError, Role, StartError, Timing};
use futures::future::join_all;
use std::time::Duration;
use storage::{Engine, MemoryEngine};
use support::{GROUP, World, machine::Journal, node, nodes, peer};
use tokio::time::Instant;
use transport::{Conditions, Leg, Link, LinkError, MemoryNetwork, Service};

#[tokio::test(start_paused = true)]
async fn every_node_applies_the_same_commands_in_the_same_order() {
    let world = World::founded(1).await;
    let leader = &world.lives[&world.leader().await].group;
    let applied = join_all((0..500).map(|number| leader.propose(format!("command {number}").into()))).await;
    let mut counts: Vec<u64> = applied
        .into_iter()
        .map(|applied| u64::from_be_bytes(applied.unwrap().result.as_ref().try_into().unwrap()))
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=500).collect::<Vec<_>>());
    assert_eq!(world.assert_equal().await.len(), 500);
}

#[tokio::test(start_paused = true)]
async fn a_follower_names_the_leader_and_refuses() {
    let world = World::founded(2).await;
    let leader = world.leader().await;
    for (number, life) in &world.lives {
        let expect_leader = ProposeError::NotLeader { leader: Some(node(leader)) };
        if *number != leader {
            assert_eq!(life.group.propose(Bytes::from_static(b"x")).await, Err(expect_leader.clone()));
            assert_eq!(life.group.read_index().await, Err(expect_leader));
        }
    }
    let too_large = vec![0; consensus::COMMAND_BYTES_MAX + 1];
    let refused = world.lives[&leader].group.propose(too_large.into()).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_read_index_covers_every_acknowledged_write() {
    let world = World::founded(3).await;
    for number in 0..20 {
        let applied = world.write(format!("{number}")).await;
        let leader = world.leader().await;
        let index = world.lives[&leader].group.read_index().await.unwrap();
        assert!(index >= applied.index);
        for life in world.lives.values() {
            life.group.wait_applied(index).await.unwrap();
            assert!(life.journal.commands().len() > number);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_stops_writes_for_less_than_1_5_s_and_loses_nothing() {
    for seed in 10..15 {
        let mut world = World::founded(seed).await;
        for number in 0..50 {
            world.write(format!("before {number}")).await;
        }
        let leader = world.leader().await;
        world.crash(leader).await;
        let killed = Instant::now();
        world.write("after").await;
        assert!(killed.elapsed() < Duration::from_millis(1_500), "{:?}", killed.elapsed());
        world.start(leader).await.unwrap();
        let commands = world.assert_equal().await;
        for number in 0..50 {
            let command = format!("before {number}");
            assert!(commands.iter().any(|(_, bytes)| bytes == command.as_bytes()), "{command} is lost");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_of_all_nodes_loses_nothing_acknowledged() {
    let mut world = World::founded(4).await;
    let mut acknowledged = Vec::new();
    for round in 0..5 {
        for number in 0..20 {
            let command = format!("{round}.{number}");
            world.write(command.clone()).await;
            acknowledged.push(command);
        }
        // Some proposals are still on their way when the power goes.
        let leader = world.lives[&world.leader().await].group.clone();
        for number in 0..20 {
            let leader = leader.clone();
            tokio::spawn(async move { leader.propose(format!("lost {round}.{number}").into()).await });
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        for number in [1, 2, 3] {
            world.crash(number).await;
        }
        for number in [1, 2, 3] {
            world.start(number).await.unwrap();
        }
        let commands = world.assert_equal().await;
        for command in &acknowledged {
            assert!(commands.iter().any(|(_, bytes)| bytes == command.as_bytes()), "{command} is lost");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_node_gets_a_snapshot_and_replaces_an_old_one() {
    let mut world = World::new(5);
    world.options = |node| GroupOptions { checkpoint_entries: 50, keep_entries: 10, ..GroupOptions::new(GROUP, node) };
    world.found(&[1, 2, 3]).await;
    for number in 0..300 {
        world.write(format!("{number}")).await;
    }
    let leader = world.leader().await;
    let gone = (1..=3).find(|number| *number != leader).unwrap();
    world.crash(gone).await;
    world.start(4).await.unwrap();
    let status = world.lives[&leader].group.status();
    assert!(status.purged.is_some_and(|purged| purged > 100), "the log was never purged: {status:?}");
    let group = world.lives[&leader].group.clone();
    group.add_learner(node(4)).await.unwrap();
    let stay: Vec<u64> = (1..=4).filter(|number| *number != gone).collect();
    group.change_members(&nodes(&stay)).await.unwrap();
    assert_eq!(group.status().voters, nodes(&stay));
    world.write("after").await;
    assert_eq!(world.assert_equal().await.len(), 301);
    assert!(world.lives[&4].group.status().snapshot.is_some(), "node 4 came by the log, not by a snapshot");
    // The new node has a vote: it makes a quorum with one of the old ones.
    world.crash(leader).await;
    world.write("with the new node").await;
    assert_eq!(world.assert_equal().await.len(), 302);
    // What it received survives its own restart.
    world.crash(4).await;
    world.start(4).await.unwrap();
    world.write("and again").await;
    assert_eq!(world.assert_equal().await.len(), 303);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_was_away_too_long_catches_up_by_snapshot() {
    let mut world = World::new(6);
    world.options = |node| GroupOptions { checkpoint_entries: 50, keep_entries: 5, ..GroupOptions::new(GROUP, node) };
    world.found(&[1, 2, 3]).await;
    let away = if world.leader().await == 3 { 2 } else { 3 };
    world.crash(away).await;
    for number in 0..400 {
        world.write(format!("{number}")).await;
    }
    world.start(away).await.unwrap();
    assert_eq!(world.assert_equal().await.len(), 400);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_broke_off_is_sent_again() {
    let mut world = World::new(15);
    world.options = |node| GroupOptions { checkpoint_entries: 20, keep_entries: 1, ..GroupOptions::new(GROUP, node) };
    world.found(&[1, 2, 3]).await;
    for number in 0..60 {
        world.write(format!("{number} {}", "x".repeat(200_000))).await;
    }
    let leader = world.lives[&world.leader().await].group.clone();
    world.start(4).await.unwrap();
    let adding = tokio::spawn(async move { leader.add_learner(node(4)).await });
    // Every piece takes 20 ms, so that 12 MB are on their way for a quarter of a second.
    world.network.set_conditions(Slow);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.lives[&4].group.applied(), None, "the snapshot was faster than the crash");
    world.crash(4).await;
    world.start(4).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let others: Vec<_> = (1..=3).map(node).collect();
    world.network.partition(&[node(4)], &others);
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.network.heal_all();
    adding.await.unwrap().unwrap();
    assert_eq!(world.assert_equal().await.len(), 60);
}

/// A long way.
struct Slow;
impl Conditions for Slow {
    fn leg(&self, _: model::NodeId, _: model::NodeId) -> Leg {
        Leg { delay: Duration::from_millis(20), ..Leg::default() }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deaf_leader_makes_way_for_another() {
    for seed in 30..35 {
        let world = World::founded(seed).await;
        world.write("before").await;
        let deaf = world.leader().await;
        let others: Vec<u64> = (1..=3).filter(|number| *number != deaf).collect();
        for other in &others {
            world.network.cut(node(*other), node(deaf));
        }
        // A client keeps writing to the deaf leader too: retries of appends must not keep the others quiet.
        let group = world.lives[&deaf].group.clone();
        let writing = tokio::spawn(async move {
            loop {
                let _ =
                    tokio::time::timeout(Duration::from_millis(50), group.propose(Bytes::from_static(b"deaf"))).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let cut = Instant::now();
        world.write_among(&others, "after".to_owned()).await;
        assert!(cut.elapsed() < Duration::from_secs(3), "{:?}", cut.elapsed());
        writing.abort();
        world.network.heal_all();
        world.assert_equal().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_group_keeps_its_leader_and_is_never_silent() {
    let world = World::founded(7).await;
    let leader = world.leader().await;
    let term = world.lives[&leader].group.status().term;
    for _ in 0..2_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let status = world.lives[&leader].group.status();
        assert!(!status.silent && status.role == Role::Leader && status.term == term, "{status:?}");
        assert!(status.last_quorum_acked_ms.is_some_and(|age_ms| age_ms < 400), "{status:?}");
        assert!(status.heard_ms.len() == 2 && status.heard_ms.values().all(|age_ms| *age_ms < 400), "{status:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_cut_off_does_not_disturb_when_it_returns() {
    let world = World::founded(8).await;
    let leader = world.leader().await;
    let term = world.lives[&leader].group.status().term;
    let away = if leader == 3 { 2 } else { 3 };
    let others: Vec<_> = (1..=3).filter(|number| *number != away).map(node).collect();
    world.network.partition(&[node(away)], &others);
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.network.heal_all();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let status = world.lives[&leader].group.status();
    assert_eq!((status.role, status.term), (Role::Leader, term));
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_nobody_is_led() {
    let world = World::founded(12).await;
    world.write("before").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(world.lives.values().all(|life| life.group.is_led()));
    for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
        world.network.cut(node(from), node(to));
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(world.lives.values().all(|life| !life.group.is_led()), "a dead leader is still believed in");
    world.network.heal_all();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(world.lives.values().all(|life| life.group.is_led()));
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_over_at_once() {
    let world = World::founded(9).await;
    for to in [1, 2, 3, 1] {
        let leader = world.leader().await;
        if leader == to {
            continue;
        }
        world.write(format!("for {to}")).await;
        let asked = Instant::now();
        world.lives[&leader].group.transfer_leader(node(to)).await.unwrap();
        let mut changes = world.lives[&to].group.changes();
        changes.wait_for(|pulse| pulse.role == Role::Leader).await.unwrap();
        assert!(asked.elapsed() < Duration::from_millis(200), "{:?}", asked.elapsed());
        world.write(format!("by {to}")).await;
    }
    world.assert_equal().await;
}

/// Calls that overtake one another, and some that are lost.
struct Rough;
impl Conditions for Rough {
    fn leg(&self, _: model::NodeId, _: model::NodeId) -> Leg {
        Leg { delay: Duration::from_millis(1), jitter: Duration::from_millis(6), loss_ppm: 5_000 }
    }
}

#[tokio::test(start_paused = true)]
async fn appends_that_overtake_one_another_are_put_in_order() {
    for seed in 40..44 {
        let world = World::founded(seed).await;
        world.network.set_conditions(Rough);
        let leader = world.lives[&world.leader().await].group.clone();
        let began = Instant::now();
        for round in 0..20 {
            let writes = (0..20).map(|number| {
                let group = leader.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(number)).await;
                    group.propose(format!("{round}.{number}").into()).await
                }
            });
            join_all(writes).await.into_iter().for_each(|applied| assert!(applied.is_ok(), "{applied:?}"));
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(world.assert_equal().await.len(), 400);
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_log_is_refused() {
    let mut world = World::founded(11).await;
    for number in 0..20 {
        world.write(format!("{number}")).await;
    }
    world.settle().await;
    world.crash(2).await;
    assert!(world.disks[&2].flip_log(GROUP, 10, 3));
    let refused = world.start(2).await;
    assert!(matches!(refused, Err(StartError::Damaged { index: 10, .. } | StartError::Disk { .. })), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_the_group_and_says_why() {
    let engine = MemoryEngine::auto_sync();
    let link = MemoryNetwork::new(0).join(peer(1));
    let options = GroupOptions::new(GROUP, node(1));
    let group = Group::start(options, engine.log(), link, Journal::open(&engine)).await.unwrap();
    group.initialize(&nodes(&[1])).await.unwrap();
    group.changes().wait_for(|pulse| pulse.role == Role::Leader).await.unwrap();
    assert!(!group.changes().has_changed().unwrap(), "only what happens from now on ticks");
    group.propose(Bytes::from_static(b"fits")).await.unwrap();
    engine.full(true);
    assert_eq!(group.propose(Bytes::from_static(b"does not")).await, Err(ProposeError::Unknown));
    group.changes().wait_for(|pulse| pulse.role == Role::Stopped).await.unwrap();
    assert!(group.status().fault.is_some());
    assert_eq!(group.propose(Bytes::from_static(b"late")).await, Err(ProposeError::Stopped));
}

#[tokio::test(start_paused = true)]
async fn who_speaks_for_another_node_is_refused() {
    let world = World::founded(12).await;
    let leader = world.leader().await;
    let follower = if leader == 1 { 2 } else { 1 };
    // A fourth node holds a good certificate, and replays what it says another node said.
    let group = world.lives[&follower].group.clone();
    let stranger = world.network.join(peer(4));
    let before = group.status().term;
    let vote = |name: u64| {
        // Version, group, question 1 (vote): vote {term 99, voted for `name`, not committed}, no log, forced.
        let mut bytes = vec![1, 3, 1, 99, 1];
        bytes.extend([name as u8, 0, 0, 1]);
        Bytes::from(bytes)
    };
    let deadline = Duration::from_millis(100);
    let refused = stranger.call(node(follower), Service::Raft, vote(leader), deadline).await;
    assert_eq!(refused, Err(LinkError::Refused(node(follower))));
    assert_eq!(group.status().term, before);
    // The same message in its own name is well-formed: only the name was wrong.
    assert!(stranger.call(node(follower), Service::Raft, vote(4), deadline).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_founder_that_starts_again_founds_nothing() {
    let mut world = World::founded(13).await;
    world.write("one").await;
    world.crash(1).await;
    world.start(1).await.unwrap();
    world.lives[&1].group.initialize(&nodes(&[1, 2, 3])).await.unwrap();
    world.lives[&1].group.initialize(&nodes(&[1])).await.unwrap();
    world.write("two").await;
    assert_eq!(world.assert_equal().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_threads_in_real_time_agree_too() {
    let mut world = World::new(14);
    // Real time on a busy machine: whoever is not run for a second still leads.
    world.options = |node| GroupOptions {
        checkpoint_entries: 100,
        keep_entries: 10,
        timing: Timing { heartbeat_ms: 500, election_min_ms: 2_000, election_max_ms: 4_000, ..Timing::default() },
        ..GroupOptions::new(GROUP, node)
    };
    world.found(&[1, 2, 3]).await;
    for round in 0..10 {
        let leader = world.lives[&world.leader().await].group.clone();
        let writes = (0..100).map(|number| {
            let leader = leader.clone();
            tokio::spawn(async move { leader.propose(format!("{round}.{number}").into()).await })
        });
        join_all(writes).await.into_iter().for_each(|applied| assert!(applied.unwrap().is_ok()));
    }
    let leader = world.lives[&world.leader().await].group.clone();
    world.start(4).await.unwrap();
    leader.add_learner(node(4)).await.unwrap();
    assert_eq!(world.assert_equal().await.len(), 1_000);
    assert!(world.lives[&4].group.status().snapshot.is_some());
}

/// What happened in a run, and when.
async fn trace(seed: u64) -> Vec<String> {
    let mut world = World::founded(seed).await;
    let mut trace = Vec::new();
    let began = Instant::now();
    for round in 0..4 {
        for number in 0..10 {
            let applied = world.write(format!("{round}.{number}")).await;
            trace.push(format!("{:?} {}", began.elapsed(), applied.index));
        }
        let leader = world.leader().await;
        world.crash(leader).await;
        world.write(format!("without {leader}")).await;
        trace.push(format!("{:?} {:?}", began.elapsed(), world.statuses()));
        world.start(leader).await.unwrap();
        world.settle().await;
        trace.push(format!("{:?} {:?} {:?}", began.elapsed(), world.statuses(), world.network.traffic()));
    }
    trace
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    let first = trace(77).await;
    assert_eq!(trace(77).await, first);
    assert_ne!(trace(78).await, first);
}
