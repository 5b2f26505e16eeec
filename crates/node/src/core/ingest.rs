//! Events of others coming in: kept in the region's log, where detection reads them.

use super::wait::failed;
use crate::machine::command::{Command, Ingest};
use crate::machine::note::Note;
use crate::node::Node;
use api::core::Answer;
use api::problem::Problem;
use api::types::{Caller, Ingested};
use bytes::Bytes;
use detection::normalise::normalise;
use detection::rules::TENANT_FIELD;
use detection::{Owner, RawEvent, SourceKind};
use identity::{Action, Session};
use model::TenantId;
use model::codec::{CodecError, decode, encode};
use serde::{Deserialize, Serialize};

/// Bytes of events in one command.
const BATCH_BYTES_MAX: usize = 512 * 1024;

/// The platform's own tenant: what belongs to it is of no tenant for detection.
const PLATFORM: &str = "platform";

/// An event in the region's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// The event.
    pub raw: RawEvent,
    /// Whose it is, as whoever brought it was known; never as it says itself.
    pub tenant: Option<String>,
}

impl Taken {
    /// Reads a row of the log.
    pub fn read(bytes: &[u8]) -> Result<Self, CodecError> {
        // Earlier versions did not keep whose an event is.
        decode(bytes).or_else(|_| decode(bytes).map(|raw| Self { raw, tenant: None }))
    }

    /// Whose it is, for detection.
    pub fn owner(&self) -> Owner<'_> {
        match self.tenant.as_deref() {
            _ if self.raw.source == SourceKind::Audit => Owner::Itself,
            None | Some(PLATFORM) => Owner::Nobody,
            Some(tenant) => Owner::Tenant(tenant),
        }
    }
}

impl Node {
    /// Takes events: durable when this returns.
    pub(crate) async fn ingest(
        &self,
        caller: &Caller,
        session: &Session,
        source: &str,
        lines: Vec<Bytes>,
    ) -> Answer<Ingested> {
        self.permit(caller, session, Action::EventIngest, session.tenant(), "events").await?;
        if session.tenant() != TenantId::PLATFORM {
            let own = self.control().tenants.get(&session.tenant()).cloned().ok_or(Problem::not_found("tenant"))?;
            self.resident(&own)?;
        }
        let accepted = lines.len() as u64;
        let resource = Some(format!("events/{source}"));
        let note = Note { resource, ..self.note(caller, session, "ingest") };
        let received_ms = self.world.clock.wall_ms();
        let event = |bytes| RawEvent { source: SourceKind::Ndjson, received_ms, position: None, bytes };
        let mut taken = Vec::with_capacity(lines.len());
        for (number, line) in (1..).zip(lines) {
            let known = self.known(session, event(line));
            taken.push(known.map_err(|why| Problem::invalid(format!("line {number}"), why))?);
        }
        self.take_in(taken, None, &note).await?;
        Ok(Ingested { accepted })
    }

    /// An event and whose it is: the session's tenant's, or one that the platform's own people name.
    fn known(&self, session: &Session, raw: RawEvent) -> Result<Taken, String> {
        let event = normalise(&raw).map_err(|reject| reject.reason.to_string())?;
        let control = self.control();
        let own: &str = match control.tenants.get(&session.tenant()) {
            _ if session.tenant() == TenantId::PLATFORM => PLATFORM,
            Some(tenant) => &tenant.name,
            None => return Err("its tenant is not known here yet".to_owned()),
        };
        let tenant: &str = match event.fields.get(TENANT_FIELD) {
            None => own,
            Some(named) => match named.as_str().and_then(|named| control.tenant(named)) {
                Some(named) if named.name == own || own == PLATFORM && named.allows(self.region.id) => &named.name,
                _ => return Err("metadata.tenant_uid is another tenant's".to_owned()),
            },
        };
        Ok(Taken { tenant: Some(tenant.to_owned()), raw })
    }

    /// Writes events to the region's log. A source that delivers again after a crash, in order, names its stream, and
    /// each event its place in it: what was written before is left out.
    pub(crate) async fn take_in(&self, events: Vec<Taken>, door: Option<&str>, note: &Note) -> Answer<()> {
        let mut batch = Batch::default();
        for event in events {
            batch.push(event);
            if batch.size_bytes >= BATCH_BYTES_MAX {
                self.write_events(std::mem::take(&mut batch), door, note).await?;
            }
        }
        if !batch.events.is_empty() {
            self.write_events(batch, door, note).await?;
        }
        Ok(())
    }

    async fn write_events(&self, batch: Batch, door: Option<&str>, note: &Note) -> Answer<()> {
        let door = door.map(|stream| (stream.to_owned(), batch.places));
        let command = Command::Ingest(Ingest { events: batch.events, door, note: note.clone() });
        self.propose(self.cluster.home(), &command).await.map_err(failed)?;
        Ok(())
    }
}

#[derive(Default)]
struct Batch {
    events: Vec<Vec<u8>>,
    places: Vec<u64>,
    size_bytes: usize,
}

impl Batch {
    fn push(&mut self, Taken { raw, tenant }: Taken) {
        self.places.extend(raw.position.as_ref().map(|position| position.sequence));
        // In the region's log it has a place of its own.
        let bytes = encode(&Taken { raw: RawEvent { position: None, ..raw }, tenant });
        self.size_bytes += bytes.len();
        self.events.push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_of_earlier_versions_are_read() {
        let raw =
            RawEvent { source: SourceKind::Ndjson, received_ms: 7, position: None, bytes: Bytes::from_static(b"{}") };
        assert_eq!(Taken::read(&encode(&raw)), Ok(Taken { raw: raw.clone(), tenant: None }));
        let taken = Taken { raw, tenant: Some("acme".into()) };
        assert_eq!(Taken::read(&encode(&taken)), Ok(taken));
    }

    #[test]
    fn detection_believes_who_brought_an_event_and_not_the_event() {
        let raw = |source| RawEvent { source, received_ms: 7, position: None, bytes: Bytes::from_static(b"{}") };
        let of = |source, tenant: Option<&str>| Taken { raw: raw(source), tenant: tenant.map(str::to_owned) };
        assert_eq!(of(SourceKind::Ndjson, Some("acme")).owner(), Owner::Tenant("acme"));
        assert_eq!(of(SourceKind::Syslog, Some("platform")).owner(), Owner::Nobody);
        assert_eq!(of(SourceKind::Syslog, None).owner(), Owner::Nobody);
        assert_eq!(of(SourceKind::Audit, None).owner(), Owner::Itself, "the audit log says it itself");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = Taken::read(&bytes);
        }
    }
}
