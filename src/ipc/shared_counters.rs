//! What handlers refuse, counted for STATUS in memory that they share.
//!
//! A handler that was taken over can write any number here, so nothing depends on these counters. It is the only memory
//! that handlers share and can write.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

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
}

const COUNTERS: usize = Counter::NotProven as usize + 1;

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

    pub fn get(&self, counter: Counter) -> u64 {
        self.word(counter).map_or(0, |word| word.load(Ordering::Relaxed))
    }
}
