//! Memory for incoming forms, reserved as a whole before a byte is read, or refused.
//!
//! Forms that reserved it chunk by chunk could deadlock, each holding memory that another waits for.

use std::sync::Arc;
use std::time::Duration;

use crate::http::error::ApiError;
use crate::limit::{ConcurrencyLimit, ConcurrencyPermit};
use crate::metrics::{Counted, Metrics};
use crate::network::ClientNetwork;

/// Concurrent forms of the maximum size in memory.
const LARGE_FORMS: usize = 4;

/// Large forms of one client network, so that memory remains for others: the announced length is reserved even
/// if it is never sent.
const LARGE_FORMS_OF_NETWORK: usize = 2;

/// Maximum size of a small form in bytes: small forms have their own memory and never wait for large ones.
const SMALL_BYTES: usize = 1 << 20;

/// Concurrent small forms of the maximum size in memory.
const SMALL_FORMS: usize = 64;

/// Small forms of one client network.
const SMALL_FORMS_OF_NETWORK: usize = 8;

/// Time that a form waits for memory before it is refused; nothing of it is read meanwhile.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Memory for forms, in KiB.
#[derive(Debug)]
pub struct UploadBudget {
    large: ConcurrencyLimit,
    small: ConcurrencyLimit,
    metrics: Arc<Metrics>,
}

/// A form's reserved memory, released when dropped.
#[derive(Debug)]
pub struct Upload {
    _memory: ConcurrencyPermit,
    _counted: Counted,
}

impl UploadBudget {
    /// Creates a budget for forms of at most `form_bytes`.
    pub fn new(form_bytes: usize, metrics: Arc<Metrics>) -> Self {
        let forms = |bytes: usize, all: usize, of_network: usize| {
            let kibibytes = bytes.div_ceil(1024);
            ConcurrencyLimit::new(all * kibibytes, of_network * kibibytes)
        };
        Self {
            large: forms(form_bytes, LARGE_FORMS, LARGE_FORMS_OF_NETWORK),
            small: forms(SMALL_BYTES, SMALL_FORMS, SMALL_FORMS_OF_NETWORK),
            metrics,
        }
    }

    /// Reserves memory for a form of `bytes` from a client of `network`.
    ///
    /// # Errors
    /// [`ApiError::UploadsBusy`] if none is free within five seconds.
    pub async fn reserve(&self, bytes: usize, network: Option<ClientNetwork>) -> Result<Upload, ApiError> {
        let limit = if bytes <= SMALL_BYTES { &self.small } else { &self.large };
        let kibibytes = u32::try_from(bytes.div_ceil(1024).max(1)).map_err(|_| ApiError::BodyTooLarge)?;
        let memory = limit.acquire_many(network, kibibytes, RESERVE_TIMEOUT).await;
        let memory = memory.ok_or(ApiError::UploadsBusy)?;
        Ok(Upload { _memory: memory, _counted: Counted::new(&self.metrics.form_bytes, bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::client_network;

    const FORM: usize = 32 << 20;

    fn network(number: u8) -> Option<ClientNetwork> {
        Some(client_network([192, 0, 2, number].into()))
    }

    #[tokio::test(start_paused = true)]
    async fn form_without_memory_waits_and_is_refused() {
        let metrics = Metrics::new();
        let budget = UploadBudget::new(FORM, metrics.clone());
        let mut held = Vec::new();
        for number in 0..4 {
            held.push(budget.reserve(FORM, network(number)).await.unwrap());
        }
        assert_eq!(metrics.form_bytes.get(), 4 * i64::try_from(FORM).unwrap());
        assert_eq!(budget.reserve(2 << 20, network(9)).await.unwrap_err(), ApiError::UploadsBusy);
        let small = budget.reserve(SMALL_BYTES, network(9)).await.unwrap();
        let (waiting, ()) = tokio::join!(budget.reserve(FORM, network(9)), async { drop(held.pop()) });
        drop((waiting.unwrap(), small, held));
        assert_eq!(metrics.form_bytes.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_network_leaves_memory_for_others() {
        let budget = UploadBudget::new(FORM, Metrics::new());
        for (bytes, permits) in [(FORM, LARGE_FORMS_OF_NETWORK), (SMALL_BYTES, SMALL_FORMS_OF_NETWORK)] {
            let mut held = Vec::new();
            for _ in 0..permits {
                held.push(budget.reserve(bytes, network(1)).await.unwrap());
            }
            assert_eq!(budget.reserve(bytes, network(1)).await.unwrap_err(), ApiError::UploadsBusy);
            let (waiting, ()) = tokio::join!(budget.reserve(bytes, network(1)), async { drop(held.pop()) });
            held.push(waiting.unwrap());
            budget.reserve(bytes, network(2)).await.unwrap();
            budget.reserve(bytes, None).await.unwrap();
        }
        // Answers of a whole office at once need almost no memory.
        let mut answers = Vec::new();
        for _ in 0..1000 {
            answers.push(budget.reserve(100, network(1)).await.unwrap());
        }
    }
}
