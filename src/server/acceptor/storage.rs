//! The acceptor's part in storage: it starts it, keeps it running, and tells it who comes and goes.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::unistd::Pid;

use super::{Acceptor, CONTROL, PAUSE};
use crate::ipc::client::ClientSerial;
use crate::ipc::control::{AcceptorEnd, FromStorage, ToStorage, control_pair};
use crate::logging::{Level, Outcome, event};
use crate::server::ServerError;
use crate::server::storage::recovery::Rules;
use crate::server::storage::{self, StorageConfig};
use crate::system::fd_passing::Sent;
use crate::system::process::{Exit, fork_child};

/// Storage, as the acceptor knows it.
#[derive(Debug)]
pub(super) struct Storage {
    /// None while there is none.
    pub(super) process: Option<StorageProcess>,
    /// What its socket is waited for at present.
    interest: EpollFlags,
    /// When to try again to start it, where there was no process for it.
    pub(super) start_at: Option<Instant>,
    /// How many agencies take part, as it said.
    pub(super) agencies: u16,
    pub(super) deaths: Deaths,
    /// Clients that are gone and of whom it has not been told yet.
    pub(super) gone: Vec<ClientSerial>,
    /// When what it has not been told is tried again.
    pub(super) tell_again: Option<Instant>,
}

impl Storage {
    /// Not started yet.
    pub(super) fn new() -> Self {
        Self {
            process: None,
            interest: EpollFlags::empty(),
            start_at: None,
            agencies: 0,
            deaths: Deaths::default(),
            gone: Vec::new(),
            tell_again: None,
        }
    }
}

/// A storage process.
#[derive(Debug)]
pub(super) struct StorageProcess {
    pub(super) pid: Pid,
    /// What is said to it goes here.
    pub(super) control: AcceptorEnd,
    /// Whether it has recovered and takes requests.
    pub(super) ready: bool,
}

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
        let (queue, finished) = (&self.inherited.receiver, &self.inherited.finished);
        // With standard input and output in their places nothing that it opens can get their numbers.
        let (input, output) = (io::stdin(), io::stdout());
        let keep = [input.as_fd(), output.as_fd(), queue.as_fd(), theirs.as_fd()];
        let pid = fork_child(&keep, || storage::run(&config, queue, &theirs, finished))?;
        self.storage.interest = EpollFlags::EPOLLIN;
        self.epoll.add(&ours, EpollEvent::new(self.storage.interest, CONTROL))?;
        self.storage.process = Some(StorageProcess { pid, control: ours, ready: false });
        Ok(())
    }

    /// Starts it again, or later where the system has no process for it now. That is said once.
    fn restart_storage(&mut self) {
        match self.start_storage() {
            Ok(()) => self.storage.start_at = None,
            Err(error) => {
                if self.storage.start_at.is_none() {
                    event(Level::Error, "fork", Outcome::Fail, &[("error", &error)]);
                }
                self.storage.start_at = Some(Instant::now() + PAUSE);
            }
        }
    }

    pub(super) fn restart_storage_if_due(&mut self) {
        if self.storage.start_at.is_some_and(|at| Instant::now() >= at) {
            self.restart_storage();
        }
    }

    pub(super) fn listen_to_storage(&mut self) -> io::Result<()> {
        while let Some(storage) = &mut self.storage.process {
            match storage.control.receive()? {
                Some(FromStorage::Ready { agencies }) => {
                    storage.ready = true;
                    self.storage.agencies = agencies;
                }
                // Its death is learned of by SIGCHLD.
                None => break,
            }
            self.listen()?;
        }
        Ok(())
    }

    /// Tells storage what it has not been told, as far as its socket takes it.
    pub(super) fn talk_to_storage(&mut self) -> io::Result<()> {
        if self.storage.tell_again.is_some_and(|at| Instant::now() < at) {
            return self.watch_control();
        }
        self.storage.tell_again = None;
        while let (Some(storage), Some(client)) = (&self.storage.process, self.storage.gone.last()) {
            let sent = storage.control.send(ToStorage::ClientGone(*client))?;
            if sent != Sent::Done {
                self.could_not_tell(sent);
                break;
            }
            self.storage.gone.pop();
        }
        if self.arrivals.newcomer.is_some() && self.storage.gone.is_empty() {
            self.introduce();
        }
        self.watch_control()
    }

    /// Waits for room in the control socket where something is left to be said.
    fn watch_control(&mut self) -> io::Result<()> {
        let Some(storage) = &self.storage.process else { return Ok(()) };
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, !storage.ready);
        let untold = self.arrivals.newcomer.is_some() || !self.storage.gone.is_empty();
        flags.set(EpollFlags::EPOLLOUT, untold && self.storage.tell_again.is_none());
        if flags != self.storage.interest {
            self.epoll.modify(&storage.control, &mut EpollEvent::new(flags, CONTROL))?;
            self.storage.interest = flags;
        }
        Ok(())
    }

    pub(super) fn storage_ended(&mut self, exit: Exit) {
        self.storage.process = None;
        // Its successor knows none of the clients.
        self.storage.gone.clear();
        match exit {
            Exit::Status(storage::GAVE_UP) => self.fail(ServerError::StorageGaveUp),
            _ if self.stopping.is_some() => {}
            _ => {
                let tolerable = self.storage.deaths.add(Instant::now());
                let total = self.storage.deaths.total();
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

/// How often the storage process died lately.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    lately: VecDeque<Instant>,
    total: u64,
}

const WINDOW: Duration = Duration::from_secs(10);
/// More deaths than these within the window are not bad luck.
const TOLERATED: usize = 5;

impl Deaths {
    /// It died now. False where that was once too often.
    fn add(&mut self, now: Instant) -> bool {
        self.total += 1;
        self.lately.push_back(now);
        self.lately.retain(|death| now.duration_since(*death) < WINDOW);
        self.lately.len() <= TOLERATED
    }

    /// How often in all.
    pub(super) fn total(&self) -> u64 {
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
