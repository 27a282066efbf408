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

#[cfg(test)]
mod tests {
    use super::*;

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
