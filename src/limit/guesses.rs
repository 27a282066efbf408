//! The rate of guessed signatures of a client network, and what it leaves to the network's honest users.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{KeyedLimit, Rate};
use crate::network::ClientNetwork;

/// Number of remembered tokens, in 64 KiB.
const REMEMBERED: usize = 8192;

/// The guesses of signatures, by client network. A network over the limit may present only tokens that were valid
/// before, so that one guesser in an office does not lock the others of it out.
#[derive(Debug)]
pub struct GuessLimit {
    wrong: KeyedLimit<ClientNetwork>,
    /// Hashes of tokens that were valid, each at its place; a newer one replaces an older one of its place. A token of
    /// the same hash is not accepted for it, but only verified.
    valid: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl GuessLimit {
    /// A limit on wrong signatures.
    pub fn new(rate: Rate) -> Self {
        let valid = std::iter::repeat_with(|| AtomicU64::new(0)).take(REMEMBERED).collect();
        Self { wrong: KeyedLimit::rate(rate), valid, hasher: RandomState::new() }
    }

    /// True if the network has guessed too often. One of unknown or exempt network never has.
    pub fn is_exhausted(&self, network: Option<ClientNetwork>) -> bool {
        network.is_some_and(|network| self.wrong.is_exhausted(&network))
    }

    /// True if a token from the network may be verified.
    pub fn allows(&self, network: Option<ClientNetwork>, token: &[u8]) -> bool {
        !self.is_exhausted(network) || {
            let (place, hash) = self.place(token);
            place.load(Ordering::Relaxed) == hash
        }
    }

    /// Remembers a valid token.
    pub fn succeeded(&self, token: &[u8]) {
        let (place, hash) = self.place(token);
        // Most tokens come again and again, and a write would take the line from other processors.
        if place.load(Ordering::Relaxed) != hash {
            place.store(hash, Ordering::Relaxed);
        }
    }

    /// Counts a wrong signature.
    pub fn failed(&self, network: Option<ClientNetwork>) {
        if let Some(network) = network {
            // An error says that the limit is reached already.
            let _ = self.wrong.check(&network);
        }
    }

    /// Removes networks whose whole burst is available.
    pub fn prune(&self) {
        self.wrong.prune();
    }

    fn place(&self, token: &[u8]) -> (&AtomicU64, u64) {
        let hash = self.hasher.hash_one(token);
        // The upper half, since the whole is compared.
        (&self.valid[(hash >> 32) as usize % REMEMBERED], hash)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::network::client_network;

    fn network(address: [u8; 4]) -> Option<ClientNetwork> {
        Some(client_network(address.into()))
    }

    #[tokio::test(start_paused = true)]
    async fn guesser_is_stopped_and_known_tokens_are_not() {
        let limit = GuessLimit::new(Rate::per_minute(3));
        let (here, there) = (network([192, 0, 2, 1]), network([192, 0, 2, 2]));
        limit.succeeded(b"ada");
        for _ in 0..3 {
            assert!(limit.allows(here, b"guess") && !limit.is_exhausted(here));
            limit.failed(here);
        }
        assert!(limit.is_exhausted(here) && !limit.allows(here, b"guess") && !limit.allows(here, b"bob"));
        assert!(limit.allows(here, b"ada"), "it was valid before");
        assert!(limit.allows(there, b"guess"), "another network");
        for _ in 0..10 {
            limit.failed(None);
        }
        assert!(limit.allows(None, b"guess"), "no network");
        limit.failed(here);
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(limit.allows(here, b"bob"), "one try is left again");
        limit.failed(here);
        assert!(!limit.allows(here, b"bob"));
        tokio::time::advance(Duration::from_secs(60)).await;
        limit.prune();
        assert_eq!(limit.wrong.keys(), 0);
    }

    #[test]
    fn limit_of_zero_is_off() {
        let limit = GuessLimit::new(Rate::per_minute(0));
        let here = network([192, 0, 2, 1]);
        for _ in 0..1000 {
            limit.failed(here);
        }
        assert!(limit.allows(here, b"guess"));
    }
}
