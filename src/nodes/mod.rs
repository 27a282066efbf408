//! Several nodes as one server: the engine between them.
//!
//! Rooms and objects live on nodes that may die at any moment; their journals and all messages between nodes pass
//! through an [`engine`], which is NATS with JetStream ([`nats`]). The pure parts are `satsuma-cluster` and
//! [`room::replica`](crate::room::replica); nothing of this runs on a single node.

pub mod carry;
pub mod engine;
pub mod events;
mod files;
mod local_rooms;
mod media;
pub mod meetings;
pub mod nats;
pub mod newcomer;
pub mod node;
pub mod objects;
mod panics;
mod pieces;
mod places;
mod placing;
mod reach;
mod requests;
mod room;
pub mod settings;
pub mod status;
mod sweep;
