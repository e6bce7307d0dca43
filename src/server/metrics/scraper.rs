//! One connection of a scraper: its request comes in, its answer goes out, each within a time limit. Nothing here waits.

use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use chrono::Utc;
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, recv, send};

use super::http::{self, Asked, MAX_REQUEST, Refusal};
use crate::logging::{Level, Outcome, event, info};

/// How long a request may take to come, and an answer to be taken.
const CLIENT_HAS: Duration = Duration::from_secs(5);
/// How long the storage service may take to answer.
const STORAGE_HAS: Duration = Duration::from_secs(2);
/// How long a scraper may take to close.
const CLOSING_HAS: Duration = Duration::from_secs(1);

/// The connection.
#[derive(Debug)]
pub struct Scraper {
    socket: TcpStream,
    ip: IpAddr,
    state: State,
    bytes: Vec<u8>,
    written: usize,
    deadline: Instant,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The request comes in.
    Reading,
    /// The metrics are waited for.
    Asking { body: bool },
    /// The answer goes out.
    Writing,
    /// All is sent. A socket that is closed with bytes unread resets the connection, and the answer could be lost.
    Closing,
    /// It is over.
    Over,
}

impl Scraper {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(socket: TcpStream, ip: IpAddr, now: Instant) -> Self {
        let deadline = now + CLIENT_HAS;
        Self { socket, ip, state: State::Reading, bytes: Vec::new(), written: 0, deadline }
    }

    /// Whether it waits for the metrics.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        matches!(self.state, State::Asking { .. })
    }

    /// Whether it can be dropped.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// When it has to have moved.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What its socket is waited for.
    #[must_use]
    pub fn interest(&self) -> EpollFlags {
        match self.state {
            State::Reading | State::Closing => EpollFlags::EPOLLIN,
            State::Writing => EpollFlags::EPOLLOUT,
            State::Asking { .. } | State::Over => EpollFlags::empty(),
        }
    }

    /// The socket is ready for what it is waited for, or broken.
    pub fn ready(&mut self, now: Instant) {
        match self.state {
            State::Reading => self.read(now),
            State::Writing => self.write(now),
            State::Closing => self.discard(),
            // Nothing is waited for, so it is broken.
            State::Asking { .. } | State::Over => self.state = State::Over,
        }
    }

    /// The deadline has passed.
    pub fn late(&mut self, now: Instant) {
        match self.state {
            State::Asking { .. } => self.refuse(Refusal::Unavailable, now),
            State::Reading | State::Writing => {
                info("scrape", Outcome::Fail, &[("ip", &self.ip), ("error", &"it took too long")]);
                self.state = State::Over;
            }
            State::Closing | State::Over => self.state = State::Over,
        }
    }

    /// Answers with the metrics.
    pub fn answer(&mut self, text: &str, now: Instant) {
        if let State::Asking { body } = self.state {
            event(Level::Debug, "scrape", Outcome::Success, &[("ip", &self.ip)]);
            self.respond(http::metrics(text, body, Utc::now()), now);
        }
    }

    fn refuse(&mut self, refusal: Refusal, now: Instant) {
        info("scrape", Outcome::Fail, &[("ip", &self.ip), ("error", &refusal.status())]);
        self.respond(http::refused(refusal, Utc::now()), now);
    }

    fn respond(&mut self, response: Vec<u8>, now: Instant) {
        self.bytes = response;
        self.deadline = now + CLIENT_HAS;
        self.state = State::Writing;
        self.write(now);
    }

    fn read(&mut self, now: Instant) {
        let start = self.bytes.len();
        self.bytes.resize(MAX_REQUEST, 0);
        let got = receive(&self.socket, self.bytes.get_mut(start..).unwrap_or_default());
        self.bytes.truncate(start + got.unwrap_or(0));
        match got {
            Ok(0) => self.state = State::Over,
            Ok(_) => match http::read(&self.bytes) {
                Asked::Incomplete => {}
                Asked::Metrics { body } => {
                    self.deadline = now + STORAGE_HAS;
                    self.state = State::Asking { body };
                }
                Asked::Refused(refusal) => self.refuse(refusal, now),
            },
            Err(error) => self.end_unless_temporary(error),
        }
    }

    fn write(&mut self, now: Instant) {
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            match send(self.socket.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => self.written += count,
                Err(error) => return self.end_unless_temporary(error),
            }
        }
        self.deadline = now + CLOSING_HAS;
        // A connection that is broken already needs no end.
        self.socket.shutdown(Shutdown::Write).unwrap_or_default();
        self.state = State::Closing;
    }

    fn discard(&mut self) {
        match receive(&self.socket, &mut [0; 4096]) {
            Ok(0) => self.state = State::Over,
            Ok(_) => {}
            Err(error) => self.end_unless_temporary(error),
        }
    }

    fn end_unless_temporary(&mut self, error: Errno) {
        if !matches!(error, Errno::EAGAIN | Errno::EINTR) {
            self.state = State::Over;
        }
    }
}

/// Reads without waiting, whatever the socket's mode: to change that takes a system call that the process has given up.
fn receive(socket: &TcpStream, buffer: &mut [u8]) -> nix::Result<usize> {
    recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)
}

impl AsFd for Scraper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
