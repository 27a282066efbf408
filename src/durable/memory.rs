//! The memory of objects, and the choice of those that leave it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::actor::ObjectHandle;
use super::error::ObjectError;
use crate::metrics::Metrics;

/// Objects that are looked at for one that can leave.
const MAX_LOOKS: usize = 1024;

/// Objects that leave at a time.
const MAX_EVICTIONS: usize = 8;

/// The objects in memory, in the order in which they are looked at: one that was used since it was last looked at
/// gets a second chance.
#[derive(Debug)]
pub struct Memory {
    max_bytes: usize,
    loaded: Mutex<VecDeque<ObjectHandle>>,
    metrics: Arc<Metrics>,
}

impl Memory {
    /// Memory for `max_bytes` of objects.
    pub fn new(max_bytes: usize, metrics: Arc<Metrics>) -> Self {
        Self { max_bytes, loaded: Mutex::default(), metrics }
    }

    /// Records that an object's task was started.
    pub fn add(&self, handle: ObjectHandle) {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that left by themselves are still in the queue.
        let running = usize::try_from(self.metrics.durable_loaded.get()).unwrap_or(0);
        if loaded.len() > 2 * running + MAX_LOOKS {
            loaded.retain(|handle| !handle.commands.is_closed());
        }
        loaded.push_back(handle);
    }

    /// Makes space for more, by evicting objects that are not in use.
    ///
    /// # Errors
    /// [`ObjectError::Full`] if all are in use, and take more than a quarter beyond the limit.
    pub fn admit(&self) -> Result<(), ObjectError> {
        let bytes = usize::try_from(self.metrics.durable_loaded_bytes.get()).unwrap_or(0);
        if bytes <= self.max_bytes {
            return Ok(());
        }
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut evicted = 0;
        for _ in 0..(2 * loaded.len()).min(MAX_LOOKS) {
            let Some(handle) = loaded.pop_front() else { break };
            if handle.commands.is_closed() {
                continue;
            }
            let shared = &handle.shared;
            if shared.is_used.swap(false, Ordering::Relaxed) || shared.sockets.load(Ordering::Relaxed) > 0 {
                loaded.push_back(handle);
                continue;
            }
            shared.evict.cancel();
            evicted += 1;
            if evicted == MAX_EVICTIONS {
                break;
            }
        }
        let is_full = evicted == 0 && bytes > self.max_bytes + self.max_bytes / 4;
        if is_full { Err(ObjectError::Full("too many objects are in use")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Counted;

    #[test]
    fn unused_objects_leave_and_used_ones_stay() {
        let metrics = Metrics::new();
        let memory = Memory::new(100, metrics.clone());
        let (handles, inboxes): (Vec<_>, Vec<_>) = (0..4).map(|_| ObjectHandle::new()).unzip();
        handles.iter().for_each(|handle| memory.add(handle.clone()));
        let mut bytes = Counted::new(&metrics.durable_loaded_bytes, 100);
        let evicted = || handles.iter().map(|handle| handle.shared.evict.is_cancelled()).collect::<Vec<_>>();
        memory.admit().unwrap();
        assert_eq!(evicted(), [false; 4]);
        handles[0].shared.is_used.store(true, Ordering::Relaxed);
        handles[2].shared.sockets.store(1, Ordering::Relaxed);
        bytes.set(126);
        memory.admit().unwrap();
        assert_eq!(evicted(), [true, true, false, true], "the first was not used again");
        assert!(memory.admit().is_err(), "sockets hold the last one");
        bytes.set(120);
        memory.admit().unwrap();
        drop(inboxes);
        bytes.set(126);
        assert!(memory.admit().is_err(), "nothing is left");
    }
}
