//! The real server on ports of the system's choice, real WebSocket clients, a real SQLite file.
//!
//! Tests wait for facts and never for time to pass; `conformance` alone plays recordings that do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic; that is how it fails")]

mod conformance;
mod harness;
mod identity;
mod law;
mod nothing_lost;
mod operators;
mod refusals;
mod rooms;
