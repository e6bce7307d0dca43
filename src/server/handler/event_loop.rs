//! The handler's event loop: the one place where it waits for its client, for storage, for a signal and for a time limit.
//! Only for room in the request queue it may wait elsewhere, for a tenth of a second between two rounds of the loop. It
//! decides when the connection is closed.

use std::borrow::Cow;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;
use thiserror::Error;

use super::connection::Connection;
use super::conversation::Conversation;
use super::keeper_gate::Verdict;
use super::log_lines::{log_client, log_not_authenticated};
use super::policy::{Mode, Rejection};
use super::tls::TlsSession;
use crate::ipc::keeper::KeeperClient;
use crate::ipc::shared_counters::Counter;
use crate::ipc::storage_client::PipeState;
use crate::logging::{Level, Outcome};
use crate::protocol::message::ServerMessage;
use crate::system::poll_timeout;
use crate::system::signal::{Signals, is_termination};

/// The first byte of a TLS connection. No message has this type.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long a client may take to send its first frame, the TLS handshake included.
const FIRST_FRAME: Duration = Duration::from_secs(5);
/// How often a handler without a first frame looks whether others wait for its place.
const LOOK: Duration = Duration::from_secs(1);
/// What a client is told that has to make room. It may come again.
const BUSY: &str = "busy: others wait for a place, and no message came within a second";
/// How long a handler may wait for room in the queue before it looks at its descriptors again. POSIX queues wake one
/// sender for each free place. If the handlers polled the queue instead, each place would wake one of them, mostly in vain.
const QUEUE_WAIT: Duration = Duration::from_millis(100);
/// The pause after such a wait. Where sending does not wait at all, because a handler that was taken over has changed the
/// flags of the queue's descriptor, which all handlers share, this keeps the others from spinning.
const QUEUE_PAUSE: Duration = Duration::from_millis(10);
/// How long a handler goes on writing to its client after it was told to stop.
const STOP_WRITING: Duration = Duration::from_millis(300);
/// How long a client that still sends may take to read the last reply.
const LINGER: Duration = Duration::from_secs(1);
/// As `LINGER`, while the server stops.
const STOP_LINGER: Duration = Duration::from_millis(100);

/// The client has closed its side. `nix` lacks this flag, and returns no flags at all where it is set.
const CLOSED: PollFlags = PollFlags::from_bits_retain(libc::POLLRDHUP);

/// Why a conversation ended before it was complete.
#[derive(Debug, Error)]
enum Failure {
    #[error("closed by the client within a message")]
    ClosedWithinMessage,
    #[error("closed by the client while it awaited the draw")]
    ClosedWhileAwaiting,
    #[error("{0}")]
    TimedOut(&'static str),
    #[error("it did not send a message within a second, and others wait for its place")]
    MadeRoom,
    #[error("{0}")]
    Broken(String),
    /// The client could not prove over TLS who it is.
    #[error("{0}")]
    NotProven(String),
    #[error("the storage service ended")]
    StorageEnded,
    #[error("{0}")]
    System(#[from] io::Error),
}

#[derive(Debug)]
pub(super) struct Handler<'a> {
    connection: Connection<'a>,
    conversation: Conversation<'a>,
    signals: Signals,
    started: Instant,
    /// Whether the last wait was for bytes of the client too.
    was_reading: bool,
    /// When the handler was told to stop.
    stopping_since: Option<Instant>,
    /// Whether the client's first byte has yet to tell if it speaks TLS, which is configured.
    may_start_tls: bool,
    /// The socket to the keeper, if there is one.
    keeper: Option<Arc<KeeperClient>>,
}

impl<'a> Handler<'a> {
    pub(super) fn new(
        connection: Connection<'a>,
        conversation: Conversation<'a>,
        signals: Signals,
        keeper: Option<Arc<KeeperClient>>,
    ) -> Self {
        let may_start_tls = conversation.context.tls.is_some();
        Self {
            connection,
            conversation,
            signals,
            started: Instant::now(),
            was_reading: false,
            stopping_since: None,
            may_start_tls,
            keeper,
        }
    }

