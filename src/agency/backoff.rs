//! Retries with pauses between them. The pauses grow, to spare a server in trouble. They are random, so that agencies that
//! lost their server together do not all come back together.

use std::io;
use std::mem;
use std::thread;
use std::time::{Duration, Instant};

use super::connection::ServerConnection;
use super::error::{AgencyError, AttemptError};
use super::progress::Progress;
use super::time_limits::{Event, TimeLimits};
use crate::logging::{self, Level, Outcome};
use crate::system::random;
use crate::tls::client::Target;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A failure for the same reason is logged as a WARNING at most once in this time, otherwise at DEBUG.
const REPEAT_WARNING: Duration = Duration::from_mins(1);

pub(super) struct Backoff<'a> {
    pub(super) server: &'a Target,
    /// Shows how far the attempts got, and the number of retries.
    pub(super) progress: &'a Progress,
    pub(super) time_limits: TimeLimits,
    /// The next pause is at most this long.
    next: Duration,
    /// The furthest that an attempt got.
    milestone: u64,
    /// The last reason that was logged as a WARNING, and when.
    warned: Option<(String, Instant)>,
    /// Whether a WARNING was logged since the last call of `has_warned`.
    is_warning_new: bool,
}

impl<'a> Backoff<'a> {
    pub(super) fn new(server: &'a Target, progress: &'a Progress, time_limits: TimeLimits) -> Self {
        let next = FIRST_PAUSE;
        Self { server, progress, time_limits, next, milestone: 0, warned: None, is_warning_new: false }
    }

    /// Repeats an attempt until it succeeds or fails for good.
    pub(super) fn retry<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<T, AttemptError>,
    ) -> Result<T, AgencyError> {
        loop {
            let started = Instant::now();
            self.time_limits.tell(Event::Connecting);
            match attempt(self) {
                Ok(value) => {
                    self.reset();
                    return Ok(value);
                }
                Err(AttemptError::Fatal(error)) => return Err(error),
                Err(error) => {
                    // An attempt that took so long was a pause in itself.
                    if started.elapsed() > LONGEST_PAUSE {
                        self.next = FIRST_PAUSE;
                    }
                    self.wait(&error);
                }
            }
        }
    }

    /// Connects for one message.
    pub(super) fn connect(&self) -> io::Result<ServerConnection> {
        ServerConnection::open(self.server).inspect(|_| self.time_limits.tell(Event::Connected))
    }

    /// Makes the pauses short again if this attempt got further than all before it.
    pub(super) fn achieved(&mut self, milestone: u64) {
        if milestone > self.milestone {
            self.milestone = milestone;
            self.reset();
        }
    }

    /// Returns whether a WARNING was logged since the last call.
    pub(super) fn has_warned(&mut self) -> bool {
        mem::take(&mut self.is_warning_new)
    }

    fn reset(&mut self) {
        self.next = FIRST_PAUSE;
        self.warned = None;
    }

    fn wait(&mut self, error: &AttemptError) {
        let pause = self.next_pause();
        self.time_limits.tell(Event::Failed(error.to_string()));
        self.progress.reconnecting();
        let level = self.level_of(error.to_string());
        let fields: [logging::Field<'_>; 3] =
            [("server_address", &self.server.address), ("error", error), ("retry_in_ms", &pause.as_millis())];
        logging::event(level, "connect", Outcome::Fail, &fields);
        thread::sleep(pause);
    }

    fn level_of(&mut self, reason: String) -> Level {
        let is_repeated = |(last, at): &(String, Instant)| *last == reason && at.elapsed() < REPEAT_WARNING;
        if self.warned.as_ref().is_some_and(is_repeated) {
            return Level::Debug;
        }
        self.warned = Some((reason, Instant::now()));
        self.is_warning_new = true;
        Level::Warning
    }

    fn next_pause(&mut self) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(LONGEST_PAUSE);
        let share = f64::from(random::number().unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        longest.mul_f64(0.5 + 0.5 * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_until_more_is_achieved() {
        let (server, progress) = (Target::plain(&"localhost:1"), Progress::hidden());
        let mut backoff = Backoff::new(&server, &progress, TimeLimits::default());
        let mut limit = FIRST_PAUSE;
        for _ in 0..10 {
            let pause = backoff.next_pause();
            assert!(pause >= limit / 2 && pause <= limit, "{pause:?} of {limit:?}");
            limit = (limit * 2).min(LONGEST_PAUSE);
        }
        assert_eq!(limit, LONGEST_PAUSE);
        backoff.achieved(5);
        assert!(backoff.next_pause() <= FIRST_PAUSE);
        backoff.achieved(5);
        assert!(backoff.next_pause() >= FIRST_PAUSE);
    }
}
