//! What handlers can read and not write: which agencies have ended, and whether clients wait for a place.
//!
//! An array has one byte for each agency, at the agency's number. **If an entry is set, the agency's END is on disk.** The
//! reverse holds unless the array is marked as stale. Storage sets entries under a robust process-shared mutex. If the mutex
//! is locked, storage does not wait: it marks the array as stale and sets the entries later. If a process dies while it holds
//! the mutex, the array needs no repair. Handlers read without the mutex, because an entry never changes once it is set.
//!
//! Where the system can't protect the memory from handlers, there is no array. Handlers then ask storage, and no handler gives
//! up its place early.

use std::io;
use std::sync::atomic::Ordering;

use crate::failpoint::kill_point;
use crate::lottery::AgencyId;
use crate::lottery::agency_id::MAX_AGENCIES;
use crate::system::shared_mutex::{BytesView, SharedMutex};

/// Not 0: the array lacks an END that is on disk. No agency has this number.
const STALE: usize = 0;
/// Not 0: all places are taken, and a client waits.
const CROWDED: usize = MAX_AGENCIES as usize + 1;

/// For storage and the acceptor.
#[derive(Debug)]
pub struct SharedState(Option<SharedMutex<{ CROWDED + 1 }>>);

impl SharedState {
    /// Makes an array that is stale until storage first publishes.
    pub fn new() -> Self {
        let this = Self(SharedMutex::new().ok());
        this.set(STALE, true);
        this
    }

    fn set(&self, index: usize, is_set: bool) {
        if let Some(byte) = self.0.as_ref().and_then(|mutex| mutex.bytes().get(index)) {
            byte.store(is_set.into(), Ordering::SeqCst);
        }
    }

    /// For storage: sets the entries of the agencies that have ended. False if the mutex is locked or damaged: the array
    /// is then stale until a later call succeeds.
    #[must_use]
    pub fn publish(&self, ended: impl Iterator<Item = AgencyId>) -> bool {
        let Some(mutex) = &self.0 else { return true };
        let Ok(Some(_guard)) = mutex.try_lock() else {
            self.set(STALE, true);
            return false;
        };
        kill_point("storage_has_mutex");
        for agency in ended {
            self.set(agency.get().into(), true);
        }
        self.set(STALE, false);
        true
    }

    /// For the acceptor: says whether all places are taken and a client waits.
    pub fn set_crowded(&self, is_crowded: bool) {
        self.set(CROWDED, is_crowded);
    }

    /// Runs `fork`. The child that it makes can write too; the other children can't.
    pub fn share_with_child(&self, fork: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match &self.0 {
            Some(mutex) => mutex.share_with_child(fork),
            None => fork(),
        }
    }

    /// For handlers.
    pub fn view(&self) -> SharedStateView<'_> {
        SharedStateView(self.0.as_ref().map(SharedMutex::view))
    }
}

/// What a handler sees of [`SharedState`].
#[derive(Debug, Clone, Copy)]
pub struct SharedStateView<'a>(Option<BytesView<'a>>);

impl SharedStateView<'_> {
    /// Whether some of 1..=`agencies` are known not to have ended. False also if only storage can tell.
    pub fn some_open(&self, agencies: u16) -> bool {
        let Some(bytes) = self.0 else { return false };
        let some_open = (1..=agencies).any(|agency| bytes.load(agency.into()) == 0);
        // Read after the entries: storage marks the array as stale before it answers an END whose entry is not set.
        some_open && bytes.load(STALE) == 0
    }

    /// Whether this agency is known to have ended.
    pub fn has_ended(&self, agency: AgencyId) -> bool {
        self.0.is_some_and(|bytes| bytes.load(agency.get().into()) != 0)
    }

    /// Whether all places are taken and a client waits.
    pub fn is_crowded(&self) -> bool {
        self.0.is_some_and(|bytes| bytes.load(CROWDED) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_that_has_not_been_updated_is_stale_until_it_is() {
        let state = SharedState::new();
        let view = state.view();
        let publish_up_to = |agency| state.publish((1..=agency).filter_map(AgencyId::new));
        assert!(!view.some_open(3));
        assert!(publish_up_to(1));
        assert!(view.some_open(3));
        let held = state.0.as_ref().unwrap().try_lock().unwrap().unwrap();
        assert!(!publish_up_to(2));
        assert!(!view.some_open(3));
        drop(held);
        assert!(!view.some_open(3));
        assert!(publish_up_to(2));
        assert!(view.some_open(3));
        assert!(!view.some_open(2));
    }

    #[test]
    fn the_last_agency_and_the_other_marks_do_not_share_a_byte() {
        let state = SharedState::new();
        state.set_crowded(true);
        assert!(state.publish(AgencyId::new(MAX_AGENCIES).into_iter()));
        state.set_crowded(false);
        let view = state.view();
        assert!(!view.is_crowded());
        assert!(view.some_open(MAX_AGENCIES));
        assert_eq!(view.0.unwrap().load(MAX_AGENCIES.into()), 1);
    }
}
