//! Reads calls of the media API where it holds up nobody.
//!
//! A small one takes a few milliseconds at most. A join into a large meeting has two megabytes of session
//! descriptions, which take as long as a second: those are read beside the tasks of all others, one of a network
//! at a time, so that nobody waits behind a neighbour's whole queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::error::SfuError;
use super::request::Request;
use super::wire::{self, Asked};
use crate::limit::KeyedLimit;
use crate::network::ClientNetwork;

/// Bytes of a call that is read at once.
const SMALL_BYTES: usize = 16 << 10;

/// Time that a large call waits for its turn; our page gives each call 20 s. A whole office that joins a large meeting at once
/// is read one by one.
const TURN: Duration = Duration::from_secs(15);

/// The turns of large calls.
#[derive(Clone, Debug)]
pub struct Reading {
    /// One at a time for each network; those whose network is not known share one.
    of_network: KeyedLimit<Option<ClientNetwork>>,
    /// Half of the machine's cores are for reading, and at least one.
    cores: Arc<Semaphore>,
}

impl Default for Reading {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        Self { of_network: KeyedLimit::concurrent(1), cores: Arc::new(Semaphore::new(cores)) }
    }
}

impl Reading {
    /// Reads a call.
    ///
    /// # Errors
    /// As [`wire::read`]; [`SfuError::Busy`] where too much is to be read.
    pub async fn read(&self, asked: Asked) -> Result<Request, SfuError> {
        if asked.body.len() <= SMALL_BYTES {
            return wire::read(&asked);
        }
        let turn = async {
            let of_network = self.of_network.wait(&asked.network, 1).await;
            (of_network, self.cores.clone().acquire_owned().await)
        };
        let turn = timeout(TURN, turn).await.map_err(|_| SfuError::Busy)?;
        // The turn lasts as long as the reading, also where the caller is gone.
        let read = spawn_blocking(move || (wire::read(&asked), turn).0);
        read.await.unwrap_or(Err(SfuError::Internal))
    }
}
