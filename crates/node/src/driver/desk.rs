//! Files alerts under incidents: one node of the region at a time, each alert once.
//!
//! Follows the alerts this region stored; what follows from them is stored together with the place it was read up to.

use crate::driver::book;
use crate::driver::duty::{Lost, Post, Work};
use crate::driver::follow::{self, Wrote};
use crate::driver::record::{COUNT, LAST_MS, ONLY, SUPERSEDED_BY, note};
use crate::machine::control::platform;
use async_trait::async_trait;
use detection::AlertId;
use detection::incident::Input;
use model::codec::encode;
use std::time::Duration;

/// The row with the place in the change log.
const PLACE: &[u8] = b"c";
/// Looks again at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The duty.
pub struct Filing;

#[async_trait]
impl Work for Filing {
    fn duty(&self) -> String {
        "desk".into()
    }

    async fn work(&self, mut post: Post) -> Lost {
        // Read again from the beginning, alerts that are filed change nothing.
        let mut place = follow::place(&post, PLACE).await.unwrap_or(0);
        loop {
            let (wrote, end) = match follow::after(&post.node, place) {
                Ok(read) => read,
                Err(error) => {
                    tracing::error!(%error, "the change log cannot be read");
                    (Vec::new(), place)
                }
            };
            if end == place {
                follow::more(&post.node, LOOK_EVERY).await;
                continue;
            }
            let inputs: Vec<Input> = wrote.iter().flat_map(inputs).collect();
            if !inputs.is_empty() && file(&mut post, &inputs, end).await.is_err() {
                return Lost;
            }
            // Nothing of it was about alerts: the place is stored with the next that is.
            place = end;
        }
    }
}

/// Stores what follows from alerts, and the place.
async fn file(post: &mut Post, inputs: &[Input], place: u64) -> Result<(), Lost> {
    let note = note(&post.node, "incident.update", String::new());
    loop {
        let row = (PLACE.to_vec(), Some(encode(&place)));
        if book::report(post, vec![row], Vec::new(), inputs, &note, |_| true).await? {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What the desk is told of a record of an alert.
fn inputs(wrote: &Wrote) -> Vec<Input> {
    let Some(alert) = wrote.key.parse::<AlertId>().ok().filter(|_| wrote.table == platform::ALERTS) else {
        return Vec::new();
    };
    let mut inputs = Vec::new();
    if let Some(json) = wrote.text(ONLY) {
        match serde_json::from_str(json) {
            Ok(alert) => inputs.push(Input::Alert(alert)),
            Err(error) => tracing::error!(%error, %alert, "an alert cannot be read"),
        }
    }
    if let Some(by) = wrote.text(SUPERSEDED_BY).and_then(|by| by.parse().ok()) {
        inputs.push(Input::Superseded { old: alert, by });
    }
    if let (Some(count), Some(last_ms)) = (wrote.number(COUNT), wrote.number(LAST_MS)) {
        inputs.push(Input::Extended { alert, count, last_ms });
    }
    inputs
}
