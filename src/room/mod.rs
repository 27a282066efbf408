//! The rooms: a pure core that decides, and the task that carries out what it decided.
//!
//! [`state`] is a value with one method; [`members`], [`seat`], [`departed`] and [`ai`] are parts of it; [`io`] is what goes in and
//! comes out; [`outbox`] is what waits for one member,
//! [`charge`] on whose account; [`actor`] is the task that owns one room, [`mailbox`] the way into it, [`arrivals`] the bound on what arrived in part; [`registry`] finds or starts it,
//! and [`readiness`] tries whether that works.

pub mod actor;
pub mod ai;
pub mod arrivals;
pub mod charge;
pub mod departed;
pub mod io;
pub mod log;
pub mod mailbox;
pub mod members;
pub mod message;
pub mod outbox;
pub mod pace;
pub mod readiness;
pub mod registry;
pub mod seat;
pub mod state;
