//! Satsuma: a self-hosted realtime room server that replaces Orange Meets' own server.
//!
//! *Pure core, thin shells, one owner.* A room is a value with one method ([`room::state`]); a task owns it
//! ([`room::actor`]); sockets and HTTP are edges that pass it input and execute its effects. The import
//! rules, which a test checks:
//!
//! | level | modules | may import |
//! |---|---|---|
//! | 0 | [`clock`], [`id`], [`network`], [`limit`], [`metrics`], [`config`] | nothing of ours but each other |
//! | 1 | [`protocol`], [`telemetry`], [`store::saved`], [`ai::job`], [`calls::api`] | level 0 |
//! | 2 | [`room::io`], [`room::member`], [`room::departed`], [`room::members`], [`room::ai`], [`room::state`], [`room::message`], [`room::snapshot_throttle`], [`room::charge`], [`room::outbox`], [`feedback::card`], [`feedback::history`], [`orange::routes`], [`orange::policy`], [`calls::call`]: pure | up to level 1 |
//! | 3 | [`store`], [`identity`], [`calls::remote`], [`calls::circuit`], [`calls::retryable`]: shells | up to level 2 |
//! | 4 | [`calls::upstream`]: the interface to the media API's backend | up to level 3 |
//! | 5 | [`calls::turn`], [`calls::failure`], [`calls::recovery`], [`calls::session_lock`], [`calls::call_limits`], [`ai`] | up to level 4 |
//! | 5 | [`feedback::retry`], [`feedback::delivery`], [`feedback::retention`], [`feedback::quota`]: shells | up to level 3 |
//! | 6 | [`room::log`], [`room::arrivals`], [`room::mailbox`], [`room::link`], [`room::actor`], [`room::registry`], [`room::readiness`]: shells | up to level 5 |
//! | 7 | [`feedback::service`], [`feedback::budget`], [`feedback::form`], [`feedback::bug_report`], [`feedback::dead_track`], [`feedback::debug_info`], [`feedback::counted`]: edges | as below |
//! | 7 | [`ws`], [`http`], [`site`], [`orange`], [`feedback`], [`admin`], [`calls`]: edges | everything below, and each other |
//! | 8 | [`server`]: the composition root | everything |

pub mod admin;
pub mod ai;
pub mod calls;
pub mod clock;
pub mod config;
pub mod feedback;
pub mod http;
pub mod id;
pub mod identity;
pub mod limit;
pub mod metrics;
pub mod orange;
pub mod protocol;
pub mod room;
pub mod server;
pub mod site;
pub mod store;
pub mod telemetry;
pub mod ws;

pub use satsuma_sfu::network;
