//! What acceptor and handlers count for operators, in memory that they share.
//!
//! A handler that was taken over can write any number here. So nothing but STATUS may read it, and no decision may depend
//! on it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::system::memory::SharedWords;

/// A counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counter {
    /// Connections accepted since the server started. Written by the acceptor alone.
    Connections,
    /// Living handlers. Written by the acceptor alone.
    Handlers,
    /// Clients that the acceptor refused because a descriptor, memory or a process was missing.
    Busy,
    /// Violations of the protocol that a handler refused.
    Protocol,
    /// Bets that a handler refused because they are malformed, or not of the session's agency.
    Bets,
    /// ENDs and requests for results that a handler refused because of their agency.
    Agency,
}

const COUNTERS: usize = Counter::Agency as usize + 1;

/// All counters.
#[derive(Debug)]
pub struct SharedCounters(SharedWords<COUNTERS>);

impl SharedCounters {
    /// Map memory that children inherit, with all counters at 0.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(SharedWords::new()?))
    }

    fn word(&self, counter: Counter) -> Option<&AtomicU64> {
        self.0.all().get(counter as usize)
    }

    pub(crate) fn add(&self, counter: Counter) {
        if let Some(word) = self.word(counter) {
            word.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn set(&self, counter: Counter, value: u64) {
        if let Some(word) = self.word(counter) {
            word.store(value, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self, counter: Counter) -> u64 {
        self.word(counter).map_or(0, |word| word.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_is_its_own_and_overflow_is_no_panic() {
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
