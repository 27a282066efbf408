//! Hourly quota of submissions of an identity and a client network.

use crate::auth::peer::{AddressOwner, RemotePeer};
use crate::id::IdentityId;
use crate::limit::{Rate, UserRate};
use crate::network::client_network;

/// A quota for identities and networks, replenished evenly over an hour.
#[derive(Debug)]
pub struct Quota(UserRate);

impl Quota {
    /// Creates a quota of this many submissions an hour; 0 is no limit.
    pub fn hourly(per_identity: u32, per_network: u32) -> Self {
        Self(UserRate::new(Rate::per_hour(per_identity), Rate::per_hour(per_network)))
    }

    /// Counts a submission; false if the quota is exhausted.
    pub fn admits(&self, identity: &IdentityId, peer: &RemotePeer) -> bool {
        // Clients behind an untrusted proxy share the quota of its network: forms are not worth more.
        let network = (peer.owner != AddressOwner::Exempt).then(|| client_network(peer.address));
        self.0.check(identity, network).is_ok()
    }

    /// Prunes entries with a full quota.
    pub fn prune(&self) {
        self.0.prune();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderMap, Uri};

    use crate::auth::peer::{Scheme, TrustedProxies};
    use crate::limit::MAX_KEYS;

    fn who(name: &str) -> IdentityId {
        IdentityId::new(name)
    }

    fn from(address: &str) -> RemotePeer {
        let (headers, proxies) = (HeaderMap::new(), TrustedProxies::default());
        RemotePeer::new(address.parse().unwrap(), Scheme::Http, &Uri::from_static("/"), &headers, &proxies)
    }

    fn admitted(quota: &Quota, name: &str, address: &str, requests: usize) -> usize {
        let peer = from(address);
        (0..requests).filter(|_| quota.admits(&who(name), &peer)).count()
    }

    #[test]
    fn identity_and_address_have_their_own_quotas() {
        let quota = Quota::hourly(20, 60);
        assert_eq!(admitted(&quota, "ada", "10.0.0.1", 30), 20);
        assert_eq!(admitted(&quota, "ada", "10.0.0.2", 1), 0, "wherever she is");
        // Ada's refused submissions do not count for her address.
        let others: usize =
            ["bob", "cyd", "dan"].map(|name| admitted(&quota, name, "10.0.0.1", 30)).iter().sum();
        assert_eq!(others, 40);
        assert_eq!(admitted(&quota, "eve", "10.0.0.3", 1), 1);
    }

    /// A hundred thousand anonymous identities of one address once blocked all users' reports.
    #[test]
    fn many_identities_do_not_exhaust_others_quota() {
        let quota = Quota::hourly(20, 60);
        let office = from("10.0.0.1");
        for number in 0..MAX_KEYS {
            quota.admits(&who(&number.to_string()), &office);
        }
        assert_eq!(admitted(&quota, "ada", "10.0.0.2", 1), 1);
        assert_eq!(admitted(&quota, "one more", "10.0.0.1", 1), 0);
    }

    #[test]
    fn exempt_network_is_unlimited_but_not_identities() {
        let quota = Quota::hourly(1, 1);
        let exempt = RemotePeer { owner: AddressOwner::Exempt, ..from("10.0.0.1") };
        assert!(quota.admits(&who("ada"), &exempt) && quota.admits(&who("bob"), &exempt));
        assert!(!quota.admits(&who("ada"), &exempt));
    }

    #[test]
    fn refusal_by_address_is_refunded_to_identity() {
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
    fn ipv6_network_counts_as_one_address() {
        let quota = Quota::hourly(0, 1);
        assert_eq!(admitted(&quota, "ada", "192.0.2.1", 1), 1);
        assert_eq!(admitted(&quota, "ada", "::ffff:192.0.2.1", 1), 0, "the same address, written otherwise");
        assert_eq!(admitted(&quota, "ada", "2001:db8:0:1::1", 1), 1);
        assert_eq!(admitted(&quota, "ada", "2001:db8:0:1:ffff::2", 1), 0);
        assert_eq!(admitted(&quota, "ada", "2001:db8:0:2::1", 1), 1);
    }

    #[test]
    fn pruning_keeps_used_quotas() {
        let quota = Quota::hourly(1, 1);
        assert_eq!(admitted(&quota, "ada", "10.0.0.1", 1), 1);
        quota.prune();
        assert_eq!(admitted(&quota, "ada", "10.0.0.1", 1), 0);
    }
}
