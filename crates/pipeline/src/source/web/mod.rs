//! What sources over HTTP have in common: connections that somebody uses, and bodies that are paid for.
//!
//! It knows nothing of what a body holds.

mod body;
mod budget;

pub use body::{BODY_SIZE_BYTES, BODY_SIZE_BYTES_MAX};
pub(super) use body::{Broken, Metered, body_problem, body_size_bytes_max, read};
pub(super) use budget::{Budget, Share};

use super::net::Stream;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::body::Body;

/// A request is read in this time.
pub(super) const READ_TIME_MAX: Duration = Duration::from_secs(20);
/// Most requests at once of one HTTP/2 connection.
const STREAMS_MAX: u32 = 16;
/// A new connection begins its first request in this time.
const FIRST_TIME_MAX: Duration = Duration::from_secs(30);
/// A connection on which no request begins for so long is closed.
const IDLE_TIME_MAX: Duration = Duration::from_secs(120);
/// An HTTP/2 peer answers a ping in this time.
const PING_TIME_MAX: Duration = Duration::from_secs(20);
/// What is on its way when a connection is closed is finished in this time.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// Which versions of HTTP a port speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Versions {
    Both,
    Http2,
}

/// Serves the requests of one connection, until the peer ends it or lets it lie idle: whatever it sends beside requests
/// (nothing, half a preface, answers to pings) does not keep it open.
pub(super) async fn connection<S, F>(versions: Versions, stream: Stream, service: S) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = F> + Clone + Send,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    if versions == Versions::Http2 {
        builder = builder.http2_only();
    }
    builder.http1().timer(TokioTimer::new()).header_read_timeout(READ_TIME_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(IDLE_TIME_MAX)
        .keep_alive_timeout(PING_TIME_MAX)
        .max_concurrent_streams(STREAMS_MAX);
    let activity = Arc::new(Activity::new());
    let seen = Arc::clone(&activity);
    let service = service_fn(move |request| {
        let (under_way, answer) = (UnderWay::new(&seen), service.call(request));
        async move {
            let _under_way = under_way;
            answer.await
        }
    });
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        biased;
        served = serving.as_mut() => return served.map_err(io::Error::other),
        () = activity.idle() => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(CLOSE_TIME_MAX, serving).await;
    Err(io::ErrorKind::TimedOut.into())
}

/// What happens on a connection: requests under way, and when the last one began or ended.
struct Activity {
    under_way: AtomicUsize,
    last: watch::Sender<Option<Instant>>,
    opened: Instant,
}

impl Activity {
    fn new() -> Self {
        Self { under_way: AtomicUsize::new(0), last: watch::Sender::new(None), opened: Instant::now() }
    }

    /// Returns once no request is under way, and none has been for too long.
    async fn idle(&self) {
        let mut last = self.last.subscribe();
        loop {
            let until = match *last.borrow_and_update() {
                None => self.opened + FIRST_TIME_MAX,
                Some(at) => at + IDLE_TIME_MAX,
            };
            tokio::select! {
                biased;
                _ = last.changed() => {}
                () = tokio::time::sleep_until(until), if self.under_way.load(Ordering::Acquire) == 0 => return,
            }
        }
    }
}

/// A request while it is under way.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.under_way.fetch_add(1, Ordering::AcqRel);
        activity.last.send_replace(Some(Instant::now()));
        Self(Arc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
        self.0.last.send_replace(Some(Instant::now()));
    }
}
