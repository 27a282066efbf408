//! The cluster as one of its nodes sees it, for operators. Nobody else is asked.

use std::sync::atomic::Ordering;
use std::time::Duration;

use satsuma_cluster::membership::Heartbeat;
use satsuma_cluster::message::Pulse;

use super::engine::{Engine, EngineServer};
use super::node::{Cluster, Inner};
use crate::clock::now;
use crate::id::NodeId;
use crate::metrics::ByReason;
use crate::room::shared::EngineState;

/// The reasons for which rooms are taken over.
pub(super) const DIED: &str = "died";
pub(super) const HANDED_OVER: &str = "handed_over";

/// A node, as operators ask for its view of the cluster.
pub trait ClusterView: Send + Sync {
    /// The cluster as the node sees it.
    fn status(&self) -> ClusterStatus;
}

/// The cluster as a node sees it.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// The node itself.
    pub node: NodeId,
    /// Its way to the engine.
    pub engine: EngineState,
    /// The server of the engine that it is connected to, or was last.
    pub server: EngineServer,
    /// Times that the connection was made again.
    pub reconnects: u64,
    /// All nodes, this one first.
    pub nodes: Vec<NodeStatus>,
    /// Rooms that this node took over from nodes that had died, since its start.
    pub taken_from_dead: u64,
    /// Rooms that were handed over to this node.
    pub handed_over: u64,
    /// Rooms that this node lost to another one, which had taken it for dead.
    pub fenced: u64,
}

/// A node, as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its last pulse.
    pub pulse: Pulse,
    /// Time since then; none for this node.
    pub age: Option<Duration>,
    /// False once it is taken for gone.
    pub is_alive: bool,
    /// False for one with another secret, which takes no part.
    pub is_member: bool,
}

impl<E: Engine> ClusterView for Cluster<E> {
    fn status(&self) -> ClusterStatus {
        let reach = self.reach();
        let (metrics, fenced) = (self.metrics(), self.metrics().rooms_fenced.get());
        let taken = |reason| metrics.takeovers.get_or_create(&ByReason { reason }).get();
        let own = NodeStatus { pulse: self.own_pulse(), age: None, is_alive: true, is_member: true };
        ClusterStatus {
            node: self.node(),
            engine: reach.state(),
            server: self.engine().server(),
            reconnects: reach.reconnects(),
            nodes: std::iter::once(own).chain(self.nodes()).collect(),
            taken_from_dead: taken(DIED),
            handed_over: taken(HANDED_OVER),
            fenced,
        }
    }
}

impl<E: Engine> Cluster<E> {
    /// The pulse of this node as it is now.
    pub(super) fn own_pulse(&self) -> Pulse {
        let (version, is_draining) = (satsuma_cluster::entry::VERSION, self.membership().is_draining());
        self.pulse(Heartbeat { node: self.node(), number: 0, version, is_draining }, false)
    }

    /// The pulse of this node with a sign of life.
    pub(super) fn pulse(&self, heartbeat: Heartbeat, is_last: bool) -> Pulse {
        let Inner { identity, owned, rooms, .. } = &*self.inner;
        let owned = owned.load(Ordering::Relaxed);
        let rooms = u32::try_from(rooms.len()).unwrap_or(u32::MAX);
        Pulse {
            heartbeat,
            is_last,
            name: identity.name.clone(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            owned,
            relayed: rooms.saturating_sub(owned),
            clients: u32::try_from(self.metrics().connections.get()).unwrap_or_default(),
            wants_events: self.wants_events(),
            fingerprint: identity.fingerprint.clone(),
        }
    }

    /// The other nodes, foreign ones last.
    pub fn nodes(&self) -> Vec<NodeStatus> {
        let now = now().into_std();
        let foreign_nodes = self.foreign_nodes().clone();
        let (pulses, membership) = (self.pulses(), self.membership());
        let members = pulses.iter().filter_map(|(node, pulse)| {
            let age = now.saturating_duration_since(membership.last_heard(*node)?);
            let is_alive = membership.is_alive(*node);
            Some(NodeStatus { pulse: pulse.clone(), age: Some(age), is_alive, is_member: true })
        });
        let foreign_nodes = foreign_nodes.into_values().map(|(pulse, heard)| {
            let age = now.saturating_duration_since(heard);
            let is_alive = age < satsuma_cluster::membership::GONE_AFTER;
            NodeStatus { pulse, age: Some(age), is_alive, is_member: false }
        });
        members.chain(foreign_nodes).collect()
    }
}
