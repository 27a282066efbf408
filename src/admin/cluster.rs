//! `GET /admin/cluster`: the nodes and the engine, as this node sees them.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::{Operators, seconds};
use crate::nodes::status::{ClusterStatus, NodeStatus};

/// The routes, which require the operator token.
pub(super) fn routes() -> Router<Arc<Operators>> {
    Router::new().route("/admin/cluster", get(cluster))
}

/// The cluster, or that there is none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterPage {
    /// True if this server is a node of several.
    clustered: bool,
    /// The engine between the nodes.
    engine: Option<EngineView>,
    /// Rooms that this node lost to another one, which had taken it for dead.
    fenced: u64,
    /// This node's id.
    node: Option<String>,
    /// The nodes, this one first.
    nodes: Vec<NodeView>,
    /// Rooms that this node took over.
    takeovers: Takeovers,
}

#[derive(Debug, Serialize)]
struct EngineView {
    /// Times that the connection was made again.
    reconnects: u64,
    /// The name of the server that this node is connected to, or was last.
    server: String,
    /// Time since the status is as it is.
    since: String,
    /// `connected` or `away`.
    status: &'static str,
    /// The server's version.
    version: String,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Takeovers {
    /// From nodes that had died.
    died: u64,
    /// From nodes that left, or gave the room up.
    handed_over: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeView {
    /// False once it is taken for gone.
    alive: bool,
    /// True if it leaves, and takes no more rooms.
    draining: bool,
    /// Its id, new at each start.
    id: String,
    /// Seconds since its last pulse; null for this node.
    last_pulse_seconds_ago: Option<f64>,
    /// Its name, for people.
    name: String,
    /// Number of rooms that it owns.
    owned: u32,
    /// Number of rooms whose members it has, while another node owns them.
    relayed: u32,
    /// False for one with another secret, which takes no part.
    same_secret: bool,
    /// Number of its sockets.
    sockets: u32,
    /// True for this node.
    this: bool,
    /// The release that it runs.
    version: String,
}

impl From<NodeStatus> for NodeView {
    fn from(node: NodeStatus) -> Self {
        let NodeStatus { pulse, age, is_alive, is_member } = node;
        Self {
            alive: is_alive,
            draining: pulse.heartbeat.is_draining,
            id: pulse.heartbeat.node.to_string(),
            last_pulse_seconds_ago: age.map(seconds),
            name: pulse.name,
            owned: pulse.owned,
            relayed: pulse.relayed,
            same_secret: is_member,
            sockets: pulse.clients,
            this: age.is_none(),
            version: pulse.release,
        }
    }
}

async fn cluster(State(operators): State<Arc<Operators>>) -> Json<ClusterPage> {
    let Some(view) = &operators.cluster else {
        return Json(ClusterPage {
            clustered: false,
            engine: None,
            fenced: 0,
            node: None,
            nodes: Vec::new(),
            takeovers: Takeovers::default(),
        });
    };
    let ClusterStatus { node, engine, server, reconnects, nodes, taken_from_dead, handed_over, fenced } =
        view.status();
    let engine = EngineView {
        reconnects,
        server: server.name,
        since: humantime::format_rfc3339_seconds(engine.since).to_string(),
        status: if engine.is_away { "away" } else { "connected" },
        version: server.version,
    };
    Json(ClusterPage {
        clustered: true,
        engine: Some(engine),
        fenced,
        node: Some(node.to_string()),
        nodes: nodes.into_iter().map(NodeView::from).collect(),
        takeovers: Takeovers { died: taken_from_dead, handed_over },
    })
}
