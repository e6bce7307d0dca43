//! Retries with pauses between them. The pauses grow, to spare a server in trouble. They are random, so that agencies that
//! lost their server together do not all come back together.

use std::mem;
use std::thread;
use std::time::{Duration, Instant};

use super::connection::ServerConnection;
use super::error::{AgencyError, AttemptError, ConnectionLost};
use super::progress::Progress;
use super::time_limits::TimeLimits;
use crate::logging::{self, Level, Outcome};
use crate::system::random;
use crate::tls::client::Target;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A failure for the same reason is logged as a WARNING at most once in this time, otherwise at DEBUG.
const REPEAT_WARNING: Duration = Duration::from_mins(1);

pub(super) struct Backoff<'a> {
    server: &'a Target,
    /// The next pause is at most this long.
    next: Duration,
    /// The furthest that an attempt got.
    milestone: u64,
    /// The last reason that was logged as a WARNING, and when.
    warned: Option<(String, Instant)>,
    /// Whether a WARNING was logged since the last call of `has_warned`.
    is_warning_new: bool,
    /// Shows the number of retries.
    progress: Option<&'a Progress>,
    pub(super) time_limits: TimeLimits,
}

impl<'a> Backoff<'a> {
    pub(super) fn new(server: &'a Target, progress: Option<&'a Progress>, time_limits: TimeLimits) -> Self {
        Self {
            server,
            next: FIRST_PAUSE,
            milestone: 0,
            warned: None,
            is_warning_new: false,
            progress,
            time_limits,
        }
    }

    /// Repeats an attempt until it succeeds or fails for good.
    pub(super) fn retry<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<T, AttemptError>,
    ) -> Result<T, AgencyError> {
        loop {
            let started = Instant::now();
            self.time_limits.connecting();
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
    pub(super) fn connect(&mut self) -> Result<ServerConnection, ConnectionLost> {
        ServerConnection::open(self.server).inspect(|_| self.time_limits.connected())
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
        self.time_limits.failed(error);
        if let Some(progress) = self.progress {
            progress.reconnecting();
        }
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
        let server = Target::new("localhost:1".to_owned(), None).unwrap();
        let mut backoff = Backoff::new(&server, None, TimeLimits::default());
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

    #[test]
    fn a_reason_is_a_warning_once_until_it_changes_or_more_is_achieved() {
        let server = Target::new("localhost:1".to_owned(), None).unwrap();
        let mut backoff = Backoff::new(&server, None, TimeLimits::default());
        let mut levels = |reasons: &[&str]| -> Vec<Level> {
            reasons.iter().map(|reason| backoff.level_of((*reason).to_owned())).collect()
        };
        assert_eq!(levels(&["a", "a", "b"]), [Level::Warning, Level::Debug, Level::Warning]);
        backoff.achieved(1);
        assert_eq!(backoff.level_of("b".to_owned()), Level::Warning);
        assert!(backoff.has_warned() && !backoff.has_warned());
    }
}
