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
        self.0.get(counter as usize)
    }

    pub fn add(&self, counter: Counter) {
        self.word(counter).map(|word| word.fetch_add(1, Ordering::Relaxed));
    }

    pub fn set(&self, counter: Counter, value: u64) {
        self.word(counter).inspect(|word| word.store(value, Ordering::Relaxed));
    }

    pub fn get(&self, counter: Counter) -> u64 {
        self.word(counter).map_or(0, |word| word.load(Ordering::Relaxed))
    }
}
