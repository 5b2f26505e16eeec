//! Regions in memory that write, deliver in causal order, acknowledge and collect, as a script says.

use model::{
    FieldId, Hlc, Merge, Origin, PartitionId, Record, RegionId, Stamp, TableId, TenantId, Value, VersionVector, codec,
};
use proptest::prelude::*;
use replication::{
    Body, Change, Collected, Conflict, Digest, FieldWrite, Header, Merged, Op, OpKind, Progress, Writer, collect,
    merge, observe, stamp,
};
use std::collections::{BTreeMap, BTreeSet};

pub const PARTITION: PartitionId = PartitionId::new(0);
pub const TENANT: TenantId = TenantId::new(7);
pub const TABLE: TableId = TableId::new(1);
pub const LWW: [FieldId; 2] = [FieldId::new(1), FieldId::new(2)];
const MAX: FieldId = FieldId::new(3);
const MIN: FieldId = FieldId::new(4);
const COUNTER: FieldId = FieldId::new(5);

pub fn origin(region: usize) -> Origin {
    Origin::new(RegionId::new(region as u16), 0)
}

/// What a script can do.
#[derive(Clone, Debug)]
pub enum Step {
    /// A region writes, its wall clock showing this.
    Write { at: usize, wall: u64, key: u8, what: Vec<What> },
    /// A region gets the next change of another, if it is ready for it.
    Deliver { from: usize, to: usize },
    /// A region gets a change again that it has.
    Again { from: usize, to: usize, pick: usize },
    /// A region tells another what it has.
    Acknowledge { from: usize, to: usize },
    /// A region collects what it may.
    Collect { at: usize },
}

/// One part of an operation on a record.
#[derive(Clone, Debug)]
pub enum What {
    Set(usize, i64),
    Max(i64),
    Min(i64),
    Add(i64),
    Delete,
}

pub fn steps(regions: usize, collects: bool) -> impl Strategy<Value = Vec<Step>> {
    let what = prop_oneof![
        4 => (0..LWW.len(), 0i64..100).prop_map(|(field, value)| What::Set(field, value)),
        1 => (0i64..10).prop_map(What::Max),
        1 => (0i64..10).prop_map(What::Min),
        2 => (-5i64..6).prop_map(What::Add),
        2 => Just(What::Delete),
    ];
    let write = (0..regions, 0u64..4, 0u8..2, proptest::collection::vec(what, 1..4))
        .prop_map(|(at, wall, key, what)| Step::Write { at, wall, key, what });
    let pair = move || (0..regions, 0..regions);
    let step = prop_oneof![
        3 => write,
        4 => pair().prop_map(|(from, to)| Step::Deliver { from, to }),
        1 => (pair(), 0usize..64).prop_map(|((from, to), pick)| Step::Again { from, to, pick }),
        2 * u32::from(collects) + 1 => pair().prop_map(|(from, to)| Step::Acknowledge { from, to }),
        2 * u32::from(collects) + 1 => (0..regions).prop_map(move |at| Step::Collect { at }),
    ];
    proptest::collection::vec(step, 1..60)
}

/// The rules under test: the shipped ones, or one with a planted bug.
#[derive(Clone, Copy)]
pub struct Rules {
    pub merge: fn(Option<&Record>, Writer<'_>, &Op) -> Merged,
    /// The cut up to which tombstones go; `None` keeps them all.
    pub cut: Option<fn(&mut Progress, PartitionId, &VersionVector) -> VersionVector>,
}

pub const SHIPPED: Rules = Rules { merge, cut: None };
pub const SHIPPED_COLLECTING: Rules = Rules { merge, cut: Some(Progress::stable) };

pub struct Region {
    pub records: BTreeMap<String, Record>,
    pub have: VersionVector,
    pub conflicts: Vec<Conflict>,
    hlc: Hlc,
    progress: Progress,
}

pub struct World {
    pub rules: Rules,
    pub regions: Vec<Region>,
    /// Every change of each region, in order.
    pub changes: Vec<Vec<Change>>,
}

impl Region {
    pub fn new(home: usize, regions: usize) -> Self {
        Self {
            records: BTreeMap::new(),
            have: VersionVector::new(),
            conflicts: Vec::new(),
            hlc: Hlc::ZERO,
            progress: Progress::new(origin(home), (0..regions).map(|region| origin(region).region)),
        }
    }
    pub fn is_ready_for(&self, change: &Change) -> bool {
        self.have.get(change.header.origin) + 1 == change.header.sequence && self.have.covers(&change.header.deps)
    }
    pub fn apply(&mut self, rules: Rules, change: &Change) {
        for op in &change.body().expect("content is never withheld here").ops {
            let merged = (rules.merge)(self.records.get(&op.key), change.header.writer(), op);
            self.records.insert(op.key.clone(), merged.record);
            self.conflicts.extend(merged.conflicts);
        }
        self.hlc = stamp::observe(self.hlc, change.header.hlc);
        self.have.raise(change.header.origin, change.header.sequence);
    }
    /// Records, metadata and all.
    pub fn bytes(&self) -> Vec<u8> {
        codec::encode(&self.records)
    }
    fn collect(&mut self, rules: Rules) {
        let Some(cut) = rules.cut else { return };
        let cut = cut(&mut self.progress, PARTITION, &self.have);
        let records = std::mem::take(&mut self.records);
        for (key, record) in records {
            match collect(&record, &cut) {
                Collected::Unchanged => drop(self.records.insert(key, record)),
                Collected::Trimmed(record) => drop(self.records.insert(key, record)),
                Collected::Gone => {}
            }
        }
    }
}

impl World {
    pub fn new(regions: usize, rules: Rules) -> Self {
        let all = (0..regions).map(|home| Region::new(home, regions)).collect();
        Self { rules, regions: all, changes: vec![Vec::new(); regions] }
    }

