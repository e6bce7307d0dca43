//! The acceptor's link to storage: the messages that storage has not got, whether it is ready, and how often it has died.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::pause::Pause;
use crate::ipc::control::{AcceptorEnd, FileIdentity, FromStorage, ToStorage};
use crate::ipc::messages::{ClientNumber, ClientToken};
use crate::ipc::storage_end::reply_pipe;
use crate::logging::{Level, Outcome, event};
use crate::server::access::is_local;
use crate::server::error::ServerError;
use crate::server::handler::AcceptedClient;
use crate::server::storage;
use crate::system::fd_passing::{Received, Sent};
use crate::system::memory::WipeOnForkPage;
use crate::system::process::Exit;
use crate::system::random;

/// How soon a message is sent again after the system had no memory for it. No event says when it has.
const RETRY: Duration = Duration::from_millis(20);
/// The pause before storage is launched again, after it could not be launched.
const LAUNCH_PAUSE: Duration = Duration::from_millis(200);

/// The link. It keeps the messages for which storage's socket has no room.
pub(super) struct StorageLink {
    process: Option<Process>,
    /// Clients whose handlers have ended. Storage does not know it yet.
    gone: Vec<ClientNumber>,
    /// The next client to announce, and storage's end of its reply pipe. The handler is forked once storage knows the client.
    pending: Option<(AcceptedClient, OwnedFd)>,
    /// The token of the pending client, at the start of the page. No child inherits it, and this process has no other copy.
    token: WipeOnForkPage,
    last_number: ClientNumber,
    must_stop: bool,
    /// The pause before the next message, after the system had no memory for one.
    pause: Pause,
    /// The pause before storage is launched again, after it could not be launched.
    launch_pause: Pause,
    pub(super) deaths: Deaths,
    /// How many agencies take part: storage says so when it is ready.
    pub(super) agencies: u16,
    /// The file of bets, once a storage process has opened it: the next one must not take another.
    pub(super) bets_file: Option<FileIdentity>,
}

/// A living storage process.
struct Process {
    control: AcceptorEnd,
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
            last_number: 0,
            must_stop: false,
            pause: Pause::default(),
            launch_pause: Pause::default(),
            deaths: Deaths::default(),
            agencies: 0,
            bets_file: None,
        })
    }

    /// Storage has been launched, with the other end of `control`.
    pub(super) fn on_launched(&mut self, control: AcceptorEnd) {
        self.process = Some(Process { control, ready: false });
        self.launch_pause.succeed();
    }

    /// Storage could not be launched. Returns whether there is something to log.
    pub(super) fn on_failed_launch(&mut self) -> bool {
        self.launch_pause.begin(LAUNCH_PAUSE)
    }

    /// Storage has ended. An error means that it must not be launched again.
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

    /// Whether storage must be launched now.
    pub(super) fn must_launch(&self, now: Instant) -> bool {
        self.process.is_none() && self.launch_pause.end(now).is_none()
    }

    /// When a pause ends, if there is one.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        [&self.pause, &self.launch_pause].into_iter().filter_map(|pause| pause.end(now)).min()
    }

    pub(super) fn is_recovering(&self) -> bool {
        self.process.as_ref().is_some_and(|process| !process.ready)
    }

    /// Receives storage's only message, if it has come: that it is ready.
    pub(super) fn receive_ready(&mut self) -> io::Result<()> {
        let recovering = self.process.as_mut().filter(|process| !process.ready);
        let Some(process) = recovering else { return Ok(()) };
        // If storage has ended, SIGCHLD reports it.
        if let Received::Packet((FromStorage::Ready { agencies, bets_file }, _), _) =
            process.control.receive()?
        {
            process.ready = true;
            self.agencies = agencies;
            self.bets_file = Some(bets_file);
        }
        Ok(())
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

    /// Tells storage to stop.
    pub(super) fn stop(&mut self) {
        self.must_stop = true;
    }

    /// Sends messages until none is left or storage's socket is full. It stops earlier once storage knows the pending client,
    /// and returns that client.
    pub(super) fn send(&mut self) -> io::Result<Option<AcceptedClient>> {
        while self.pause.end(Instant::now()).is_none()
            && let Some(Process { control, .. }) = &self.process
            && let Some(message) = self.next_message()
        {
            let sent = match (message, &self.pending) {
                (ToStorage::ClientCame { .. }, Some((_, pipe))) => {
                    let token = self.token.get(..ClientToken::LEN).unwrap_or_default();
                    control.send(message, token, Some(pipe.as_fd()))?
                }
                _ => control.send(message, &[], None)?,
            };
            match (sent, message) {
                // Now only storage has the write end of the pipe.
                (Sent::Done, ToStorage::ClientCame { .. }) => {
                    return Ok(self.pending.take().map(|(client, _)| client));
                }
                (Sent::Done, ToStorage::ClientGone(_)) => drop(self.gone.pop()),
                (Sent::Done, ToStorage::VoucherKey) => {}
                (Sent::Done, ToStorage::Stop) => self.must_stop = false,
                (Sent::Scarce, _) => drop(self.pause.begin(RETRY)),
                // The message is kept: for this process once it has room, or for the next one.
                (Sent::Full | Sent::PeerGone, _) => break,
            }
        }
        Ok(None)
    }

    fn next_message(&self) -> Option<ToStorage> {
        let gone = self.gone.last().map(|client| ToStorage::ClientGone(*client));
        let came = self.pending.as_ref().map(|(client, _)| ToStorage::ClientCame {
            client: client.number,
            is_local: is_local(client.ip),
        });
        gone.or(came).or(self.must_stop.then_some(ToStorage::Stop))
    }

    /// What to wait for: the message of storage, and room in its socket if there is something to send.
    pub(super) fn interest(&self, now: Instant) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let Process { control, ready } = self.process.as_ref()?;
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, !ready);
        flags.set(PollFlags::POLLOUT, self.next_message().is_some() && self.pause.end(now).is_none());
        (!flags.is_empty()).then(|| (control.as_fd(), flags))
    }
}

/// How often storage has died.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    recent: Vec<Instant>,
    pub(super) total: u64,
}

const WINDOW: Duration = Duration::from_secs(10);
/// How many deaths within the window are tolerated.
const TOLERATED: usize = 5;

impl Deaths {
    /// Adds a death. Returns whether it can be tolerated.
    fn add(&mut self, now: Instant) -> bool {
        self.total += 1;
        self.recent.push(now);
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
