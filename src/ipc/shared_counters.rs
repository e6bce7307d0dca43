//! What acceptor and handlers count for the operators, in memory that all of the server's processes share.
//!
//! A handler that was taken over can write any number here, so these are statistics and nothing else: no decision
//! hangs on them, and every value of every one of them is taken as it is. A handler touches the memory only when it
//! refuses something, or is asked for a status.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::system::memory::SharedWords;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Connections accepted since the server started; written by the acceptor alone.
    Connections,
    /// Handlers that live; written by the acceptor alone.
    Handlers,
    /// Clients that the acceptor sent away, as there was no descriptor, memory or process for them.
    Busy,
    /// Refused by a handler: what the protocol does not allow.
    Protocol,
    /// Refused by a handler: bets that are malformed, or of an agency that may not bring them.
    Bets,
    /// Refused by a handler: an END or a request for results of an agency that does not take part, or is not the
    /// session's.
    Agency,
}

const COUNTERS: usize = Counter::Agency as usize + 1;

/// The counters.
#[derive(Debug)]
pub struct SharedCounters(SharedWords<COUNTERS>);

impl SharedCounters {
    /// All of them 0.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new() -> io::Result<Self> {
        Ok(Self(SharedWords::new()?))
    }

    fn word(&self, counter: Counter) -> Option<&AtomicU64> {
        self.0.all().get(counter as usize)
    }

    /// One more.
    pub fn add(&self, counter: Counter) {
        if let Some(word) = self.word(counter) {
            word.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So many now.
    pub fn set(&self, counter: Counter, value: u64) {
        if let Some(word) = self.word(counter) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// How many.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.word(counter).map_or(0, |word| word.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_for_itself_and_none_minds_a_false_number() {
        let counters = SharedCounters::new().unwrap();
        counters.add(Counter::Agency);
        counters.set(Counter::Bets, u64::MAX);
        counters.add(Counter::Bets);
        counters.add(Counter::Connections);
        let all = [Counter::Connections, Counter::Handlers, Counter::Busy, Counter::Protocol, Counter::Bets];
        assert_eq!(all.map(|counter| counters.get(counter)), [1, 0, 0, 0, 0]);
        assert_eq!(counters.get(Counter::Agency), 1);
    }
}
