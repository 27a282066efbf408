//! Several nodes as one server: the engine between them.
//!
//! Rooms and objects live on nodes that may die at any moment; their journals and all messages between nodes pass
//! through an [`engine`], which is NATS with JetStream ([`nats`]). The pure parts are `satsuma-cluster` and
//! [`room::replica`](crate::room::replica); nothing of this runs on a single node.

pub mod engine;
mod media;
pub mod nats;
pub mod newcomer;
pub mod node;
mod places;
mod placing;
mod reach;
mod room;
pub mod status;
