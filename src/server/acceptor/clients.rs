//! The acceptor's part in its clients: each is accepted, made known to storage, and gets a handler.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rand::TryRng as _;
use rand::rngs::SysRng;

use super::{Acceptor, PAUSE};
use crate::failpoint::kill_point;
use crate::ipc::client::{ClientSerial, ClientToken};
use crate::ipc::reply_pipe::reply_pipe;
use crate::ipc::shared_counters::Counter;
use crate::logging::{Level, Outcome, event};
use crate::protocol::message::ServerMessage;
use crate::server::handler::{self, AcceptedClient};
use crate::system::fd_passing::Sent;
use crate::system::process::fork_child;
use crate::system::secret_page::SecretPage;

/// How soon storage is told again where no event says when it can be.
const TELL_AGAIN: Duration = Duration::from_millis(20);

/// Clients on their way from the backlog to a handler.
pub(super) struct Arrivals {
    /// They were accepted, and have no handler yet. With the handlers no more than `max_clients`.
    pub(super) waiting: VecDeque<(TcpStream, IpAddr)>,
    pub(super) newcomer: Option<Newcomer>,
    /// The newcomer's token, at its start.
    pub(super) secret: SecretPage,
    /// The serial of the last one.
    serial: ClientSerial,
    /// Until when nobody is accepted, as the system has not given what the last one needed.
    pub(super) pause_until: Option<Instant>,
}

/// A client that was accepted, and of whom storage has not been told yet.
pub(super) struct Newcomer {
    client: AcceptedClient,
    serial: ClientSerial,
    /// The end of its reply pipe that storage gets.
    pipe: OwnedFd,
}

impl Arrivals {
    /// Nobody yet.
    pub(super) fn new() -> io::Result<Self> {
        let secret = SecretPage::new()?;
        Ok(Self { waiting: VecDeque::new(), newcomer: None, secret, serial: 0, pause_until: None })
    }

    pub(super) fn next_serial(&mut self) -> ClientSerial {
        self.serial += 1;
        self.serial
    }
}

