//! A pause after the system had no descriptor, memory or process to give.

use std::io;
use std::time::{Duration, Instant};

use crate::logging::{Level, Outcome, event};

const LENGTH: Duration = Duration::from_millis(200);

/// A pause, or a series of them until something succeeds. Each series is logged once.
#[derive(Debug, Default)]
pub(super) struct Pause(Option<Instant>);

impl Pause {
    /// Begins a pause because `action` has failed.
    pub(super) fn begin(&mut self, action: &str, error: &io::Error) {
        if self.0.is_none() {
            event(Level::Error, action, Outcome::Fail, &[("error", error)]);
        }
        self.0 = Some(Instant::now() + LENGTH);
    }

    /// Ends the series: the action has succeeded.
    pub(super) fn succeed(&mut self) {
        self.0 = None;
    }

    /// When the pause ends; none if it is over.
    pub(super) fn end(&self, now: Instant) -> Option<Instant> {
        self.0.filter(|end| *end > now)
    }
}
