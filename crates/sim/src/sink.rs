//! The outside, as nodes tell it: it counts what it is told, and now and then it cannot be told at once.

use crate::random::Random;
use async_trait::async_trait;
use parking_lot::Mutex;
use pipeline::sink::{Notice, Refused, Sink, Topic};
use std::collections::BTreeMap;

/// Of a hundred deliveries, those that are refused for now; half of them after the first notice was taken.
const REFUSED: u64 = 20;

/// What was told under one key.
#[derive(Clone, Debug)]
pub struct Told {
    /// What it was about.
    pub topic: Topic,
    /// How often.
    pub times: u64,
    /// Whether it was something else another time.
    pub differs: bool,
    body: String,
}

/// Somebody outside, the same for all nodes.
pub struct Outside {
    told: Mutex<BTreeMap<String, Told>>,
    random: Mutex<Random>,
}

impl Outside {
    /// Nobody has told it anything.
    pub fn new(seed: u64) -> Self {
        Self { told: Mutex::default(), random: Mutex::new(Random::new(seed, 0x0075)) }
    }

    /// What it was told, by key.
    pub fn told(&self) -> BTreeMap<String, Told> {
        self.told.lock().clone()
    }

    fn hear(&self, notice: &Notice) {
        let Notice { topic, body, .. } = notice;
        let new = Told { topic: *topic, times: 0, differs: false, body: body.clone() };
        let mut all = self.told.lock();
        let told = all.entry(notice.key.clone()).or_insert(new);
        told.times += 1;
        told.differs |= told.body != *body;
    }
}

#[async_trait]
impl Sink for Outside {
    fn name(&self) -> &str {
        "outside"
    }
    fn wants(&self, notice: &Notice) -> bool {
        matches!(notice.topic, Topic::Alert | Topic::Incident)
    }
    async fn deliver(&self, notices: &[Notice]) -> (usize, Result<(), Refused>) {
        let (is_refused, takes_one) = {
            let mut random = self.random.lock();
            (random.percent(REFUSED), random.percent(50))
        };
        let taken = if is_refused { usize::from(takes_one).min(notices.len()) } else { notices.len() };
        notices[..taken].iter().for_each(|notice| self.hear(notice));
        (taken, if is_refused { Err(Refused::Later("busy".into())) } else { Ok(()) })
    }
}
