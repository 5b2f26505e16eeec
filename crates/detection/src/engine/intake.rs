//! How events come in: made already, or as the bytes they arrived in.
//!
//! Both ways must have the same effects. From bytes an event is made only where a rule matched it, which few do.

use super::streams::Coming;
use super::{Arrived, Detector, Effect};
use crate::event::{Event, HOST_FIELD, Owner, Position, RawEvent, Reject};
use crate::normalise::normalise_for;
use std::sync::Arc;

impl Detector {
    /// One step with an event as it arrived; as [`Self::step`] with what normalising makes of it, only faster.
    ///
    /// # Errors
    /// The dead letter that normalising made of it: then nothing else happened.
    pub fn raw(&mut self, now_ms: u64, raw: &RawEvent, effects: &mut Vec<Effect>) -> Result<(), Reject> {
        self.raw_for(now_ms, raw, Owner::Itself, effects)
    }

    /// One step with an event of somebody's, as it arrived; as [`Self::step`] with what [`normalise_for`] makes of it.
    ///
    /// # Errors
    /// The dead letter that normalising made of it: then nothing else happened.
    pub fn raw_for(
        &mut self,
        now_ms: u64,
        raw: &RawEvent,
        owner: Owner<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        let rules = Arc::clone(&self.rules);
        let look = rules.program.run_raw_for(&mut self.worker, raw, owner)?;
        self.counts.events += 1;
        let (time_ms, is_clamped) = self.clamped(look.time_ms, raw.received_ms);
        let (product, host) = match &look.event {
            Some(event) => (event.logsource.product.as_deref(), event.text(HOST_FIELD)),
            None => (self.worker.product(), Some(self.worker.host())),
        };
        let name = name_of(raw.position.as_ref(), product);
        let (stream, coming) = self.streams.arrive(raw.received_ms, name, host.unwrap_or_default(), time_ms);
        let arrived = self.arrived(raw.received_ms, stream, coming, is_clamped);
        if self.worker.hits().len() > 0 {
            let made = look.event.map_or_else(|| normalise_for(raw, owner), Ok)?;
            self.matched(now_ms, arrived, &Event { time_ms, ..made }, effects);
        }
        self.tell_lost(raw.received_ms, effects);
        Ok(())
    }

    pub(super) fn event(&mut self, now_ms: u64, mut event: Event, effects: &mut Vec<Effect>) {
        self.counts.events += 1;
        let (time_ms, is_clamped) = self.clamped(event.time_ms, event.received_ms);
        event.time_ms = time_ms;
        let name = name_of(event.position.as_ref(), event.logsource.product.as_deref());
        let host = event.text(HOST_FIELD).unwrap_or_default();
        let (stream, coming) = self.streams.arrive(event.received_ms, name, host, event.time_ms);
        let arrived = self.arrived(event.received_ms, stream, coming, is_clamped);
        let rules = Arc::clone(&self.rules);
        rules.program.run(&mut self.worker, &event);
        if self.worker.hits().len() > 0 {
            self.matched(now_ms, arrived, &event, effects);
        }
        self.tell_lost(event.received_ms, effects);
    }

    fn arrived(&mut self, received_ms: u64, stream: u32, coming: Coming, is_clamped: bool) -> Arrived {
        self.counts.late += u64::from(coming.is_late);
        self.counts.behind += u64::from(coming.is_behind);
        Arrived { received_ms, stream, is_late: coming.is_late, is_clamped }
    }

    /// When an event happened, as far as its clock is believed; and whether it was not.
    fn clamped(&mut self, time_ms: u64, received_ms: u64) -> (u64, bool) {
        let believed_ms = self.options.believed_ms(time_ms, received_ms);
        self.counts.ahead += u64::from(believed_ms != time_ms);
        (believed_ms, believed_ms != time_ms)
    }
}

/// What the stream of an event is called.
fn name_of<'a>(position: Option<&'a Position>, product: Option<&'a str>) -> &'a str {
    position.map_or(product.unwrap_or_default(), |position| &position.stream)
}
