//! What users report, from the form to the webhook; and what operators find of it.
//!
//! A report is kept before it is answered. With a webhook configured its card is queued in the same
//! transaction, and a task of its own delivers it: nobody who reports waits for the webhook.

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
