//! The event bridge: what happens in rooms, for programs outside.
//!
//! The [`narrator`] makes numbered [events](envelope) of what the rooms publish; the [`recorder`] writes them to the
//! log and to the queues of webhooks, in one transaction, and then tells the [streams](stream). Programs
//! [act](acting) in rooms as well. Without a webhook and
//! until the first stream is opened nothing is recorded.

pub mod acting;
pub mod api;
pub mod envelope;
pub mod filter;
pub mod log;
pub mod member;
pub mod narrator;
pub mod recorder;
mod sharing;
pub mod stream;
pub mod webhook;
pub mod webhooks;
