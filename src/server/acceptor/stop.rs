//! The stages of a stop: handlers first; then storage, which stores and answers what it has received; then what is left is
//! killed.

use std::time::{Duration, Instant};

/// How long handlers may take before storage is told to stop in spite of them.
const HANDLERS_HAVE: Duration = Duration::from_millis(450);
/// How much longer all children may take before they are killed.
const STORAGE_HAS: Duration = Duration::from_millis(250);
/// How long a killed child may take to end. One that takes longer waits in the kernel and can't be killed.
const KILLED_HAVE: Duration = Duration::from_millis(200);

/// A stop that has begun.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) stage: Stage,
    /// When the next stage begins at the latest.
    pub(super) due: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Handlers get SIGTERM. Storage serves them until they have ended.
    Handlers,
    /// Storage is told to stop.
    Storage,
    /// All children that are left are killed.
    Kill,
    /// A child that was killed has not ended. It is no longer waited for.
    GiveUp,
}

impl Stop {
    pub(super) fn begin(now: Instant) -> Self {
        Self { stage: Stage::Handlers, due: now + HANDLERS_HAVE }
    }

    /// Goes on to the next stage if it is time, and returns it. Storage need not wait for handlers if there are none.
    pub(super) fn advance(&mut self, now: Instant, has_handlers: bool) -> Option<Stage> {
        (self.stage, self.due) = match self.stage {
            Stage::Handlers if !has_handlers || now >= self.due => (Stage::Storage, self.due + STORAGE_HAS),
            Stage::Storage if now >= self.due => (Stage::Kill, now + KILLED_HAVE),
            Stage::Kill if now >= self.due => (Stage::GiveUp, self.due),
            _ => return None,
        };
        Some(self.stage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_takes_less_than_a_second_whatever_does_not_end() {
        let start = Instant::now();
        let mut stop = Stop::begin(start);
        let mut advance = |millis, handlers| stop.advance(start + Duration::from_millis(millis), handlers);
        assert_eq!(advance(449, true), None);
        assert_eq!(advance(450, true), Some(Stage::Storage));
        assert_eq!(advance(699, true), None);
        assert_eq!(advance(700, true), Some(Stage::Kill));
        assert_eq!(advance(899, false), None);
        assert_eq!(advance(900, false), Some(Stage::GiveUp));
    }

    #[test]
    fn storage_stops_once_no_handler_is_left() {
        let start = Instant::now();
        let mut stop = Stop::begin(start);
        assert_eq!(stop.advance(start, false), Some(Stage::Storage));
        assert_eq!(stop.due, start + Duration::from_millis(700));
    }
}
