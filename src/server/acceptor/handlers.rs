//! The one table of living handlers.

use std::collections::HashMap;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::ipc::client::ClientSerial;
use crate::system::process::signal_child;

/// Living handlers, and whom each is for.
#[derive(Debug, Default)]
pub(super) struct Handlers(HashMap<Pid, ClientSerial>);

impl Handlers {
    /// A handler was forked.
    pub(super) fn add(&mut self, pid: Pid, client: ClientSerial) {
        self.0.insert(pid, client);
    }

    /// A process has ended: whom it was for, if it was a handler.
    pub(super) fn remove(&mut self, pid: Pid) -> Option<ClientSerial> {
        self.0.remove(&pid)
    }

    /// How many are alive.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Sends a signal to all of them.
    pub(super) fn signal_all(&self, signal: Signal) {
        self.0.keys().for_each(|pid| signal_child(*pid, signal));
    }
}