    /// Serves the client until the connection has to be closed.
    pub(super) fn serve(mut self) {
        // Most clients have sent their first message by now. Where it may be TLS, it is looked at first.
        if !self.may_start_tls {
            self.connection.fill();
        }
        let ended = loop {
            if let Some(ended) = self.step().transpose() {
                break ended;
            }
        };
        self.close(&ended);
    }

    /// Does everything that can be done now, then waits for events. Returns the reason once the conversation is complete.
    fn step(&mut self) -> Result<Option<Cow<'static, str>>, Failure> {
        loop {
            self.conversation.answer(&mut self.connection)?;
            if self.wants_to_write() {
                self.connection.flush(self.conversation.is_over());
            }
            // Writing may have made room for frames and pages, and no event tells so.
            if !self.take_frames()? && !self.conversation.can_ask_page(&self.connection) {
                break;
            }
        }
        let complete = self.completion()?;
        if complete.is_none() {
            self.wait()?;
        }
        Ok(complete)
    }

    /// Takes the frames that have come. False if there was none, or none may be taken.
    fn take_frames(&mut self) -> io::Result<bool> {
        let mut any = false;
        while self.may_take_frames() {
            match self.connection.next_frame() {
                Ok(Some(frame)) => self.conversation.take(frame)?,
                Ok(None) => break,
                Err(error) => self.conversation.reject(Rejection::violation(error.to_string())),
            }
            any = true;
        }
        Ok(any)
    }

    fn may_take_frames(&self) -> bool {
        self.stopping_since.is_none()
            && self.connection.broken.is_none()
            && !self.connection.is_backed_up()
            && self.conversation.may_take_frames()
    }

    /// Whether there are bytes to write. Those of a result wait until there are many, or it is complete.
    fn wants_to_write(&self) -> bool {
        let collects = self.conversation.is_paging() && !self.connection.is_backed_up();
        self.connection.is_sending() && !collects
    }

