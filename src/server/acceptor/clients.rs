//! The acceptor's part in its clients: they are accepted, wait for a process of their own, and are forgotten once it ended.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, TcpStream};
use std::time::Instant;

use nix::unistd::Pid;

use super::listener::Listener;
use super::newcomer::Newcomer;
use super::{Acceptor, PAUSE};
use crate::ipc::client::ClientSerial;
use crate::ipc::shared_counters::Counter;
use crate::logging::{Level, Outcome, event};
use crate::system::process::Exit;
use crate::system::secret_page::SecretPage;

/// Those on their way from the backlog to a process of their own, and those of whom storage is to be told.
pub(super) struct Clients {
    /// They were accepted, and have no handler yet. With the handlers no more than `max_clients`.
    pub(super) waiting: VecDeque<(TcpStream, IpAddr)>,
    /// The one of whom storage is told next.
    pub(super) newcomer: Option<Newcomer>,
    /// The newcomer's token, at its start.
    pub(super) secret: SecretPage,
    /// Those whose process has ended, and of whom storage has not been told so yet.
    pub(super) gone: Vec<ClientSerial>,
    /// Until when nobody is accepted, as the system has not given what the last one needed. Kept until one is served.
    pub(super) pause_until: Option<Instant>,
    /// The serial of the last one.
    serial: ClientSerial,
}

impl Clients {
    /// Nobody yet.
    pub(super) fn new() -> io::Result<Self> {
        let (waiting, secret) = (VecDeque::new(), SecretPage::new()?);
        Ok(Self { waiting, newcomer: None, secret, gone: Vec::new(), pause_until: None, serial: 0 })
    }

    /// What the next one is called between acceptor and storage.
    pub(super) fn next_serial(&mut self) -> ClientSerial {
        self.serial += 1;
        self.serial
    }

    /// Leaves further ones in the backlog for a moment. Said once, until one is served again.
    pub(super) fn pause(&mut self, action: &str, error: &io::Error) {
        if self.pause_until.is_none() {
            event(Level::Error, action, Outcome::Fail, &[("error", error)]);
        }
        self.pause_until = Some(Instant::now() + PAUSE);
    }
}

impl Acceptor<'_> {
    /// Whether one more connection is to be taken from the backlog.
    pub(super) fn can_accept(&self, now: Instant) -> bool {
        let waiting = u32::try_from(self.clients.waiting.len()).unwrap_or(u32::MAX);
        matches!(self.listener, Listener::Listening { .. })
            && self.children.handlers().saturating_add(waiting) < self.max_clients
            && self.clients.pause_until.is_none_or(|until| now >= until)
    }

    /// Accepts whoever has come. That is far quicker than forking for them, so a crowd that comes at once does not
    /// overflow the backlog: who does has to knock again after a second, and then after two.
    pub(super) fn accept_all(&mut self) {
        while self.can_accept(Instant::now()) {
            let Listener::Listening { socket, .. } = &self.listener else { return };
            match socket.accept() {
                Ok((socket, address)) => {
                    self.inherited.counters.add(Counter::Connections);
                    self.clients.waiting.push_back((socket, address.ip()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // That connection was given up before it was accepted. A signal must not wait for all such.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => return,
                Err(error) => self.clients.pause("accept_connections", &error),
            }
        }
    }

    /// Its place is free, and storage is to be told.
    pub(super) fn handler_ended(&mut self, pid: Pid, client: ClientSerial, exit: Exit) {
        self.inherited.counters.set(Counter::Handlers, self.children.handlers().into());
        self.clients.gone.push(client);
        if exit != Exit::Status(0) && self.stopping.is_none() {
            event(Level::Warning, "handler", Outcome::Fail, &[("pid", &pid), ("error", &exit)]);
        }
    }
}
