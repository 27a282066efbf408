//! The rate of one kind of event of a user: by identity and by client network.

use super::{KeyedLimit, Rate};
use crate::id::IdentityId;
use crate::network::ClientNetwork;

/// Rates of one kind of event, for each identity and for each client network: identities are free to make.
#[derive(Debug)]
pub struct UserRate {
    of_identity: KeyedLimit<IdentityId>,
    of_network: KeyedLimit<ClientNetwork>,
}

/// The rate that was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateExceeded {
    /// The identity's.
    Identity,
    /// The network's.
    Network,
}

impl UserRate {
    /// Creates the limit from the two rates.
    pub fn new(of_identity: Rate, of_network: Rate) -> Self {
        Self { of_identity: KeyedLimit::rate(of_identity), of_network: KeyedLimit::rate(of_network) }
    }

    /// Counts an event; one of unknown or exempt network is subject to the identity's rate alone.
    ///
    /// # Errors
    /// Returns [`RateExceeded`]; nothing is counted then.
    pub fn check(&self, identity: &IdentityId, network: Option<ClientNetwork>) -> Result<(), RateExceeded> {
        // The identity first: one client that sends too much must not use up the rate of a whole office.
        self.of_identity.check(identity).map_err(|_| RateExceeded::Identity)?;
        if network.is_some_and(|network| self.of_network.check(&network).is_err()) {
            // Nothing happens, so it does not count for the identity either.
            self.of_identity.refund(identity);
            return Err(RateExceeded::Network);
        }
        Ok(())
    }

    /// Removes keys whose whole burst is available.
    pub fn prune(&self) {
        self.of_identity.prune();
        self.of_network.prune();
    }

    /// Returns the numbers of remembered identities and networks.
    #[cfg(test)]
    pub fn keys(&self) -> (usize, usize) {
        (self.of_identity.keys(), self.of_network.keys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::client_network;

    #[test]
    fn refused_event_counts_for_nobody() {
        let rate = UserRate::new(Rate::per_hour(2), Rate::per_hour(3));
        let [ada, bob, eve] = ["ada", "bob", "eve"].map(IdentityId::new);
        let network = Some(client_network([192, 0, 2, 1].into()));
        assert_eq!(rate.check(&ada, network), Ok(()));
        assert_eq!(rate.check(&ada, network), Ok(()));
        assert_eq!(rate.check(&ada, network), Err(RateExceeded::Identity));
        assert_eq!(rate.check(&bob, network), Ok(()));
        assert_eq!(rate.check(&eve, network), Err(RateExceeded::Network));
        assert_eq!(rate.check(&eve, None), Ok(()));
        assert_eq!(rate.check(&eve, None), Ok(()), "the refused one did not count");
        assert_eq!(rate.check(&eve, None), Err(RateExceeded::Identity));
    }
}
