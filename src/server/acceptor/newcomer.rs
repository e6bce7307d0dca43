//! A client gets its handler: the acceptor makes a pipe and puts a token into it, storage is told, the handler is forked.

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

/// A client of whom storage has not been told yet.
pub(super) struct Newcomer {
    socket: TcpStream,
    ip: IpAddr,
    /// What it is called between acceptor and storage.
    pub(super) serial: ClientSerial,
    /// The end of its reply pipe that its handler gets; the token is in it.
    replies: OwnedFd,
    /// The end that storage gets.
    pipe: OwnedFd,
}

impl Clients {
    /// Tells storage of the newcomer. Its token goes from the secret page into the socket: there is no other copy here.
    pub(super) fn introduce(&self, newcomer: &Newcomer, storage: &AcceptorEnd) -> io::Result<Sent> {
        let token = self.secret.get(..ClientToken::LEN).unwrap_or_default();
        storage.introduce(newcomer.serial, token, newcomer.pipe.as_fd())
    }
}

impl Acceptor<'_> {
    /// When the next waiting client can be made the newcomer. One at a time, as there is one secret.
    pub(super) fn welcome_due(&self, now: Instant) -> Option<Instant> {
        let possible = self.clients.newcomer.is_none()
            && self.storage.process.is_some()
            && !self.clients.waiting.is_empty();
        possible.then(|| self.clients.pause_until.unwrap_or(now))
    }

    /// Makes a newcomer of the one who waits longest. Of one only: a fork takes longer than ten connections take to come,
    /// so the backlog is looked at again before the next.
    pub(super) fn welcome_next(&mut self) {
        let now = Instant::now();
        if self.welcome_due(now).is_none_or(|due| now < due) {
            return;
        }
        let Some((socket, ip)) = self.clients.waiting.pop_front() else { return };
        let pipes = reply_pipe().and_then(|(replies, pipe)| {
            draw_token(&mut self.clients.secret, &pipe)?;
            Ok((replies, pipe))
        });
        match pipes {
            Ok((replies, pipe)) => {
                let serial = self.clients.next_serial();
                self.clients.newcomer = Some(Newcomer { socket, ip, serial, replies, pipe });
            }
            Err(error) => self.turn_away(&socket, "accept_connections", &error),
        }
    }

    /// Storage has been told of the newcomer: forks its handler.
    pub(super) fn fork_for_newcomer(&mut self) {
        let Some(newcomer) = self.clients.newcomer.take() else { return };
        let Newcomer { socket, ip, serial, replies, pipe } = newcomer;
        // Only storage has the write end from here on.
        drop(pipe);
        let client = AcceptedClient { socket, ip, replies };
        match self.fork_handler(&client) {
            Ok(pid) => {
                self.children.add(pid, Child::Handler(serial));
                if self.clients.waiting.len() >= CROWD {
                    // It would else fork until its time is up, and the backlog overflow while all that it has forked
                    // have their turns.
                    thread::yield_now();
                }
            }
            Err(error) => {
                self.clients.gone.push(serial);
                self.turn_away(&client.socket, "fork", &error);
            }
        }
    }

    fn fork_handler(&mut self, client: &AcceptedClient) -> io::Result<Pid> {
        kill_point!("handler_fork");
        let handlers = u64::from(self.children.handlers());
        // It counts from the moment when it may be looked at.
        self.inherited.counters.set(Counter::Handlers, handlers + 1);
        let view = self.view();
        let (queue, signals) = (&self.inherited.sender, &self.signals);
        let keep = [client.socket.as_fd(), client.replies.as_fd(), queue.as_fd(), signals.as_fd()];
        let keep: Vec<_> = keep.into_iter().chain(view.confinement.descriptor()).collect();
        let forked = fork_child(&keep, || handler::run(client, &view, queue, signals));
        match forked {
            Ok(_) => self.clients.pause_until = None,
            Err(_) => self.inherited.counters.set(Counter::Handlers, handlers),
        }
        forked
    }

    /// The system has not given what the client's handler needs.
    fn turn_away(&mut self, socket: &TcpStream, action: &str, error: &io::Error) {
        self.inherited.counters.add(Counter::Busy);
        say_busy(socket);
        self.clients.pause(action, error);
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