    /// The reason to close the connection, once the conversation is complete or the server stops.
    fn completion(&self) -> Result<Option<Cow<'static, str>>, Failure> {
        let Self { connection, conversation, .. } = self;
        let is_awaiting = conversation.is_awaiting_draw();
        if conversation.is_replaced {
            // There is nothing to wait for: the client has been sent the reason, as far as its socket takes it.
            return Ok(conversation.closing.clone());
        }
        if let Some(since) = self.stopping_since {
            // What storage has been asked is answered, however long it takes. The client has a time limit.
            let waits_for_storage = !conversation.is_idle() && !is_awaiting && !conversation.is_paging();
            let waits_for_client = connection.is_sending() && since.elapsed() <= STOP_WRITING;
            return Ok((!waits_for_storage && !waits_for_client).then(|| "the server stops".into()));
        }
        if is_awaiting && (connection.is_half_closed || connection.broken.is_some()) {
            return Err(Failure::ClosedWhileAwaiting);
        }
        if let Some(error) = &connection.broken {
            // What storage has been asked is still answered, in the log.
            let is_over = conversation.is_idle() || conversation.is_paging();
            return if is_over { Err(Failure::Broken(error.clone())) } else { Ok(None) };
        }
        if !conversation.is_idle() || connection.is_sending() {
            Ok(None)
        } else if conversation.closing.is_some() {
            Ok(conversation.closing.clone())
        } else if !connection.is_half_closed || connection.input.has_frame() {
            Ok(None)
        } else if connection.input.is_empty() {
            Ok(Some("closed by the client".into()))
        } else {
            Err(Failure::ClosedWithinMessage)
        }
    }

    fn wait(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let reads = self.may_take_frames() && !self.connection.is_half_closed;
        if reads && !self.was_reading {
            // The time that the handler did not read does not count.
            self.connection.reading_since = now;
        }
        self.was_reading = reads;
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::POLLIN, reads);
        wanted.set(PollFlags::POLLOUT, self.wants_to_write());
        wanted.set(CLOSED, self.conversation.is_awaiting_draw());
        let until = self.next_due(now);
        let [signal, pipe, socket] = self.poll(wanted, until)?;
        if !signal.is_empty() && self.signals.take()?.is_some_and(|signal| self.ends_at(signal)) {
            self.stopping_since.get_or_insert_with(Instant::now);
        }
        if !pipe.is_empty() {
            match self.conversation.storage.fill()? {
                PipeState::Open => {}
                PipeState::Closed => return Err(Failure::StorageEnded),
                PipeState::Replaced => self.conversation.give_way(&mut self.connection),
            }
        }
        self.handle_socket(socket)?;
        self.conversation.storage.resume(SystemTime::now() + QUEUE_WAIT)?;
        let now = Instant::now();
        if let Some(session) = self.conversation.mode.session() {
            session.report(now);
        }
        // Asked again: the client may have moved just now.
        match self.time_limit() {
            Some((at, reason)) if now >= at => Err(Failure::TimedOut(reason)),
            _ if self.has_to_make_room(now) => Err(Failure::MadeRoom),
            _ => Ok(()),
        }
    }

    /// Whether a signal ends this process. With TLS, SIGHUP is for the acceptor.
    fn ends_at(&self, signal: Signal) -> bool {
        is_termination(signal) && (signal != Signal::SIGHUP || self.conversation.context.tls.is_none())
    }

    /// When there is something to do even if nothing happens.
    fn next_due(&mut self, now: Instant) -> Option<Instant> {
        let time_limit = self.time_limit().map(|(at, _)| at);
        let report = self.conversation.mode.session().and_then(|session| session.next_report());
        let stop = self.stopping_since.map(|since| since + STOP_WRITING);
        let queue = self.conversation.storage.is_sending().then_some(now + QUEUE_PAUSE);
        let look = self.lacks_first_frame().then(|| now + LOOK);
        [time_limit, report, stop, queue, look].into_iter().flatten().min()
    }

    /// Whether the client has not sent a whole message yet.
    fn lacks_first_frame(&self) -> bool {
        matches!(self.conversation.mode, Mode::New) && !self.connection.input.has_frame()
    }

    /// Whether other clients wait for a place and this one has not used its own.
    fn has_to_make_room(&self, now: Instant) -> bool {
        let is_silent = self.lacks_first_frame() && now >= self.started + LOOK;
        is_silent && self.conversation.context.shared.is_crowded()
    }

    /// Waits for a signal, for storage, and for what is `wanted` of the socket. Returns what has happened to each.
    fn poll(&self, wanted: PollFlags, until: Option<Instant>) -> io::Result<[PollFlags; 3]> {
        // Takes the place of what has ended. The kernel would report its end again and again.
        let nothing = || PollFd::new(self.signals.as_fd(), PollFlags::empty());
        let Self { connection, conversation, .. } = self;
        let pipe = PollFd::new(conversation.storage.pipe(), PollFlags::POLLIN);
        let socket = PollFd::new(connection.as_fd(), wanted);
        let mut fds = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            if conversation.is_replaced { nothing() } else { pipe },
            if connection.broken.is_some() { nothing() } else { socket },
        ];
        match poll(&mut fds, poll_timeout(until, Instant::now())) {
            Ok(_) | Err(Errno::EINTR) => Ok(fds.map(|fd| fd.revents().unwrap_or(CLOSED))),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads once from the client.
    fn receive(&mut self) -> Result<(), Failure> {
        if self.may_start_tls
            && let Some(first) = self.connection.first_unread()
        {
            self.may_start_tls = false;
            match (first, self.keeper.take()) {
                (TLS_HANDSHAKE, keeper) => self.start_tls(keeper)?,
                (_, Some(keeper)) => keeper.release(),
                (_, None) => {}
            }
        }
        self.connection.fill();
        match self.connection.take_verdict() {
            None => Ok(()),
            Some(Verdict::Proven(proof)) => Ok(self.conversation.prove(proof)?),
            Some(Verdict::Rejected(rejection)) => Err(Failure::NotProven(rejection.to_string())),
            Some(Verdict::NoKeeper(error)) => {
                Err(Failure::NotProven(format!("the keeper did not answer: {error}")))
            }
            Some(Verdict::Failed(error)) => Err(Failure::NotProven(error)),
        }
    }

    /// Speaks TLS with the client, from which nothing must have been read.
    fn start_tls(&mut self, keeper: Option<Arc<KeeperClient>>) -> Result<(), Failure> {
        let identity = self.conversation.context.tls.and_then(|tls| tls.identity);
        let (Some(identity), Some(keeper)) = (identity, keeper) else {
            let busy = "busy: the server can't check certificates, try again later";
            self.connection.send(&ServerMessage::Error(busy));
            self.connection.flush(true);
            return Err(Failure::NotProven("there is no keeper".to_owned()));
        };
        self.connection.start_tls(TlsSession::new(identity, keeper)?);
        Ok(())
    }

    fn handle_socket(&mut self, events: PollFlags) -> Result<(), Failure> {
        if events.contains(PollFlags::POLLIN) && self.may_take_frames() {
            self.receive()?;
        }
        if events.contains(CLOSED) && self.conversation.is_awaiting_draw() {
            self.connection.is_half_closed = true;
        }
        let is_lost = events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP);
        // Bytes that came before the connection was lost are read first.
        let is_read = self.connection.is_half_closed || !self.may_take_frames();
        if is_lost && is_read && self.connection.broken.is_none() {
            self.connection.broken = Some("connection reset".to_owned());
        }
        Ok(())
    }

    /// When the client has to have moved, and the reason for closing if it has not.
    fn time_limit(&self) -> Option<(Instant, &'static str)> {
        let connection = &self.connection;
        if self.stopping_since.is_some() || connection.broken.is_some() {
            return None;
        }
        let timeout = self.conversation.context.client_timeout;
        if self.wants_to_write() {
            return Some((connection.writing_since + timeout, "it did not take its reply in time"));
        }
        if !self.may_take_frames() || connection.is_half_closed || connection.input.has_frame() {
            return None;
        }
        if matches!(self.conversation.mode, Mode::New) {
            return Some((self.started + timeout.min(FIRST_FRAME), "it did not send a message in time"));
        }
        (!connection.input.is_empty())
            .then(|| (connection.reading_since + timeout, "it did not finish its message in time"))
    }

    /// Logs how the conversation ended. Makes sure that the client gets the last reply.
    fn close(&mut self, ended: &Result<Cow<'static, str>, Failure>) {
        self.conversation.announce();
        if let Err(Failure::MadeRoom) = ended {
            self.connection.send(&ServerMessage::Error(BUSY));
            self.connection.flush(true);
        }
        match (&self.conversation.mode, ended) {
            (Mode::Session(session), Ok(reason)) => session.log_closed(Outcome::Success, reason),
            (Mode::Session(session), Err(failure)) => session.log_closed(Outcome::Fail, failure),
            (_, Err(Failure::NotProven(reason))) => {
                self.conversation.context.counters.add(Counter::NotProven);
                log_not_authenticated(self.conversation.ip, reason);
            }
            (Mode::New | Mode::Classic, Ok(_)) => {}
            (Mode::New | Mode::Classic, Err(failure)) => {
                // What became of its message has a line already, unless the reply is pending.
                let has_line = self.conversation.closing.is_some() && self.conversation.is_idle();
                let level = if has_line { Level::Debug } else { Level::Info };
                log_client(level, self.conversation.ip, failure);
            }
        }
        self.connection.finish_tls();
        let is_refused = matches!(ended, Err(Failure::NotProven(_)));
        if is_refused {
            // Only TLS is broken.
            self.connection.broken = None;
        }
        if ended.is_ok() || is_refused {
            self.linger(is_refused);
        }
    }

    /// Discards for a moment what the client still sends. If a socket is closed with unread bytes, the kernel resets the
    /// connection, and the client may lose the last reply. A client that was `refused` within TLS may be about to send.
    fn linger(&self, refused: bool) {
        let connection = &self.connection;
        let is_over = connection.broken.is_some() || connection.is_half_closed;
        if is_over || !(refused || connection.has_unread()) {
            return;
        }
        connection.finish_writing();
        let limit = if self.stopping_since.is_some() { STOP_LINGER } else { LINGER };
        let until = Instant::now() + limit;
        while Instant::now() < until && !connection.discard_input() {
            // A signal, or the end of storage, ends the wait.
            match self.poll(PollFlags::POLLIN, Some(until)) {
                Ok([signal, pipe, _]) if signal.is_empty() && pipe.is_empty() => {}
                _ => return,
            }
        }
    }
}