impl Acceptor<'_> {
    /// Whether one more connection is to be taken from the backlog.
    pub(super) fn can_accept(&self, now: Instant) -> bool {
        let waiting = u32::try_from(self.arrivals.waiting.len()).unwrap_or(u32::MAX);
        self.listener.listening
            && self.listener.socket.is_some()
            && self.handlers.count().saturating_add(waiting) < self.max_clients
            && self.has_resources(now)
    }

    /// Whether one who waits can have a handler now: storage takes what it is told.
    pub(super) fn can_welcome(&self, now: Instant) -> bool {
        !self.arrivals.waiting.is_empty()
            && self.arrivals.newcomer.is_none()
            && self.storage.gone.is_empty()
            && self.storage.process.is_some()
            && self.has_resources(now)
    }

    /// Whether the system has given what the last client needed, or some time has gone by since.
    fn has_resources(&self, now: Instant) -> bool {
        self.arrivals.pause_until.is_none_or(|until| now >= until)
    }

    /// Accepts whoever has come. That is far quicker than forking for them, so a crowd that comes at once does not
    /// overflow the backlog: who does has to knock again after a second, and then after two.
    pub(super) fn accept_all(&mut self) {
        while self.can_accept(Instant::now()) {
            let Some(listener) = &self.listener.socket else { return };
            match listener.accept() {
                Ok((socket, address)) => {
                    self.inherited.counters.add(Counter::Connections);
                    self.arrivals.waiting.push_back((socket, address.ip()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
                    // Any other is the fault of that one connection.
                    if matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) {
                        self.pause("accept_connections", &error);
                    }
                }
            }
        }
    }

    /// Leaves further clients in the backlog for a moment. Said once, until a client is served again.
    fn pause(&mut self, action: &str, error: &io::Error) {
        if self.arrivals.pause_until.is_none() {
            event(Level::Error, action, Outcome::Fail, &[("error", error)]);
        }
        self.arrivals.pause_until = Some(Instant::now() + PAUSE);
    }

    /// Makes a handler for the one who waits longest. For one only: a fork takes longer than ten connections take to come,
    /// so the backlog is looked at again before the next.
    pub(super) fn welcome_next(&mut self) {
        if self.can_welcome(Instant::now())
            && let Some((socket, ip)) = self.arrivals.waiting.pop_front()
        {
            self.welcome(socket, ip);
        }
    }

    fn welcome(&mut self, socket: TcpStream, ip: IpAddr) {
        let pipes = reply_pipe().and_then(|(replies, pipe)| {
            draw_token(&mut self.arrivals.secret, &pipe)?;
            Ok((replies, pipe))
        });
        match pipes {
            Ok((replies, pipe)) => {
                let serial = self.arrivals.next_serial();
                let client = AcceptedClient { socket, ip, replies };
                self.arrivals.newcomer = Some(Newcomer { client, serial, pipe });
                self.introduce();
            }
            Err(error) => {
                self.inherited.counters.add(Counter::Busy);
                say_busy(&socket);
                self.pause("accept_connections", &error);
            }
        }
    }

    /// Tells storage of the newcomer, and then forks its handler. Keeps it where storage can't be told now.
    pub(super) fn introduce(&mut self) {
        let Some(storage) = &self.storage.process else { return };
        let Some(newcomer) = self.arrivals.newcomer.take() else { return };
        let token = self.arrivals.secret.get(..ClientToken::LEN).unwrap_or_default();
        match storage.control.introduce(newcomer.serial, token, newcomer.pipe.as_fd()) {
            Ok(Sent::Done) => self.fork_handler(newcomer),
            // If it is dead, its successor will be told.
            Ok(sent @ (Sent::Full | Sent::Scarce | Sent::PeerGone)) => {
                self.arrivals.newcomer = Some(newcomer);
                self.could_not_tell(sent);
            }
            Err(error) => {
                self.inherited.counters.add(Counter::Busy);
                say_busy(&newcomer.client.socket);
                self.pause("accept_connections", &error);
            }
        }
    }

    pub(super) fn could_not_tell(&mut self, sent: Sent) {
        if sent == Sent::Scarce {
            self.storage.tell_again = Some(Instant::now() + TELL_AGAIN);
        }
    }

    fn fork_handler(&mut self, newcomer: Newcomer) {
        kill_point!("handler_fork");
        let Newcomer { client, serial, pipe } = newcomer;
        // Only storage has the write end from here on.
        drop(pipe);
        // It counts from the moment when it may be looked at.
        self.inherited.counters.set(Counter::Handlers, u64::from(self.handlers.count()) + 1);
        let view = self.view();
        let (queue, signals) = (&self.inherited.sender, &self.signals);
        let keep = [client.socket.as_fd(), client.replies.as_fd(), queue.as_fd(), signals.as_fd()];
        let keep: Vec<_> = keep.into_iter().chain(self.inherited.confinement.descriptor()).collect();
        match fork_child(&keep, || handler::run(&client, &view, queue, signals)) {
            Ok(pid) => {
                self.arrivals.pause_until = None;
                self.handlers.add(pid, serial);
            }
            Err(error) => {
                self.inherited.counters.set(Counter::Handlers, self.handlers.count().into());
                self.inherited.counters.add(Counter::Busy);
                say_busy(&client.socket);
                self.storage.gone.push(serial);
                self.pause("fork", &error);
            }
        }
    }
}

/// Draws a client's token at the start of the secret page, straight from the system, and puts it into the client's pipe.
pub(super) fn draw_token(secret: &mut SecretPage, pipe: &OwnedFd) -> io::Result<()> {
    let token = secret.get_mut(..ClientToken::LEN).unwrap_or_default();
    SysRng.try_fill_bytes(token).map_err(io::Error::other)?;
    nix::unistd::write(pipe, token)?;
    Ok(())
}

/// Tells a client that the server can't serve it now. It may come again.
fn say_busy(mut socket: &TcpStream) {
    use std::io::{Read as _, Write as _};
    let mut frame = Vec::new();
    ServerMessage::Error("busy: the server is out of resources, try again later").encode(&mut frame);
    // The client may be gone, and nobody is waited for: what can't be done at once is left.
    socket.set_nonblocking(true).unwrap_or_default();
    socket.write_all(&frame).unwrap_or_default();
    socket.shutdown(std::net::Shutdown::Write).unwrap_or_default();
    socket.read(&mut [0; 8192]).unwrap_or_default();
}
