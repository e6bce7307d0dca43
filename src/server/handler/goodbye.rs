//! How the service of a client ends: when it is over, what the log says, and that the client gets what was sent.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::dialog::Mode;
use super::event_loop::{Handler, SOCKET, timeout_until};
use super::log_lines::log_client;
use crate::logging::Outcome;

/// How long a handler that was told to stop goes on writing.
pub(super) const STOP_WRITING: Duration = Duration::from_millis(300);
/// How long the last reply may take to be read by a client that still sends.
const LINGER: Duration = Duration::from_secs(1);
/// As `LINGER`, while the server stops.
const STOP_LINGER: Duration = Duration::from_millis(100);

/// How the service of a client ended.
#[derive(Debug)]
pub enum Ending {
    /// All is answered, and the client or the protocol wanted no more.
    Done(String),
    /// The client stalled or broke the connection.
    Client(String),
    /// The server is stopping.
    Stopped,
    /// The storage service is gone: what was asked of it has no answer.
    StorageGone,
    /// What should not happen.
    Failed(io::Error),
}

impl Ending {
    fn outcome(&self) -> Outcome {
        if matches!(self, Self::Done(_) | Self::Stopped) { Outcome::Success } else { Outcome::Fail }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(reason) | Self::Client(reason) => f.write_str(reason),
            Self::Stopped => f.write_str("the server stops"),
            Self::StorageGone => f.write_str("the storage service ended"),
            Self::Failed(error) => write!(f, "{error}"),
        }
    }
}

impl Handler<'_> {
    /// Whether it is over, and how.
    pub(super) fn ending(&self) -> Option<Ending> {
        let unsent = self.broken.is_none() && self.connection.is_sending();
        if let Some(since) = self.stopping {
            // What storage has is answered, however long it takes; only the client's pace has a limit.
            let waits = !self.dialog.is_idle() && !self.dialog.is_awaiting() && !self.dialog.is_streaming();
            let late = since.elapsed() > STOP_WRITING;
            return (!waits && (!unsent || late)).then_some(Ending::Stopped);
        }
        if self.broken.is_some() && self.dialog.is_streaming() {
            return self.broken.clone().map(Ending::Client);
        }
        if self.dialog.is_awaiting() && (self.connection.is_half_closed() || self.broken.is_some()) {
            return Some(Ending::Client("closed by the client while it awaited the draw".to_owned()));
        }
        if !self.dialog.is_idle() || unsent {
            return None;
        }
        if let Some(error) = &self.broken {
            return Some(Ending::Client(error.clone()));
        }
        if let Some(reason) = self.dialog.ending() {
            return Some(Ending::Done(reason.to_owned()));
        }
        (self.connection.is_half_closed() && !self.connection.has_frame()).then(|| {
            if self.connection.is_input_empty() {
                Ending::Done("closed by the client".to_owned())
            } else {
                Ending::Client("closed by the client within a message".to_owned())
            }
        })
    }

    /// Logs how it ended, and closes so that the client gets what was sent.
    pub fn say_goodbye(&mut self, ending: &Ending) {
        self.announce(None);
        let outcome = ending.outcome();
        match &self.dialog.mode {
            Mode::Session(session) => session.log_closed(outcome, &ending.to_string()),
            Mode::New | Mode::Classic if outcome == Outcome::Fail => log_client(self.dialog.ip, ending),
            Mode::New | Mode::Classic => {}
        }
        if outcome == Outcome::Success {
            self.linger();
        }
    }

    /// A socket that is closed with bytes unread resets the connection, and the client could lose our last reply: so what
    /// it still sends is thrown away for a moment.
    fn linger(&mut self) {
        if self.broken.is_some() || self.connection.is_half_closed() || !self.connection.has_unread() {
            return;
        }
        self.connection.finish_writing();
        let limit = if self.stopping.is_some() { STOP_LINGER } else { LINGER };
        let until = Instant::now() + limit;
        let mut interest = EpollEvent::new(EpollFlags::EPOLLIN, SOCKET);
        if self.epoll.modify(&self.connection, &mut interest).is_err() {
            return;
        }
        while !self.connection.discard_input() {
            let now = Instant::now();
            let mut events = [EpollEvent::empty(); 4];
            let waited = self.epoll.wait(&mut events, timeout_until(Some(until), now));
            let only_others =
                waited.is_ok_and(|count| events.iter().take(count).all(|event| event.data() != SOCKET));
            if only_others || now >= until {
                return;
            }
        }
    }
}
