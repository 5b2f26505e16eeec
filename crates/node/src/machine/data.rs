//! A data group's state machine: transactions, reads, other regions' changes, and the record of all.
//!
//! Everything one entry does is one atomic batch: records, change record, position, idempotency
//! row, convergence hashes, audit leaf and applied position stand or fall together. Nothing here
//! reads a clock or the control plane: replicas must come to the same result from the same entry.

use crate::driver::proposer::Entry as LogEntry;
use crate::machine::Defect;
use crate::machine::command::{Command, Found, Outcome, Read, Refusal, Select};
use crate::machine::door::Recent;
use crate::machine::keys;
use crate::machine::ledger::Ledger;
use crate::machine::note::Note;
use crate::machine::view::View;
use bytes::Bytes;
use model::codec::{decode, encode};
use model::{GroupId, Hlc, Origin, PartitionId, Record, RegionId, TableId, TenantId, VersionVector};
use parking_lot::Mutex;
use replication::{Admission, Change, Op, Position, Writer, admit, convergence, merge};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use storage::Space;
use tokio::sync::watch;

/// What a state machine tells its node while it applies; never decides anything.
pub trait Observer: Send + Sync + 'static {
    /// A command of this kind was applied.
    fn command(&self, group: GroupId, kind: &'static str);
    /// A change of another region became durable here.
    fn foreign(&self, group: GroupId, origin: Origin, hlc: Hlc);
    /// A concurrent write lost.
    fn conflict(&self, group: GroupId);
    /// A transaction of a duty's report was refused, and nothing of it was done.
    fn refused(&self, _group: GroupId, _action: &str, _why: Refusal) {}
    /// An entry was applied: the clock of the leader that proposed it.
    fn entry(&self, _group: GroupId, _wall_ms: u64) {}
}

/// Numbers of a group that are not rows of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Scalars {
    hlc: Hlc,
    event_next: u64,
}

/// How far each region has made each partition durable.
pub type ProgressOfRegions = BTreeMap<RegionId, BTreeMap<PartitionId, VersionVector>>;

/// What applying changes in memory; always the image of the rows it was read from.
pub struct State {
    scalars: Scalars,
    pub(super) positions: BTreeMap<PartitionId, BTreeMap<Origin, Position>>,
    progress: ProgressOfRegions,
    /// Convergence hashes that were needed so far: every write changes one.
    sums: BTreeMap<(PartitionId, u16), convergence::Sum>,
    /// Identities of the events that came last.
    pub(super) recent: Recent,
    /// The audit log.
    pub ledger: Ledger,
}

impl State {
    /// What this partition has applied, of every origin.
    pub fn vector(&self, partition: PartitionId) -> VersionVector {
        let positions = self.positions.get(&partition).into_iter().flatten();
        positions.map(|(origin, position)| (*origin, position.sequence)).collect()
    }
    fn position(&self, partition: PartitionId, origin: Origin) -> Position {
        self.positions.get(&partition).and_then(|origins| origins.get(&origin)).copied().unwrap_or_default()
    }
}

/// The state machine of one data group.
pub struct DataMachine {
    pub(super) group: GroupId,
    pub(super) origin: Origin,
    pub(super) partitions: u16,
    pub(super) space: Arc<dyn Space>,
    pub(super) state: Mutex<State>,
    pub(super) observer: Arc<dyn Observer>,
    changed: watch::Sender<u64>,
    assigned: watch::Sender<u64>,
    defect: Option<Defect>,
}

/// One entry being applied.
pub(super) struct Step<'a> {
    pub(super) machine: &'a DataMachine,
    pub(super) state: &'a mut State,
    pub(super) view: &'a mut View,
    pub(super) wall_ms: u64,
    /// Set where a duty was assigned.
    pub(super) assigned: &'a mut bool,
}

impl DataMachine {
    /// Reads the state from its space.
    pub fn open(
        group: GroupId,
        origin: Origin,
        partitions: u16,
        space: Arc<dyn Space>,
        ledger: Ledger,
        observer: Arc<dyn Observer>,
    ) -> io::Result<Self> {
        let state = State {
            scalars: Scalars::default(),
            positions: BTreeMap::new(),
            progress: BTreeMap::new(),
            sums: BTreeMap::new(),
            recent: Recent::default(),
            ledger,
        };
        let (changed, assigned) = (watch::Sender::new(0), watch::Sender::new(0));
        let state = Mutex::new(state);
        let machine = Self { group, origin, partitions, space, state, observer, changed, assigned, defect: None };
        machine.load()?;
        Ok(machine)
    }

    /// **For tests only.**
    #[must_use]
    pub fn planted(self, defect: Option<Defect>) -> Self {
        Self { defect, ..self }
    }

