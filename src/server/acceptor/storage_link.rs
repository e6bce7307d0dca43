//! The acceptor's link to storage: what storage must still be sent, whether it is ready, and how often it has died.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::pause::Pause;
use crate::ipc::control::{AcceptorEnd, FromStorage, StorageEnd, ToStorage, control_pair};
use crate::ipc::messages::{ClientSerial, ClientToken};
use crate::ipc::storage_end::reply_pipe;
use crate::logging::{Level, Outcome, event};
use crate::server::error::ServerError;
use crate::server::handler::AcceptedClient;
use crate::server::storage;
use crate::system::fd_passing::{Received, Sent};
use crate::system::memory::WipeOnForkPage;
use crate::system::process::Exit;
use crate::system::random;

/// The number of its events.
pub(super) const EVENT: u64 = 1;

/// How soon a message is tried again that the system had no memory for. No event tells when it has.
const RETRY: Duration = Duration::from_millis(20);

/// The link. A message that storage's socket has no room for stays here until it has.
pub(super) struct StorageLink {
    process: Option<Process>,
    /// Clients whose handlers have ended, and of which storage has not been told so.
    gone: Vec<ClientSerial>,
    pending: Option<PendingClient>,
    /// The token of the pending client, at the start of the page. No child inherits it, and this process has no other copy.
    token: WipeOnForkPage,
    last_serial: ClientSerial,
    must_stop: bool,
    /// When to try again, after the system had no memory for a message.
    retry_at: Option<Instant>,
    /// The pause before storage is launched again, after it could not be launched.
    launch_pause: Pause,
    deaths: Deaths,
    /// How many agencies take part: storage says so when it is ready.
    agencies: u16,
}

/// A client that has its reply pipe, with its token in it. Storage must know it before its handler is forked.
struct PendingClient {
    serial: ClientSerial,
    client: AcceptedClient,
    /// The end of the reply pipe that storage gets.
    pipe: OwnedFd,
}

/// A living storage process.
struct Process {
    control: AcceptorEnd,
    /// What epoll waits for.
    interest: EpollFlags,
    /// Whether it has recovered and takes requests.
    ready: bool,
}

