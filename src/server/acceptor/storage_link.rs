//! The acceptor's link to storage: the messages that storage has not got, whether it is ready, and how often it has died.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};

use super::pause::Pause;
use crate::ipc::codec::MAX_HEAD;
use crate::ipc::control::{AcceptorEnd, FileIdentity, StorageReady, ToStorage};
use crate::ipc::messages::{ClientNumber, ClientToken};
use crate::ipc::storage_end::reply_pipe;
use crate::logging::{Level, Outcome, event};
use crate::server::access::is_local;
use crate::server::error::ServerError;
use crate::server::handler::AcceptedClient;
use crate::system::fd_passing::{Received, Sent};
use crate::system::memory::WipeOnFork;
use crate::system::process::{Exit, GAVE_UP};
use crate::system::random;

/// How soon a message is sent again after the system had no memory for it. No event says when it has.
const RETRY: Duration = Duration::from_millis(20);

/// The link. It keeps the messages for which storage's socket has no room.
pub(super) struct StorageLink {
    /// The socket to the living storage process.
    control: Option<AcceptorEnd>,
    /// Whether that process has recovered and takes requests.
    is_ready: bool,
    /// Clients whose handlers have ended. Storage does not know it yet.
    gone: Vec<ClientNumber>,
    /// The next client to announce, and storage's end of its reply pipe. The handler is forked once storage knows the client.
    pending: Option<(AcceptedClient, OwnedFd)>,
    /// The token of the pending client, at the start of the page. No child inherits it, and this process has no other copy.
    token: WipeOnFork<{ ClientToken::LEN }>,
    last_number: ClientNumber,
    must_stop: bool,
    /// The pause before the next message, after the system had no memory for one.
    pause: Pause,
    /// The pause before storage is launched again, after it could not be launched.
    pub(super) launch_pause: Pause,
    /// How often storage has died.
    pub(super) deaths: u64,
    recent_deaths: Vec<Instant>,
    /// How many agencies take part: storage says so when it is ready.
    pub(super) agencies: u16,
    /// The file of bets, once a storage process has opened it: the next one must not take another.
    pub(super) bets_file: Option<FileIdentity>,
}

