//! Pulling between regions through links that lose, repeat, swap and break: each change is applied once, causes first.

use crate::world::{PARTITION, SHIPPED, TENANT, World, origin, steps};
use model::{GroupId, NodeId, Origin, PartitionId, RegionId, VersionVector};
use proptest::prelude::*;
use replication::inbox::{Alarm, Config, Effect, Input, Now, State};
use replication::serve::{Next, ServeError};
use replication::wire::{Answer, Ask};
use replication::{Admission, Change, Content, Digest, Inbox, Position, Serve, admit};
use std::collections::{BTreeMap, VecDeque};

const GROUP: GroupId = GroupId::new(3);
const WINDOW: u64 = 900;

/// What can happen to the receiver, region 0, and its links to regions 1 and 2.
#[derive(Clone, Debug)]
enum Event {
    /// The source sends what it can.
    Send { link: usize },
    /// The next frame arrives.
    Arrive { link: usize },
    /// It arrives twice.
    Repeat { link: usize },
    /// Two frames change places.
    Swap { link: usize },
    /// A frame is lost.
    Lose { link: usize },
    /// The stream breaks.
    Break { link: usize },
    /// The proposal under way is committed, or fails.
    Settle { link: usize, commits: bool },
    /// Time passes.
    Wait { ms: u64 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let link = || 0usize..2;
    let event = prop_oneof![
        5 => link().prop_map(|link| Event::Send { link }),
        5 => link().prop_map(|link| Event::Arrive { link }),
        1 => link().prop_map(|link| Event::Repeat { link }),
        1 => link().prop_map(|link| Event::Swap { link }),
        1 => link().prop_map(|link| Event::Lose { link }),
        1 => link().prop_map(|link| Event::Break { link }),
        4 => (link(), prop::bool::weighted(0.8)).prop_map(|(link, commits)| Event::Settle { link, commits }),
        2 => (1u64..3_000).prop_map(|ms| Event::Wait { ms }),
    ];
    proptest::collection::vec(event, 0..80)
}

struct Link {
    peer: usize,
    inbox: Inbox,
    serve: Serve,
    frames: VecDeque<Answer>,
    proposal: Option<(u64, Vec<Change>)>,
    /// Unreachable for ever.
    is_dead: bool,
}

/// The receiver: its state machine, and one inbox for each source.
struct Receiver {
    now: Now,
    links: Vec<Link>,
    positions: BTreeMap<(PartitionId, Origin), Position>,
    applied: Vec<(Origin, u64)>,
    have: VersionVector,
    /// Planted: the state machine believes the inbox and does not check.
    is_trusting: bool,
}

impl Receiver {
    fn new(history: &World, dead: Option<usize>) -> Self {
        let mut positions = BTreeMap::new();
        // What region 0 wrote itself is there from the beginning.
        let own = history.changes[0].last();
        let own = own.map(|change| Position { sequence: change.header.sequence, chain: change.chain });
        positions.extend(own.map(|position| ((PARTITION, origin(0)), position)));
        let have = own.map(|position| (origin(0), position.sequence)).into_iter().collect();
        let link = |peer: usize| {
            let mut config = Config::new(GROUP, origin(0), origin(peer).region, vec![NodeId::new(1), NodeId::new(2)]);
            config.window = WINDOW;
            config.relay_after_ms = 1_000;
            let committed = positions.iter().map(|((partition, origin), position)| (*partition, *origin, *position));
            Link {
                peer,
                inbox: Inbox::new(config, committed),
                serve: Serve::new(origin(peer).region, origin(0).region),
                frames: VecDeque::new(),
                proposal: None,
                is_dead: dead == Some(peer),
            }
        };
        let links = vec![link(1), link(2)];
        let now = Now { wall_ms: 1_000_000, monotonic_ms: 0 };
        let mut receiver = Self { now, links, positions, applied: Vec::new(), have, is_trusting: false };
        receiver.step(0, Input::Tick);
        receiver.step(1, Input::Tick);
        receiver
    }

    fn step(&mut self, link: usize, input: Input) {
        let mut inputs = VecDeque::from([(link, input)]);
        while let Some((link, input)) = inputs.pop_front() {
            let mut effects = Vec::new();
            let it = &mut self.links[link];
            it.inbox.step(self.now, input, &mut effects);
            it.inbox.check();
            for effect in effects {
                match effect {
                    Effect::Open(_) if it.is_dead => {
                        inputs.push_back((link, Input::Disconnected));
                        inputs.push_back((1 - link, Input::SourceDown(origin(it.peer).region)));
                    }
                    Effect::Open(_) => {
                        it.serve = Serve::new(origin(it.peer).region, origin(0).region);
                        it.frames.clear();
                        inputs.push_back((link, Input::Connected));
                        inputs.push_back((1 - link, Input::SourceUp(origin(it.peer).region)));
                    }
                    Effect::Close => it.frames.clear(),
                    Effect::Send(ask) => drop(it.serve.ask(ask).expect("the first ask is a pull")),
                    Effect::Propose { batch, changes } => {
                        assert!(it.proposal.is_none(), "one proposal at a time");
                        let mut have = self.have.clone();
                        for change in &changes {
                            assert!(have.covers(&change.header.deps), "causes come first");
                            have.raise(change.header.origin, change.header.sequence);
                        }
                        it.proposal = Some((batch, changes));
                    }
                    Effect::Alarm(_) => {}
                    Effect::FetchSnapshot(_) => panic!("everything is kept"),
                }
            }
        }
    }

