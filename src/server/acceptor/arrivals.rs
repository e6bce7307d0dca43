//! The clients that have no handler yet: those in the backlog of the listening socket, and those that were accepted.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use super::listener::{Listener, send_busy};
use super::pause::Pause;
use crate::logging::{Level, Outcome, event};

/// The pause after the system has refused what a client needs.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Arrivals {
    /// None once the server stops.
    listener: Option<Listener>,
    /// How many clients the server has at most.
    places: u32,
    /// Clients that were accepted, and have no reply pipe yet.
    waiting: VecDeque<(TcpStream, IpAddr)>,
    /// Whether all places are taken and a client waits. Handlers without a message then make room.
    is_crowded: bool,
    /// The pause before a client is accepted or prepared, after the system has refused what the one before needed.
    pause: Pause,
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

    /// What to wait for: a connection.
    pub(super) fn interest(&self, handlers: u32, now: Instant) -> Option<BorrowedFd<'_>> {
        self.watched(handlers, now).map(|listener| listener.socket.as_fd())
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
                Err(error) => self.hold_back("accept_connections", &error),
            }
        }
    }

    /// Whether all places are taken and a client waits.
    pub(super) fn is_crowded(&mut self, handlers: u32) -> bool {
        self.is_crowded &= !self.has_place(handlers);
        self.is_crowded
    }

    /// How many clients wait to be prepared.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a client waits and may be prepared.
    pub(super) fn has_next(&self, now: Instant) -> bool {
        !self.waiting.is_empty() && self.pause.end(now).is_none()
    }

    /// Takes the client that has waited longest.
    pub(super) fn take_next(&mut self) -> Option<(TcpStream, IpAddr)> {
        self.waiting.pop_front()
    }

    /// When the pause ends, if there is one.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.pause.end(now)
    }

    /// Ends the series of pauses: a client has its handler.
    pub(super) fn succeed(&mut self) {
        self.pause.succeed();
    }

    /// Rejects a client because the system has refused what its handler needs.
    pub(super) fn reject(&mut self, socket: &TcpStream, action: &str, error: &io::Error) {
        self.busy += 1;
        send_busy(socket);
        self.hold_back(action, error);
    }

    /// Accepts and prepares no further client for a moment.
    fn hold_back(&mut self, action: &str, error: &io::Error) {
        if self.pause.begin(PAUSE) {
            event(Level::Error, action, Outcome::Fail, &[("error", error)]);
        }
    }

    /// Closes the listening socket and the connections that wait.
    pub(super) fn stop(&mut self) {
        self.listener = None;
        self.waiting.clear();
    }
}
