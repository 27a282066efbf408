//! Calls of the media API between nodes.

use std::time::Duration;

use axum::body::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use satsuma_cluster::membership::Probed;
use satsuma_cluster::message::NodeMessage;
use tokio::time::timeout;

use super::engine::{Engine, RequestFailure};
use super::node::Cluster;
use crate::id::{NodeId, RoomName};
use crate::media_api::nodes::{MediaNodes, NodeState, NotPassedOn};

/// Time in which a node is found out to be gone, at whose address nobody listens.
const FOUND_OUT: Duration = Duration::from_millis(1500);

impl<E: Engine> MediaNodes for Cluster<E> {
    fn own(&self) -> NodeId {
        self.node()
    }

    fn state(&self, node: NodeId) -> NodeState {
        let membership = self.membership();
        match membership.knows(node) {
            false => NodeState::Unknown,
            true if membership.is_alive(node) => NodeState::Alive,
            true => NodeState::Gone,
        }
    }

    fn home(&self, room: RoomName) -> BoxFuture<'static, NodeId> {
        let cluster = self.clone();
        async move { cluster.media_home(&room).await }.boxed()
    }

    fn pass_on(
        &self,
        to: NodeId,
        call: Bytes,
        most: Duration,
    ) -> BoxFuture<'static, Result<Bytes, NotPassedOn>> {
        let cluster = self.clone();
        async move {
            let message = NodeMessage::MediaCall(&call).encode();
            let asked = cluster.engine().request(to, message.into(), most);
            let answer = tokio::select! {
                answer = asked => answer,
                // Its sessions are gone, no matter if it made the call.
                () = cluster.until_gone(to) => return Err(NotPassedOn::Gone),
            };
            match answer {
                Ok(answer) => Ok(answer),
                Err(RequestFailure::NoAnswer) => Err(NotPassedOn::TimedOut),
                Err(RequestFailure::NobodyListens) => Err(cluster.nobody_listens(to).await),
            }
        }
        .boxed()
    }
}

impl<E: Engine> Cluster<E> {
    /// Finds out if a node is gone, or only cut off from the engine for a moment.
    async fn nobody_listens(&self, node: NodeId) -> NotPassedOn {
        if self.state(node) == NodeState::Unknown {
            return NotPassedOn::Gone;
        }
        self.probed(node, Probed::NobodyListens);
        match timeout(FOUND_OUT, self.until_gone(node)).await {
            Ok(()) => NotPassedOn::Gone,
            Err(_) => NotPassedOn::Unreachable,
        }
    }

    /// Waits until a node is taken for gone.
    pub(super) async fn until_gone(&self, node: NodeId) {
        let mut changes = self.changes();
        while self.state(node) != NodeState::Gone {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
