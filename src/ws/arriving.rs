//! Memory of a message while it arrives in pieces, within the server's limit for all of them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::{Counted, Metrics};
use crate::room::arrivals::{ArrivalPermit, ArrivalShare};

/// Memory of one socket's incomplete message.
pub(super) struct Arriving {
    /// Received bytes of the message, in the gauge of all incomplete messages.
    bytes: Counted,
    /// The permit for these bytes.
    permit: Option<ArrivalPermit>,
    /// The pending permit for the last of these bytes, beyond the limit; nothing is read meanwhile.
    pending: Option<Pin<Box<dyn Future<Output = ArrivalPermit> + Send>>>,
    /// Deadline of a message that may exceed the limit: until it is complete, no other one may.
    finish_by: Option<Instant>,
    /// Time for such a message to be completed.
    finish_within: Duration,
    /// This socket's access to the limit.
    share: Arc<ArrivalShare>,
}

impl Arriving {
    /// Nothing arrives yet.
    pub(super) fn new(share: Arc<ArrivalShare>, finish_within: Duration, metrics: &Metrics) -> Self {
        let bytes = Counted::new(&metrics.arriving_bytes, 0);
        Self { bytes, permit: None, pending: None, finish_by: None, finish_within, share }
    }

    /// Counts the message, of which `bytes` have arrived. Over the limit no more of it is to be read until
    /// others complete theirs; returns true if that has just begun.
    pub(super) fn count(&mut self, now: Instant, bytes: usize) -> bool {
        let more = bytes.saturating_sub(usize::try_from(self.bytes.count()).unwrap_or_default());
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.bytes.set(bytes);
        if more == 0 || self.permit.as_ref().is_some_and(ArrivalPermit::is_overrun) {
            return false;
        }
        match self.share.try_acquire(more) {
            Some(permit) => {
                self.add(now, permit);
                false
            }
            None => {
                self.pending = Some(Box::pin(self.share.clone().acquire(more)));
                true
            }
        }
    }

    /// True while no more of the message may be read.
    pub(super) fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// Ready once more of the message may be read; then its deadline may have changed.
    pub(super) fn poll_permitted(&mut self, now: Instant, context: &mut Context<'_>) -> Poll<()> {
        let Some(pending) = &mut self.pending else { return Poll::Ready(()) };
        pending.as_mut().poll(context).map(|permit| {
            self.pending = None;
            self.add(now, permit);
        })
    }

    fn add(&mut self, now: Instant, permit: ArrivalPermit) {
        if permit.is_overrun() {
            self.finish_by = Some(now + self.finish_within);
        }
        match &mut self.permit {
            Some(all) => all.merge(permit),
            all @ None => *all = Some(permit),
        }
    }

    /// Deadline of a message that exceeds the limit.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.finish_by
    }

    /// True, once, if that deadline has passed.
    pub(super) fn take_overdue(&mut self, now: Instant) -> bool {
        self.finish_by.take_if(|at| *at <= now).is_some()
    }

    /// Releases the memory: the message is complete, or given up.
    pub(super) fn clear(&mut self) {
        self.bytes.set(0);
        (self.permit, self.finish_by) = (None, None);
    }
}
