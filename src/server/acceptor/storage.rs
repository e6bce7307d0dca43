//! The acceptor's part in storage: it starts it, keeps it running, and tells it who came, who is gone, and to stop.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::children::Child;
use super::stop::Stopping;
use super::{Acceptor, CONTROL, PAUSE, listener};
use crate::ipc::control::{AcceptorEnd, FromStorage, ToStorage, control_pair};
use crate::logging::{Level, Outcome, event};
use crate::server::ServerError;
use crate::server::storage::Rules;
use crate::server::storage::{self, StorageConfig};
use crate::system::fd_passing::Sent;
use crate::system::process::{Exit, fork_child};

/// How soon storage is told again where the system had no room for it.
const TELL_AGAIN: Duration = Duration::from_millis(20);

/// Storage, as the acceptor knows it.
#[derive(Debug, Default)]
pub(super) struct Storage {
    /// None while there is none.
    pub(super) process: Option<StorageProcess>,
    /// When to try again to start it, where there was no process for it.
    pub(super) start_at: Option<Instant>,
    /// How many agencies take part, as it said.
    pub(super) agencies: u16,
    pub(super) deaths: Deaths,
    /// When what it has not been told is tried again, where no event says when it can be.
    pub(super) tell_again: Option<Instant>,
}

/// A storage process.
#[derive(Debug)]
pub(super) struct StorageProcess {
    /// What is said to it goes here.
    control: AcceptorEnd,
    /// What that socket is waited for at present.
    interest: EpollFlags,
    /// Whether it has recovered and takes requests.
    pub(super) ready: bool,
}

impl Acceptor<'_> {
    /// Forks it, with a fresh socket.
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
        // Before the fork, after which nothing may fail: a process that is not in the table would not be known again.
        let interest = EpollFlags::EPOLLIN;
        self.epoll.add(&ours, EpollEvent::new(interest, CONTROL))?;
        let pid = fork_child(&keep, || storage::run(&config, queue, &theirs, finished))?;
        self.children.add(pid, Child::Storage);
        self.storage.process = Some(StorageProcess { control: ours, interest, ready: false });
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

    /// Tries again where there was no process for it.
    pub(super) fn restart_storage_if_due(&mut self) {
        if self.storage.start_at.is_some_and(|at| Instant::now() >= at) {
            self.restart_storage();
        }
    }

    /// It says one thing, once: that it is ready. The first that is has the server listen.
    pub(super) fn listen_to_storage(&mut self) -> io::Result<()> {
        let recovering = self.storage.process.as_mut().filter(|storage| !storage.ready);
        let Some(storage) = recovering else { return Ok(()) };
        // Its death is learned of by SIGCHLD.
        let Some(FromStorage::Ready { agencies }) = storage.control.receive()? else { return Ok(()) };
        storage.ready = true;
        self.storage.agencies = agencies;
        if let Err(error) = self.listen() {
            self.fail(listener::failed(self.config, error));
        }
        Ok(())
    }

    /// Tells storage what it has not been told, as far as its socket takes it, and waits for room where something is left.
    pub(super) fn talk_to_storage(&mut self) -> io::Result<()> {
        if self.storage.tell_again.is_none_or(|at| Instant::now() >= at) {
            self.storage.tell_again = self.tell_all()?;
        }
        self.watch_control()
    }

    /// Says when to try again, where no event does.
    fn tell_all(&mut self) -> io::Result<Option<Instant>> {
        while let Some(message) = self.untold() {
            match self.tell(message)? {
                Sent::Done => self.told(message),
                Sent::Scarce => return Ok(Some(Instant::now() + TELL_AGAIN)),
                // If it is dead, its successor will be told.
                Sent::Full | Sent::PeerGone => break,
            }
        }
        Ok(None)
    }

    /// What storage is to be told next, in the order in which it is told.
    fn untold(&self) -> Option<ToStorage> {
        let gone = self.clients.gone.last().map(|client| ToStorage::ClientGone(*client));
        let came = self.clients.newcomer.as_ref().map(|newcomer| ToStorage::ClientCame(newcomer.serial));
        let stop = self.stopping.is_some_and(Stopping::is_untold).then_some(ToStorage::Stop);
        gone.or(came).or(stop)
    }

    fn tell(&self, message: ToStorage) -> io::Result<Sent> {
        let Some(StorageProcess { control, .. }) = &self.storage.process else { return Ok(Sent::PeerGone) };
        match (message, &self.clients.newcomer) {
            (ToStorage::ClientCame(_), Some(newcomer)) => self.clients.introduce(newcomer, control),
            _ => control.send(message),
        }
    }

    /// What follows from its having been told.
    fn told(&mut self, message: ToStorage) {
        match message {
            ToStorage::ClientGone(_) => drop(self.clients.gone.pop()),
            ToStorage::ClientCame(_) => self.fork_for_newcomer(),
            ToStorage::Stop => self.stopping = self.stopping.map(Stopping::told),
        }
    }

    /// Waits for room in the control socket where something is left to be said.
    fn watch_control(&mut self) -> io::Result<()> {
        let untold = self.untold().is_some();
        let Some(storage) = &mut self.storage.process else { return Ok(()) };
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, !storage.ready);
        flags.set(EpollFlags::EPOLLOUT, untold && self.storage.tell_again.is_none());
        if flags != storage.interest {
            self.epoll.modify(&storage.control, &mut EpollEvent::new(flags, CONTROL))?;
            storage.interest = flags;
        }
        Ok(())
    }

    /// It is started again, unless it gave up, dies too often, or the server stops.
    pub(super) fn storage_ended(&mut self, exit: Exit) {
        self.storage.process = None;
        // Its successor knows none of the clients.
        self.clients.gone.clear();
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
