//! Satsuma: a self-hosted realtime room server that replaces Orange Meets' own server.
//!
//! *Pure core, thin shells, one owner.* A room is a value with one method ([`room::state`]); a task owns it
//! ([`room::actor`]); sockets and HTTP are edges that pass it input and execute its effects. Imports between folders
//! go one way; the table is in `tests/it/law.rs`, which checks it.

pub mod admin;
pub mod agent;
pub mod ai;
pub mod assistant;
pub mod auth;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod durable;
pub mod events;
pub mod http;
pub mod id;
pub mod limit;
pub mod login;
pub mod media_access;
pub mod media_api;
pub mod metrics;
pub mod nodes;
pub mod operate;
pub mod orange;
pub mod protocol;
pub mod reports;
pub mod room;
pub mod room_api;
pub mod server;
pub mod site;
pub mod store;
pub mod telemetry;
pub mod ws;

pub use satsuma_sfu::network;
