//! A pause after the system has refused a descriptor, memory or a process.

use std::io;
use std::time::{Duration, Instant};

use crate::logging::{Level, Outcome, event};

/// The usual pause.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// A pause, or a series of them until something succeeds.
#[derive(Debug, Default)]
pub(super) struct Pause(Option<Instant>);

impl Pause {
    pub(super) fn begin(&mut self, length: Duration) {
        self.0 = Some(Instant::now() + length);
    }

    /// Begins the usual pause because of an error. Only the first error of a series is logged: `"accept_connections"` or `"fork"`.
    pub(super) fn begin_after(&mut self, action: &str, error: &io::Error) {
        if self.0.is_none() {
            event(Level::Error, action, Outcome::Fail, &[("error", error)]);
        }
        self.begin(PAUSE);
    }

    /// Ends the pause and the series.
    pub(super) fn reset(&mut self) {
        self.0 = None;
    }

    /// When the pause ends; none if it is over.
    pub(super) fn end(&self, now: Instant) -> Option<Instant> {
        self.0.filter(|end| *end > now)
    }
}
