//! The clients that have no handler yet: those in the backlog of the listening socket, and those that were accepted.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags};

use super::listener::{Listener, send_busy};
use super::pause::Pause;

pub(super) struct Arrivals {
    /// None once the server stops.
    listener: Option<Listener>,
    /// How many clients the server has at most.
    pub(super) places: u32,
    /// Clients that were accepted, and have no reply pipe yet.
    waiting: VecDeque<(TcpStream, IpAddr)>,
    /// Whether all places are taken and a client waits. Handlers without a message then make room.
    is_crowded: bool,
    /// The pause before a client is accepted or prepared, after the system has refused what the one before needed.
    pub(super) pause: Pause,
    /// Connections accepted since the server started.
    pub(super) connections: u64,
    /// Clients that were rejected because the system refused what they needed.
    pub(super) busy: u64,
}

impl Arrivals {
    pub(super) fn new(listener: Listener, places: u32) -> Self {
        Self {
            listener: Some(listener),
            places,
            waiting: VecDeque::new(),
            is_crowded: false,
            pause: Pause::default(),
            connections: 0,
            busy: 0,
        }
    }

    /// The listener, if it has not begun to listen.
    pub(super) fn silent_listener(&mut self) -> Option<&mut Listener> {
        self.listener.as_mut().filter(|listener| !listener.is_listening)
    }

    /// Whether another client may be accepted while there are so many handlers.
    fn has_place(&self, handlers: u32) -> bool {
        let waiting = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        handlers.saturating_add(waiting) < self.places
    }

    /// The listener, if a connection matters to the acceptor: it may accept one, or it has no place and does not know yet that a
    /// client waits.
    fn watched(&self, handlers: u32, now: Instant) -> Option<&Listener> {
        let matters = if self.has_place(handlers) { self.pause.end(now).is_none() } else { !self.is_crowded };
        self.listener.as_ref().filter(|listener| matters && listener.is_listening)
    }

    pub(super) fn interest(&self, handlers: u32, now: Instant) -> Option<PollFd<'_>> {
        self.watched(handlers, now).map(|listener| PollFd::new(listener.socket.as_fd(), PollFlags::POLLIN))
    }

    /// Accepts all connections that wait. An accept is far quicker than a fork, and a client that finds the backlog full
    /// tries again only after a second.
    pub(super) fn accept(&mut self, handlers: u32) {
        self.is_crowded = !self.has_place(handlers);
        while self.has_place(handlers)
            && let Some(listener) = self.watched(handlers, Instant::now())
        {
            match listener.accept() {
                Ok(Some(client)) => {
                    self.connections += 1;
                    self.waiting.push_back(client);
                }
                Ok(None) => return,
                Err(error) => self.pause.begin_after("accept_connections", &error),
            }
        }
    }

    pub(super) fn is_crowded(&mut self, handlers: u32) -> bool {
        self.is_crowded &= !self.has_place(handlers);
        self.is_crowded
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn has_next(&self, now: Instant) -> bool {
        !self.waiting.is_empty() && self.pause.end(now).is_none()
    }

    pub(super) fn take_next(&mut self) -> Option<(TcpStream, IpAddr)> {
        self.waiting.pop_front()
    }

    /// Rejects a client because the system has refused what its handler needs. For a moment no further client is accepted or
    /// prepared.
    pub(super) fn reject(&mut self, socket: &TcpStream, action: &str, error: &io::Error) {
        self.busy += 1;
        send_busy(socket);
        self.pause.begin_after(action, error);
    }

    pub(super) fn stop(&mut self) {
        self.listener = None;
        self.waiting.clear();
    }
}
