//! The pauses between two tries: growing, so that a server that is down is not pestered, and jittered, so that the
//! agencies that lost it together do not come back together.

use std::thread;
use std::time::Duration;

use super::error::{AgencyError, Lost, Trouble};
use super::progress::Progress;
use crate::logging::{self, Level, Outcome};
use crate::system::random;

const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
pub const LONGEST: Duration = Duration::from_secs(5);

/// How long to wait before the next try.
#[derive(Debug)]
pub struct Pauses<'a> {
    next: Duration,
    /// Where each of them is counted.
    progress: Option<&'a Progress>,
}

impl Default for Pauses<'_> {
    fn default() -> Self {
        Self { next: FIRST, progress: None }
    }
}

impl<'a> Pauses<'a> {
    /// Pauses that are shown.
    pub fn shown(progress: &'a Progress) -> Self {
        Self { progress: Some(progress), ..Self::default() }
    }

    /// Says that something was achieved: the next pause is a short one again.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }

    /// Tries until the connection holds.
    ///
    /// # Errors
    /// What another try would not mend.
    pub fn patiently<T>(
        &mut self,
        mut attempt: impl FnMut() -> Result<T, Trouble>,
    ) -> Result<T, AgencyError> {
        loop {
            match attempt() {
                Ok(done) => {
                    self.reset();
                    return Ok(done);
                }
                Err(Trouble::Fatal(error)) => return Err(error),
                Err(Trouble::Lost(lost)) => self.wait(&lost),
            }
        }
    }

    /// Says in the log what was lost and waits.
    pub fn wait(&mut self, lost: &Lost) {
        let pause = self.next_pause();
        let pause_ms = pause.as_millis();
        if let Some(progress) = self.progress {
            progress.lost();
        }
        logging::event(
            Level::Warning,
            "connect",
            Outcome::Fail,
            &[("error", lost), ("retry_in_ms", &pause_ms)],
        );
        thread::sleep(pause);
    }

    fn next_pause(&mut self) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(LONGEST);
        let share = f64::from(random::number().unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        longest.mul_f64(0.5 + 0.5 * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_grow_up_to_the_longest_and_begin_anew() {
        let mut pauses = Pauses::default();
        let mut limit = FIRST;
        for _ in 0..10 {
            let pause = pauses.next_pause();
            assert!(pause >= limit / 2 && pause <= limit, "{pause:?} of {limit:?}");
            limit = (limit * 2).min(LONGEST);
        }
        assert_eq!(limit, LONGEST);
        pauses.reset();
        assert!(pauses.next_pause() <= FIRST);
    }
}
