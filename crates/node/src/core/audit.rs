//! The audit log as it is read: entries, files of its tiles, checkpoints, verification.

use super::wait::internal;
use crate::machine::keys;
use crate::machine::note::Note;
use crate::node::Node;
use api::core::Answer;
use api::problem::Problem;
use api::types::{
    AuditEntry, AuditFilter, AuditList, AuditLogView, AuditLogs, AuditVerification, Caller, LogFile, LogVerification,
};
use audit::checkpoint::NoteSigner;
use audit::proof::Span;
use audit::{AuditEvent, Checkpoint, Hash, tile};
use bytes::Bytes;
use identity::{Action, Session};
use model::{GroupId, TenantId};
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use storage::Space;

/// Entries looked at for one page: a filter that matches nothing must end too.
const LOOKED_AT_MAX: usize = 20_000;
const CHUNK: usize = 512;

/// One log of this region, ready to be read.
struct LogReader {
    name: String,
    origin: String,
    space: Arc<dyn Space>,
    size: u64,
    root: [u8; 32],
}

impl LogReader {
    fn rows(&self, keyspace: storage::Keyspace, from: &[u8], limit: usize) -> io::Result<Vec<Vec<u8>>> {
        let rows = self.space.scan(keyspace, Bound::Included(from), Bound::Unbounded, false, limit)?;
        Ok(rows.into_iter().map(|(_, value)| value).collect())
    }
    fn leaves(&self, first: u64, count: usize) -> io::Result<Vec<Vec<u8>>> {
        let left = usize::try_from(self.size.saturating_sub(first)).unwrap_or(usize::MAX);
        self.rows(keys::AUDIT_LEAF, &keys::number(first), count.min(left))
    }
    fn hashes(&self, level: u8, first: u64, count: usize) -> io::Result<Vec<Hash>> {
        let from = audit::Node { level, index: first }.to_key();
        let rows = self.rows(keys::AUDIT_NODE, &from, count)?;
        Ok(rows.iter().filter_map(|row| Hash::from_slice(row)).collect())
    }
    fn detail(&self, index: u64) -> io::Result<Option<Vec<u8>>> {
        self.space.get(keys::AUDIT_DETAIL, &keys::number(index))
    }
}

impl Node {
    /// Every log this node holds: one for each data group, and the control plane's.
    fn audit_readers(&self) -> Vec<LogReader> {
        let cluster = &self.cluster.name;
        let data = self.data.iter().map(|(group, data)| {
            let (size, root) = data.machine.audit_head();
            let name = format!("{}-{}", self.region.name, group.get());
            let origin = format!("holdfast/{cluster}/{}/{}", self.region.name, group.get());
            LogReader { name, origin, space: data.machine.read_space(), size, root }
        });
        let machine = &self.control.machine;
        let (size, root) = machine.audit_head();
        let control = LogReader {
            name: "control-65535".into(),
            origin: format!("holdfast/{cluster}/control/{}", GroupId::CONTROL.get()),
            space: machine.read_space(),
            size,
            root,
        };
        data.chain([control]).collect()
    }

    fn signer(&self, origin: &str) -> Answer<NoteSigner> {
        NoteSigner::new(origin, self.audit_key.as_ref().clone())
            .map_err(|error| internal("the audit log's name cannot be signed for", &error))
    }

    async fn may_audit(&self, caller: &Caller, session: &Session, what: &str) -> Answer<Option<String>> {
        self.permit(caller, session, Action::AuditRead, session.tenant(), what).await?;
        self.viewed(caller, session, what).await?;
        // A tenant's auditor sees its own tenant's entries; the platform's sees all.
        Ok((session.tenant() != TenantId::PLATFORM).then(|| self.tenant_name(session.tenant()).unwrap_or_default()))
    }

