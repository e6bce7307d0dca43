//! Which agencies have finished: an array that storage and all handlers share, with a robust process-shared mutex.
//!
//! The array has one byte for each agency, at the agency's number. **If an entry is set, the agency's END is on disk.** The
//! reverse holds unless the array is marked as stale: when storage finds the mutex locked, it does not wait, but marks the
//! array as stale and sets the entries later. If a process dies while it holds the mutex, nothing has to be repaired: each
//! entry is true by itself.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::failpoint::kill_point;
use crate::lottery::AgencyId;
use crate::lottery::agency_id::MAX_AGENCIES;
use crate::system::shared_mutex::SharedMutex;

/// How long a handler waits for the mutex before it asks storage instead.
const LOCK_TIMEOUT: Duration = Duration::from_millis(50);

/// The shared array. Its first byte, which is no agency's, marks it as stale.
#[derive(Debug)]
pub struct FinishedAgencies(SharedMutex<{ MAX_AGENCIES as usize + 1 }>);

impl FinishedAgencies {
    /// Makes an array that is stale until storage first publishes.
    pub fn new() -> io::Result<Self> {
        let this = Self(SharedMutex::new()?);
        this.stale().store(1, Ordering::SeqCst);
        Ok(this)
    }

    fn stale(&self) -> &AtomicU8 {
        let [stale, ..] = self.0.bytes();
        stale
    }

    /// For handlers: whether some of 1..=`agencies` are known not to have finished. False also if only storage can tell,
    /// because the array is stale or the mutex is locked.
    pub fn some_unfinished(&self, agencies: u16) -> bool {
        let locked = self.0.lock_within(LOCK_TIMEOUT);
        kill_point!("handler_has_mutex");
        let Ok(Some(_guard)) = locked else { return false };
        let mut entries = self.0.bytes().iter().skip(1).take(agencies.into());
        let unfinished = entries.any(|entry| entry.load(Ordering::Acquire) != 1);
        // Read after the entries: storage marks the array as stale before it answers an END whose entry is not set.
        unfinished && self.stale().load(Ordering::SeqCst) == 0
    }

    /// For storage: sets the entries of the agencies that have finished. False if the mutex is locked or damaged: the array
    /// is then stale until a later call succeeds.
    #[must_use]
    pub fn publish(&self, finished: impl Iterator<Item = AgencyId>) -> bool {
        let Ok(Some(_guard)) = self.0.try_lock() else {
            self.stale().store(1, Ordering::SeqCst);
            return false;
        };
        kill_point!("storage_has_mutex");
        for agency in finished {
            if let Some(entry) = self.0.bytes().get(usize::from(agency.get())) {
                entry.store(1, Ordering::Release);
            }
        }
        self.stale().store(0, Ordering::SeqCst);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_that_has_not_been_updated_is_stale_until_it_is() {
        let agencies = |numbers: [u16; 2]| numbers.into_iter().filter_map(AgencyId::new);
        let array = FinishedAgencies::new().unwrap();
        assert!(!array.some_unfinished(3));
        assert!(array.publish(agencies([1, 1])));
        assert!(array.some_unfinished(3));
        let held = array.0.try_lock().unwrap().unwrap();
        assert!(!array.publish(agencies([1, 2])));
        assert!(!array.some_unfinished(3));
        drop(held);
        assert!(!array.some_unfinished(3));
        assert!(array.publish(agencies([1, 2])));
        assert!(array.some_unfinished(3));
        assert!(!array.some_unfinished(2));
    }
}