    /// Whether that is wrong with it.
    pub(crate) fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    fn load(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.ledger.reload(&*self.space)?;
        state.scalars = match self.space.get(keys::META, keys::META_SCALARS)? {
            Some(bytes) => stored(&bytes)?,
            None => Scalars::default(),
        };
        state.positions.clear();
        state.progress.clear();
        state.sums.clear();
        state.recent = Recent::read(&*self.space)?;
        for (key, value) in self.space.scan(keys::META, Bound::Unbounded, Bound::Unbounded, false, usize::MAX)? {
            if let Some((partition, origin)) = keys::parse_chain(&key) {
                state.positions.entry(partition).or_default().insert(origin, stored(&value)?);
            } else if let Some(region) = keys::parse_progress(&key) {
                state.progress.insert(region, stored(&value)?);
            }
        }
        Ok(())
    }

    /// Which group.
    pub const fn group(&self) -> GroupId {
        self.group
    }
    /// Ticks after every apply.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
    /// Ticks when a duty was assigned.
    pub fn assignments(&self) -> watch::Receiver<u64> {
        self.assigned.subscribe()
    }
    /// Where the state lies: for reads that need no order.
    pub fn read_space(&self) -> Arc<dyn Space> {
        Arc::clone(&self.space)
    }
    /// What a partition has applied.
    pub fn vector(&self, partition: PartitionId) -> VersionVector {
        self.state.lock().vector(partition)
    }
    /// What every partition with changes has applied.
    pub fn vectors(&self) -> BTreeMap<PartitionId, VersionVector> {
        let state = self.state.lock();
        state.positions.keys().map(|partition| (*partition, state.vector(*partition))).collect()
    }
    /// How far every (partition, origin) is applied, with the head of its chain.
    pub fn positions(&self) -> BTreeMap<PartitionId, BTreeMap<Origin, Position>> {
        self.state.lock().positions.clone()
    }
    /// What other regions have made durable.
    pub fn progress(&self) -> ProgressOfRegions {
        self.state.lock().progress.clone()
    }
    /// The latest time of this group.
    pub fn hlc(&self) -> Hlc {
        self.state.lock().scalars.hlc
    }
    /// The number of the next ingested event.
    pub fn event_next(&self) -> u64 {
        self.state.lock().scalars.event_next
    }
    /// Leaves and root of the audit log.
    pub fn audit_head(&self) -> (u64, [u8; 32]) {
        self.state.lock().ledger.head()
    }

    /// Reads records outside the log: what this node has, which may be behind.
    pub fn read_local(&self, tenant: TenantId, table: TableId, select: &Select) -> io::Result<Found> {
        let view = View::new(Arc::clone(&self.space));
        // The vector first: what is read is at least as new as what the answer claims.
        let vector = self.vector(tenant.partition(self.partitions));
        let (records, more) = find(&view, tenant, table, select)?;
        Ok(Found { records, more, vector })
    }
}

pub(super) fn stored<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    decode(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads existing records, and the key to go on after if there may be more.
fn find(
    view: &View,
    tenant: TenantId,
    table: TableId,
    select: &Select,
) -> io::Result<(Vec<(String, Record)>, Option<String>)> {
    let Select::Range { from, to, after, limit } = select else {
        let Select::Key(key) = select else { return Ok((Vec::new(), None)) };
        let found = view.get(keys::DATA, &keys::record(tenant, table, key))?;
        let record: Option<Record> = found.as_deref().map(stored).transpose()?;
        return Ok((record.filter(Record::exists).map(|record| (key.clone(), record)).into_iter().collect(), None));
    };
    let limit = (*limit as usize).min(model::limit::PAGE_RECORDS_MAX);
    let first = keys::record(tenant, table, after.as_ref().unwrap_or(from));
    let end = match to {
        Some(to) => keys::record(tenant, table, to),
        None => keys::table_end(tenant, table),
    };
    let start = if after.is_some() { Bound::Excluded(first.as_slice()) } else { Bound::Included(first.as_slice()) };
    if first >= end {
        return Ok((Vec::new(), None));
    }
    let rows = view.scan(keys::DATA, start, Bound::Excluded(&end), limit)?;
    let more = (rows.len() == limit).then(|| rows.last().map(|(key, _)| keys::record_key(key).to_owned())).flatten();
    let mut records = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        let record: Record = stored(&value)?;
        if record.exists() {
            records.push((keys::record_key(&key).to_owned(), record));
        }
    }
    Ok((records, more))
}

