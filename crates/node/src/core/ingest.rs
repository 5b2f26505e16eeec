//! Events of others coming in: kept in the region's log, where detection reads them.

use super::wait::{failed, internal};
use crate::machine::command::{Command, Door, Idempotency, Identity, Ingest, Outcome, Refusal};
use crate::machine::note::Note;
use crate::node::Node;
use api::core::Answer;
use api::problem::Problem;
use api::types::{Caller, Ingested};
use bytes::Bytes;
use detection::normalise::{normalise, says_when};
use detection::rules::TENANT_FIELD;
use detection::{Owner, RawEvent, SourceKind};
use identity::{Action, Session};
use model::TenantId;
use model::codec::{CodecError, decode, encode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of events in one command; the last one of a part may go beyond.
const PART_BYTES_MAX: usize = 512 * 1024;
/// About what an event takes besides its own bytes.
const EVENT_BYTES: usize = 32;

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
            _ if matches!(self.raw.source, SourceKind::Audit | SourceKind::Tuple) => Owner::Itself,
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
        idempotency_key: Option<&str>,
    ) -> Answer<Ingested> {
        self.permit(caller, session, Action::EventIngest, session.tenant(), "events").await?;
        if session.tenant() != TenantId::PLATFORM {
            let own = self.control().tenants.get(&session.tenant()).cloned().ok_or(Problem::not_found("tenant"))?;
            self.resident(&own)?;
        }
        let accepted = lines.len() as u64;
        let resource = Some(format!("events/{source}"));
        let note = Note { resource, ..self.note(caller, session, "ingest") };
        let known = match idempotency_key {
            Some(key) => KnownBy::Request(request(session, key, source, &lines)),
            None => KnownBy::Each(of_lines(session.tenant(), source, &lines)),
        };
        let received_ms = self.world.clock.wall_ms();
        let event = |bytes| RawEvent { source: SourceKind::Ndjson, received_ms, position: None, bytes };
        let mut taken = Vec::with_capacity(lines.len());
        for (number, line) in (1..).zip(lines) {
            let event = self.known(session, event(line));
            taken.push(event.map_err(|why| Problem::invalid(format!("line {number}"), why))?);
        }
        let kept = self.take_in(taken, known, &note).await?;
        Ok(Ingested { accepted, repeated: accepted.saturating_sub(kept) })
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

    /// Writes events to the region's log, but for those that it knows: how many were new.
    pub(crate) async fn take_in(&self, events: Vec<Taken>, known: KnownBy<'_>, note: &Note) -> Answer<u64> {
        let count = events.len() as u64;
        let mut kept = 0;
        for (number, (part, places)) in parts(events).into_iter().enumerate() {
            let door = match &known {
                KnownBy::Place(stream) => Door::Places((*stream).to_owned(), part.sequences),
                KnownBy::Each(identities) => Door::Identities(identities[places].to_vec()),
                KnownBy::Request(Idempotency { key, digest }) => {
                    Door::Request(Idempotency { key: format!("{key}/{number}"), digest: *digest })
                }
            };
            let command = Command::Ingest(Ingest { events: part.encoded, door, note: note.clone() });
            match self.propose(self.cluster.home(), &command).await.map_err(failed)? {
                Outcome::Taken { applied, .. } => kept += u64::from(applied),
                Outcome::Refused(Refusal::IdempotencyReuse) => return Err(Problem::IdempotencyReuse),
                other => return Err(internal("events came to something else", &format!("{other:?}"))),
            }
        }
        self.metrics.events_repeated.inc_by(count.saturating_sub(kept));
        Ok(kept)
    }
}

/// How events are known again that are delivered twice.
pub(crate) enum KnownBy<'a> {
    /// By their places in this stream, in whose order they come.
    Place(&'a str),
    /// By an identity of each; one without is not.
    Each(Vec<Option<Identity>>),
    /// By the request that brought them.
    Request(Idempotency),
}

