//! Tasks that must not end: one that does is begun again after a pause, and until then its component counts as down.

use super::counters::Counters;
use crate::resource::OpenError;
use crate::source::{Batch, Source};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Pause before a task is begun again; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause; a task that ran for longer is not one that falls again and again.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How a component's task is doing.
pub(super) struct Standing {
    name: Arc<str>,
    counters: Arc<Counters>,
    is_up: bool,
    since: Instant,
    pause: Duration,
}

impl Standing {
    pub(super) fn new(name: &Arc<str>, counters: &Arc<Counters>) -> Self {
        let (name, counters) = (Arc::clone(name), Arc::clone(counters));
        Self { name, counters, is_up: true, since: Instant::now(), pause: PAUSE_MIN }
    }

    /// It runs.
    pub(super) fn up(&mut self) {
        self.since = Instant::now();
        if !self.is_up {
            self.counters.comes_up();
        }
        self.is_up = true;
    }

    /// It has ended, and should not have; returns when it is to be begun again.
    pub(super) async fn fell(&mut self, why: &str) {
        if self.is_up && self.since.elapsed() > PAUSE_MAX {
            self.pause = PAUSE_MIN;
        }
        let waits_ms = self.pause.as_millis();
        tracing::error!(component = %self.name, why, waits_ms, "a task has ended, and is begun again");
        self.down();
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    fn down(&mut self) {
        if self.is_up {
            self.counters.goes_down();
        }
        self.is_up = false;
    }
}

/// What a task came to: a panic is an error like others.
pub(super) async fn caught<T>(task: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(task).catch_unwind().await.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
        format!("it panicked: {}", text.unwrap_or("without a word"))
    })
}

/// A task that is begun again until it comes to its end.
macro_rules! kept {
    ($standing:expr, $task:expr) => {{
        let mut standing = $standing;
        async move {
            loop {
                standing.up();
                match $crate::runtime::supervise::caught($task).await {
                    Ok(()) => return,
                    Err(why) => standing.fell(&why).await,
                }
            }
        }
    }};
}
pub(super) use kept;

/// A source that is opened again whenever it ends while somebody still listens.
pub(super) async fn described(
    mut standing: Standing,
    first: Box<dyn Source>,
    reopen: impl Fn() -> BoxFuture<'static, Result<Box<dyn Source>, OpenError>> + Send,
    out: mpsc::Sender<Batch>,
) {
    let mut open = Some(first);
    while !out.is_closed() {
        let why = match open.take() {
            Some(source) => {
                standing.up();
                match caught(source.run(out.clone())).await {
                    _ if out.is_closed() => return,
                    Ok(Ok(())) => "its input has ended".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(panic) => panic,
                }
            }
            None => match caught(reopen()).await {
                Ok(Ok(source)) => {
                    open = Some(source);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(panic) => panic,
            },
        };
        standing.fell(&why).await;
    }
}

/// One of the platform's own sources, which nobody can open again here.
pub(super) async fn own(mut standing: Standing, source: Box<dyn Source>, out: mpsc::Sender<Batch>) {
    let why = match caught(source.run(out)).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic,
    };
    standing.down();
    tracing::error!(component = %standing.name, why, "a source has ended");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Invalid;
    use parking_lot::Mutex;
    use std::io;

    /// A source that ends as it is told: well, with an error, or with a panic; or stays.
    struct Ends(&'static str);
    impl Source for Ends {
        fn counters(&self) -> Arc<crate::source::Counters> {
            Arc::default()
        }
        fn run(self: Box<Self>, _out: mpsc::Sender<Batch>) -> BoxFuture<'static, io::Result<()>> {
            Box::pin(async move {
                match self.0 {
                    "well" => Ok(()),
                    "error" => Err(io::Error::other("no more")),
                    "panic" => panic!("at the disco"),
                    _ => std::future::pending().await,
                }
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_ends_in_any_way_is_opened_again() {
        let counters = Arc::<Counters>::default();
        let (out, _listens) = mpsc::channel(1);
        let turns = Arc::new(Mutex::new(vec!["stays", "well", "error", "cannot be opened", "panic"]));
        let reopen = {
            let turns = Arc::clone(&turns);
            move || -> BoxFuture<'static, Result<Box<dyn Source>, OpenError>> {
                let turn = turns.lock().pop().expect("it is opened as often as it ended");
                Box::pin(async move {
                    match turn {
                        "cannot be opened" => Err(Invalid::new("address", "taken").into()),
                        turn => Ok(Box::new(Ends(turn)) as Box<dyn Source>),
                    }
                })
            }
        };
        let standing = Standing::new(&"source".into(), &counters);
        let task = tokio::spawn(described(standing, Box::new(Ends("error")), reopen, out));
        let stays = async {
            while !turns.lock().is_empty() {
                let counts = counters.read();
                assert!(counts.running == 0 || counts.restarts > 0 || turns.lock().len() == 5, "{counts:?}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), stays).await.expect("it is opened again and again");
        tokio::time::sleep(Duration::from_millis(1)).await;
        let counts = counters.read();
        assert_eq!((counts.running, counts.restarts), (1, 4));
        assert!(!task.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn an_own_source_that_breaks_is_seen_to_be_down() {
        let counters = Arc::<Counters>::default();
        let (out, _listens) = mpsc::channel(1);
        own(Standing::new(&"audit".into(), &counters), Box::new(Ends("well")), out.clone()).await;
        assert_eq!(counters.read().running, 1, "it came to its end");
        own(Standing::new(&"audit".into(), &counters), Box::new(Ends("panic")), out).await;
        assert_eq!(counters.read().running, 0);
    }
}