    /// Entries, newest first.
    pub(crate) async fn audit_entries(
        &self,
        caller: &Caller,
        session: &Session,
        filter: &AuditFilter,
    ) -> Answer<AuditList> {
        let own = self.may_audit(caller, session, "audit").await?;
        if own.is_some() && filter.tenant.is_some() && filter.tenant != own {
            return Ok(AuditList { entries: Vec::new(), next: None });
        }
        let filter = AuditFilter { tenant: own.or_else(|| filter.tenant.clone()), ..filter.clone() };
        let readers: Vec<LogReader> = self
            .audit_readers()
            .into_iter()
            .filter(|reader| filter.log.as_ref().is_none_or(|log| *log == reader.name))
            .collect();
        // Where each log is read from, downwards: what a page token carries.
        let mut ends: BTreeMap<String, u64> = match &filter.page.after {
            Some(after) => {
                serde_json::from_str(after).map_err(|_| Problem::invalid("page_token", "not one of ours"))?
            }
            None => BTreeMap::new(),
        };
        let mut entries = Vec::new();
        let mut looked_at = 0;
        let mut more = false;
        for reader in &readers {
            let end = ends.entry(reader.name.clone()).or_insert(reader.size);
            while *end > 0 {
                if entries.len() >= filter.page.limit || looked_at >= LOOKED_AT_MAX {
                    more = true;
                    break;
                }
                let first = end.saturating_sub(CHUNK as u64);
                let leaves = reader
                    .leaves(first, usize::try_from(*end - first).unwrap_or(CHUNK))
                    .map_err(|error| internal("the audit log cannot be read", &error))?;
                for leaf in leaves.iter().rev() {
                    *end -= 1;
                    looked_at += 1;
                    if let Some(entry) = entry(reader, *end, leaf, &filter)? {
                        entries.push(entry);
                        if entries.len() >= filter.page.limit {
                            break;
                        }
                    }
                }
                if leaves.is_empty() {
                    break;
                }
            }
        }
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.event["time_ms"].as_u64()));
        let next = more.then(|| serde_json::to_string(&ends).expect("names and numbers have a JSON form"));
        Ok(AuditList { entries, next })
    }

    /// The logs of this region.
    pub(crate) async fn audit_logs(&self, caller: &Caller, session: &Session) -> Answer<AuditLogs> {
        self.may_audit_platform(caller, session, "audit/logs").await?;
        let view = |reader: LogReader| {
            let signer = self.signer(&reader.origin)?;
            Ok(AuditLogView {
                name: reader.name,
                origin: reader.origin,
                size: reader.size,
                root: Hash::from_bytes(reader.root).to_base64(),
                verifier: signer.key().to_string(),
            })
        };
        Ok(AuditLogs { logs: self.audit_readers().into_iter().map(view).collect::<Answer<_>>()? })
    }

    /// Leaves of all tenants: for the platform's own auditors.
    async fn may_audit_platform(&self, caller: &Caller, session: &Session, what: &str) -> Answer<()> {
        self.permit(caller, session, Action::AuditRead, TenantId::PLATFORM, what).await?;
        self.viewed(caller, session, what).await
    }

    /// Bytes of a log: C2SP tlog-tiles.
    pub(crate) async fn audit_log_file(
        &self,
        caller: &Caller,
        session: &Session,
        log: &str,
        file: LogFile,
    ) -> Answer<Bytes> {
        self.may_audit_platform(caller, session, "audit/files").await?;
        let readers = self.audit_readers();
        let reader = readers.iter().find(|reader| reader.name == log).ok_or(Problem::not_found("log"))?;
        let failed = |error: io::Error| internal("the audit log cannot be read", &error);
        match file {
            LogFile::Checkpoint => {
                let signer = self.signer(&reader.origin)?;
                let checkpoint = Checkpoint::new(&reader.origin, reader.size, Hash::from_bytes(reader.root));
                let note =
                    checkpoint.sign(&signer).map_err(|error| internal("a checkpoint cannot be signed", &error))?;
                Ok(note.to_string().into())
            }
            LogFile::Tile(tile) => {
                let (first, width) = (tile.first(), usize::from(tile.width()));
                let height = match tile.kind() {
                    tile::Kind::Hashes { level } => u32::from(level) * u32::from(tile::HEIGHT),
                    tile::Kind::Entries => 0,
                };
                if width as u64 > (reader.size >> height.min(63)).saturating_sub(first) {
                    return Err(Problem::not_found("tile"));
                }
                match tile.kind() {
                    tile::Kind::Hashes { level } => {
                        Ok(tile::encode_hashes(&reader.hashes(level, first, width).map_err(failed)?).into())
                    }
                    tile::Kind::Entries => tile::encode_entries(&reader.leaves(first, width).map_err(failed)?)
                        .map(Bytes::from)
                        .map_err(|error| internal("an entry is too long", &error)),
                }
            }
        }
    }

    /// Recomputes every log of this region from its entries.
    pub(crate) async fn audit_verify(&self, caller: &Caller, session: &Session) -> Answer<AuditVerification> {
        self.may_audit_platform(caller, session, "audit/verification").await?;
        let readers = self.audit_readers();
        let mut logs = Vec::with_capacity(readers.len());
        for reader in &readers {
            let log = verify(reader);
            let resource = Some(format!("audit/{}", log.name));
            let note = Note { resource, refused: log.problem.clone(), ..self.note(caller, session, "audit.verify") };
            self.record(TenantId::PLATFORM, note).await?;
            logs.push(log);
        }
        Ok(AuditVerification { verified: logs.iter().all(|log| log.verified), logs })
    }
}

