//! Places for calls under way: so many for each identity, and so many for large bodies in all.
//!
//! Without them one client that sends its bodies slowly could hold every stream of the connection
//! to the media API, and everybody's calls would wait behind it.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::id::IdentityId;
use crate::limit::{KeyedLimit, Permit};

/// How many large bodies are under way at a time, in memory or on their way up; more wait.
const LARGE_BODIES: usize = 32;

/// A place, until it is dropped.
pub type Place = Permit<IdentityId>;

/// The calls under way.
#[derive(Debug)]
pub struct Places {
    of_identity: KeyedLimit<IdentityId>,
    large: Semaphore,
}

impl Places {
    /// Places for so many calls of each identity; 0 is no limit.
    pub fn new(most_of_identity: usize) -> Self {
        Self { of_identity: KeyedLimit::concurrent(most_of_identity), large: Semaphore::new(LARGE_BODIES) }
    }

    /// Takes a place for a call of `identity`, if one is free.
    pub fn take(&self, identity: &IdentityId) -> Option<Place> {
        self.of_identity.acquire(identity).ok()
    }

    /// Waits for a place for a large body.
    pub async fn large(&self) -> Option<SemaphorePermit<'_>> {
        self.large.acquire().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_identity_has_its_own_places_and_none_is_remembered_without_one() {
        let places = Places::new(2);
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
        assert!((0..100).map(|_| Places::new(0).take(&ada)).all(|place| place.is_some()));
    }
}
