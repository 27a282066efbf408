//! The places for sockets: in all, and for each client's network.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limit::{KeyedLimit, Permit};
use crate::metrics::{Counted, Metrics};
use crate::network::ClientNetwork;

/// Gives out the places for sockets.
#[derive(Clone, Debug)]
pub struct Admission {
    places: Arc<Semaphore>,
    of_network: KeyedLimit<ClientNetwork>,
    metrics: Arc<Metrics>,
}

/// A socket's place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
    _of_network: Option<Permit<ClientNetwork>>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// The server is full.
    #[error("the server is full")]
    Full,
    /// This address has too many sockets.
    #[error("too many connections from this address")]
    TooManyOfAddress,
}

impl Admission {
    /// Places for `connections` sockets, of which one network may have `per_network`; 0 is no limit.
    pub fn new(connections: usize, per_network: usize, metrics: Arc<Metrics>) -> Self {
        let places = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Self { places, of_network: KeyedLimit::concurrent(per_network), metrics }
    }

    /// Takes a place; for a client whose network is not known only those in all count.
    ///
    /// # Errors
    /// [`NoPlace`] if there is none.
    pub fn enter(&self, network: Option<ClientNetwork>) -> Result<Place, NoPlace> {
        let of_network = network.map(|network| self.of_network.acquire(&network)).transpose();
        let of_network = of_network.map_err(|_| NoPlace::TooManyOfAddress)?;
        let permit = self.places.clone().try_acquire_owned().map_err(|_| NoPlace::Full)?;
        let counted = Counted::new(&self.metrics.connections, 1);
        Ok(Place { _permit: permit, _counted: counted, _of_network: of_network })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::client_network;

    #[test]
    fn places_are_given_back() {
        let metrics = Metrics::new();
        let admission = Admission::new(2, 1, metrics.clone());
        let network = |address: &str| Some(client_network(address.parse().unwrap()));
        let first = admission.enter(network("2001:db8::1")).unwrap();
        assert_eq!(admission.enter(network("2001:db8::2")).unwrap_err(), NoPlace::TooManyOfAddress);
        let _second = admission.enter(network("2001:db8:0:1::1")).unwrap();
        assert_eq!(admission.enter(network("192.0.2.3")).unwrap_err(), NoPlace::Full);
        assert_eq!(admission.enter(None).unwrap_err(), NoPlace::Full);
        drop(first);
        let _third = admission.enter(network("192.0.2.3")).unwrap();
        assert_eq!(metrics.connections.get(), 2);
        assert_eq!(admission.of_network.keys(), 2, "a network without sockets is forgotten");
    }

    #[test]
    fn an_unknown_network_has_no_limit_of_its_own() {
        let admission = Admission::new(10, 1, Metrics::new());
        let places: Vec<_> = (0..10).map(|_| admission.enter(None).unwrap()).collect();
        assert_eq!((places.len(), admission.of_network.keys()), (10, 0));
    }
}