    fn send(&mut self, link: usize, history: &World) {
        let it = &mut self.links[link];
        // A source has everything; what it relays it has from others.
        let heads: VersionVector =
            (0..3).map(|region| (origin(region), history.changes[region].len() as u64)).collect();
        let heads = BTreeMap::from([(PARTITION, heads)]);
        let read = |_, origin: Origin, sequence: u64| {
            history.changes[usize::from(origin.region.get())].get(sequence as usize - 1).cloned()
        };
        if let Next::Changes(changes) = it.serve.next(&heads, read, |_, _| true) {
            // Frames as small as the network likes.
            it.frames.extend(changes.chunks(2).map(|chunk| Answer::Changes(chunk.to_vec())));
        }
    }

    fn settle(&mut self, link: usize, commits: bool) {
        let Some((batch, changes)) = self.links[link].proposal.take() else { return };
        let mut moved = Vec::new();
        for change in changes.iter().filter(|_| commits) {
            let key = (PARTITION, change.header.origin);
            let head = self.positions.get(&key).copied().unwrap_or_default();
            match admit(&self.have, head, change, true) {
                Admission::Apply => {}
                _ if self.is_trusting => {}
                _ => continue,
            }
            let position = Position { sequence: change.header.sequence, chain: change.chain };
            self.positions.insert(key, position);
            self.have.raise(change.header.origin, change.header.sequence);
            self.applied.push((change.header.origin, change.header.sequence));
            moved.push((PARTITION, change.header.origin, position));
        }
        for link in 0..2 {
            self.step(link, Input::Committed(moved.clone()));
        }
        self.step(link, Input::Settled { batch });
    }

    fn wait(&mut self, ms: u64) {
        self.now.monotonic_ms += ms;
        self.now.wall_ms += ms;
        self.step(0, Input::Tick);
        self.step(1, Input::Tick);
    }

    fn run(&mut self, event: &Event, history: &World) {
        match *event {
            Event::Send { link } => self.send(link, history),
            Event::Arrive { link } => {
                if let Some(frame) = self.links[link].frames.pop_front() {
                    self.step(link, Input::Answer(frame));
                }
            }
            Event::Repeat { link } => {
                if let Some(frame) = self.links[link].frames.pop_front() {
                    self.step(link, Input::Answer(frame.clone()));
                    self.step(link, Input::Answer(frame));
                }
            }
            Event::Swap { link } if self.links[link].frames.len() > 1 => self.links[link].frames.swap(0, 1),
            Event::Swap { .. } => {}
            Event::Lose { link } => drop(self.links[link].frames.pop_front()),
            Event::Break { link } => {
                self.links[link].frames.clear();
                self.step(link, Input::Disconnected);
            }
            Event::Settle { link, commits } => self.settle(link, commits),
            Event::Wait { ms } => self.wait(ms),
        }
    }

