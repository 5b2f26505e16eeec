//! What every implementation of `Link` must do; each runs the whole suite.

use async_trait::async_trait;
use bytes::Bytes;
use model::{NodeId, RegionId};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use transport::{FRAME_BYTES_MAX, FrameStream, Handler, Link, LinkError, Peer, Service};

pub const DEADLINE: Duration = Duration::from_secs(20);

/// Echoes calls (and says who asked); refuses `Status`; never answers `ReadIndex`; streams by service.
#[derive(Default)]
pub struct Echo {
    pub streamed: AtomicUsize,
    pub proceed: Notify,
    pub ended: Option<mpsc::UnboundedSender<Option<LinkError>>>,
}

#[async_trait]
impl Handler for Echo {
    async fn call(&self, peer: &Peer, service: Service, request: Bytes) -> Option<Bytes> {
        match service {
            Service::Status => None,
            Service::ReadIndex => std::future::pending().await,
            Service::Propose => Some(Bytes::from(format!("{} {} {}", peer.node, peer.region, peer.zone))),
            _ => Some(request),
        }
    }

    async fn stream(&self, _: &Peer, service: Service, mut stream: Box<dyn FrameStream>) {
        if service == Service::Snapshot {
            self.proceed.notified().await;
        }
        let end = loop {
            match stream.receive().await {
                Ok(Some(frame)) => {
                    self.streamed.fetch_add(1, Ordering::SeqCst);
                    if service == Service::Pull && stream.send(frame).await.is_err() {
                        break None;
                    }
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        if let Some(ended) = &self.ended {
            let _ = ended.send(end);
        }
    }
}

pub fn peer(node: u64) -> Peer {
    Peer { node: NodeId::new(node), region: RegionId::new(node as u16), zone: "protected".into() }
}

pub fn body(size: usize) -> Bytes {
    (0..size).map(|index| (index * 31 + index / 256) as u8).collect::<Vec<_>>().into()
}

/// `a` is node 1, `b` is node 2 and serves `echo`; both may call each other.
pub async fn suite(a: Arc<dyn Link>, b: Arc<dyn Link>, echo: Arc<Echo>) {
    a.serve(Arc::new(Echo::default()));
    b.serve(echo.clone());
    calls(&*a, &*b).await;
    many_calls(&a).await;
    streams(&*a, &echo).await;
    back_pressure(&*a, &echo).await;
    drop_is_finish(&*a).await;
}

async fn calls(a: &dyn Link, b: &dyn Link) {
    let (one, two) = (NodeId::new(1), NodeId::new(2));
    for size in [0, 1, 1_000, 3_000_000] {
        assert_eq!(a.call(two, Service::Raft, body(size), DEADLINE).await, Ok(body(size)), "{size}");
    }
    assert_eq!(a.call(two, Service::Propose, Bytes::new(), DEADLINE).await, Ok("n1 r1 protected".into()));
    assert_eq!(b.call(one, Service::Propose, Bytes::new(), DEADLINE).await, Ok("n2 r2 protected".into()));
    assert_eq!(a.call(two, Service::Status, body(5), DEADLINE).await, Err(LinkError::Refused(two)));
    let short = Duration::from_millis(50);
    assert_eq!(a.call(two, Service::ReadIndex, body(5), short).await, Err(LinkError::Timeout(two)));
    let size_bytes = FRAME_BYTES_MAX + 1;
    let large = Bytes::from(vec![0; size_bytes]);
    assert_eq!(a.call(two, Service::Raft, large.clone(), DEADLINE).await, Err(LinkError::TooLarge { size_bytes }));
    let largest = large.slice(1..);
    assert_eq!(a.call(two, Service::Raft, largest.clone(), DEADLINE).await, Ok(largest));
    for nobody in [one, NodeId::new(99)] {
        assert_eq!(a.call(nobody, Service::Raft, body(1), DEADLINE).await, Err(LinkError::Unreachable(nobody)));
        assert!(matches!(a.open(nobody, Service::Pull).await, Err(LinkError::Unreachable(_))));
    }
}

async fn many_calls(a: &Arc<dyn Link>) {
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..64 {
        let a = a.clone();
        tasks.spawn(async move {
            for round in 0..8 {
                let request = body(index * 97 + round);
                assert_eq!(a.call(NodeId::new(2), Service::Raft, request.clone(), DEADLINE).await, Ok(request));
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a caller panicked");
    }
}

async fn streams(a: &dyn Link, echo: &Echo) {
    let before = echo.streamed.load(Ordering::SeqCst);
    let mut stream = a.open(NodeId::new(2), Service::Pull).await.expect("opens");
    for size in [0, 1, 100_000] {
        stream.send(body(size)).await.expect("sends");
        assert_eq!(stream.receive().await, Ok(Some(body(size))));
    }
    let size_bytes = FRAME_BYTES_MAX + 1;
    assert_eq!(stream.send(Bytes::from(vec![0; size_bytes])).await, Err(LinkError::TooLarge { size_bytes }));
    let (mut sink, mut source) = stream.split();
    let sending = async {
        for size in 0..200 {
            sink.send(body(size * 50)).await.expect("sends");
        }
        drop(sink);
    };
    let receiving = async {
        for size in 0..200 {
            assert_eq!(source.receive().await, Ok(Some(body(size * 50))), "frame {size}");
        }
        assert_eq!(source.receive().await, Ok(None));
        assert_eq!(source.receive().await, Ok(None));
    };
    tokio::join!(sending, receiving);
    assert_eq!(echo.streamed.load(Ordering::SeqCst), before + 203);
}

/// The sender stops long before 64 MiB while the receiver does not read, and everything arrives once it does.
async fn back_pressure(a: &dyn Link, echo: &Echo) {
    const FRAMES: usize = 64;
    let before = echo.streamed.load(Ordering::SeqCst);
    let mut stream = a.open(NodeId::new(2), Service::Snapshot).await.expect("opens");
    let frame = body(1 << 20);
    let mut sent = 0;
    let filling = async {
        while sent < FRAMES {
            stream.send(frame.clone()).await.expect("sends");
            sent += 1;
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(500), filling).await.is_err(), "the sender never waited");
    assert!(sent < FRAMES / 2, "{sent} MiB were taken");
    drop(stream);
    echo.proceed.notify_one();
    // The send that was cancelled may have left half a frame: only whole frames count.
    let mut stream = a.open(NodeId::new(2), Service::Snapshot).await.expect("opens");
    echo.proceed.notify_one();
    for _ in 0..FRAMES {
        stream.send(frame.clone()).await.expect("sends");
    }
    let (sink, mut source) = stream.split();
    drop(sink);
    assert_eq!(source.receive().await, Ok(None), "the other side has read all and finished");
    assert!(echo.streamed.load(Ordering::SeqCst) >= before + FRAMES);
}

async fn drop_is_finish(a: &dyn Link) {
    let stream = a.open(NodeId::new(2), Service::Pull).await.expect("opens");
    let (sink, mut source) = stream.split();
    drop(sink);
    assert_eq!(source.receive().await, Ok(None));
}
