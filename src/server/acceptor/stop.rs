//! The stages of a stop: first handlers end; then storage, after it has stored and answered what it has received; then the
//! children that are left are killed.

use std::time::{Duration, Instant};

/// How long handlers may take to end. Then storage is told to stop all the same.
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
    /// A killed child has not ended. The acceptor waits for it no longer.
    GiveUp,
}

impl Stop {
    pub(super) fn begin(now: Instant) -> Self {
        Self { stage: Stage::Handlers, due: now + HANDLERS_HAVE }
    }

    /// Begins the next stage if it is due, and returns it. Without handlers the stage of storage is due at once.
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
