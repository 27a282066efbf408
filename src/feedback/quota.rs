//! How much of one thing an identity and a client's network may send in an hour.

use crate::id::IdentityId;
use crate::identity::peer::{AddressOwner, RemotePeer};
use crate::limit::{KeyedLimit, Rate};
use crate::network::{ClientNetwork, client_network};

/// Counts for identities and networks; what is used up comes back evenly over an hour.
#[derive(Debug)]
pub struct Quota {
    identities: KeyedLimit<IdentityId>,
    networks: KeyedLimit<ClientNetwork>,
}

impl Quota {
    /// A quota of so many an hour; 0 is no limit.
    pub fn hourly(per_identity: u32, per_network: u32) -> Self {
        let identities = KeyedLimit::rate(Rate::per_hour(per_identity));
        Self { identities, networks: KeyedLimit::rate(Rate::per_hour(per_network)) }
    }

    /// Whether one more may be sent; if so, it counts.
    pub fn admits(&self, identity: &IdentityId, peer: &RemotePeer) -> bool {
        // The identity first: whoever sends too much must not use up the network of a whole office.
        if self.identities.check(identity).is_err() {
            return false;
        }
        let is_within =
            peer.owner == AddressOwner::Exempt || self.networks.check(&client_network(peer.address)).is_ok();
        if !is_within {
            // It is not sent, so it is not this identity's either.
            self.identities.refund(identity);
        }
        is_within
    }

    /// Forgets whoever has the whole quota again.
    pub fn prune(&self) {
        self.identities.prune();
        self.networks.prune();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderMap, Uri};

    use crate::identity::peer::{Scheme, TrustedProxies};
    use crate::limit::MAX_KEYS;

    fn who(name: &str) -> IdentityId {
        IdentityId::new(name)
    }

    fn from(address: &str) -> RemotePeer {
        let (headers, proxies) = (HeaderMap::new(), TrustedProxies::default());
        RemotePeer::new(address.parse().unwrap(), Scheme::Http, &Uri::from_static("/"), &headers, &proxies)
    }

    fn admitted(quota: &Quota, name: &str, address: &str, asked: usize) -> usize {
        let peer = from(address);
        (0..asked).filter(|_| quota.admits(&who(name), &peer)).count()
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
        let office = from("10.0.0.1");
        for number in 0..MAX_KEYS {
            quota.admits(&who(&number.to_string()), &office);
        }
        assert_eq!(admitted(&quota, "ada", "10.0.0.2", 1), 1);
        assert_eq!(admitted(&quota, "one more", "10.0.0.1", 1), 0);
    }

    #[test]
    fn an_exempt_network_has_no_quota_and_its_identities_have() {
        let quota = Quota::hourly(1, 1);
        let exempt = RemotePeer { owner: AddressOwner::Exempt, ..from("10.0.0.1") };
        assert!(quota.admits(&who("ada"), &exempt) && quota.admits(&who("bob"), &exempt));
        assert!(!quota.admits(&who("ada"), &exempt));
    }

    #[test]
    fn what_the_address_was_refused_does_not_count_for_the_identity() {
        let quota = Quota::hourly(2, 1);
        assert_eq!(admitted(&quota, "bob", "10.0.0.1", 1), 1);
        assert_eq!(admitted(&quota, "ada", "10.0.0.1", 9), 0);
        assert_eq!(admitted(&quota, "ada", "10.0.0.2", 1), 1);
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
        assert_eq!(admitted(&quota, "ada", "192.0.2.1", 1), 1);
        assert_eq!(admitted(&quota, "ada", "::ffff:192.0.2.1", 1), 0, "the same address, written otherwise");
        assert_eq!(admitted(&quota, "ada", "2001:db8:0:1::1", 1), 1);
        assert_eq!(admitted(&quota, "ada", "2001:db8:0:1:ffff::2", 1), 0);
        assert_eq!(admitted(&quota, "ada", "2001:db8:0:2::1", 1), 1);
    }

    #[test]
    fn tidying_forgets_nobody_who_has_used_something() {
        let quota = Quota::hourly(1, 1);
        assert_eq!(admitted(&quota, "ada", "10.0.0.1", 1), 1);
        quota.prune();
        assert_eq!(admitted(&quota, "ada", "10.0.0.1", 1), 0);
    }
}
