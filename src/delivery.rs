//! Delivery of queued messages to destinations outside, each at least once, retried for three days.
//!
//! The queue is in the store ([`crate::store::deliveries`]). Each destination has a [`sender::Sender`], a task that
//! delivers in the order in which messages are due; a destination that fails or pauses delays no other one.

pub mod public_resolver;
pub mod retry;
pub mod sender;
pub mod signature;
pub mod webhook;

use std::time::Duration;

use crate::store::deliveries::{Delivery, DeliveryOutcome};

/// A receiver of messages outside.
pub trait Destination: Send + Sync + 'static {
    /// The name by which messages are queued for it.
    fn name(&self) -> &str;

    /// Attempts to deliver a message once.
    fn send(&self, message: &Delivery) -> impl Future<Output = Result<(), DeliveryFailure>> + Send;

    /// Logs the outcome of the attempt with this number.
    fn log(
        &self,
        message: &Delivery,
        attempt: u32,
        outcome: DeliveryOutcome,
        failure: Option<DeliveryFailure>,
    );
}

/// A failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryFailure {
    /// The answer's status was not 2xx.
    Status {
        /// The status.
        status: u16,
        /// The pause that `Retry-After` requires.
        retry_after: Option<Duration>,
    },
    /// No answer in time.
    TimedOut,
    /// The destination cannot be reached, or closed the connection.
    Unreachable,
    /// The destination's host has no public address.
    PrivateAddress,
}

impl DeliveryFailure {
    /// The failure as operators see it.
    pub fn text(self) -> String {
        match self {
            Self::Status { status, .. } => format!("the webhook answered {status}"),
            Self::TimedOut => "the webhook did not answer in time".to_owned(),
            Self::Unreachable => "the webhook cannot be reached".to_owned(),
            Self::PrivateAddress => {
                "the webhook's host has no public address; see allow_private in docs/events.md".to_owned()
            }
        }
    }

    /// The failure as a label in metrics.
    fn label(self) -> &'static str {
        match self {
            Self::Status { status: 429, .. } => "rate_limited",
            Self::Status { status: 300..400, .. } => "redirected",
            Self::Status { status: 400..500, .. } => "refused",
            Self::Status { .. } => "server_error",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::PrivateAddress => "private_address",
        }
    }
}