impl Step<'_> {
    fn execute(&mut self, command: Command) -> io::Result<Outcome> {
        let kind = match &command {
            Command::Transact(_) => "transact",
            Command::Read(_) => "read",
            Command::Note(_) => "note",
            Command::Foreign { .. } => "foreign",
            Command::Progress { .. } => "progress",
            Command::Ingest(_) => "ingest",
            Command::Assign { .. } => "assign",
            Command::Claim { .. } => "claim",
            Command::Report(_) => "report",
        };
        self.machine.observer.command(self.machine.group, kind);
        match command {
            Command::Transact(transact) => self.transact(transact),
            Command::Read(read) => self.read(read),
            Command::Note(note) => {
                self.record(&note);
                Ok(Outcome::Noted)
            }
            Command::Foreign { changes, .. } => self.foreign(changes),
            Command::Progress { region, vectors } => self.progress(region, &vectors),
            Command::Ingest(ingest) => self.ingest(ingest),
            Command::Assign { duty, to } => self.assign(&duty, to),
            Command::Claim { duty, epoch, life } => self.claim(&duty, epoch, life),
            Command::Report(report) => self.report(report),
        }
    }

    /// The number of the next event.
    pub(super) fn next_event(&self) -> u64 {
        self.state.scalars.event_next
    }

    pub(super) fn keep_event(&mut self, event: Vec<u8>) {
        self.view.put(keys::EVENT, keys::number(self.state.scalars.event_next), event);
        self.state.scalars.event_next += 1;
    }

    /// The time of the next thing that happens here.
    pub(super) fn tick(&mut self) -> Hlc {
        self.state.scalars.hlc = replication::stamp::next(self.state.scalars.hlc, self.wall_ms);
        self.state.scalars.hlc
    }

    /// Writes an audit leaf.
    pub(super) fn record(&mut self, note: &Note) {
        let hlc = self.state.scalars.hlc.max(Hlc::new(self.wall_ms, 0));
        self.state.ledger.record(self.view, note, hlc);
    }

    fn read(&mut self, read: Read) -> io::Result<Outcome> {
        let (records, more) = find(self.view, read.tenant, read.table, &read.select)?;
        let mut note = read.note;
        let seen: Vec<String> = records.iter().map(|(key, record)| format!("{key}@{}", record.version().hlc)).collect();
        note.values = Some((None, serde_json::to_string(&seen).ok()));
        if records.is_empty() && matches!(read.select, Select::Key(_)) {
            note.refused = Some("not found".into());
        }
        self.record(&note);
        let vector = self.state.vector(read.tenant.partition(self.machine.partitions));
        Ok(Outcome::Records(Found { records, more, vector }))
    }

    /// The record under a key, pending writes included.
    pub(super) fn load(&self, tenant: TenantId, table: TableId, key: &str) -> io::Result<Option<Record>> {
        self.view.get(keys::DATA, &keys::record(tenant, table, key))?.as_deref().map(stored).transpose()
    }

    /// Where a partition stands in an origin's sequence.
    pub(super) fn position(&self, partition: PartitionId, origin: Origin) -> Position {
        self.state.position(partition, origin)
    }

    /// Stores one merged operation: record, hashes and conflicts.
    pub(super) fn store(
        &mut self,
        writer: Writer<'_>,
        op: &Op,
        old: Option<&Record>,
    ) -> io::Result<replication::Merged> {
        let merged = merge(old, writer, op);
        let tenant = writer.tenant;
        self.view.put(keys::DATA, keys::record(tenant, op.table, &op.key), encode(&merged.record));
        let delta = convergence::delta(tenant, op.table, &op.key, old, Some(&merged.record));
        self.add_to_bucket(
            tenant.partition(self.machine.partitions),
            convergence::bucket(tenant, op.table, &op.key),
            delta,
        )?;
        for conflict in &merged.conflicts {
            // Newest first: the list is read from its head.
            let newest_first = u64::MAX - self.state.scalars.hlc.bits();
            let id = [newest_first.to_be_bytes().as_slice(), &conflict.id.bytes()].concat();
            self.view.put(keys::CONFLICT, keys::conflict(tenant, &id), encode(conflict));
            self.machine.observer.conflict(self.machine.group);
        }
        Ok(merged)
    }

    fn add_to_bucket(&mut self, partition: PartitionId, bucket: u16, delta: convergence::Sum) -> io::Result<()> {
        let row = keys::bucket(partition, bucket);
        let sum = match self.state.sums.entry((partition, bucket)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let stored = self.view.get(keys::BUCKET, &row)?.and_then(|bytes| bytes.try_into().ok());
                unknown.insert(stored.map_or(convergence::Sum::ZERO, convergence::Sum::from_bytes))
            }
        };
        *sum = sum.plus(delta);
        self.view.put(keys::BUCKET, row, sum.to_bytes());
        Ok(())
    }

    /// Stores a change record and moves its origin's position.
    pub(super) fn keep(&mut self, change: &Change) {
        let header = &change.header;
        let position = Position { sequence: header.sequence, chain: change.chain };
        self.view.put(keys::CHANGE, keys::change(header.partition, header.origin, header.sequence), change.encode());
        self.view.put(keys::META, keys::chain(header.partition, header.origin), encode(&position));
        self.state.positions.entry(header.partition).or_default().insert(header.origin, position);
    }

    fn foreign(&mut self, changes: Vec<(Change, bool)>) -> io::Result<Outcome> {
        let (mut applied, mut refused) = (0, None);
        for (change, allowed_here) in changes {
            let header = &change.header;
            if header.origin == self.machine.origin || change.check().is_err() {
                refused = Some(format!("{} {}: not a sound change of another origin", header.origin, header.sequence));
                break;
            }
            if header.partition.group(self.machine_groups()) != self.machine.group
                || header.tenant.partition(self.machine.partitions) != header.partition
            {
                refused = Some(format!("{} {}: not of this group", header.origin, header.sequence));
                break;
            }
            let head = self.position(header.partition, header.origin);
            match admit(&self.state.vector(header.partition), head, &change, allowed_here) {
                Admission::Apply => {
                    self.apply_foreign(&change)?;
                    applied += 1;
                }
                Admission::Duplicate => {}
                other => {
                    refused = Some(format!("{} {} of {}: {other:?}", header.origin, header.sequence, header.partition));
                    break;
                }
            }
        }
        Ok(Outcome::Taken { applied, refused })
    }

    fn machine_groups(&self) -> u16 {
        self.state.ledger.groups()
    }

    fn apply_foreign(&mut self, change: &Change) -> io::Result<()> {
        let header = &change.header;
        self.state.scalars.hlc = replication::stamp::observe(self.state.scalars.hlc, header.hlc);
        if let Some(body) = change.body() {
            for op in &body.ops {
                let old = self.load(header.tenant, op.table, &op.key)?;
                self.store(header.writer(), op, old.as_ref())?;
            }
        }
        self.keep(change);
        self.keep_foreign_idempotency(change);
        self.machine.observer.foreign(self.machine.group, header.origin, header.hlc);
        Ok(())
    }

    fn progress(&mut self, region: RegionId, vectors: &BTreeMap<PartitionId, VersionVector>) -> io::Result<Outcome> {
        let known = self.state.progress.entry(region).or_default();
        for (partition, vector) in vectors {
            known.entry(*partition).or_default().join(vector);
        }
        self.view.put(keys::META, keys::progress(region), encode(known));
        Ok(Outcome::Noted)
    }
}

