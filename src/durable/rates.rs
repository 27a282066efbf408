//! Limits on the rate of calls, by key of access and by object.

use super::error::ObjectError;
use super::keys::KeyNumber;
use crate::config::DurableConfig;
use crate::id::ObjectId;
use crate::limit::{KeyedLimit, Rate};

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

    /// Removes entries whose whole burst is available.
    pub fn prune(&self) {
        self.of_key.prune();
        self.of_object.prune();
    }
}