impl StorageLink {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            control: None,
            is_ready: false,
            gone: Vec::new(),
            pending: None,
            token: WipeOnFork::new()?,
            last_number: 0,
            must_stop: false,
            pause: Pause::default(),
            launch_pause: Pause::default(),
            deaths: 0,
            recent_deaths: Vec::new(),
            agencies: 0,
            bets_file: None,
        })
    }

    /// Storage has been launched, with the other end of `control`.
    pub(super) fn on_launched(&mut self, control: AcceptorEnd) {
        self.control = Some(control);
        self.is_ready = false;
        self.launch_pause.reset();
    }

    /// Storage has ended. An error means that it must not be launched again.
    pub(super) fn on_exit(&mut self, exit: Exit, stopping: bool) -> Result<(), ServerError> {
        self.control = None;
        // The next process knows none of the clients.
        self.gone.clear();
        if exit == Exit::Status(GAVE_UP) {
            return Err(ServerError::StorageGaveUp);
        }
        if stopping {
            return Ok(());
        }
        self.deaths += 1;
        event(Level::Error, "storage", Outcome::Fail, &[("error", &exit), ("restarts", &self.deaths)]);
        let tolerated = is_tolerable(Instant::now(), &mut self.recent_deaths);
        if tolerated { Ok(()) } else { Err(ServerError::StorageDies(self.deaths)) }
    }

    pub(super) fn must_launch(&self, now: Instant) -> bool {
        self.control.is_none() && self.launch_pause.end(now).is_none()
    }

    /// When a pause ends, if there is one.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        [&self.pause, &self.launch_pause].into_iter().filter_map(|pause| pause.end(now)).min()
    }

    pub(super) fn is_recovering(&self) -> bool {
        self.control.is_some() && !self.is_ready
    }

    /// Receives storage's only message, if it has come: that it is ready.
    pub(super) fn receive_ready(&mut self) -> io::Result<()> {
        let Some(control) = self.control.as_ref().filter(|_| !self.is_ready) else { return Ok(()) };
        // If storage has ended, SIGCHLD reports it.
        if let Received::Packet((StorageReady { agencies, bets_file }, _), _) =
            control.receive(&mut [0; MAX_HEAD])?
        {
            self.is_ready = true;
            self.agencies = agencies;
            self.bets_file = Some(bets_file);
        }
        Ok(())
    }

    /// Whether the next client can be announced: one at a time, as there is one token.
    pub(super) fn can_announce(&self) -> bool {
        self.control.is_some() && self.pending.is_none()
    }

    /// Draws a new token, and makes a reply pipe with the token in it. Returns the ends for the handler and for storage.
    pub(super) fn make_reply_pipe(&mut self) -> io::Result<(OwnedFd, OwnedFd)> {
        let (replies, pipe) = reply_pipe()?;
        random::fill(&mut *self.token)?;
        nix::unistd::write(&pipe, &*self.token)?;
        Ok((replies, pipe))
    }

    /// Announces a client with the pipe that was made last. [`Self::send`] returns the client once storage knows it.
    pub(super) fn announce(&mut self, socket: TcpStream, ip: IpAddr, (replies, pipe): (OwnedFd, OwnedFd)) {
        self.last_number += 1;
        self.pending = Some((AcceptedClient { number: self.last_number, socket, ip, replies }, pipe));
    }

    /// Tells storage that the handler of a client has ended.
    pub(super) fn retire(&mut self, client: ClientNumber) {
        self.gone.push(client);
    }

    /// Closes the connection of the client that has not been announced yet.
    pub(super) fn drop_pending(&mut self) {
        self.pending = None;
    }

    pub(super) fn stop(&mut self) {
        self.must_stop = true;
    }

    /// Sends messages until none is left or storage's socket is full. The announcement of the pending client ends it too: then
    /// it returns that client.
    pub(super) fn send(&mut self) -> io::Result<Option<AcceptedClient>> {
        while self.pause.end(Instant::now()).is_none()
            && let Some(control) = &self.control
            && let Some((message, token, pipe)) = self.next_message()
        {
            match (control.send(&message, token, pipe)?, message) {
                // Now only storage has the write end of the pipe.
                (Sent::Done, ToStorage::ClientCame { .. }) => {
                    return Ok(self.pending.take().map(|(client, _)| client));
                }
                (Sent::Done, ToStorage::ClientGone(_)) => drop(self.gone.pop()),
                (Sent::Done, _) => self.must_stop = false,
                (Sent::Scarce, _) => self.pause.begin(RETRY),
                // The message is kept: for this process once it has room, or for the next one.
                (Sent::Full | Sent::PeerGone, _) => break,
            }
        }
        Ok(None)
    }

    /// The next message, with the token and the pipe of a client that came.
    fn next_message(&self) -> Option<(ToStorage, &[u8], Option<BorrowedFd<'_>>)> {
        if let Some(client) = self.gone.last() {
            return Some((ToStorage::ClientGone(*client), &[], None));
        }
        if let Some((AcceptedClient { number, ip, .. }, pipe)) = &self.pending {
            let message = ToStorage::ClientCame { client: *number, is_local: is_local(*ip) };
            return Some((message, &*self.token, Some(pipe.as_fd())));
        }
        self.must_stop.then_some((ToStorage::Stop, &[], None))
    }

    /// What to wait for: the message of storage, and room in its socket if there is something to send.
    pub(super) fn interest(&self, now: Instant) -> Option<PollFd<'_>> {
        let control = self.control.as_ref()?;
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, !self.is_ready);
        flags.set(PollFlags::POLLOUT, self.next_message().is_some() && self.pause.end(now).is_none());
        (!flags.is_empty()).then(|| PollFd::new(control.as_fd(), flags))
    }
}

const WINDOW: Duration = Duration::from_secs(10);
/// How many deaths within the window are tolerated.
const TOLERATED: usize = 5;

/// Adds a death to those of the window. Returns whether it can be tolerated.
fn is_tolerable(now: Instant, recent: &mut Vec<Instant>) -> bool {
    recent.push(now);
    recent.retain(|death| now.duration_since(*death) < WINDOW);
    recent.len() <= TOLERATED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_deaths_in_ten_seconds_are_tolerated_and_a_sixth_is_not() {
        let (mut recent, start) = (Vec::new(), Instant::now());
        let mut tolerates = |millis| is_tolerable(start + Duration::from_millis(millis), &mut recent);
        assert!([0, 1000, 2000, 3000, 4000].into_iter().all(&mut tolerates));
        assert!(tolerates(10_100), "the first is no longer in the window");
        assert!(!tolerates(10_200));
    }
}
