//! The control plane's state machine: tenants, tables, users and session keys, in all regions alike.
//!
//! Never on the path of data: every node keeps the last version and serves with it for as long as
//! it must.

use crate::driver::proposer::Entry;
use crate::machine::ledger::Ledger;
use crate::machine::note::Note;
use crate::machine::view::View;
use crate::machine::{grant, keys};
use arc_swap::ArcSwap;
use bytes::Bytes;
use identity::{Account, SessionKey};
use model::cluster::Cluster;
use model::codec::{decode, encode};
use model::{Field, FieldId, FieldKind, Hlc, Merge, RegionId, Table, TableId, Tenant, TenantId, UserId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use storage::Space;
use tokio::sync::watch;

/// Tables of the platform's own tenant.
pub mod platform {
    use model::TableId;
    /// Ended sessions, by session.
    pub const REVOCATIONS: TableId = TableId::new(1);
    /// Failed logins, by who and window.
    pub const FAILURES: TableId = TableId::new(2);
    /// The latest one-time code of a user.
    pub const FACTORS: TableId = TableId::new(3);
    /// Alerts, by id.
    pub const ALERTS: TableId = TableId::new(4);
    /// Changes of incidents, by their ids.
    pub const INCIDENTS: TableId = TableId::new(5);
    /// What somebody outside is to be told, by key.
    pub const NOTICES: TableId = TableId::new(6);
    /// What people are not called about, by mute.
    pub const MUTES: TableId = TableId::new(16);
    /// Escalation policies, by revision.
    pub const POLICIES: TableId = TableId::new(17);
    /// Who is being called, by incident.
    pub const ESCALATIONS: TableId = TableId::new(18);
    /// What was done to tickets, by ticket and change.
    pub const TICKETS: TableId = TableId::new(19);
    /// What became of calls to people, by the key of their notice.
    pub const CALLS: TableId = TableId::new(20);
    /// Notices that a sink refused for good, by sink and key.
    pub const REFUSED: TableId = TableId::new(21);
    /// The latest change of each ticket, by ticket: two that change it at once cannot both pass.
    pub const TICKET_HEADS: TableId = TableId::new(22);
    /// Tuples of matched events for correlations that look across regions, by rule and event.
    pub const TUPLES: TableId = TableId::new(23);
}

/// One command to the control plane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ControlCommand {
    /// The first session key and the first administrator; only once in a cluster's life.
    Bootstrap {
        /// Signs sessions.
        key: SessionKey,
        /// The first administrator.
        account: Account,
        /// For the audit log.
        note: Note,
    },
    /// A tenant; its id is assigned here.
    CreateTenant {
        /// Its name.
        name: String,
        /// Where its data may be.
        allowed_regions: Vec<RegionId>,
        /// Its continuity class.
        continuity_class: u8,
        /// For the audit log.
        note: Note,
    },
    /// A table of a tenant; its ids are assigned here.
    CreateTable {
        /// Whose.
        tenant: TenantId,
        /// Its name.
        name: String,
        /// Its fields, in order.
        fields: Vec<(String, FieldKind, Merge)>,
        /// For the audit log.
        note: Note,
    },
    /// A user; its id is assigned here.
    CreateUser {
        /// All but the id.
        account: Account,
        /// For the audit log.
        note: Note,
    },
    /// Replaces a user if it is still as it was.
    UpdateUser {
        /// The new version, with the epoch raised by one.
        account: Account,
        /// For the audit log.
        note: Note,
    },
    /// Something that happened and must be recorded.
    Note(Note),
}

/// What a control command came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ControlOutcome {
    /// Created or changed.
    Tenant(Tenant),
    /// Created.
    Table(Table),
    /// Created or changed.
    User(UserId),
    /// Recorded.
    Noted,
    /// The name is taken, or the object is no longer as it was.
    Exists,
    /// There is no such object.
    Missing,
    /// It breaks a rule.
    Invalid(String),
}

