//! The acceptor's part in storage: it starts it, keeps it running, and tells it who comes and goes.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use nix::libc;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::socket::{Backlog, listen};

use super::children::StorageProcess;
use super::{Acceptor, CONTROL, PAUSE};
use crate::ipc::control::control_pair;
use crate::ipc::message::{FromStorage, ToStorage};
use crate::logging::{Level, Outcome, event, info};
use crate::server::ServerError;
use crate::server::storage::recovery::Rules;
use crate::server::storage::{self, StorageConfig};
use crate::system::fd_passing::Sent;
use crate::system::process::{Exit, fork_child};

impl Acceptor<'_> {
    pub(super) fn start_storage(&mut self) -> io::Result<()> {
        let (ours, theirs) = control_pair()?;
        let config = StorageConfig {
            path: self.config.storage_filepath.clone(),
            rules: Rules {
                clients_amount: self.config.clients_amount,
                winner_number: self.config.winner_number,
            },
            max_payload: self.config.max_payload,
        };
        let (queue, finished) = (&self.queue.0, &self.finished);
        // With standard input and output in their places nothing that it opens can get their numbers.
        let (input, output) = (io::stdin(), io::stdout());
        let keep = [input.as_fd(), output.as_fd(), queue.as_fd(), theirs.as_fd()];
        let pid = fork_child(&keep, || storage::run(&config, queue, &theirs, finished))?;
        self.control_interest = EpollFlags::EPOLLIN;
        self.epoll.add(&ours, EpollEvent::new(self.control_interest, CONTROL))?;
        self.storage = Some(StorageProcess { pid, control: ours, ready: false });
        Ok(())
    }

    /// Starts it again, or later where the system has no process for it now. That is said once.
    fn restart_storage(&mut self) {
        match self.start_storage() {
            Ok(()) => self.start_storage_at = None,
            Err(error) => {
                if self.start_storage_at.is_none() {
                    event(Level::Error, "fork", Outcome::Fail, &[("error", &error)]);
                }
                self.start_storage_at = Some(Instant::now() + PAUSE);
            }
        }
    }

    pub(super) fn restart_storage_if_due(&mut self) {
        if self.start_storage_at.is_some_and(|at| Instant::now() >= at) {
            self.restart_storage();
        }
    }

    pub(super) fn listen_to_storage(&mut self) -> io::Result<()> {
        while let Some(storage) = &mut self.storage {
            match storage.control.receive()? {
                Some(FromStorage::Ready { agencies }) => {
                    storage.ready = true;
                    self.agencies = agencies;
                }
                // Its death is learned of by SIGCHLD.
                None => break,
            }
            self.listen()?;
        }
        Ok(())
    }

    /// Begins to listen, once storage is ready for the first time.
    fn listen(&mut self) -> io::Result<()> {
        let Some(listener) = self.listener.as_ref().filter(|_| !self.listening) else { return Ok(()) };
        listen(listener, Backlog::new(i32::from(self.config.listen_backlog).min(libc::SOMAXCONN))?)?;
        self.listening = true;
        let address = listener.local_addr()?;
        info("listen", Outcome::Success, &[("ip", &address.ip()), ("port", &address.port())]);
        Ok(())
    }

    /// Tells storage what it has not been told, as far as its socket takes it.
    pub(super) fn talk_to_storage(&mut self) -> io::Result<()> {
        if self.tell_again.is_some_and(|at| Instant::now() < at) {
            return self.watch_control();
        }
        self.tell_again = None;
        while let (Some(storage), Some(client)) = (&self.storage, self.gone.last()) {
            let sent = storage.control.send(ToStorage::ClientGone(*client))?;
            if sent != Sent::Done {
                self.could_not_tell(sent);
                break;
            }
            self.gone.pop();
        }
        if self.newcomer.is_some() && self.gone.is_empty() {
            self.introduce();
        }
        self.watch_control()
    }

    /// Waits for room in the control socket where something is left to be said.
    fn watch_control(&mut self) -> io::Result<()> {
        let Some(storage) = &self.storage else { return Ok(()) };
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, !storage.ready);
        let untold = self.newcomer.is_some() || !self.gone.is_empty();
        flags.set(EpollFlags::EPOLLOUT, untold && self.tell_again.is_none());
        if flags != self.control_interest {
            self.epoll.modify(&storage.control, &mut EpollEvent::new(flags, CONTROL))?;
            self.control_interest = flags;
        }
        Ok(())
    }

    pub(super) fn storage_ended(&mut self, exit: Exit) {
        self.storage = None;
        // Its successor knows none of the clients.
        self.gone.clear();
        let told = self.stopping.as_ref().is_some_and(|stopping| stopping.told_storage || stopping.killed);
        match exit {
            _ if told && exit != Exit::Status(storage::GAVE_UP) => {}
            Exit::Status(storage::GAVE_UP) => self.fail(ServerError::StorageGaveUp),
            _ if self.stopping.is_some() => {}
            _ => {
                let tolerable = self.deaths.add(Instant::now());
                let total = self.deaths.total();
                event(Level::Error, "storage", Outcome::Fail, &[("error", &exit), ("restarts", &total)]);
                if tolerable {
                    self.restart_storage();
                } else {
                    self.fail(ServerError::StorageDies(total));
                }
            }
        }
    }
}