    /// Lets everything work again; whether all of it arrived.
    fn heal(&mut self, history: &World) -> bool {
        let all: VersionVector = (0..3).map(|region| (origin(region), history.changes[region].len() as u64)).collect();
        // What was lost or swapped before is noticed only by what comes after it.
        for link in 0..2 {
            self.run(&Event::Break { link }, history);
        }
        for _ in 0..400 {
            for link in 0..2 {
                self.settle(link, true);
                self.send(link, history);
                while let Some(frame) = self.links[link].frames.pop_front() {
                    self.step(link, Input::Answer(frame));
                }
            }
            if self.have == all {
                return true;
            }
            self.wait(100);
        }
        false
    }
}

fn history(steps: &[crate::world::Step]) -> World {
    let mut world = World::new(3, SHIPPED);
    world.run(steps);
    world
}

fn each_once(receiver: &Receiver) -> bool {
    let mut sorted = receiver.applied.clone();
    sorted.sort_unstable();
    sorted.windows(2).all(|pair| pair[0] != pair[1])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_change_is_applied_once_and_causes_first_whatever_the_links_do(
        steps in steps(3, false), events in events(), dead in proptest::option::of(1usize..3),
    ) {
        let history = history(&steps);
        let mut receiver = Receiver::new(&history, dead);
        for event in &events {
            receiver.run(event, &history);
        }
        prop_assert!(receiver.heal(&history), "lacks {:?} of what is there", receiver.have);
        prop_assert!(each_once(&receiver));
        let mut seen: BTreeMap<Origin, u64> = BTreeMap::from([(origin(0), u64::MAX)]);
        for (origin, sequence) in &receiver.applied {
            let last = seen.entry(*origin).or_default();
            prop_assert_eq!(*last + 1, *sequence);
            *last = *sequence;
        }
    }
}

#[test]
fn a_planted_trust_in_the_inbox_applies_twice() {
    use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
    let config = ProptestConfig { cases: 3_000, failure_persistence: None, max_shrink_iters: 0, ..Default::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let found = runner.run(&(steps(3, false), events()), |(steps, events)| {
        let history = history(&steps);
        // Both links bring region 2's changes: the first relays them after a cut that has healed since.
        let mut receiver = Receiver::new(&history, None);
        receiver.is_trusting = true;
        receiver.step(0, Input::SourceDown(origin(2).region));
        receiver.wait(2_000);
        for event in &events {
            receiver.run(event, &history);
        }
        prop_assert!(each_once(&receiver));
        Ok(())
    });
    found.expect_err("two links propose the same change");
}

fn written(count: usize) -> World {
    let what = || vec![crate::world::What::Set(0, 1)];
    let steps: Vec<_> =
        (0..count).map(|_| crate::world::Step::Write { at: 1, wall: 1, key: 0, what: what() }).collect();
    history(&steps)
}

fn inbox() -> (Inbox, Now) {
    let config = Config::new(GROUP, origin(0), origin(1).region, vec![NodeId::new(1)]);
    let (mut inbox, now, mut effects) = (Inbox::new(config, []), Now { wall_ms: 1_000, monotonic_ms: 1 }, Vec::new());
    inbox.step(now, Input::Tick, &mut effects);
    assert_eq!(effects, vec![Effect::Open(NodeId::new(1))]);
    inbox.step(now, Input::Connected, &mut effects);
    assert!(matches!(effects[1], Effect::Send(Ask::Pull { .. })));
    assert_eq!(inbox.state(), State::Live);
    (inbox, now)
}

fn effects_of(inbox: &mut Inbox, now: Now, input: Input) -> Vec<Effect> {
    let mut effects = Vec::new();
    inbox.step(now, input, &mut effects);
    inbox.check();
    effects
}

#[test]
fn a_hole_or_a_broken_chain_closes_the_stream_and_starts_over() {
    let changes = &written(3).changes[1];
    let (mut it, now) = inbox();
    let effects = effects_of(&mut it, now, Input::Answer(Answer::Changes(vec![changes[1].clone()])));
    let alarm = Alarm::Hole { origin: origin(1), expected: 1, found: 2 };
    assert_eq!(effects, vec![Effect::Alarm(alarm), Effect::Close]);
    let again = Now { monotonic_ms: it.next_deadline().expect("a new attempt"), ..now };
    assert_eq!(effects_of(&mut it, again, Input::Tick), vec![Effect::Open(NodeId::new(1))]);

    let (mut it, now) = inbox();
    let forged = Change { chain: Digest::ZERO, ..changes[0].clone() };
    let effects = effects_of(&mut it, now, Input::Answer(Answer::Changes(vec![forged])));
    let alarm = Alarm::BrokenChain { origin: origin(1), sequence: 1 };
    assert_eq!(effects, vec![Effect::Alarm(alarm), Effect::Close]);
}

#[test]
fn a_change_from_the_future_is_held_until_its_time() {
    let what = vec![crate::world::What::Set(0, 1)];
    let change = history(&[crate::world::Step::Write { at: 1, wall: 9_000, key: 0, what }]).changes[1][0].clone();
    let (mut it, now) = inbox();
    let effects = effects_of(&mut it, now, Input::Answer(Answer::Changes(vec![change.clone()])));
    assert_eq!(effects, vec![Effect::Alarm(Alarm::FromTheFuture { origin: origin(1), sequence: 1, ahead_ms: 8_000 })]);
    assert_eq!(it.state(), State::ClockQuarantine);
    assert!(it.next_deadline().is_some());
    let later = Now { wall_ms: 8_500, monotonic_ms: 7_501 };
    let effects = effects_of(&mut it, later, Input::Tick);
    assert_eq!(effects, vec![Effect::Propose { batch: 1, changes: vec![change] }]);
    assert_eq!(it.state(), State::Live);
}

#[test]
fn what_is_committed_is_acknowledged_and_its_credit_returned() {
    let change = written(1).changes[1][0].clone();
    let (mut it, now) = inbox();
    effects_of(&mut it, now, Input::Answer(Answer::Changes(vec![change.clone()])));
    let position = Position { sequence: 1, chain: change.chain };
    let effects = effects_of(&mut it, now, Input::Committed(vec![(PARTITION, origin(1), position)]));
    let durable = BTreeMap::from([(PARTITION, [(origin(1), 1)].into_iter().collect())]);
    assert_eq!(effects, vec![Effect::Send(Ask::Grant { credit: change.weight() }), Effect::Send(Ask::Ack { durable })]);
    assert!(effects_of(&mut it, now, Input::Settled { batch: 1 }).is_empty());
}

#[test]
fn a_truncated_source_leads_to_a_snapshot_and_back() {
    let (mut it, now) = inbox();
    let effects =
        effects_of(&mut it, now, Input::Answer(Answer::Truncated { partition: PARTITION, origin: origin(1) }));
    assert_eq!(effects, vec![Effect::Close, Effect::FetchSnapshot(PARTITION)]);
    assert_eq!(it.state(), State::NeedsSnapshot);
    effects_of(&mut it, now, Input::BootstrapBegan);
    assert_eq!(it.state(), State::Bootstrapping);
    let later = Now { monotonic_ms: 10_000, ..now };
    assert_eq!(effects_of(&mut it, later, Input::BootstrapEnded), vec![Effect::Open(NodeId::new(1))]);
}

#[test]
fn nothing_is_pulled_from_a_fenced_region() {
    let (mut it, now) = inbox();
    assert_eq!(effects_of(&mut it, now, Input::Fence), vec![Effect::Close]);
    assert_eq!((it.state(), it.next_deadline()), (State::Fenced, None));
    let later = Now { monotonic_ms: 60_000, ..now };
    assert!(effects_of(&mut it, later, Input::Tick).is_empty());
    assert_eq!(effects_of(&mut it, later, Input::Unfence), vec![Effect::Open(NodeId::new(1))]);
}

#[test]
fn content_leaves_only_for_regions_where_it_may_be() {
    let history = written(2);
    let heads = BTreeMap::from([(PARTITION, [(origin(1), 2)].into_iter().collect::<VersionVector>())]);
    let pull = Ask::Pull {
        group: GROUP,
        receiver: origin(0),
        have: BTreeMap::new(),
        relay: Default::default(),
        credit: 1_000_000,
    };
    let stored = |_, _, sequence: u64| history.changes[1].get(sequence as usize - 1).cloned();
    let mut serve = Serve::new(origin(1).region, origin(0).region);
    assert_eq!(serve.ask(Ask::Grant { credit: 1 }), Err(ServeError::NoPull));
    serve.ask(pull.clone()).expect("a pull");
    let allows = |tenant, region: RegionId| tenant == TENANT && region != origin(0).region;
    let Next::Changes(sent) = serve.next(&heads, stored, allows) else { panic!("two changes wait") };
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|change| matches!(change.content, Content::Withheld(_))));
    assert!(sent[0].follows(Digest::ZERO) && sent[1].follows(sent[0].chain));
    assert_eq!(serve.next(&heads, stored, allows), Next::Idle);
    let head = Position::default();
    assert_eq!(admit(&VersionVector::new(), head, &sent[0], false), Admission::Apply);
    assert_eq!(admit(&VersionVector::new(), head, &sent[0], true), Admission::ContentMissing);

