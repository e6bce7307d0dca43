//! The one table of living children.

use std::collections::HashMap;
use std::fmt;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::ipc::client::ClientSerial;
use crate::system::process::signal_child;

/// What a child is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Child {
    /// The storage service.
    Storage,
    /// The handler of that client.
    Handler(ClientSerial),
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Storage => "the storage service",
            Self::Handler(_) => "a handler",
        })
    }
}

/// Children that have been forked and not been reaped.
#[derive(Debug, Default)]
pub(super) struct Children {
    living: HashMap<Pid, Child>,
    handlers: u32,
}

impl Children {
    /// It was forked.
    pub(super) fn add(&mut self, pid: Pid, child: Child) {
        self.handlers += u32::from(matches!(child, Child::Handler(_)));
        self.living.insert(pid, child);
    }

    /// It was reaped. None of one that the server has not forked: as process 1 of a container it gets the orphans of all.
    pub(super) fn remove(&mut self, pid: Pid) -> Option<Child> {
        let child = self.living.remove(&pid)?;
        self.handlers -= u32::from(matches!(child, Child::Handler(_)));
        Some(child)
    }

    /// How many handlers live.
    pub(super) fn handlers(&self) -> u32 {
        self.handlers
    }

    /// Whether none lives.
    pub(super) fn is_empty(&self) -> bool {
        self.living.is_empty()
    }

    /// One that lives; storage, if it does.
    pub(super) fn any(&self) -> Option<(Pid, Child)> {
        let living = self.living.iter().map(|(pid, child)| (*pid, *child));
        living.max_by_key(|(_, child)| *child == Child::Storage)
    }

    /// Sends a signal to those that are meant.
    pub(super) fn signal(&self, signal: Signal, meant: impl Fn(Child) -> bool) {
        self.living
            .iter()
            .filter(|(_, child)| meant(**child))
            .for_each(|(pid, _)| signal_child(*pid, signal));
    }
}
