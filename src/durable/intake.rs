//! Memory for bodies and messages that are received, and wait for their objects.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::ObjectError;

/// Time that a body waits for memory before it is refused; nothing of it is read meanwhile.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Memory in bytes. A clone shares it.
#[derive(Clone, Debug)]
pub struct Intake {
    free: Arc<Semaphore>,
    bytes: u32,
}

impl Intake {
    /// Memory of `bytes`.
    pub fn new(bytes: usize) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self { free: Arc::new(Semaphore::new(bytes as usize)), bytes }
    }

    /// Reserves memory for a body.
    ///
    /// # Errors
    /// [`ObjectError::Full`] if none is free within five seconds.
    pub async fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ObjectError> {
        let reserved = timeout(RESERVE_TIMEOUT, self.wait(bytes)).await.ok().flatten();
        reserved.ok_or(ObjectError::Full("too many bodies are arriving"))
    }

    /// Waits for memory; nothing for a length beyond all of it is ever refused, only late.
    pub async fn wait(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.free.clone().acquire_many_owned(self.permits(bytes)).await.ok()
    }

    /// Reserves memory if it is free now.
    pub fn try_reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_many_owned(self.permits(bytes)).ok()
    }

    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes)
    }
}
