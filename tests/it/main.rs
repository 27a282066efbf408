//! The real server on ports of the system's choice, real WebSocket clients, a real SQLite file.
//!
//! Tests wait for facts and never for time to pass; only `conformance` plays recordings in their time.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod acme;
mod addresses;
mod ai;
mod authority;
mod autobahn;
mod base_path;
mod browser;
mod calls;
mod chat;
mod client;
mod cloud;
mod conformance;
mod crash;
mod deflate;
mod deploy;
mod docs;
mod durable;
mod durable_crash;
mod durable_methods;
mod durable_sockets;
mod echo;
mod embed;
mod feedback;
mod frames;
mod fuzz;
mod harness;
mod hostile_clients;
mod hosts;
mod identity;
mod latency;
mod law;
mod load;
mod media;
mod media_session;
mod npm_clients;
mod openapi;
mod operators;
mod output;
mod page;
mod page_errors;
mod page_network;
mod partytracks;
mod pebble;
mod peer;
mod phoenix;
mod process;
mod raw;
mod reconnect;
mod refusals;
mod rooms;
mod secrets;
mod sfu;
mod sfu_access;
mod sfu_ai;
mod signals;
mod slow_requests;
mod start;
mod stock_client;
mod tls;
mod webhook;
mod webhook_delivery;
