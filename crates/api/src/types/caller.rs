//! Who calls, as far as the connection and its headers tell.

use std::fmt;
use std::net::IpAddr;

/// The caller of one request, before anyone believed a word.
#[derive(Clone)]
pub struct Caller {
    /// The address of the connection's other end; never from a header.
    pub address: IpAddr,
    /// This request.
    pub request: u128,
    /// The trace this request continues, if it came with a valid `traceparent`.
    pub trace: Option<TraceParent>,
    /// The bearer token as given: not verified.
    pub bearer: Option<String>,
}

impl fmt::Debug for Caller {
    /// Without the token: it is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("address", &self.address)
            .field("request", &format_args!("{:032x}", self.request))
            .field("trace", &self.trace)
            .field("bearer", &self.bearer.as_ref().map(|_| "…"))
            .finish()
    }
}

/// A W3C trace context (`traceparent`, version 00).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace; never zero.
    pub trace: u128,
    /// The caller's span; never zero.
    pub span: u64,
    /// Whether the caller records it.
    pub sampled: bool,
}