/// The control plane as of some position: what every request is judged by.
#[derive(Clone, Debug, Default)]
pub struct Control {
    /// By id.
    pub tenants: BTreeMap<TenantId, Arc<Tenant>>,
    /// By name.
    pub tenant_ids: BTreeMap<String, TenantId>,
    /// By id.
    pub users: BTreeMap<UserId, Arc<Account>>,
    /// By login.
    pub user_ids: BTreeMap<String, UserId>,
    /// Sign sessions; the newest last.
    pub keys: Vec<SessionKey>,
    /// Raised by every change: what derived values are cached by.
    pub version: u64,
}

impl Control {
    /// The tenant of this name.
    pub fn tenant(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.tenants.get(self.tenant_ids.get(name)?)
    }
    /// The user of this login.
    pub fn user(&self, login: &str) -> Option<&Arc<Account>> {
        self.users.get(self.user_ids.get(login)?)
    }
    fn keep_tenant(&mut self, tenant: Tenant) {
        self.tenant_ids.insert(tenant.name.clone(), tenant.id);
        self.tenants.insert(tenant.id, Arc::new(tenant));
    }
    fn keep_user(&mut self, account: Account) {
        self.user_ids.insert(account.login.as_str().to_owned(), account.id);
        self.users.insert(account.id, Arc::new(account));
    }
}

/// The platform's own tenant: built in, in every region.
fn platform_tenant(cluster: &Cluster) -> Tenant {
    let text = |id: u16, name: &str| Field {
        id: FieldId::new(id),
        name: name.into(),
        kind: FieldKind::Text,
        merge: Merge::Lww,
    };
    let number =
        |id: u16, name: &str, merge| Field { id: FieldId::new(id), name: name.into(), kind: FieldKind::Int, merge };
    let table = |id: TableId, name: &str, fields| Table { id, name: name.into(), fields, version: 1 };
    Tenant {
        id: TenantId::PLATFORM,
        name: "platform".into(),
        allowed_regions: cluster.regions.iter().map(|region| region.id).collect(),
        continuity_class: 0,
        tables: vec![
            table(platform::REVOCATIONS, "revocations", vec![number(1, "until_ms", Merge::Max)]),
            table(
                platform::FAILURES,
                "failures",
                vec![
                    number(1, "failed", Merge::Counter),
                    number(2, "cleared", Merge::Max),
                    number(3, "last_ms", Merge::Max),
                ],
            ),
            table(platform::FACTORS, "factors", vec![number(1, "step", Merge::Max)]),
            table(platform::ALERTS, "alerts", vec![text(1, "alert")]),
            table(platform::INCIDENTS, "incidents", vec![text(1, "incident")]),
            table(platform::MUTES, "mutes", vec![text(1, "mute")]),
            table(platform::POLICIES, "policies", vec![text(1, "policy")]),
            table(platform::ESCALATIONS, "escalations", vec![text(1, "escalation")]),
            table(platform::TICKETS, "tickets", vec![text(1, "ticket")]),
        ],
    }
}

/// The state machine of the control group.
pub struct ControlMachine {
    space: Arc<dyn Space>,
    cluster: Arc<Cluster>,
    ledger: Mutex<Ledger>,
    control: ArcSwap<Control>,
    changed: watch::Sender<u64>,
}

impl ControlMachine {
    /// Reads the state from its space.
    pub fn open(space: Arc<dyn Space>, cluster: Arc<Cluster>, ledger: Ledger) -> io::Result<Self> {
        let machine = Self {
            space,
            cluster,
            ledger: Mutex::new(ledger),
            control: ArcSwap::default(),
            changed: watch::Sender::new(0),
        };
        machine.load()?;
        Ok(machine)
    }

    /// The latest version.
    pub fn control(&self) -> Arc<Control> {
        self.control.load_full()
    }

    /// Where the state lies, for the audit log's reader.
    pub fn read_space(&self) -> Arc<dyn Space> {
        Arc::clone(&self.space)
    }

    /// Leaves and root of the audit log.
    pub fn audit_head(&self) -> (u64, [u8; 32]) {
        self.ledger.lock().head()
    }