/// A key belongs to its user: nobody finds out what another's request was.
fn request(session: &Session, key: &str, source: &str, lines: &[Bytes]) -> Idempotency {
    let owned = [b"events/".as_slice(), &session.user().get().to_be_bytes(), key.as_bytes()].concat();
    let mut hasher = blake3::Hasher::new();
    for part in std::iter::once(source.as_bytes()).chain(lines.iter().map(|line| &**line)) {
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
    }
    Idempotency { key: blake3::hash(&owned).to_hex().to_string(), digest: *hasher.finalize().as_bytes() }
}

/// A line is known by what it says, and by which of its request's equal lines it is. One that does not say when it
/// happened is not: others may say the same of another time.
fn of_lines(tenant: TenantId, source: &str, lines: &[Bytes]) -> Vec<Option<Identity>> {
    let mut equal: BTreeMap<&[u8], u64> = BTreeMap::new();
    let mut nth = |line| {
        let nth = equal.entry(line).or_default();
        *nth += 1;
        *nth
    };
    let identity = |line: &[u8], nth: u64| {
        let parts: [&[u8]; 4] = [&tenant.get().to_be_bytes(), source.as_bytes(), line, &nth.to_be_bytes()];
        says_when(line).then(|| Identity::of("holdfast event by its content 1", &parts))
    };
    lines.iter().map(|line| identity(line, nth(line))).collect()
}

/// Encoded events that go in one command.
#[derive(Default)]
struct Part {
    encoded: Vec<Vec<u8>>,
    /// Of those that have a place.
    sequences: Vec<u64>,
    size_bytes: usize,
}

/// Cuts events into parts, each with which of the events it has. The cuts depend on the events alone, not on when they
/// came or what else is kept of them: a request that comes again is cut in the same places.
fn parts(events: Vec<Taken>) -> Vec<(Part, Range<usize>)> {
    let mut parts: Vec<(Part, Range<usize>)> = Vec::new();
    for (place, Taken { raw, tenant }) in events.into_iter().enumerate() {
        if parts.last().is_none_or(|(part, _)| part.size_bytes >= PART_BYTES_MAX) {
            parts.push((Part::default(), place..place));
        }
        let Some((part, places)) = parts.last_mut() else { continue };
        places.end = place + 1;
        part.size_bytes += raw.bytes.len() + EVENT_BYTES;
        part.sequences.extend(raw.position.as_ref().map(|position| position.sequence));
        // In the region's log it has a place of its own.
        part.encoded.push(encode(&Taken { raw: RawEvent { position: None, ..raw }, tenant }));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(texts: &[&'static str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    #[test]
    fn lines_are_known_by_what_they_say_and_when_it_happened() {
        let acme = TenantId::new(7);
        let of = |texts: &[&'static str]| of_lines(acme, "fw", &lines(texts));
        let both = of(&[r#"{"time":1,"a":1}"#, r#"{"time":1,"a":1}"#]);
        assert!(both[0].is_some() && both[0] != both[1], "equal lines of one request are two events");
        assert_eq!(of(&[r#"{"time":1,"a":1}"#])[0], both[0], "sent again it is the same");
        assert_ne!(of_lines(TenantId::new(8), "fw", &lines(&[r#"{"time":1,"a":1}"#]))[0], both[0], "another tenant's");
        assert_ne!(of_lines(acme, "ids", &lines(&[r#"{"time":1,"a":1}"#]))[0], both[0], "another source's");
        assert_eq!(of(&[r#"{"a":1}"#, r#"{"b":{"time":1}}"#, "broken \"time\""]), [None; 3], "no time of their own");
    }

    #[test]
    fn a_request_that_comes_again_later_is_cut_in_the_same_places() {
        let event = |received_ms| Taken {
            raw: RawEvent {
                source: SourceKind::Ndjson,
                received_ms,
                position: None,
                bytes: Bytes::from(vec![b'x'; 100_000]),
            },
            tenant: None,
        };
        let cuts = |received_ms| -> Vec<Range<usize>> {
            parts(vec![event(received_ms); 13]).into_iter().map(|(_, places)| places).collect()
        };
        assert_eq!(cuts(1), [0..6, 6..12, 12..13]);
        assert_eq!(cuts(1), cuts(u64::MAX));
    }

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