impl StorageLink {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            process: None,
            gone: Vec::new(),
            pending: None,
            token: WipeOnForkPage::new()?,
            last_serial: 0,
            must_stop: false,
            retry_at: None,
            launch_pause: Pause::default(),
            deaths: Deaths::default(),
            agencies: 0,
        })
    }

    /// Makes the socket pair for a new storage process, and has `epoll` wait for what it sends.
    pub(super) fn connect(epoll: &Epoll) -> io::Result<(AcceptorEnd, StorageEnd)> {
        let (ours, theirs) = control_pair()?;
        epoll.add(&ours, EpollEvent::new(EpollFlags::EPOLLIN, EVENT))?;
        Ok((ours, theirs))
    }

    /// Storage has been launched, with the other end of `control`.
    pub(super) fn on_launched(&mut self, control: AcceptorEnd) {
        self.process = Some(Process { control, interest: EpollFlags::EPOLLIN, ready: false });
        self.launch_pause.succeed();
    }

    /// Storage has ended. Unless this is an error, it must be launched again.
    pub(super) fn on_exit(&mut self, exit: Exit, stopping: bool) -> Result<(), ServerError> {
        self.process = None;
        // The next process knows none of the clients.
        self.gone.clear();
        if exit == Exit::Status(storage::GAVE_UP) {
            return Err(ServerError::StorageGaveUp);
        }
        if stopping {
            return Ok(());
        }
        let tolerable = self.deaths.add(Instant::now());
        let total = self.deaths.total;
        event(Level::Error, "storage", Outcome::Fail, &[("error", &exit), ("restarts", &total)]);
        if tolerable { Ok(()) } else { Err(ServerError::StorageDies(total)) }
    }

    /// Storage could not be launched.
    pub(super) fn on_launch_failed(&mut self, error: &io::Error) {
        if self.launch_pause.begin() {
            event(Level::Error, "fork", Outcome::Fail, &[("error", error)]);
        }
    }

    /// Whether there is no storage, and it may be launched.
    pub(super) fn can_launch(&self, now: Instant) -> bool {
        self.process.is_none() && self.launch_pause.end(now).is_none()
    }

    pub(super) fn is_recovering(&self) -> bool {
        self.process.as_ref().is_some_and(|process| !process.ready)
    }

    pub(super) fn agencies(&self) -> u16 {
        self.agencies
    }

    pub(super) fn deaths(&self) -> u64 {
        self.deaths.total
    }

    /// Receives storage's only message, if it has come: that it is ready. Returns whether it has.
    pub(super) fn receive_ready(&mut self) -> io::Result<bool> {
        let recovering = self.process.as_mut().filter(|process| !process.ready);
        let Some(process) = recovering else { return Ok(false) };
        // Where the peer is gone, SIGCHLD tells of it.
        let Received::Packet((FromStorage::Ready { agencies }, _), _) = process.control.receive()? else {
            return Ok(false);
        };
        process.ready = true;
        self.agencies = agencies;
        Ok(true)
    }

    /// Whether the next client can be announced: one at a time, as there is one token.
    pub(super) fn can_announce(&self) -> bool {
        self.process.is_some() && self.pending.is_none()
    }

    /// Draws a new token, and makes a reply pipe with the token in it. Returns the ends for the handler and for storage.
    pub(super) fn make_reply_pipe(&mut self) -> io::Result<(OwnedFd, OwnedFd)> {
        let (replies, pipe) = reply_pipe()?;
        let token = self.token.get_mut(..ClientToken::LEN).unwrap_or_default();
        random::fill(token)?;
        nix::unistd::write(&pipe, token)?;
        Ok((replies, pipe))
    }

    /// Announces a client, whose reply pipe was made last. [`Self::send`] returns the client once storage knows it.
    pub(super) fn announce(&mut self, client: AcceptedClient, pipe: OwnedFd) {
        self.last_serial += 1;
        self.pending = Some(PendingClient { serial: self.last_serial, client, pipe });
    }

    /// Tells storage that a client has no handler any more.
    pub(super) fn retire(&mut self, client: ClientSerial) {
        self.gone.push(client);
    }

    /// Tells storage to stop.
    pub(super) fn stop(&mut self) {
        self.must_stop = true;
    }

    /// Closes the connection of the client that has not been announced yet.
    pub(super) fn drop_pending(&mut self) {
        self.pending = None;
    }

    /// Sends what storage has not been told, as far as its socket takes it. Returns the pending client as soon as storage
    /// knows it; there may then be more to send.
    pub(super) fn send(&mut self) -> io::Result<Option<(ClientSerial, AcceptedClient)>> {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return Ok(None);
        }
        self.retry_at = None;
        while let Some(message) = self.next_message() {
            match self.try_send(message)? {
                Sent::Done => {
                    if let known @ Some(_) = self.on_sent(message) {
                        return Ok(known);
                    }
                }
                Sent::Scarce => {
                    self.retry_at = Some(Instant::now() + RETRY);
                    break;
                }
                // What a dead process was not told, the next one is.
                Sent::Full | Sent::PeerGone => break,
            }
        }
        Ok(None)
    }

    fn next_message(&self) -> Option<ToStorage> {
        let gone = self.gone.last().map(|client| ToStorage::ClientGone(*client));
        let came = self.pending.as_ref().map(|pending| ToStorage::ClientCame(pending.serial));
        gone.or(came).or(self.must_stop.then_some(ToStorage::Stop))
    }

    fn try_send(&self, message: ToStorage) -> io::Result<Sent> {
        let Some(Process { control, .. }) = &self.process else { return Ok(Sent::PeerGone) };
        match (message, &self.pending) {
            (ToStorage::ClientCame(_), Some(pending)) => {
                let token = self.token.get(..ClientToken::LEN).unwrap_or_default();
                control.send(message, token, Some(pending.pipe.as_fd()))
            }
            _ => control.send(message, &[], None),
        }
    }

    fn on_sent(&mut self, message: ToStorage) -> Option<(ClientSerial, AcceptedClient)> {
        match message {
            // From here on only storage has the write end of the pipe.
            ToStorage::ClientCame(_) => return self.pending.take().map(|known| (known.serial, known.client)),
            ToStorage::ClientGone(_) => drop(self.gone.pop()),
            ToStorage::Stop => self.must_stop = false,
        }
        None
    }

    /// When there is something to do, if no event tells.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.retry_at.into_iter().chain(self.launch_pause.end(now)).min()
    }

    /// Has `epoll` wait for storage's message, and for room in its socket if there is something to send.
    pub(super) fn watch(&mut self, epoll: &Epoll) -> io::Result<()> {
        let sends = self.next_message().is_some() && self.retry_at.is_none();
        let Some(process) = &mut self.process else { return Ok(()) };
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, !process.ready);
        interest.set(EpollFlags::EPOLLOUT, sends);
        if interest != process.interest {
            epoll.modify(&process.control, &mut EpollEvent::new(interest, EVENT))?;
            process.interest = interest;
        }
        Ok(())
    }
}

/// How often storage has died.
#[derive(Debug, Default)]
struct Deaths {
    recent: VecDeque<Instant>,
    total: u64,
}

const WINDOW: Duration = Duration::from_secs(10);
/// How many deaths within the window are tolerated.
const TOLERATED: usize = 5;

impl Deaths {
    /// Adds a death. Returns whether it can be tolerated.
    fn add(&mut self, now: Instant) -> bool {
        self.total += 1;
        self.recent.push_back(now);
        self.recent.retain(|death| now.duration_since(*death) < WINDOW);
        self.recent.len() <= TOLERATED
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
        assert!(deaths.add(start + Duration::from_millis(10_100)), "the first is no longer in the window");
        assert!(!deaths.add(start + Duration::from_millis(10_200)));
        assert_eq!(deaths.total, 7);
    }
}