    /// Ticks after every apply.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn load(&self) -> io::Result<()> {
        let mut control = Control::default();
        control.keep_tenant(platform_tenant(&self.cluster));
        for (key, value) in self.space.scan(keys::DATA, Bound::Unbounded, Bound::Unbounded, false, usize::MAX)? {
            match key.first() {
                Some(b't') => control.keep_tenant(stored(&value)?),
                Some(b'u') => control.keep_user(stored(&value)?),
                Some(b'k') => control.keys.push(stored(&value)?),
                _ => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "an unknown row in the control plane's state",
                    ));
                }
            }
        }
        control.version = self.control.load().version + 1;
        self.control.store(Arc::new(control));
        self.ledger.lock().reload(&*self.space)
    }

    fn execute(
        &self,
        control: &mut Control,
        view: &mut View,
        ledger: &mut Ledger,
        hlc: Hlc,
        command: ControlCommand,
    ) -> ControlOutcome {
        let mut grants = Vec::new();
        let (outcome, mut note) = match command {
            // The first administrator is what a cluster begins with, and granted by nobody.
            ControlCommand::Bootstrap { key, account, note } => (bootstrap(control, view, key, account), note),
            ControlCommand::CreateTenant { name, allowed_regions, continuity_class, note } => {
                (self.create_tenant(control, view, name, allowed_regions, continuity_class), note)
            }
            ControlCommand::CreateTable { tenant, name, fields, note } => {
                (create_table(control, view, tenant, name, fields), note)
            }
            ControlCommand::CreateUser { account, note } => {
                grants = grant::notes(None, &account, &note);
                (create_user(control, view, account), note)
            }
            ControlCommand::UpdateUser { account, note } => {
                grants = grant::notes(control.users.get(&account.id).map(Arc::as_ref), &account, &note);
                (update_user(control, view, account), note)
            }
            ControlCommand::Note(note) => (ControlOutcome::Noted, note),
        };
        match &outcome {
            ControlOutcome::Exists => note.refused = Some("exists".into()),
            ControlOutcome::Missing => note.refused = Some("missing".into()),
            ControlOutcome::Invalid(reason) => note.refused = Some(reason.clone()),
            _ => {}
        }
        ledger.record(view, &note, hlc);
        if matches!(outcome, ControlOutcome::User(_)) {
            grants.iter().for_each(|note| ledger.record(view, note, hlc));
        }
        outcome
    }

    fn create_tenant(
        &self,
        control: &mut Control,
        view: &mut View,
        name: String,
        allowed: Vec<RegionId>,
        class: u8,
    ) -> ControlOutcome {
        if control.tenant_ids.contains_key(&name) {
            return ControlOutcome::Exists;
        }
        if let Err(error) = model::schema::check_name(&name) {
            return ControlOutcome::Invalid(error.to_string());
        }
        if allowed.is_empty() || allowed.iter().any(|region| self.cluster.region(*region).is_none()) || class > 3 {
            return ControlOutcome::Invalid("a tenant needs existing regions and a continuity class of 0 to 3".into());
        }
        let next = control.tenants.last_key_value().map_or(1, |(id, _)| id.get() + 1);
        let tenant = Tenant {
            id: TenantId::new(next),
            name,
            allowed_regions: allowed,
            continuity_class: class,
            tables: Vec::new(),
        };
        put_tenant(control, view, tenant.clone());
        ControlOutcome::Tenant(tenant)
    }
}