fn entry(reader: &LogReader, index: u64, leaf: &[u8], filter: &AuditFilter) -> Answer<Option<AuditEntry>> {
    let event = AuditEvent::decode(leaf).map_err(|error| internal("a leaf cannot be read", &error))?;
    let is = |wanted: &Option<String>, value: Option<&str>| wanted.as_ref().is_none_or(|wanted| value == Some(wanted));
    let resource = event.resource.as_deref().unwrap_or_default();
    let inside = |wanted: &Option<String>, kind: &str| {
        wanted.as_ref().is_none_or(|wanted| {
            let mut parts = resource.splitn(6, '/');
            std::iter::from_fn(|| Some((parts.next()?, parts.next()?)))
                .any(|(name, value)| name == kind && value == wanted)
        })
    };
    let matches = is(&filter.tenant, event.tenant.as_deref())
        && is(&filter.actor, event.user.as_deref())
        && is(&filter.action, Some(event.action.as_str()))
        && inside(&filter.table, "tables")
        && inside(&filter.key, "records")
        && filter.from_ms.is_none_or(|from| event.time_ms >= from)
        && filter.to_ms.is_none_or(|to| event.time_ms < to);
    if !matches {
        return Ok(None);
    }
    let detail = reader.detail(index).map_err(|error| internal("an audit detail cannot be read", &error))?;
    Ok(Some(AuditEntry {
        log: reader.name.clone(),
        index,
        event: serde_json::from_slice(leaf).map_err(|error| internal("a leaf is not JSON", &error))?,
        detail: detail.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
    }))
}

/// Recomputes one log: every leaf against the tree, the tree against its root, every detail against its leaf.
fn verify(reader: &LogReader) -> LogVerification {
    let problem = recompute(reader).err();
    LogVerification { name: reader.name.clone(), size: reader.size, verified: problem.is_none(), problem }
}

fn recompute(reader: &LogReader) -> Result<(), String> {
    let mut frontier = audit::Frontier::new();
    let mut index = 0;
    while index < reader.size {
        let leaves = reader.leaves(index, CHUNK).map_err(|error| error.to_string())?;
        if leaves.is_empty() {
            return Err(format!("entry {index} is missing"));
        }
        for leaf in leaves {
            let event = AuditEvent::decode(&leaf).map_err(|error| format!("entry {index}: {error}"))?;
            let detail = reader.detail(index).map_err(|error| error.to_string())?;
            let digest = detail.as_deref().map(audit::event::DetailDigest::of);
            if digest.is_some() && digest != event.detail_digest {
                return Err(format!("entry {index}: old and new values do not fit the digest"));
            }
            frontier.append(audit::merkle::leaf_hash(&leaf), |_, _| {});
            index += 1;
        }
    }
    let read =
        |span: Span| reader.hashes(span.level, span.first, usize::from(span.count)).map_err(|error| error.to_string());
    let stored = audit::proof::root(reader.size, read).map_err(|error| format!("{error:?}"))?;
    if stored != frontier.root() {
        return Err("the stored hashes do not fit the entries".into());
    }
    if *frontier.root().as_bytes() == reader.root { Ok(()) } else { Err("the root does not fit the entries".into()) }
}
