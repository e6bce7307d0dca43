//! How the server stops: handlers first, then storage, which stores and answers what it has got; then what is left is
//! killed.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Acceptor;
use crate::ipc::control::ToStorage;
use crate::server::ServerError;
use crate::system::fd_passing::Sent;
use crate::system::process::signal_child;

/// After this from the signal on, storage is told to stop even if handlers are left.
const HANDLERS_HAVE: Duration = Duration::from_millis(450);
/// After this, what has not ended by itself is killed.
const ALL_HAVE: Duration = Duration::from_millis(700);

/// How far the stop is.
pub(super) struct Stopping {
    since: Instant,
    told_storage: bool,
    killed: bool,
}

impl Stopping {
    /// When the next step is due.
    pub(super) fn next_step(&self) -> Instant {
        self.since + if self.told_storage { ALL_HAVE } else { HANDLERS_HAVE }
    }
}

impl Acceptor<'_> {
    pub(super) fn fail(&mut self, failure: ServerError) {
        self.failure.get_or_insert(failure);
        self.stop();
    }

    pub(super) fn stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Stopping { since: Instant::now(), told_storage: false, killed: false });
        self.listener.socket = None;
        self.arrivals.waiting.clear();
        self.arrivals.newcomer = None;
        self.storage.start_at = None;
        self.handlers.signal_all(Signal::SIGTERM);
        self.signal_metrics(Signal::SIGTERM);
    }

    /// Storage is told to stop once no handler can send it more, or has had its time; then what is left is killed.
    pub(super) fn stop_further(&mut self) -> io::Result<()> {
        let Some(stopping) = &mut self.stopping else { return Ok(()) };
        let elapsed = stopping.since.elapsed();
        if let Some(storage) = &self.storage.process {
            if !storage.ready && !stopping.killed {
                // It is still recovering, has nothing of anybody's, and would not listen.
                signal_child(storage.pid, Signal::SIGKILL);
                stopping.told_storage = true;
            } else if !stopping.told_storage && (self.handlers.count() == 0 || elapsed >= HANDLERS_HAVE) {
                stopping.told_storage = storage.control.send(ToStorage::Stop)? == Sent::Done;
            }
        }
        if elapsed >= ALL_HAVE && !stopping.killed {
            stopping.killed = true;
            self.handlers.signal_all(Signal::SIGKILL);
            self.signal_metrics(Signal::SIGKILL);
            if let Some(storage) = &self.storage.process {
                signal_child(storage.pid, Signal::SIGKILL);
            }
        }
        Ok(())
    }
}
