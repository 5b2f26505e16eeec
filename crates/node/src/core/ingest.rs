//! Events of others coming in: kept in the region's log, where detection reads them.

use super::wait::failed;
use crate::machine::command::{Command, Ingest};
use crate::machine::note::Note;
use crate::node::Node;
use api::core::Answer;
use api::types::{Caller, Ingested};
use bytes::Bytes;
use detection::{RawEvent, SourceKind};
use identity::{Action, Session};
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
