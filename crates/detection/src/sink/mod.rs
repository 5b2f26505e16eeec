//! Sinks: what is told to the outside about incidents.
//!
//! Pure: a sink makes requests; the caller sends them, and again until they are acknowledged, under their key.

pub mod webhook;

use crate::incident::{Entry, Incident};

/// A request to be sent over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where to.
    pub url: String,
    /// Names in lower case, and values.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The same for every attempt to tell this change to this sink: the outbox keeps one request under it.
    pub idempotency_key: String,
}

/// The door through which the outside is told.
pub trait Sink: Send + Sync + 'static {
    /// Its name, unique among sinks.
    fn name(&self) -> &str;
    /// The request that tells a change; `None` where this sink does not care for it.
    fn request(&self, incident: &Incident, change: &Entry) -> Option<Request>;
}
