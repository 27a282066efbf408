//! Places for calls under way: so many for each identity, and so many for large bodies in all.
//!
//! Without them one client that sends its bodies slowly could hold every stream of the connection
//! to the media API, and everybody's calls would wait behind it.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::id::IdentityId;

/// How many large bodies are under way at a time, in memory or on their way up; more wait.
const LARGE_BODIES: usize = 32;

/// The calls under way.
#[derive(Debug)]
pub struct Places {
    of_identity: Arc<DashMap<IdentityId, usize>>,
    most_of_identity: usize,
    large: Semaphore,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    identity: IdentityId,
    taken: Arc<DashMap<IdentityId, usize>>,
}

impl Places {
    /// Places for so many calls of each identity; 0 is no limit.
    pub fn new(most_of_identity: usize) -> Self {
        let most_of_identity = if most_of_identity == 0 { usize::MAX } else { most_of_identity };
        Self { of_identity: Arc::default(), most_of_identity, large: Semaphore::new(LARGE_BODIES) }
    }

    /// Takes a place for a call of `identity`, if one is free.
    pub fn take(&self, identity: &IdentityId) -> Option<Place> {
        let mut taken = self.of_identity.entry(identity.clone()).or_insert(0);
        if *taken >= self.most_of_identity {
            return None;
        }
        *taken += 1;
        Some(Place { identity: identity.clone(), taken: self.of_identity.clone() })
    }

    /// Waits for a place for a large body.
    pub async fn large(&self) -> Option<SemaphorePermit<'_>> {
        self.large.acquire().await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut taken) = self.taken.entry(self.identity.clone()) {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
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
        assert!(places.of_identity.is_empty());
        assert!((0..100).map(|_| Places::new(0).take(&ada)).all(|place| place.is_some()));
    }
}
