//! Which agencies have finished: an array that storage and all handlers share, under a robust process-shared mutex.
//!
//! The array has one byte per agency, in the order of their numbers. **If an entry is set, the agency's END is on disk.**
//! The reverse holds unless the array is marked as stale: when storage finds the mutex locked, it does not wait, but marks
//! the array as stale and sets the entries later. If a process dies while it holds the mutex, nothing has to be repaired:
//! each entry is true by itself.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::failpoint::kill_point;
use crate::lottery::AgencyId;
use crate::lottery::agency_id::MAX_AGENCIES;
use crate::system::shared_mutex::SharedMutex;

/// How long a handler waits for the mutex before it asks storage instead.
const LOCK_TIMEOUT: Duration = Duration::from_millis(50);

/// The shared array.
#[derive(Debug)]
pub struct FinishedAgencies(SharedMutex);

impl FinishedAgencies {
    /// Makes an array that is stale until storage first publishes.
    pub fn new() -> io::Result<Self> {
        let shared = SharedMutex::new(usize::from(MAX_AGENCIES))?;
        shared.flag().store(true, Ordering::SeqCst);
        Ok(Self(shared))
    }

    /// For handlers: whether some of 1..=`agencies` are known not to have finished. False also if only storage can tell,
    /// because the array is stale or the mutex is locked.
    pub fn some_unfinished(&self, agencies: u16) -> bool {
        let locked = self.0.lock_within(LOCK_TIMEOUT);
        kill_point!("handler_has_mutex");
        let Ok(Some(entries)) = locked else { return false };
        let unfinished = entries.iter().take(agencies.into()).any(|entry| *entry != 1);
        // Read after the entries: storage marks the array as stale before it answers an END whose entry is not set.
        unfinished && !self.0.flag().load(Ordering::SeqCst)
    }

    /// For storage: sets the entries of the agencies that have finished. False if the mutex is locked or damaged: the array
    /// is then stale until a later call succeeds.
    #[must_use]
    pub fn publish(&self, finished: impl Iterator<Item = AgencyId>) -> bool {
        let Ok(Some(mut entries)) = self.0.try_lock() else {
            self.0.flag().store(true, Ordering::SeqCst);
            return false;
        };
        kill_point!("storage_has_mutex");
        for agency in finished {
            if let Some(entry) = entries.get_mut(agency.index()) {
                *entry = 1;
            }
        }
        self.0.flag().store(false, Ordering::SeqCst);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agency(number: u16) -> AgencyId {
        AgencyId::new(number).unwrap()
    }

    #[test]
    fn nothing_is_known_until_storage_publishes() {
        let array = FinishedAgencies::new().unwrap();
        assert!(!array.some_unfinished(3));
        assert!(array.publish([agency(1), agency(2)].into_iter()));
        assert!(!array.some_unfinished(2));
        assert!(array.some_unfinished(3));
    }

    #[test]
    fn an_array_that_could_not_be_updated_is_stale_until_it_is() {
        let array = FinishedAgencies::new().unwrap();
        assert!(array.publish([agency(1)].into_iter()));
        assert!(array.some_unfinished(3));
        let held = array.0.try_lock().unwrap().unwrap();
        assert!(!array.publish([agency(2)].into_iter()));
        assert!(!array.some_unfinished(3));
        drop(held);
        assert!(!array.some_unfinished(3));
        assert!(array.publish([agency(1), agency(2)].into_iter()));
        assert!(array.some_unfinished(3));
        assert!(!array.some_unfinished(2));
    }
}
