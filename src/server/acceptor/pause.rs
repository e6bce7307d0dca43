//! A pause after the system has refused a descriptor, memory or a process.

use std::time::{Duration, Instant};

/// A pause, or a series of them until something succeeds.
#[derive(Debug, Default)]
pub(super) struct Pause(Option<Instant>);

impl Pause {
    /// Begins a pause. Returns whether it is the first of its series. Only the first is logged.
    pub(super) fn begin(&mut self, length: Duration) -> bool {
        self.0.replace(Instant::now() + length).is_none()
    }

    /// Ends the series: something has succeeded.
    pub(super) fn succeed(&mut self) {
        self.0 = None;
    }

    /// When the pause ends; none if it is over.
    pub(super) fn end(&self, now: Instant) -> Option<Instant> {
        self.0.filter(|end| *end > now)
    }
}
