//! Limits connectivity checks by client network, for checks that name no session, or one with too many of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::network::{ClientNetwork, client_network};

/// Maximum number of checks per second and network. A browser with many interfaces makes about 20 for a connection,
/// and a whole office shares one address.
const MAX_CHECKS: u32 = 200;

/// Maximum number of networks counted; with more of them, checks cost an attacker more than they cost the server.
const MAX_NETWORKS: usize = 4096;

const WINDOW: Duration = Duration::from_secs(1);

/// Checks of each network in the current window.
#[derive(Debug)]
pub(super) struct StunLimiter {
    since: Instant,
    checks: HashMap<ClientNetwork, u32>,
}

impl StunLimiter {
    /// Creates a limiter with an empty window.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, checks: HashMap::new() }
    }

    /// Counts a check from this address; false if its network is over the limit.
    pub(super) fn admit(&mut self, now: Instant, address: IpAddr) -> bool {
        if now.saturating_duration_since(self.since) >= WINDOW {
            self.since = now;
            self.checks.clear();
        }
        let network = client_network(address);
        if self.checks.len() >= MAX_NETWORKS && !self.checks.contains_key(&network) {
            return true;
        }
        let checks = self.checks.entry(network).or_default();
        *checks += 1;
        *checks <= MAX_CHECKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
    fn address_over_limit_waits_for_next_window() {
        let start = Instant::now();
        let mut limiter = StunLimiter::new(start);
        let [one, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let admitted = (0..1000).filter(|_| limiter.admit(start, one)).count();
        assert_eq!(admitted, MAX_CHECKS as usize);
        assert!(limiter.admit(start, other));
        assert!(!limiter.admit(start + WINDOW / 2, one));
        assert!(limiter.admit(start + WINDOW, one));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
    fn checks_of_one_v6_network_are_counted_together() {
        let start = Instant::now();
        let mut limiter = StunLimiter::new(start);
        let address = |low: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, low]);
        let admitted = (0..1000).filter(|low| limiter.admit(start, address(*low))).count();
        assert_eq!(admitted, MAX_CHECKS as usize);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
    fn memory_for_many_networks_is_bounded() {
        let start = Instant::now();
        let mut limiter = StunLimiter::new(start);
        for number in 0..10_000_u32 {
            assert!(limiter.admit(start, IpAddr::from(number.to_be_bytes())));
        }
        assert_eq!(limiter.checks.len(), MAX_NETWORKS);
    }
}
