//! Limits of concurrent calls per identity, and of large bodies in total and per client network.
//!
//! Without them one client that sends its bodies slowly could occupy all streams of the connection to the media
//! API, and all other calls would queue behind it.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::call::UpstreamError;
use crate::id::IdentityId;
use crate::limit::{KeyedLimit, Permit};
use crate::network::ClientNetwork;

/// Concurrent large bodies, in memory or being forwarded.
const LARGE_BODIES: usize = 32;

/// Concurrent large bodies of one client network: a slow sender holds a permit for the whole timeout of a call.
const LARGE_BODIES_OF_NETWORK: usize = 8;

/// Time that a large body waits for a permit before its call is refused.
const LARGE_TIMEOUT: Duration = Duration::from_secs(3);

/// A call's permit, released when dropped.
pub type CallPermit = Permit<IdentityId>;

/// Limits of concurrent calls.
#[derive(Debug)]
pub struct CallLimits {
    of_identity: KeyedLimit<IdentityId>,
    large: Semaphore,
    large_of_network: KeyedLimit<ClientNetwork>,
}

/// A large body's permits, released when dropped.
#[derive(Debug)]
pub struct LargeBody<'a> {
    _permit: SemaphorePermit<'a>,
    _of_network: Option<Permit<ClientNetwork>>,
}

impl CallLimits {
    /// Limits each identity to `most_of_identity` concurrent calls; 0 is no limit.
    pub fn new(most_of_identity: usize) -> Self {
        Self {
            of_identity: KeyedLimit::concurrent(most_of_identity),
            large: Semaphore::new(LARGE_BODIES),
            large_of_network: KeyedLimit::concurrent(LARGE_BODIES_OF_NETWORK),
        }
    }

    /// Acquires a permit for a call of `identity`, if one is free.
    pub fn take(&self, identity: &IdentityId) -> Option<CallPermit> {
        self.of_identity.acquire(identity).ok()
    }

    /// Acquires permits for a large body, waiting up to three seconds.
    ///
    /// # Errors
    /// [`UpstreamError::RequestsBusy`] if none is free by then.
    pub async fn large(&self, network: Option<ClientNetwork>) -> Result<LargeBody<'_>, UpstreamError> {
        let place = async {
            let of_network = match network {
                Some(network) => Some(self.large_of_network.wait(&network, 1).await),
                None => None,
            };
            Some(LargeBody { _permit: self.large.acquire().await.ok()?, _of_network: of_network })
        };
        timeout(LARGE_TIMEOUT, place).await.ok().flatten().ok_or(UpstreamError::RequestsBusy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::client_network;

    #[test]
    fn identities_are_limited_apart_and_forgotten_idle() {
        let places = CallLimits::new(2);
        let [ada, bob] = ["ada", "bob"].map(IdentityId::new);
        let first = places.take(&ada);
        let second = places.take(&ada);
        assert!(first.is_some() && second.is_some());
        assert!(places.take(&ada).is_none());
        assert!(places.take(&bob).is_some());
        drop(first);
        assert!(places.take(&ada).is_some());
        drop(second);
        assert_eq!(places.of_identity.keys(), 0);
        assert!((0..100).map(|_| CallLimits::new(0).take(&ada)).all(|place| place.is_some()));
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_of_one_network_leave_room_for_others() {
        let places = CallLimits::new(8);
        let network = |number: u8| Some(client_network([192, 0, 2, number].into()));
        let mut held = Vec::new();
        for _ in 0..LARGE_BODIES_OF_NETWORK {
            held.push(places.large(network(1)).await.unwrap());
        }
        assert_eq!(places.large(network(1)).await.unwrap_err(), UpstreamError::RequestsBusy);
        // Clients of one office start at once, and their permits are soon released.
        let (waiting, ()) = tokio::join!(places.large(network(1)), async { drop(held.pop()) });
        held.push(waiting.unwrap());
        for number in LARGE_BODIES_OF_NETWORK..LARGE_BODIES {
            held.push(places.large(network(10 + u8::try_from(number).unwrap() / 8)).await.unwrap());
        }
        // A refusal comes after the timeout, instead of waiting in an endless queue.
        assert_eq!(places.large(network(3)).await.unwrap_err(), UpstreamError::RequestsBusy);
        let (waiting, ()) = tokio::join!(places.large(network(3)), async { drop(held.pop()) });
        waiting.unwrap();
    }
}
