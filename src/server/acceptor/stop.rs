//! The stages of a stop: handlers first; then storage, which stores and answers what it has received; then what is left is
//! killed.

use std::time::{Duration, Instant};

/// How long handlers may take before storage is told to stop in spite of them.
const HANDLERS_HAVE: Duration = Duration::from_millis(450);
/// How long all children may take before they are killed.
const ALL_HAVE: Duration = Duration::from_millis(700);
/// How long a killed child may take to end. One that takes longer waits in the kernel and can't be killed.
const KILLED_HAVE: Duration = Duration::from_millis(200);

/// The stage that a stop has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Handlers have got SIGTERM. Storage serves them until they have ended.
    Handlers { since: Instant },
    /// Storage has been told to stop, or has been killed.
    Storage { since: Instant },
    /// All children that were left have been killed.
    Killed { at: Instant },
    /// A child that was killed has not ended. It is no longer waited for.
    GivenUp,
}

/// What the acceptor must do when a stage begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopAction {
    TellStorage,
    KillStorage,
    KillAll,
    GiveUp,
}

impl Stop {
    pub(super) fn begin(now: Instant) -> Self {
        Self::Handlers { since: now }
    }

    /// When the next stage begins at the latest.
    pub(super) fn due(self) -> Option<Instant> {
        match self {
            Self::Handlers { since } => Some(since + HANDLERS_HAVE),
            Self::Storage { since } => Some(since + ALL_HAVE),
            Self::Killed { at } => Some(at + KILLED_HAVE),
            Self::GivenUp => None,
        }
    }

    /// Goes on to the next stage if it is time. A storage that still recovers has nothing to store, and does not listen.
    pub(super) fn advance(&mut self, now: Instant, handlers: u32, recovering: bool) -> Option<StopAction> {
        let is_due = self.due().is_some_and(|due| now >= due);
        let (next, action) = match *self {
            Self::Handlers { since } if recovering => (Self::Storage { since }, StopAction::KillStorage),
            Self::Handlers { since } if is_due || handlers == 0 => {
                (Self::Storage { since }, StopAction::TellStorage)
            }
            Self::Storage { .. } if is_due => (Self::Killed { at: now }, StopAction::KillAll),
            Self::Killed { .. } if is_due => (Self::GivenUp, StopAction::GiveUp),
            _ => return None,
        };
        *self = next;
        Some(action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn storage_is_told_once_the_handlers_have_ended_or_their_time_is_over() {
        let start = Instant::now();
        let mut stop = Stop::begin(start);
        assert_eq!(stop.advance(at(start, 449), 1, false), None);
        assert_eq!(stop.clone().advance(at(start, 10), 0, false), Some(StopAction::TellStorage));
        assert_eq!(stop.advance(at(start, 450), 1, false), Some(StopAction::TellStorage));
        assert_eq!(stop.due(), Some(at(start, 700)));
    }

    #[test]
    fn what_can_not_be_killed_is_given_up_within_a_second() {
        let start = Instant::now();
        let mut stop = Stop::begin(start);
        assert_eq!(stop.advance(start, 1, true), Some(StopAction::KillStorage));
        assert_eq!(stop.advance(at(start, 699), 1, true), None);
        assert_eq!(stop.advance(at(start, 700), 1, true), Some(StopAction::KillAll));
        assert_eq!(stop.advance(at(start, 899), 0, true), None);
        assert_eq!(stop.advance(at(start, 900), 0, true), Some(StopAction::GiveUp));
        assert_eq!((stop, stop.due()), (Stop::GivenUp, None));
    }
}
