//! The ids of members who left: while the meeting lasts nobody else gets them.
//!
//! Everybody in a room sees every id, and what is sent to an id is meant for who had it.

use std::collections::HashMap;

use crate::id::{IdentityId, UserId};
use crate::network::ClientNetwork;

/// The most ids that one identity leaves behind. A page takes a new one whenever it is loaded.
const OF_IDENTITY: usize = 64;

/// The most ids in all; 4,096 with their identities are under a megabyte.
const IN_ALL: usize = 4096;

/// The ids of members who left, oldest first.
#[derive(Debug, Default)]
pub struct Departed {
    ids: Vec<DepartedId>,
}

/// An id whose member left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepartedId {
    /// The id.
    pub user: UserId,
    /// Whose it is.
    pub identity: IdentityId,
    /// The network of its client, where it is known.
    pub network: Option<ClientNetwork>,
}

impl Departed {
    /// Takes note of an id, and gives back the one that is forgotten for it, if there is one.
    ///
    /// Of a full list the oldest id of the network with the most goes: whoever makes up identities
    /// does not make others' ids free.
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

    /// Whose an id is, if it is known.
    pub fn owner(&self, user: &UserId) -> Option<&IdentityId> {
        self.ids.iter().find(|id| id.user == *user).map(|id| &id.identity)
    }

    /// Forgets an id, since its member is back; gives back whether it was known.
    pub fn take(&mut self, user: &UserId) -> bool {
        let index = self.ids.iter().position(|id| id.user == *user);
        index.map(|index| self.ids.remove(index)).is_some()
    }

    /// Forgets all, since the meeting ended.
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
    fn an_identity_forgets_its_own_oldest_id() {
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
    fn who_makes_up_identities_makes_nobody_elses_id_free() {
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
