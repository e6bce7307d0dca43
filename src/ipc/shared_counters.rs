//! What acceptor and handlers count for STATUS, in memory that they share.
//!
//! A handler that was taken over can write any number here, so nothing depends on these counters.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::system::memory::SharedWords;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Connections accepted since the server started. Only the acceptor writes it.
    Connections,
    /// Living handlers. Only the acceptor writes it.
    Handlers,
    /// Clients that the acceptor rejected because the system had no descriptor, memory or process for them.
    Busy,
    /// Messages that break the protocol, refused by a handler.
    Protocol,
    /// Bets that are malformed or of a wrong agency, refused by a handler.
    Bets,
    /// Messages of an agency that does not take part, or is not the session's, refused by a handler.
    Agency,
}

const COUNTERS: usize = Counter::Agency as usize + 1;

#[derive(Debug)]
pub struct SharedCounters(SharedWords<COUNTERS>);

impl SharedCounters {
    pub fn new() -> io::Result<Self> {
        Ok(Self(SharedWords::new()?))
    }

    fn word(&self, counter: Counter) -> Option<&AtomicU64> {
        self.0.all().get(counter as usize)
    }

    pub fn add(&self, counter: Counter) {
        if let Some(word) = self.word(counter) {
            word.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn set(&self, counter: Counter, value: u64) {
        if let Some(word) = self.word(counter) {
            word.store(value, Ordering::Relaxed);
        }
    }

    pub fn get(&self, counter: Counter) -> u64 {
        self.word(counter).map_or(0, |word| word.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_is_separate_and_wraps_around() {
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
