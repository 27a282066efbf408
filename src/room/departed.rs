//! Ids of former members, reserved until the meeting ends.
//!
//! Everyone in a room sees every id, and a message to an id is meant for its former member.

use std::collections::HashMap;

use crate::id::{IdentityId, UserId};
use crate::network::ClientNetwork;

/// Maximum number of ids reserved for one identity. A page uses a new one at each load.
const OF_IDENTITY: usize = 64;

/// Maximum number of reserved ids; 4,096 with their identities take less than a megabyte.
const IN_ALL: usize = 4096;

/// The ids of former members, oldest first.
#[derive(Debug, Default)]
pub struct Departed {
    ids: Vec<DepartedId>,
}

/// A former member's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepartedId {
    /// The id.
    pub user: UserId,
    /// The identity that it is reserved for.
    pub identity: IdentityId,
    /// The network of its client, if known.
    pub network: Option<ClientNetwork>,
}

impl Departed {
    /// Reserves an id, and returns the one released in exchange, if any.
    ///
    /// From a full list the oldest id of the network with the most ids is released: a client that
    /// makes up identities cannot release the ids of others.
    pub fn add(&mut self, id: DepartedId) -> Option<UserId> {
        self.take(&id.user);
        let own = self.ids.iter().filter(|other| other.identity == id.identity).count();
        let is_oldest = |other: &DepartedId| other.identity == id.identity;
        let forgotten = if own >= OF_IDENTITY {
            self.ids.iter().position(is_oldest)
        } else if self.ids.len() >= IN_ALL {
            self.oldest_of_fullest_network()
        } else {
            None
        };
        let forgotten = forgotten.map(|index| self.ids.remove(index).user);
        self.ids.push(id);
        forgotten
    }

    /// True if an id is reserved for the identity.
    pub fn knows(&self, identity: &IdentityId) -> bool {
        self.ids.iter().any(|id| id.identity == *identity)
    }

    /// The identity that an id is reserved for, if it is.
    pub fn owner(&self, user: &UserId) -> Option<&IdentityId> {
        self.ids.iter().find(|id| id.user == *user).map(|id| &id.identity)
    }

    /// The reserved ids.
    pub fn users(&self) -> impl Iterator<Item = &UserId> {
        self.ids.iter().map(|id| &id.user)
    }

    /// Releases an id because its member is back; true if it was reserved.
    pub fn take(&mut self, user: &UserId) -> bool {
        let index = self.ids.iter().position(|id| id.user == *user);
        index.map(|index| self.ids.remove(index)).is_some()
    }

    /// Releases all ids because the meeting has ended.
    pub fn clear(&mut self) {
        self.ids.clear();
    }

    fn oldest_of_fullest_network(&self) -> Option<usize> {
        let mut counts: HashMap<Option<ClientNetwork>, usize> = HashMap::new();
        for id in &self.ids {
            *counts.entry(id.network).or_default() += 1;
        }
        let most = counts.values().max()?;
        self.ids.iter().position(|id| counts.get(&id.network) == Some(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::client_network;

    fn id(user: usize, identity: usize, address: [u8; 4]) -> DepartedId {
        DepartedId {
            user: UserId::parse(&format!("u{user}")).unwrap(),
            identity: IdentityId::new(format!("cookie:{identity}")),
            network: Some(client_network(address.into())),
        }
    }

    #[test]
    fn identity_over_its_limit_releases_its_oldest_id() {
        let mut departed = Departed::default();
        assert_eq!(departed.add(id(1000, 1000, [192, 0, 2, 1])), None);
        for number in 0..OF_IDENTITY {
            assert_eq!(departed.add(id(number, 1, [192, 0, 2, 1])), None);
        }
        assert_eq!(departed.add(id(OF_IDENTITY, 1, [192, 0, 2, 1])), Some(id(0, 1, [0; 4]).user));
        assert_eq!(departed.owner(&id(1000, 0, [0; 4]).user), Some(&IdentityId::new("cookie:1000")));
        assert!(departed.take(&id(3, 1, [0; 4]).user));
        assert_eq!(departed.add(id(OF_IDENTITY + 1, 1, [192, 0, 2, 1])), None, "one came back");
    }

    #[test]
    fn made_up_identities_do_not_release_ids_of_others() {
        let mut departed = Departed::default();
        let honest = id(0, 0, [192, 0, 2, 1]);
        departed.add(honest.clone());
        for number in 1..2 * IN_ALL {
            departed.add(id(number, number, [192, 0, 2, 2]));
        }
        assert_eq!(departed.ids.len(), IN_ALL);
        assert_eq!(departed.owner(&honest.user), Some(&honest.identity));
    }
}
