//! A limit on concurrent permits, in total and for each client network.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{KeyedLimit, Permit};
use crate::network::ClientNetwork;

/// A limit on concurrent permits, such as connections or kibibytes, in total and for each client network, so that
/// one network cannot take all of them. Clones share their counts.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit {
    all: Arc<Semaphore>,
    of_network: KeyedLimit<ClientNetwork>,
}

/// Permits of a [`ConcurrencyLimit`], released on drop.
#[derive(Debug)]
pub struct ConcurrencyPermit {
    _of_all: OwnedSemaphorePermit,
    of_network: Option<Permit<ClientNetwork>>,
    limit: KeyedLimit<ClientNetwork>,
}

/// The limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// The limit of all.
    Total,
    /// The limit of the client's network.
    Network,
}

impl ConcurrencyLimit {
    /// Limits to `total` permits (at most [`Semaphore::MAX_PERMITS`]), and `per_network` for each network; there 0
    /// means no limit.
    pub fn new(total: usize, per_network: usize) -> Self {
        let all = Arc::new(Semaphore::new(total.min(Semaphore::MAX_PERMITS)));
        Self { all, of_network: KeyedLimit::concurrent(per_network) }
    }

    /// Acquires one permit; a client of unknown network is subject to the total alone.
    ///
    /// # Errors
    /// Returns [`Exceeded`]; nothing is counted then.
    pub fn try_acquire(&self, network: Option<ClientNetwork>) -> Result<ConcurrencyPermit, Exceeded> {
        let of_all = self.all.clone().try_acquire_owned().map_err(|_| Exceeded::Total)?;
        let mut permit = self.permit(of_all, None);
        network.map_or(Ok(()), |network| permit.charge(network))?;
        Ok(permit)
    }

    /// Acquires one permit, waiting until one is free; it can be charged to a network later.
    pub async fn acquire(&self) -> Option<ConcurrencyPermit> {
        // Fails only for a closed semaphore, and this one is never closed.
        Some(self.permit(self.all.clone().acquire_owned().await.ok()?, None))
    }

    /// Acquires several permits, waiting until they are free; `None` after `patience`.
    ///
    /// The network's own come first, so that a network at its limit holds none of the others' while it waits.
    pub async fn acquire_many(
        &self,
        network: Option<ClientNetwork>,
        count: u32,
        patience: Duration,
    ) -> Option<ConcurrencyPermit> {
        let acquired = async {
            let of_network = match network {
                Some(network) => Some(self.of_network.wait(&network, count as usize).await),
                None => None,
            };
            let of_all = self.all.clone().acquire_many_owned(count).await.ok()?;
            Some(self.permit(of_all, of_network))
        };
        timeout(patience, acquired).await.ok().flatten()
    }

    fn permit(
        &self,
        of_all: OwnedSemaphorePermit,
        of_network: Option<Permit<ClientNetwork>>,
    ) -> ConcurrencyPermit {
        ConcurrencyPermit { _of_all: of_all, of_network, limit: self.of_network.clone() }
    }
}

impl ConcurrencyPermit {
    /// Charges the permit to a network.
    ///
    /// # Errors
    /// Returns [`Exceeded::Network`] if the network is at its limit.
    pub fn charge(&mut self, network: ClientNetwork) -> Result<(), Exceeded> {
        self.of_network = Some(self.limit.acquire(&network).map_err(|_| Exceeded::Network)?);
        Ok(())
    }

    /// Charges the permit to a network also beyond its limit, for something that exists already.
    pub fn charge_beyond_limit(&mut self, network: ClientNetwork) {
        self.of_network = Some(self.limit.hold(&network));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::client_network;

    const PATIENCE: Duration = Duration::from_secs(3);

    fn network(number: u8) -> ClientNetwork {
        client_network([192, 0, 2, number].into())
    }

    #[test]
    fn both_limits_count_until_drop() {
        let limit = ConcurrencyLimit::new(3, 2);
        let first = limit.try_acquire(Some(network(1))).unwrap();
        let _second = limit.try_acquire(Some(network(1))).unwrap();
        assert_eq!(limit.try_acquire(Some(network(1))).unwrap_err(), Exceeded::Network);
        let _third = limit.try_acquire(None).unwrap();
        assert_eq!(limit.try_acquire(Some(network(2))).unwrap_err(), Exceeded::Total);
        drop(first);
        limit.try_acquire(Some(network(1))).unwrap();
    }

    #[test]
    fn permit_is_charged_later_and_beyond_the_limit() {
        let limit = ConcurrencyLimit::new(9, 1);
        let mut permits: Vec<_> = (0..3).map(|_| limit.try_acquire(None).unwrap()).collect();
        permits[0].charge(network(1)).unwrap();
        assert_eq!(permits[1].charge(network(1)), Err(Exceeded::Network));
        permits[2].charge_beyond_limit(network(1));
        permits.remove(0);
        assert_eq!(limit.try_acquire(Some(network(1))).unwrap_err(), Exceeded::Network);
        permits.clear();
        limit.try_acquire(Some(network(1))).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_network_leaves_permits_for_others() {
        let limit = ConcurrencyLimit::new(8, 4);
        let acquire = |network| limit.acquire_many(network, 4, PATIENCE);
        let held = acquire(Some(network(1))).await.unwrap();
        assert!(acquire(Some(network(1))).await.is_none());
        let (waiting, ()) = tokio::join!(acquire(Some(network(1))), async { drop(held) });
        let _waiting = waiting.unwrap();
        let _other = acquire(Some(network(2))).await.unwrap();
        assert!(acquire(None).await.is_none());
        assert!(limit.acquire_many(Some(network(3)), 1, PATIENCE).await.is_none());
    }
}
