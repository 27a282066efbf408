//! How much of one thing an identity and an address may send in an hour.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;

use governor::{DefaultKeyedRateLimiter, RateLimiter};

use crate::id::IdentityId;

/// The most identities that are remembered: they are free to make, and memory is not.
const IDENTITIES: usize = 100_000;

/// Counts for identities and addresses; what is used up comes back evenly over an hour.
#[derive(Debug)]
pub struct Quota {
    identities: Option<DefaultKeyedRateLimiter<IdentityId>>,
    addresses: Option<DefaultKeyedRateLimiter<IpAddr>>,
}

impl Quota {
    /// A quota of so many an hour; 0 is no limit.
    pub fn hourly(per_identity: u32, per_address: u32) -> Self {
        Self { identities: hourly(per_identity), addresses: hourly(per_address) }
    }

    /// Whether one more may be sent; if so, it counts.
    pub fn admits(&self, identity: &IdentityId, address: IpAddr) -> bool {
        // The identity first: whoever sends too much must not use up the address of a whole office.
        // Whoever fills the map with identities silences nobody else: then addresses alone count.
        let identity_may = self.identities.as_ref().is_none_or(|identities| {
            identities.len() >= IDENTITIES || identities.check_key(identity).is_ok()
        });
        identity_may
            && self.addresses.as_ref().is_none_or(|addresses| addresses.check_key(&network(address)).is_ok())
    }

    /// Forgets whoever has the whole quota again.
    pub fn tidy(&self) {
        tidy(self.identities.as_ref());
        tidy(self.addresses.as_ref());
    }
}

fn hourly<K: Clone + Eq + Hash>(most: u32) -> Option<DefaultKeyedRateLimiter<K>> {
    Some(RateLimiter::keyed(governor::Quota::per_hour(NonZeroU32::new(most)?)))
}

fn tidy<K: Clone + Eq + Hash>(limiter: Option<&DefaultKeyedRateLimiter<K>>) {
    if let Some(limiter) = limiter {
        limiter.retain_recent();
        limiter.shrink_to_fit();
    }
}

/// What counts as one address: of IPv6 the /64 network, in which everybody has addresses for ever.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(name: &str) -> IdentityId {
        IdentityId::new(name)
    }

    fn admitted(quota: &Quota, name: &str, address: &str, asked: usize) -> usize {
        let address = address.parse().unwrap();
        (0..asked).filter(|_| quota.admits(&who(name), address)).count()
    }

    #[test]
    fn an_identity_and_an_address_have_their_own_quotas() {
        let quota = Quota::hourly(20, 60);
        assert_eq!(admitted(&quota, "ada", "10.0.0.1", 30), 20);
        assert_eq!(admitted(&quota, "ada", "10.0.0.2", 1), 0, "wherever she is");
        // What Ada was refused does not count for her address.
        let others: usize =
            ["bob", "cyd", "dan"].map(|name| admitted(&quota, name, "10.0.0.1", 30)).iter().sum();
        assert_eq!(others, 40);
        assert_eq!(admitted(&quota, "eve", "10.0.0.3", 1), 1);
    }

    /// A hundred thousand free identities of one address once silenced everybody's reports.
    #[test]
    fn nobody_can_use_up_what_others_may_send() {
        let quota = Quota::hourly(20, 60);
        for number in 0..IDENTITIES {
            quota.admits(&who(&number.to_string()), [10, 0, 0, 1].into());
        }
        assert_eq!(admitted(&quota, "ada", "10.0.0.2", 1), 1);
        assert_eq!(admitted(&quota, "one more", "10.0.0.1", 1), 0);
    }

    #[test]
    fn zero_is_no_limit() {
        assert_eq!(admitted(&Quota::hourly(0, 0), "ada", "::1", 1000), 1000);
        assert_eq!(admitted(&Quota::hourly(0, 7), "ada", "::1", 1000), 7);
        assert_eq!(admitted(&Quota::hourly(7, 0), "ada", "::1", 1000), 7);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let quota = Quota::hourly(0, 1);
        assert_eq!(admitted(&quota, "ada", "2001:db8:0:1::1", 1), 1);
        assert_eq!(admitted(&quota, "ada", "2001:db8:0:1:ffff::2", 1), 0);
        assert_eq!(admitted(&quota, "ada", "2001:db8:0:2::1", 1), 1);
    }

    #[test]
    fn tidying_forgets_nobody_who_has_used_something() {
        let quota = Quota::hourly(1, 1);
        assert_eq!(admitted(&quota, "ada", "10.0.0.1", 1), 1);
        quota.tidy();
        assert_eq!(admitted(&quota, "ada", "10.0.0.1", 1), 0);
    }
}
