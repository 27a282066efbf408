//! Parses calls of the media API without blocking other tasks.
//!
//! Small calls take a few milliseconds at most and are parsed at once. A join into a large meeting has two megabytes
//! of session descriptions, which take up to a second. Those are parsed on the blocking thread pool, one call of a
//! client network at a time, so that one network's queue does not delay the others.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::error::SfuError;
use super::request::Request;
use super::wire::{self, ApiRequest};
use crate::limit::KeyedLimit;
use crate::network::ClientNetwork;

/// Longest body, in bytes, of a call that is parsed at once.
const SMALL_BYTES: usize = 16 << 10;

/// Time that a large call waits for its permits; our page gives each call 20 s. The calls of an office whose members
/// all join a large meeting at once are parsed one after another.
const TURN: Duration = Duration::from_secs(15);

/// Concurrency limits of large calls.
#[derive(Clone, Debug)]
pub struct Reading {
    /// One permit per client network; calls from unknown networks share one.
    of_network: KeyedLimit<Option<ClientNetwork>>,
    /// One permit for every two CPU cores, rounded up.
    cores: Arc<Semaphore>,
}

impl Default for Reading {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        Self { of_network: KeyedLimit::concurrent(1), cores: Arc::new(Semaphore::new(cores)) }
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
            let of_network = self.of_network.wait(&asked.network, 1).await;
            (of_network, self.cores.clone().acquire_owned().await)
        };
        let turn = timeout(TURN, turn).await.map_err(|_| SfuError::Busy)?;
        // The permits are held until parsing ends, even if the caller has gone.
        let read = spawn_blocking(move || (wire::read(&asked), turn).0);
        read.await.unwrap_or(Err(SfuError::Internal))
    }
}
