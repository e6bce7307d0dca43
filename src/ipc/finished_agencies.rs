//! Which agencies have finished: an array in memory that the storage service and all handlers share, under a robust
//! mutex of theirs.
//!
//! An entry is one byte per agency, in the order of their numbers. **An entry that is set means that the agency's END
//! is on disk.** The reverse holds as long as the array is not stale: a storage service that
//! finds the mutex locked does not wait for it, but marks the array as stale, goes on, and sets the entries later.
//! Nothing has to be repaired after a process died with the mutex locked: each store to the array is true by itself.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::failpoint::kill_point;
use crate::lottery::AgencyId;
use crate::lottery::agency_id::MAX_AGENCIES;
use crate::system::shared_mutex::SharedMutex;

/// How long a handler waits for the mutex before it asks the storage service instead.
const PATIENCE: Duration = Duration::from_millis(50);

/// The shared array.
#[derive(Debug)]
pub struct FinishedAgencies(SharedMutex);

/// What the array tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// All have.
    Yes,
    /// Some have not, or nobody can say: the storage service knows.
    Perhaps,
    /// Some have not.
    No,
}

impl FinishedAgencies {
    /// An array that says nothing yet: it is stale until the storage service has filled it for the first time.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new() -> io::Result<Self> {
        let shared = SharedMutex::new(usize::from(MAX_AGENCIES))?;
        shared.flag().store(true, Ordering::SeqCst);
        Ok(Self(shared))
    }

    /// For a handler: whether all of 1..`agencies` have finished.
    #[must_use]
    pub fn all_finished(&self, agencies: u16) -> Finished {
        self.read(|entries| entries.iter().take(agencies.into()).all(|entry| *entry == 1))
    }

    fn read(&self, question: impl Fn(&[u8]) -> bool) -> Finished {
        let locked = self.0.lock_within(PATIENCE);
        kill_point!("handler_has_mutex");
        match locked {
            Ok(Some(entries)) if question(&entries) => Finished::Yes,
            // The flag is looked at after the entries: the storage service raises it before it answers an END whose
            // entry it could not set.
            Ok(Some(_)) if !self.0.flag().load(Ordering::SeqCst) => Finished::No,
            Ok(_) | Err(_) => Finished::Perhaps,
        }
    }

    /// For the storage service: sets the entries of the agencies that have finished. False where somebody has the
    /// mutex, or has ruined it: the array is then marked as stale, and this has to be called again.
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
    fn nothing_is_certain_until_it_was_filled() {
        let array = FinishedAgencies::new().unwrap();
        assert_eq!(array.all_finished(2), Finished::Perhaps);
        assert!(array.publish([agency(1), agency(2)].into_iter()));
        assert_eq!(array.all_finished(2), Finished::Yes);
        assert_eq!(array.all_finished(3), Finished::No);
    }

    #[test]
    fn while_somebody_holds_the_mutex_only_what_is_set_is_certain() {
        let array = FinishedAgencies::new().unwrap();
        assert!(array.publish([agency(1)].into_iter()));
        let held = array.0.try_lock().unwrap().unwrap();
        assert!(!array.publish([agency(2)].into_iter()));
        assert_eq!(array.all_finished(2), Finished::Perhaps);
        drop(held);
        assert_eq!(array.all_finished(1), Finished::Yes);
        assert_eq!(array.all_finished(2), Finished::Perhaps);
        assert!(array.publish([agency(1), agency(2)].into_iter()));
        assert_eq!(array.all_finished(2), Finished::Yes);
    }
}
