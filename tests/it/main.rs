//! The real server on ports of the system's choice, real WebSocket clients, a real SQLite file.
//!
//! Tests wait for facts and never for time to pass; `conformance` alone plays recordings that do.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod addresses;
mod ai;
mod autobahn;
mod below;
mod browser;
mod calls;
mod chat;
mod client;
mod cloud;
mod conformance;
mod deflate;
mod delivery;
mod deploy;
mod docs;
mod echo;
mod far;
mod feedback;
mod frames;
mod fuzz;
mod harness;
mod hosts;
mod identity;
mod killed;
mod law;
mod load;
mod media;
mod nothing_lost;
mod npm_clients;
mod openapi;
mod operators;
mod output;
mod page;
mod page_network;
mod page_trouble;
mod partytracks;
mod peer;
mod process;
mod raw;
mod refusals;
mod rooms;
mod seat;
mod secrets;
mod sfu;
mod sfu_access;
mod sfu_ai;
mod signals;
mod slow;
mod start;
mod stock_client;
mod tls;
mod unbreakable;
mod webhook;