    pub fn run(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Write { at, wall, key, what } => self.write(*at, *wall, *key, what),
                Step::Deliver { from, to } => drop(self.deliver(*from, *to)),
                Step::Again { from, to, pick } => {
                    let known = self.regions[*to].have.get(origin(*from)) as usize;
                    // Redelivery keeps the origin's order: the last few changes come again, one after the other.
                    for index in known.saturating_sub(pick % 4)..known {
                        self.regions[*to].apply(self.rules, &self.changes[*from][index]);
                    }
                }
                Step::Acknowledge { from, to } => {
                    let durable = BTreeMap::from([(PARTITION, self.regions[*from].have.clone())]);
                    self.regions[*to].progress.acknowledge(origin(*from).region, &durable);
                }
                Step::Collect { at } => self.regions[*at].collect(self.rules),
            }
        }
    }

    /// Delivers until every region has everything.
    pub fn heal(&mut self) {
        let regions = self.regions.len();
        // Every pair gets its turn before anything is asked of the result.
        while (0..regions * regions).filter(|pair| self.deliver(pair / regions, pair % regions)).count() > 0 {}
    }

    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let next = self.regions[to].have.get(origin(from)) as usize;
        let Some(change) = self.changes[from].get(next) else { return false };
        let ready = self.regions[to].is_ready_for(change);
        if ready {
            self.regions[to].apply(self.rules, change);
        }
        ready
    }

    fn write(&mut self, at: usize, wall: u64, key: u8, what: &[What]) {
        let region = &mut self.regions[at];
        let key = format!("k{key}");
        let mut fields = BTreeMap::new();
        for what in what {
            let set = |value: i64, merge| FieldWrite::Set { value: Value::Int(value), merge };
            match what {
                What::Set(field, value) => drop(fields.insert(LWW[*field], set(*value, Merge::Lww))),
                What::Max(value) => drop(fields.insert(MAX, set(*value, Merge::Max))),
                What::Min(value) => drop(fields.insert(MIN, set(*value, Merge::Min))),
                What::Add(by) => drop(fields.insert(COUNTER, FieldWrite::Increment { by: *by })),
                What::Delete => {}
            }
        }
        let op = match what.iter().any(|what| matches!(what, What::Delete)) {
            true => Op::delete(TABLE, key.clone()),
            false => Op::upsert(TABLE, key.clone(), fields.into_iter().collect()),
        };
        let deps = region.have.iter().filter(|(known, _)| *known != origin(at)).collect();
        let header = Header {
            origin: origin(at),
            sequence: region.have.get(origin(at)) + 1,
            hlc: stamp::next(region.hlc, wall),
            deps,
            tenant: TENANT,
            partition: PARTITION,
            schema_version: 1,
        };
        let op = observe(region.records.get(&key), op);
        let previous = self.changes[at].last().map_or(Digest::ZERO, |last| last.chain);
        let change = Change::new(header, Body { request_id: None, trace: None, ops: vec![op] }, previous);
        region.apply(self.rules, &change);
        self.changes[at].push(change);
    }
}

/// Every `lww` write: which change, which record, which field.
pub fn lww_writes(changes: &[Vec<Change>]) -> Vec<(&Header, &str, FieldId)> {
    let mut writes = Vec::new();
    for change in changes.iter().flatten() {
        for op in &change.body().expect("content is never withheld here").ops {
            let OpKind::Upsert { fields } = &op.kind else { continue };
            for (field, _) in fields.iter().filter(|(field, _)| LWW.contains(field)) {
                writes.push((&change.header, op.key.as_str(), *field));
            }
        }
    }
    writes
}

/// Whether `later` was written by one who had seen `earlier`.
pub fn had_seen(later: &Header, earlier: Stamp) -> bool {
    later.writer().had_seen(earlier) && later.stamp() != earlier
}

/// The changes in another order that keeps causes before effects, chosen by `draws`, some of them repeated.
pub fn replay(world: &World, draws: &[usize], rules: Rules) -> Region {
    let regions = world.changes.len();
    let mut region = Region::new(0, regions);
    let mut draws = draws.iter().copied().cycle();
    let mut done = BTreeSet::new();
    loop {
        let next: Vec<usize> = (0..regions)
            .filter(|from| {
                let next = region.have.get(origin(*from)) as usize;
                world.changes[*from].get(next).is_some_and(|change| region.is_ready_for(change))
            })
            .collect();
        if next.is_empty() {
            return region;
        }
        let draw = draws.next().unwrap_or(0);
        let from = next[draw % next.len()];
        let index = region.have.get(origin(from)) as usize;
        region.apply(rules, &world.changes[from][index]);
        if draw % 3 == 0 {
            region.apply(rules, &world.changes[from][index]);
        }
        done.insert((from, index));
    }
}
