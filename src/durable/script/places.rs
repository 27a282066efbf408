//! Waiting for a thread of the script: a place for each, which calls get in the order of [`Turns`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::turns::{Entry, Turns, Waiter};
use crate::clock::now;
use crate::durable::method::Payer;

/// Maximum calls that wait for a thread.
const MAX_WAITING: usize = 1024;

/// Maximum wait for a thread.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The places of all threads. A clone shares them.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Mutex<Turns<oneshot::Sender<Place>>>>);

/// The right to a thread, which the next call gets when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    payer: Payer,
    started: Instant,
}

impl Waiter for oneshot::Sender<Place> {
    fn is_gone(&self) -> bool {
        self.is_closed()
    }
}

impl Places {
    /// A place for each thread; a call is charged `max_charge` at most.
    pub(super) fn new(threads: usize, max_charge: Duration) -> Self {
        Self(Arc::new(Mutex::new(Turns::new(threads, MAX_WAITING, max_charge))))
    }

    /// Waits for a place; none if too many calls wait, or this one waited too long.
    pub(super) async fn take(&self, payer: Payer) -> Option<Place> {
        let (waiter, turn) = oneshot::channel();
        let started = now();
        let entry = self.lock().enter(started, payer, waiter);
        match entry {
            Entry::Turn => Some(Place { places: self.clone(), payer, started }),
            Entry::Refused => None,
            // A displaced caller learns it by the end of its channel.
            Entry::Waits { .. } => timeout(MAX_WAIT, turn).await.ok()?.ok(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turns<oneshot::Sender<Place>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let started = now();
        let next = self.places.lock().leave(started, self.payer, self.started);
        if let Some((payer, waiter)) = next {
            // A caller that gives up at this moment gets the place and drops it, which gives it to the next.
            drop(waiter.send(Self { places: self.places.clone(), payer, started }));
        }
    }
}
