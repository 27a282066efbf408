//! How many sockets there may be: in all, and for each address.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::{Counted, Metrics};

/// Gives out the places for sockets.
#[derive(Clone, Debug)]
pub struct Admission {
    places: Arc<Semaphore>,
    /// The most of one address; `None` is no limit.
    per_address: Option<NonZeroUsize>,
    by_address: Arc<DashMap<IpAddr, usize>>,
    metrics: Arc<Metrics>,
}

/// A socket's place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
    _of_address: Option<OfAddress>,
}

#[derive(Debug)]
struct OfAddress {
    address: IpAddr,
    by_address: Arc<DashMap<IpAddr, usize>>,
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
    /// Places for `connections` sockets, of which one address may have `per_address`.
    pub fn new(connections: usize, per_address: Option<NonZeroUsize>, metrics: Arc<Metrics>) -> Self {
        let places = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Self { places, per_address, by_address: Arc::default(), metrics }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// [`NoPlace`] if there is none.
    pub fn enter(&self, address: IpAddr) -> Result<Place, NoPlace> {
        let of_address = match self.per_address {
            None => None,
            Some(most) => Some(self.count(address, most)?),
        };
        let permit = self.places.clone().try_acquire_owned().map_err(|_| NoPlace::Full)?;
        let counted = Counted::new(&self.metrics.connections, 1);
        Ok(Place { _permit: permit, _counted: counted, _of_address: of_address })
    }

    fn count(&self, address: IpAddr, most: NonZeroUsize) -> Result<OfAddress, NoPlace> {
        let mut count = self.by_address.entry(address).or_insert(0);
        if *count >= most.get() {
            return Err(NoPlace::TooManyOfAddress);
        }
        *count += 1;
        Ok(OfAddress { address, by_address: self.by_address.clone() })
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.by_address.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let metrics = Metrics::new();
        let admission = Admission::new(2, NonZeroUsize::new(1), metrics.clone());
        let [one, two, three] = [[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3]].map(IpAddr::from);
        let first = admission.enter(one).unwrap();
        assert_eq!(admission.enter(one).unwrap_err(), NoPlace::TooManyOfAddress);
        let _second = admission.enter(two).unwrap();
        assert_eq!(admission.enter(three).unwrap_err(), NoPlace::Full);
        drop(first);
        let _third = admission.enter(three).unwrap();
        assert_eq!(metrics.connections.get(), 2);
        assert_eq!(admission.by_address.len(), 2, "an address without sockets is forgotten");
    }
}
