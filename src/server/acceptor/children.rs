//! The table of living children. Every child is launched and reaped here.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::ipc::messages::ClientNumber;
use crate::system::process::{Exit, fork_child, reap, signal_child};

/// What a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Child {
    Storage,
    Keeper,
    Handler(ClientNumber),
}

impl Child {
    fn is_handler(self) -> bool {
        matches!(self, Self::Handler(_))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Storage => "the storage service",
            Self::Keeper => "the keeper",
            Self::Handler(_) => "a handler",
        }
    }
}

/// Children that have been launched and not been reaped.
#[derive(Debug, Default)]
pub(super) struct Children {
    living: HashMap<Pid, Child>,
    handlers: u32,
}

impl Children {
    /// Forks a child: see [`fork_child`].
    pub(super) fn launch(
        &mut self,
        child: Child,
        keep: &[BorrowedFd<'_>],
        body: impl FnOnce() -> i32,
    ) -> io::Result<Pid> {
        let pid = fork_child(keep, body)?;
        self.handlers += u32::from(child.is_handler());
        self.living.insert(pid, child);
        Ok(pid)
    }

    /// Reaps one child that has ended. SIGCHLD coalesces, so call this until there is none.
    pub(super) fn reap(&mut self) -> io::Result<Option<(Pid, Child, Exit)>> {
        while let Some((pid, exit)) = reap()? {
            // Process 1 of a container also gets children that it has not launched: the orphans of all others.
            if let Some(child) = self.living.remove(&pid) {
                self.handlers -= u32::from(child.is_handler());
                return Ok(Some((pid, child, exit)));
            }
        }
        Ok(None)
    }

    pub(super) fn handlers(&self) -> u32 {
        self.handlers
    }

    pub(super) fn is_empty(&self) -> bool {
        self.living.is_empty()
    }

    /// Returns one of the children: storage, if it lives.
    pub(super) fn any(&self) -> Option<(Pid, Child)> {
        let living = self.living.iter().map(|(pid, child)| (*pid, *child));
        living.max_by_key(|(_, child)| *child == Child::Storage)
    }

    /// Sends a signal to the children that `select` chooses.
    pub(super) fn signal(&self, signal: Signal, select: impl Fn(Child) -> bool) {
        let selected = self.living.iter().filter(|(_, child)| select(**child));
        selected.for_each(|(pid, _)| signal_child(*pid, signal));
    }
}
