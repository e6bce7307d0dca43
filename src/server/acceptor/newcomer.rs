//! One who gets a process of its own that talks to storage: a client, or those who scrape the metrics. All go the same way:
//! a pipe with a token in it, storage is told, the process is forked.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Instant;

use nix::unistd::Pid;
use rand::TryRng as _;
use rand::rngs::SysRng;

use super::Acceptor;
use super::children::Child;
use super::clients::Clients;
use crate::failpoint::kill_point;
use crate::ipc::client::{ClientSerial, ClientToken};
use crate::ipc::control::AcceptorEnd;
use crate::ipc::reply_pipe::reply_pipe;
use crate::ipc::shared_counters::Counter;
use crate::protocol::message::ServerMessage;
use crate::server::handler::{self, AcceptedClient};
use crate::system::fd_passing::Sent;
use crate::system::process::fork_child;
use crate::system::secret_page::SecretPage;

/// Of so many clients that wait for a handler it is taken that more are coming.
const CROWD: usize = 16;

/// Whom the process is for.
pub(super) enum Guest {
    /// A client, and its address.
    Client(TcpStream, IpAddr),
    /// All who scrape the metrics.
    Scrapers,
}

/// One of whom storage has not been told yet.
pub(super) struct Newcomer {
    guest: Guest,
    /// What it is called between acceptor and storage.
    pub(super) serial: ClientSerial,
    /// The end of its reply pipe that its process gets; the token is in it.
    replies: OwnedFd,
    /// The end that storage gets.
    pipe: OwnedFd,
}

impl Clients {
    /// Tells storage of the newcomer. Its token goes from the secret page into the socket: there is no other copy here.
    pub(super) fn introduce(&self, newcomer: &Newcomer, storage: &AcceptorEnd) -> io::Result<Sent> {
        let token = self.secret.get(..ClientToken::LEN).unwrap_or_default();
        storage.announce(newcomer.serial, token, newcomer.pipe.as_fd())
    }
}

impl Acceptor<'_> {
    /// From when on somebody can be made a newcomer, if there is somebody. One at a time, as there is one secret.
    pub(super) fn welcome_due(&self, now: Instant) -> Option<Instant> {
        if self.clients.newcomer.is_some() || self.storage.process.is_none() {
            return None;
        }
        let client = (!self.clients.waiting.is_empty()).then(|| self.clients.pause_until.unwrap_or(now));
        client.into_iter().chain(self.metrics_due()).min()
    }

    /// Makes a newcomer of the one who waits longest. Of one only: a fork takes longer than ten connections take to come,
    /// so the backlog is looked at again before the next.
    pub(super) fn welcome_next(&mut self) {
        let now = Instant::now();
        if self.welcome_due(now).is_none_or(|due| now < due) {
            return;
        }
        let Some(guest) = self.next_guest(now) else { return };
        let pipes = reply_pipe().and_then(|(replies, pipe)| {
            draw_token(&mut self.clients.secret, &pipe)?;
            Ok((replies, pipe))
        });
        match pipes {
            Ok((replies, pipe)) => {
                let serial = self.clients.next_serial();
                self.clients.newcomer = Some(Newcomer { guest, serial, replies, pipe });
            }
            Err(error) => self.turn_away(guest, "accept_connections", &error),
        }
    }

    fn next_guest(&mut self, now: Instant) -> Option<Guest> {
        if self.metrics_due().is_some_and(|due| now >= due) {
            return self.take_scrapers();
        }
        let (socket, ip) = self.clients.waiting.pop_front()?;
        Some(Guest::Client(socket, ip))
    }

    /// Storage has been told of the newcomer: forks its process.
    pub(super) fn fork_for_newcomer(&mut self) {
        let Some(Newcomer { guest, serial, replies, pipe }) = self.clients.newcomer.take() else { return };
        // Only storage has the write end from here on.
        drop(pipe);
        let (guest, child, forked) = match guest {
            Guest::Client(socket, ip) => {
                let client = AcceptedClient { socket, ip, replies };
                let forked = self.fork_handler(&client);
                (Guest::Client(client.socket, ip), Child::Handler(serial), forked)
            }
            Guest::Scrapers => (guest, Child::Metrics(serial), self.fork_metrics(replies)),
        };
        match forked {
            Ok(pid) => {
                self.children.add(pid, child);
                if self.clients.waiting.len() >= CROWD {
                    // It would else fork until its time is up, and the backlog overflow while all that it has forked
                    // have their turns.
                    thread::yield_now();
                }
            }
            Err(error) => {
                self.clients.gone.push(serial);
                self.turn_away(guest, "fork", &error);
            }
        }
    }

    fn fork_handler(&mut self, client: &AcceptedClient) -> io::Result<Pid> {
        kill_point!("handler_fork");
        let handlers = u64::from(self.children.handlers());
        // It counts from the moment when it may be looked at.
        self.inherited.counters.set(Counter::Handlers, handlers + 1);
        let context = self.context();
        let (queue, signals) = (&self.inherited.sender, &self.signals);
        let keep = [client.socket.as_fd(), client.replies.as_fd(), queue.as_fd(), signals.as_fd()];
        let keep: Vec<_> = keep.into_iter().chain(context.confinement.descriptor()).collect();
        let forked = fork_child(&keep, || handler::run(client, &context, queue, signals));
        match forked {
            Ok(_) => self.clients.pause_until = None,
            Err(_) => self.inherited.counters.set(Counter::Handlers, handlers),
        }
        forked
    }

    /// The system has not given what the newcomer's process needs.
    pub(super) fn turn_away(&mut self, guest: Guest, action: &str, error: &io::Error) {
        match guest {
            Guest::Client(socket, _) => {
                self.inherited.counters.add(Counter::Busy);
                say_busy(&socket);
                self.clients.pause(action, error);
            }
            Guest::Scrapers => self.metrics_not_started(error),
        }
    }
}

/// Draws a client's token at the start of the secret page, straight from the system, and puts it into the client's pipe.
fn draw_token(secret: &mut SecretPage, pipe: &OwnedFd) -> io::Result<()> {
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
