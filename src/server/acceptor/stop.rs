//! How the server stops: handlers first, then storage, which stores and answers what it has got; then what is left is
//! killed.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Acceptor;
use super::children::Child;
use super::listener::Listener;
use crate::server::ServerError;

/// After this from the signal on, storage is told to stop even if handlers are left.
const HANDLERS_HAVE: Duration = Duration::from_millis(450);
/// After this, what has not ended by itself is killed.
const ALL_HAVE: Duration = Duration::from_millis(700);
/// How long a process that was killed may take to end. One that takes longer can't be killed: see [`ServerError::Stuck`].
const KILLED_HAVE: Duration = Duration::from_millis(200);

/// How far the stop is: its stages, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopping {
    /// Handlers have been told to end; storage serves them until they have.
    Handlers {
        /// When the stop began.
        since: Instant,
    },
    /// Storage is to be told to stop, and its socket has not taken it yet.
    Untold {
        /// When the stop began.
        since: Instant,
    },
    /// Storage ends: it has been told to, or was still recovering and has been killed.
    Storage {
        /// When the stop began.
        since: Instant,
    },
    /// All that was left has been killed.
    Killed {
        /// When it was.
        at: Instant,
    },
    /// What was killed has not ended. It is not waited for.
    GivenUp,
}

impl Stopping {
    /// When the next stage begins at the latest.
    pub(super) fn due(self) -> Option<Instant> {
        match self {
            Self::Handlers { since } => Some(since + HANDLERS_HAVE),
            Self::Untold { since } | Self::Storage { since } => Some(since + ALL_HAVE),
            Self::Killed { at } => Some(at + KILLED_HAVE),
            Self::GivenUp => None,
        }
    }

    /// Whether storage is to be told now.
    pub(super) fn is_untold(self) -> bool {
        matches!(self, Self::Untold { .. })
    }

    /// Storage has been told.
    pub(super) fn told(self) -> Self {
        match self {
            Self::Untold { since } => Self::Storage { since },
            other => other,
        }
    }
}

impl Acceptor<'_> {
    /// The server ends by itself. The first reason counts.
    pub(super) fn fail(&mut self, failure: ServerError) {
        self.failure.get_or_insert(failure);
        self.stop();
    }

    /// Begins to stop, if it has not begun.
    pub(super) fn stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Stopping::Handlers { since: Instant::now() });
        self.listener = Listener::Closed;
        self.clients.waiting.clear();
        self.clients.newcomer = None;
        self.storage.start_at = None;
        self.children.signal(Signal::SIGTERM, |child| child != Child::Storage);
    }

    /// Whether nothing is left to be done.
    pub(super) fn has_stopped(&self) -> bool {
        self.stopping.is_some_and(|stage| stage == Stopping::GivenUp || self.children.is_empty())
    }

    /// Goes on to the next stage where it is time for it.
    pub(super) fn stop_further(&mut self) {
        let Some(stage) = self.stopping else { return };
        let is_due = stage.due().is_some_and(|due| Instant::now() >= due);
        let recovering = self.storage.process.as_ref().is_some_and(|storage| !storage.ready);
        let next = match stage {
            Stopping::Handlers { since } if recovering => {
                // It has nothing of anybody's, and would not listen.
                self.children.signal(Signal::SIGKILL, |child| child == Child::Storage);
                Stopping::Storage { since }
            }
            Stopping::Handlers { since } if is_due || self.children.handlers() == 0 => {
                Stopping::Untold { since }
            }
            Stopping::Untold { .. } | Stopping::Storage { .. } if is_due => {
                self.children.signal(Signal::SIGKILL, |_| true);
                Stopping::Killed { at: Instant::now() }
            }
            Stopping::Killed { .. } if is_due => {
                if let Some((pid, child)) = self.children.any() {
                    self.failure.get_or_insert(ServerError::Stuck { process: child.to_string(), pid });
                }
                Stopping::GivenUp
            }
            same => same,
        };
        self.stopping = Some(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stage_begins_well_within_a_second() {
        let since = Instant::now();
        let at = since + ALL_HAVE;
        let stages = [
            Stopping::Handlers { since },
            Stopping::Untold { since },
            Stopping::Storage { since },
            Stopping::Killed { at },
        ];
        assert_eq!(
            stages.map(|stage| stage.due().map(|due| (due - since).as_millis())),
            [Some(450), Some(700), Some(700), Some(900)]
        );
        assert_eq!(Stopping::GivenUp.due(), None);
    }
}
