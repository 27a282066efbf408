//! The order in which nodes claim the subject of an owner that is gone.

use std::time::Duration;

use crate::node::NodeId;

/// Time that each further successor leaves to the one before it.
pub const TURN: Duration = Duration::from_millis(200);

/// The time that a node waits before it claims a subject whose owner is gone, while no claim is seen. `clients` are the
/// nodes with clients of the subject and their numbers; those with the most come first. A node without clients
/// is not in the order, and comes after all of them.
pub fn claim_delay(
    clients: impl IntoIterator<Item = (NodeId, usize)>,
    own: NodeId,
    is_alive: impl Fn(NodeId) -> bool,
) -> Duration {
    let mut alive: Vec<_> = clients.into_iter().filter(|(node, _)| *node == own || is_alive(*node)).collect();
    alive.sort_by_key(|(node, clients)| (std::cmp::Reverse(*clients), *node));
    let rank = alive.iter().position(|(node, _)| *node == own).unwrap_or(alive.len());
    TURN.saturating_mul(u32::try_from(rank).unwrap_or(u32::MAX))
}

/// The node that a subject belongs on if nothing else speaks for one: the same for all who see the same nodes, and
/// spread evenly over them. If a node comes or goes, few subjects move (rendezvous hashing). None without nodes.
pub fn preferred(subject: &str, nodes: impl IntoIterator<Item = NodeId>) -> Option<NodeId> {
    nodes.into_iter().max_by_key(|node| (weight(subject, *node), *node))
}

/// FNV-1a over subject and node, and the last step of SplitMix64, since FNV mixes its last bytes little.
fn weight(subject: &str, node: NodeId) -> u64 {
    let bytes = subject.bytes().chain(node.bits().to_be_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_spread_and_stay() {
        let nodes = [1, 2, 3].map(NodeId::new);
        let mut counts = [0; 3];
        for number in 0..3000 {
            let subject = format!("room {number}");
            let chosen = preferred(&subject, nodes).unwrap();
            counts[nodes.iter().position(|node| *node == chosen).unwrap()] += 1;
            let without = preferred(&subject, nodes.into_iter().filter(|node| *node != nodes[0])).unwrap();
            assert!(chosen == nodes[0] || without == chosen, "{subject}");
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_eq!(preferred("room", []), None);
        // Another release has to choose alike.
        assert_eq!(weight("room 1", NodeId::new(7)), 0xeb7e_1605_9773_0190);
    }

    #[test]
    fn node_with_most_clients_claims_first() {
        let [a, b, c, d] = [1, 2, 3, 4].map(NodeId::new);
        let clients = [(a, 1), (b, 3), (c, 3)];
        let delays = |is_alive: fn(NodeId) -> bool| {
            [a, b, c, d].map(|node| claim_delay(clients, node, is_alive).as_millis())
        };
        assert_eq!(delays(|_| true), [400, 0, 200, 600]);
        assert_eq!(delays(|node| node != NodeId::new(2)), [200, 0, 0, 400], "one counts itself as alive");
    }
}