fn stored<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    decode(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn put_tenant(control: &mut Control, view: &mut View, tenant: Tenant) {
    view.put(keys::DATA, [b"t".as_slice(), &tenant.id.get().to_be_bytes()].concat(), encode(&tenant));
    control.keep_tenant(tenant);
}

fn put_user(control: &mut Control, view: &mut View, account: Account) {
    view.put(keys::DATA, [b"u".as_slice(), &account.id.get().to_be_bytes()].concat(), encode(&account));
    control.keep_user(account);
}

fn bootstrap(control: &mut Control, view: &mut View, key: SessionKey, account: Account) -> ControlOutcome {
    if !control.keys.is_empty() {
        return ControlOutcome::Exists;
    }
    view.put(keys::DATA, [b"k".as_slice(), &0u64.to_be_bytes()].concat(), encode(&key));
    control.keys.push(key);
    create_user(control, view, account)
}

fn create_table(
    control: &mut Control,
    view: &mut View,
    tenant: TenantId,
    name: String,
    fields: Vec<(String, FieldKind, Merge)>,
) -> ControlOutcome {
    let Some(found) = control.tenants.get(&tenant).filter(|_| tenant != TenantId::PLATFORM) else {
        return ControlOutcome::Missing;
    };
    if found.table(&name).is_some() {
        return ControlOutcome::Exists;
    }
    let mut changed = Tenant::clone(found);
    let next = changed.tables.last().map_or(1, |table| table.id.get() + 1);
    let numbered = fields.into_iter().zip(1u16..).map(|((name, kind, merge), id)| Field {
        id: FieldId::new(id),
        name,
        kind,
        merge,
    });
    let table = Table { id: TableId::new(next), name, fields: numbered.collect(), version: 1 };
    if let Err(error) = table.check() {
        return ControlOutcome::Invalid(error.to_string());
    }
    changed.tables.push(table.clone());
    put_tenant(control, view, changed);
    ControlOutcome::Table(table)
}

fn create_user(control: &mut Control, view: &mut View, mut account: Account) -> ControlOutcome {
    if control.user_ids.contains_key(account.login.as_str()) {
        return ControlOutcome::Exists;
    }
    if !control.tenants.contains_key(&account.tenant) {
        return ControlOutcome::Missing;
    }
    if let Err(error) = account.check() {
        return ControlOutcome::Invalid(error.to_string());
    }
    account.id = UserId::new(control.users.last_key_value().map_or(1, |(id, _)| id.get() + 1));
    let id = account.id;
    put_user(control, view, account);
    ControlOutcome::User(id)
}

fn update_user(control: &mut Control, view: &mut View, account: Account) -> ControlOutcome {
    let Some(current) = control.users.get(&account.id) else { return ControlOutcome::Missing };
    // Compare and set: whoever changed it in between raised the epoch.
    if account.epoch != current.epoch + 1 || account.login != current.login || account.tenant != current.tenant {
        return ControlOutcome::Exists;
    }
    if let Err(error) = account.check() {
        return ControlOutcome::Invalid(error.to_string());
    }
    let id = account.id;
    put_user(control, view, account);
    ControlOutcome::User(id)
}

impl consensus::Machine for ControlMachine {
    fn apply(&self, entries: &[(u64, &[u8])], position: &[u8]) -> io::Result<Vec<Bytes>> {
        let mut ledger = self.ledger.lock();
        let mut view = View::new(Arc::clone(&self.space));
        let mut control = Control::clone(&self.control.load());
        let mut results = Vec::with_capacity(entries.len());
        for (_, bytes) in entries {
            let entry: Entry = stored(bytes)?;
            ledger.begin(entry.nonce);
            let hlc = ledger.advance(Hlc::new(entry.wall_ms, 0));
            let mut outcomes: Vec<Bytes> = Vec::with_capacity(entry.commands.len());
            for command in &entry.commands {
                let outcome = match decode(command) {
                    Ok(command) => self.execute(&mut control, &mut view, &mut ledger, hlc, command),
                    Err(_) => ControlOutcome::Invalid("the command cannot be read".into()),
                };
                outcomes.push(encode(&outcome).into());
            }
            results.push(encode(&outcomes).into());
        }
        ledger.save(&mut view);
        view.put(keys::META, keys::META_POSITION, position);
        self.space.write(view.into_batch())?;
        if !entries.is_empty() {
            control.version += 1;
            self.control.store(Arc::new(control));
            self.changed.send_modify(|count| *count += 1);
        }
        Ok(results)
    }

    fn position(&self) -> io::Result<Option<Vec<u8>>> {
        self.space.get(keys::META, keys::META_POSITION)
    }

    fn space(&self) -> Arc<dyn Space> {
        Arc::clone(&self.space)
    }

    fn reloaded(&self) -> io::Result<()> {
        self.load()
    }
}