    // A source that was never given the content cannot serve a region that needs it.
    let mut serve = Serve::new(origin(1).region, origin(0).region);
    serve.ask(pull).expect("a pull");
    let bare = |partition, origin, sequence| stored(partition, origin, sequence).map(Change::withheld);
    assert_eq!(serve.next(&heads, bare, |_, _| true), Next::Idle);
    assert_eq!(
        serve.next(&heads, |_, _, _| None, |_, _| true),
        Next::Truncated { partition: PARTITION, origin: origin(1) }
    );
}

#[test]
fn admission_lets_in_what_continues_and_nothing_else() {
    let changes = &written(3).changes[1];
    let have = VersionVector::new();
    let head = Position { sequence: 1, chain: changes[0].chain };
    assert_eq!(admit(&have, head, &changes[1], true), Admission::Apply);
    assert_eq!(admit(&have, head, &changes[0], true), Admission::Duplicate);
    assert_eq!(admit(&have, head, &changes[2], true), Admission::Hole { expected: 2 });
    let other = Position { sequence: 1, chain: Digest::ZERO };
    assert_eq!(admit(&have, other, &changes[0], true), Admission::ForkedChain);
    assert_eq!(admit(&have, other, &changes[1], true), Admission::ForkedChain);
    let mut header = changes[1].header.clone();
    header.deps.raise(origin(2), 4);
    let body = changes[1].body().cloned().expect("content");
    let dependent = Change::new(header, body, changes[0].chain);
    assert_eq!(admit(&have, head, &dependent, true), Admission::MissingDeps);
}
