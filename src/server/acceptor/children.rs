//! The acceptor's children: the one table of living handlers, and the storage process with its control socket.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::ipc::control::AcceptorEnd;
use crate::ipc::message::ClientSerial;
use crate::system::process::signal_child;

/// Living handlers, and whom each is for.
#[derive(Debug, Default)]
pub struct Handlers(HashMap<Pid, ClientSerial>);

impl Handlers {
    /// A handler was forked.
    pub fn add(&mut self, pid: Pid, client: ClientSerial) {
        self.0.insert(pid, client);
    }

    /// A process has ended: whom it was for, if it was a handler.
    pub fn remove(&mut self, pid: Pid) -> Option<ClientSerial> {
        self.0.remove(&pid)
    }

    /// How many are alive.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Sends a signal to all of them.
    pub fn signal_all(&self, signal: Signal) {
        self.0.keys().for_each(|pid| signal_child(*pid, signal));
    }
}

/// The storage process.
#[derive(Debug)]
pub struct StorageProcess {
    /// Its number.
    pub pid: Pid,
    /// What is said to it goes here.
    pub control: AcceptorEnd,
    /// Whether it has recovered and takes requests.
    pub ready: bool,
}

/// How often the storage process died lately.
#[derive(Debug, Default)]
pub struct Deaths {
    lately: VecDeque<Instant>,
    total: u64,
}

const WINDOW: Duration = Duration::from_secs(10);
/// More deaths than these within the window are not bad luck.
const TOLERATED: usize = 5;

impl Deaths {
    /// It died now. False where that was once too often.
    #[must_use]
    pub fn add(&mut self, now: Instant) -> bool {
        self.total += 1;
        self.lately.push_back(now);
        self.lately.retain(|death| now.duration_since(*death) < WINDOW);
        self.lately.len() <= TOLERATED
    }

    /// How often in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_deaths_in_ten_seconds_are_tolerated_and_a_sixth_is_not() {
        let mut deaths = Deaths::default();
        let start = Instant::now();
        for second in 0..5 {
            assert!(deaths.add(start + Duration::from_secs(second)));
        }
        assert!(deaths.add(start + Duration::from_millis(10_100)), "the first is forgotten by then");
        assert!(!deaths.add(start + Duration::from_millis(10_200)));
        assert_eq!(deaths.total(), 7);
    }
}
