//! Parses calls of the media API without blocking other tasks.
//!
//! Small calls take a few milliseconds at most and are parsed at once. A join into a large meeting has two megabytes
//! of session descriptions, which take up to a second. Those are parsed on the blocking thread pool, one call of a
//! client network at a time, so that one network's queue does not delay the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::error::SfuError;
use super::request::Request;
use super::wire::{self, ApiRequest};
use crate::network::ClientNetwork;

/// Longest body, in bytes, of a call that is parsed at once.
const SMALL_BYTES: usize = 16 << 10;

/// Time that a large call waits for its permits; our page gives each call 20 s. The calls of an office whose members
/// all join a large meeting at once are parsed one after another.
const TURN: Duration = Duration::from_secs(15);

/// Concurrency limits of large calls.
#[derive(Clone, Debug)]
pub struct Reading {
    networks: NetworkLocks,
    /// One permit for every two CPU cores, rounded up.
    cores: Arc<Semaphore>,
}

impl Default for Reading {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        Self { networks: NetworkLocks::default(), cores: Arc::new(Semaphore::new(cores)) }
    }
}

impl Reading {
    /// Parses a call.
    ///
    /// # Errors
    /// As [`wire::read`]; [`SfuError::Busy`] where no permit becomes free within 15 s.
    pub async fn read(&self, asked: ApiRequest) -> Result<Request, SfuError> {
        if asked.body.len() <= SMALL_BYTES {
            return wire::read(&asked);
        }
        let turn = async {
            let of_network = self.networks.lock(asked.network).await;
            (of_network, self.cores.clone().acquire_owned().await)
        };
        let turn = timeout(TURN, turn).await.map_err(|_| SfuError::Busy)?;
        // The permits are held until parsing ends, even if the caller has gone.
        let read = spawn_blocking(move || (wire::read(&asked), turn).0);
        read.await.unwrap_or(Err(SfuError::Internal))
    }
}

/// One permit per client network; calls from unknown networks share one.
#[derive(Clone, Debug, Default)]
struct NetworkLocks(Arc<Mutex<HashMap<Option<ClientNetwork>, Weak<Semaphore>>>>);

impl NetworkLocks {
    /// Waits for the network's permit. Waiting calls get it in their order.
    async fn lock(&self, network: Option<ClientNetwork>) -> Result<OwnedSemaphorePermit, AcquireError> {
        let semaphore = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Permits and waiting calls hold the strong references.
            locks.retain(|_, semaphore| semaphore.strong_count() > 0);
            locks.get(&network).and_then(Weak::upgrade).unwrap_or_else(|| {
                let semaphore = Arc::new(Semaphore::new(1));
                locks.insert(network, Arc::downgrade(&semaphore));
                semaphore
            })
        };
        semaphore.acquire_owned().await
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::network::client_network;

    #[tokio::test(start_paused = true)]
    async fn calls_of_one_network_take_turns() {
        let locks = NetworkLocks::default();
        let [ada, bob] = ["192.0.2.1", "192.0.2.2"].map(|ip| Some(client_network(ip.parse().unwrap())));
        let first = locks.lock(ada).await.unwrap();
        assert!(timeout(TURN, locks.lock(ada)).await.is_err(), "the permit is taken");
        let other = locks.lock(bob).await.unwrap();
        let (second, ()) = tokio::join!(timeout(TURN, locks.lock(ada)), async {
            advance(Duration::from_secs(1)).await;
            drop(first);
        });
        assert!(second.is_ok(), "the permit was released");
        drop((second, other));
        let _unknown = locks.lock(None).await.unwrap();
        assert_eq!(locks.0.lock().unwrap().len(), 1, "networks without calls are forgotten");
    }
}
