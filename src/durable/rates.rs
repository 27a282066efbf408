//! Limits on the rate of calls, by key of access and by object.

use super::error::ObjectError;
use super::keys::KeyNumber;
use crate::config::DurableConfig;
use crate::id::ObjectId;
use crate::limit::{KeyedLimit, Rate};

/// Bytes of a call or of its answer that count as one call more; otherwise a few reads of long values would take the
/// time of thousands of calls.
const BYTES_A_CALL: usize = 64 << 10;

/// The rates of calls over HTTP and sockets.
#[derive(Debug)]
pub struct CallRates {
    of_key: KeyedLimit<KeyNumber>,
    of_object: KeyedLimit<ObjectId>,
}

impl CallRates {
    /// The configured limits.
    pub fn new(config: &DurableConfig) -> Self {
        Self {
            of_key: KeyedLimit::rate(Rate::per_second(config.calls_per_second)),
            of_object: KeyedLimit::rate(Rate::per_second(config.calls_per_second_per_object)),
        }
    }

    /// Counts a call.
    ///
    /// # Errors
    /// [`ObjectError::TooFast`]; nothing is counted then.
    pub fn check(&self, key: KeyNumber, object: &ObjectId) -> Result<(), ObjectError> {
        self.of_key.check(&key).map_err(|_| ObjectError::TooFast("too many calls with this key"))?;
        self.of_object.check(object).map_err(|_| {
            // Nothing happens, so it does not count for the key either.
            self.of_key.refund(&key);
            ObjectError::TooFast("too many calls on this object")
        })
    }

    /// Counts the bytes of a call that was admitted, or of its answer.
    pub fn charge(&self, key: KeyNumber, object: &ObjectId, bytes: usize) {
        let calls = u32::try_from(bytes / BYTES_A_CALL).unwrap_or(u32::MAX);
        if calls > 0 {
            self.of_key.charge(&key, calls);
            self.of_object.charge(object, calls);
        }
    }

    /// Removes entries whose whole burst is available.
    pub fn prune(&self) {
        self.of_key.prune();
        self.of_object.prune();
    }
}