impl consensus::Machine for DataMachine {
    fn apply(&self, entries: &[(u64, &[u8])], position: &[u8]) -> io::Result<Vec<Bytes>> {
        let mut state = self.state.lock();
        let mut view = View::new(Arc::clone(&self.space));
        let mut results = Vec::with_capacity(entries.len());
        let mut assigned = false;
        for (_, bytes) in entries {
            let entry: LogEntry = stored(bytes)?;
            state.ledger.begin(entry.nonce);
            self.observer.entry(self.group, entry.wall_ms);
            let mut step = Step {
                machine: self,
                state: &mut state,
                view: &mut view,
                wall_ms: entry.wall_ms,
                assigned: &mut assigned,
            };
            let mut outcomes: Vec<Bytes> = Vec::with_capacity(entry.commands.len());
            for command in &entry.commands {
                // A command no one can read changes nothing, in every replica alike.
                let outcome = decode(command).map_or(Ok(Outcome::Malformed), |command| step.execute(command))?;
                outcomes.push(encode(&outcome).into());
            }
            results.push(encode(&outcomes).into());
        }
        let scalars = encode(&state.scalars);
        view.put(keys::META, keys::META_SCALARS, scalars);
        state.ledger.save(&mut view);
        view.put(keys::META, keys::META_POSITION, position);
        self.space.write(view.into_batch())?;
        drop(state);
        if assigned {
            self.assigned.send_modify(|count| *count += 1);
        }
        self.changed.send_modify(|count| *count += 1);
        Ok(results)
    }

    fn position(&self) -> io::Result<Option<Vec<u8>>> {
        self.space.get(keys::META, keys::META_POSITION)
    }

    fn space(&self) -> Arc<dyn Space> {
        Arc::clone(&self.space)
    }

    fn reloaded(&self) -> io::Result<()> {
        self.load()?;
        self.assigned.send_modify(|count| *count += 1);
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }
}
