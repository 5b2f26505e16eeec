//! Every bound of what a client may send and how long it may take.

use std::time::Duration;

/// Bytes of a request's body.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of a request's line and headers.
pub const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a session token for `Holdfast-Session`.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a page token.
pub const PAGE_TOKEN_BYTES_MAX: usize = 4 * 1024;
/// Entity tags of one `If-Match`.
pub const ETAGS_MAX: usize = 16;
/// Other regions a write may wait for.
pub const REMOTES_MAX: u8 = 16;
/// Events of one request.
pub const EVENTS_MAX: usize = 10_000;
/// Bytes of one event.
pub const EVENT_BYTES_MAX: usize = 60 * 1024;
/// Violations listed in one problem.
pub const VIOLATIONS_MAX: usize = 20;
/// Items of a page when the request does not say.
pub const PAGE_ITEMS_DEFAULT: usize = 100;

/// Connections at once, over all clients.
pub const CONNECTIONS_MAX: usize = 4096;
/// Requests at once on one HTTP/2 connection.
pub const STREAMS_MAX: u32 = 256;
/// A TLS handshake.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// From the first wait for a request to the end of its headers: also how long an idle connection lives.
pub const HEADER_TIME_MAX: Duration = Duration::from_secs(60);
/// From the end of the headers to the answer, the body included.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
/// What requests in flight get to finish when the node stops.
pub const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(10);
/// Between attempts to accept when the system is out of descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
