//! What handlers refuse, counted for STATUS in memory that they share, and which agencies have polled, for the log.
//!
//! A handler that was taken over can write anything here, so nothing depends on it. It is the only memory that handlers
//! share and can write.

use std::io;
use std::sync::atomic::Ordering;

use crate::lottery::AgencyId;
use crate::system::memory::SharedWords;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Messages that break the protocol.
    Protocol,
    /// Bets that are malformed or of a wrong agency.
    Bets,
    /// Messages of an agency that does not take part, or is not the session's.
    Agency,
    /// Messages that the client may not send without a certificate, or with its own, refused by a handler.
    NotProven,
    /// Requests for the status: not refused, but no client's work either.
    StatusRequests,
}

const COUNTERS: usize = Counter::StatusRequests as usize + 1;
/// One bit for each agency that a classic message can name.
const POLLED: usize = 256 / 64;

#[derive(Debug)]
pub struct SharedCounters(SharedWords<{ COUNTERS + POLLED }>);

impl SharedCounters {
    pub fn new() -> io::Result<Self> {
        Ok(Self(SharedWords::new()?))
    }

    pub fn add(&self, counter: Counter) {
        self.0.get(counter as usize).map(|word| word.fetch_add(1, Ordering::Relaxed));
    }

    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(counter as usize).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Notes that the agency has asked for its result before the draw. Returns whether it had done so before.
    pub fn polls_again(&self, agency: AgencyId) -> bool {
        let number = usize::from(agency.get());
        let bit = 1 << (number % 64);
        let word = self.0.get(COUNTERS + number / 64);
        word.is_some_and(|word| word.fetch_or(bit, Ordering::Relaxed) & bit != 0)
    }
}
