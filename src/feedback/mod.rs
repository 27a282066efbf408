//! Users' reports, from the form to the webhook and the operators' lists.
//!
//! A report is stored before it is answered. With a webhook configured its card is queued in the same
//! transaction and delivered by a separate task, so no client waits for the webhook.

pub mod budget;
pub mod bug_report;
pub mod card;
pub mod counted;
pub mod dead_track;
pub mod debug_info;
pub mod delivery;
pub mod form;
pub mod history;
pub mod quota;
pub mod retention;
pub mod retry;
pub mod service;
