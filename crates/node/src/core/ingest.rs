//! Events of others coming in: kept in the region's log, where detection reads them.

use super::wait::failed;
use crate::machine::command::{Command, Ingest};
use crate::machine::note::Note;
use crate::node::Node;
use api::core::Answer;
use api::problem::Problem;
use api::types::{Caller, Ingested};
use bytes::Bytes;
use detection::{RawEvent, SourceKind};
use identity::{Action, Session};
use model::TenantId;
use model::codec::{CodecError, decode, encode};
use serde::{Deserialize, Serialize};

/// Bytes of events in one command.
const BATCH_BYTES_MAX: usize = 512 * 1024;

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
            if let Some(number) = lines.iter().position(|line| !is_own(line, &own.name)) {
                let at = format!("line {}", number + 1);
                return Err(Problem::invalid(at, "metadata.tenant_uid is another tenant's"));
            }
        }
        let accepted = lines.len() as u64;
        let resource = Some(format!("events/{source}"));
        let note = Note { resource, ..self.note(caller, session, "ingest") };
        let received_ms = self.world.clock.wall_ms();
        let event = |bytes| RawEvent { source: SourceKind::Ndjson, received_ms, position: None, bytes };
        self.take_in(lines.into_iter().map(event).collect(), None, note).await?;
        Ok(Ingested { accepted })
    }

    /// Writes events to the region's log. A source that delivers again after a crash, in order, names its stream, and
    /// each event its place in it: what was written before is left out.
    pub(crate) async fn take_in(&self, events: Vec<RawEvent>, door: Option<&str>, note: Note) -> Answer<()> {
        let mut batch = Batch::default();
        for event in events {
            batch.push(event, note.tenant.as_ref());
            if batch.size_bytes >= BATCH_BYTES_MAX {
                self.write_events(std::mem::take(&mut batch), door, &note).await?;
            }
        }
        if !batch.events.is_empty() {
            self.write_events(batch, door, &note).await?;
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

/// Whether an event names no tenant, or that one: rules of a tenant are never fed by another.
fn is_own(line: &[u8], tenant: &str) -> bool {
    // A name may be written with escapes; what has neither needs no second look.
    let has = |what: &[u8]| line.windows(what.len()).any(|window| window == what);
    if !has(b"tenant_uid") && !has(b"\\u") {
        return true;
    }
    let Ok(event) = serde_json::from_slice::<serde_json::Value>(line) else { return true };
    let named = [event.get("metadata.tenant_uid"), event.get("metadata").and_then(|one| one.get("tenant_uid"))];
    named.into_iter().flatten().all(|name| name == tenant)
}

#[derive(Default)]
struct Batch {
    events: Vec<Vec<u8>>,
    places: Vec<u64>,
    size_bytes: usize,
}

impl Batch {
    fn push(&mut self, event: RawEvent, tenant: Option<&String>) {
        self.places.extend(event.position.as_ref().map(|position| position.sequence));
        // In the region's log it has a place of its own.
        let bytes = encode(&Taken { raw: RawEvent { position: None, ..event }, tenant: tenant.cloned() });
        self.size_bytes += bytes.len();
        self.events.push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_event_names_no_other_tenant_however_it_is_written() {
        let cases: [(&str, bool); 6] = [
            (r#"{"a":1}"#, true),
            (r#"{"metadata":{"tenant_uid":"acme"}}"#, true),
            (r#"{"metadata":{"tenant_uid":"globex"}}"#, false),
            (r#"{"metadata.tenant_uid":"globex"}"#, false),
            (r#"{"metadata":{"\u0074enant_uid":"globex"}}"#, false),
            (r#"{"metadata":{"tenant_uid":["acme","globex"]}}"#, false),
        ];
        for (line, expected) in cases {
            assert_eq!(is_own(line.as_bytes(), "acme"), expected, "{line}");
        }
    }

    #[test]
    fn rows_of_earlier_versions_are_read() {
        let raw =
            RawEvent { source: SourceKind::Ndjson, received_ms: 7, position: None, bytes: Bytes::from_static(b"{}") };
        assert_eq!(Taken::read(&encode(&raw)), Ok(Taken { raw: raw.clone(), tenant: None }));
        let taken = Taken { raw, tenant: Some("acme".into()) };
        assert_eq!(Taken::read(&encode(&taken)), Ok(taken));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = Taken::read(&bytes);
        }
    }
}
