//! The handler's event loop, where it waits for its client, for storage, for a signal and for a time limit.
//! Elsewhere it waits only for room in the request queue, up to a tenth of a second in each round of the loop, and for the
//! keeper's answers, up to a second each. The loop decides when the connection is closed.

use std::borrow::Cow;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;
use thiserror::Error;

use super::conversation::Conversation;
use super::keeper_gate::NotProven;
use super::log_lines::{Session, log_client, log_not_authenticated};
use super::tls::TlsSession;
use crate::ipc::shared_counters::Counter;
use crate::ipc::storage_client::PipeState;
use crate::logging::{Level, Outcome};
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

/// Why the loop ends.
#[derive(Debug, Error)]
enum End {
    /// The conversation is complete.
    #[error("{0}")]
    Complete(Cow<'static, str>),
    /// The client or storage has left, or a time limit has passed.
    #[error("{0}")]
    Broken(Cow<'static, str>),
    #[error("it did not send a message within a second, and others wait for its place")]
    MadeRoom,
    /// The client could not prove over TLS who it is.
    #[error(transparent)]
    NotProven(#[from] NotProven),
    #[error("{0}")]
    System(#[from] io::Error),
}

#[derive(Debug)]
pub(super) struct Handler<'a> {
    conversation: Conversation<'a>,
    signals: Signals,
    started: Instant,
    /// When the handler was told to stop.
    stopping_since: Option<Instant>,
    /// Whether the client's first byte has yet to tell if it speaks TLS, which is configured.
    may_start_tls: bool,
}

impl<'a> Handler<'a> {
    pub(super) fn new(conversation: Conversation<'a>, signals: Signals) -> Self {
        Self {
            may_start_tls: conversation.context.config.tls_dir.is_some(),
            conversation,
            signals,
            started: Instant::now(),
            stopping_since: None,
        }
    }

    /// Serves the client until the connection has to be closed.
    pub(super) fn serve(mut self) {
        // Most clients have sent their first message by now. Where it may be TLS, it is looked at first.
        if !self.may_start_tls {
            self.conversation.connection.fill();
        }
        let end = loop {
            if let Err(end) = self.step() {
                break end;
            }
        };
        self.close(&end);
    }

    /// Does everything that can be done now, then waits for events.
    fn step(&mut self) -> Result<(), End> {
        loop {
            self.conversation.answer()?;
            if self.conversation.wants_to_write() {
                self.conversation.flush();
            }
            // Writing may have made room for frames and pages, and no event tells so.
            if !self.take_frames()? && !self.conversation.can_ask_page() {
                break;
            }
        }
        self.check_end()?;
        self.wait()
    }

    /// Takes the frames that have come. False if there was none, or none may be taken.
    fn take_frames(&mut self) -> io::Result<bool> {
        let mut any = false;
        while self.may_take_frames() && self.conversation.take_frame()? {
            any = true;
        }
        Ok(any)
    }

    fn may_take_frames(&self) -> bool {
        self.stopping_since.is_none() && self.conversation.may_take_frames()
    }

    /// Returns an error once the conversation is complete or broken, or the server stops.
    fn check_end(&self) -> Result<(), End> {
        let conversation = &self.conversation;
        let connection = &conversation.connection;
        let complete = || conversation.closing.clone().map_or(Ok(()), |reason| Err(End::Complete(reason)));
        let is_awaiting = conversation.is_awaiting_draw();
        if conversation.is_replaced {
            // There is nothing to wait for: the client has been sent the reason, as far as its socket takes it.
            return complete();
        }
        if let Some(since) = self.stopping_since {
            // What storage has been asked is answered, however long it takes. The client has a time limit.
            let waits_for_storage = !conversation.is_idle() && !is_awaiting && !conversation.is_paging();
            let waits_for_client = connection.is_sending() && since.elapsed() <= STOP_WRITING;
            let waits = waits_for_storage || waits_for_client;
            return if waits { Ok(()) } else { Err(End::Complete("the server stops".into())) };
        }
        if is_awaiting && (connection.is_half_closed || connection.broken.is_some()) {
            return Err(End::Broken("closed by the client while it awaited the draw".into()));
        }
        if let Some(error) = &connection.broken {
            // What storage has been asked is still answered, in the log.
            let is_over = conversation.is_idle() || conversation.is_paging();
            return if is_over { Err(End::Broken(error.clone().into())) } else { Ok(()) };
        }
        if !conversation.is_idle() || connection.is_sending() {
            return Ok(());
        }
        complete()?;
        if !connection.is_half_closed || connection.input.has_frame() {
            Ok(())
        } else if connection.input.is_empty() {
            Err(End::Complete("closed by the client".into()))
        } else {
            Err(End::Broken("closed by the client within a message".into()))
        }
    }

    fn wait(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let reads = self.may_take_frames() && !self.conversation.connection.is_half_closed;
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::POLLIN, reads);
        wanted.set(PollFlags::POLLOUT, self.conversation.wants_to_write());
        wanted.set(CLOSED, self.conversation.is_awaiting_draw());
        let until = self.next_due(now);
        let [signal, pipe, socket] = self.poll(wanted, until)?;
        if !signal.is_empty() && self.signals.take()?.is_some_and(|signal| self.ends_at(signal)) {
            self.stopping_since.get_or_insert_with(Instant::now);
        }
        if !pipe.is_empty() {
            match self.conversation.storage.fill()? {
                PipeState::Open => {}
                PipeState::Closed => return Err(End::Broken("the storage service ended".into())),
                PipeState::Replaced => self.conversation.give_way(),
            }
        }
        self.handle_socket(socket)?;
        self.conversation.storage.resume(SystemTime::now() + QUEUE_WAIT)?;
        let now = Instant::now();
        if !reads {
            // This wait does not count for the time limit of a frame.
            self.conversation.connection.reading_since = now;
        }
        if let Some(session) = &mut self.conversation.session {
            session.report(now);
        }
        // Computed again: the client may have sent or taken bytes meanwhile.
        match self.time_limit() {
            Some((at, reason)) if now >= at => Err(End::Broken(reason.into())),
            _ if self.has_to_make_room(now) => Err(End::MadeRoom),
            _ => Ok(()),
        }
    }

    /// Whether a signal ends this process. With TLS, SIGHUP is for the acceptor.
    fn ends_at(&self, signal: Signal) -> bool {
        is_termination(signal)
            && (signal != Signal::SIGHUP || self.conversation.context.config.tls_dir.is_none())
    }

    /// When there is something to do even if nothing happens.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        let time_limit = self.time_limit().map(|(at, _)| at);
        let report = self.conversation.session.as_ref().and_then(Session::next_report);
        let stop = self.stopping_since.map(|since| since + STOP_WRITING);
        let queue = self.conversation.storage.is_sending().then_some(now + QUEUE_PAUSE);
        let look = self.conversation.lacks_first_frame().then(|| now + LOOK);
        [time_limit, report, stop, queue, look].into_iter().flatten().min()
    }

    /// Whether other clients wait for a place and this one has not used its own.
    fn has_to_make_room(&self, now: Instant) -> bool {
        let is_silent = self.conversation.lacks_first_frame() && now >= self.started + LOOK;
        is_silent && self.conversation.context.shared.is_crowded()
    }

    /// Waits for a signal, for storage, and for what is `wanted` of the socket. Returns what has happened to each.
    fn poll(&self, wanted: PollFlags, until: Option<Instant>) -> io::Result<[PollFlags; 3]> {
        let Conversation { connection, storage, is_replaced, .. } = &self.conversation;
        // Takes the place of what has ended. The kernel would report its end again and again.
        let nothing = || PollFd::new(self.signals.as_fd(), PollFlags::empty());
        let pipe = PollFd::new(storage.pipe(), PollFlags::POLLIN);
        let socket = PollFd::new(connection.as_fd(), wanted);
        let mut fds = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            if *is_replaced { nothing() } else { pipe },
            if connection.broken.is_some() { nothing() } else { socket },
        ];
        match poll(&mut fds, poll_timeout(until, Instant::now())) {
            Ok(_) | Err(Errno::EINTR) => Ok(fds.map(|fd| fd.revents().unwrap_or(CLOSED))),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads once from the client.
    fn receive(&mut self) -> Result<(), End> {
        if self.may_start_tls
            && let Some(first) = self.conversation.connection.first_unread()
        {
            self.may_start_tls = false;
            self.choose_tls(first)?;
        }
        self.conversation.connection.fill();
        if let Some(verdict) = self.conversation.connection.take_verdict() {
            self.conversation.prove(verdict?)?;
        }
        Ok(())
    }

    /// Speaks TLS with the client, from which nothing must have been read, if its first byte asks for that.
    fn choose_tls(&mut self, first: u8) -> Result<(), End> {
        let Conversation { connection, context, .. } = &mut self.conversation;
        match (first, context.identity, &context.keeper) {
            (TLS_HANDSHAKE, Some(identity), Some(keeper)) => {
                connection.start_tls(TlsSession::new(identity, keeper.clone())?);
            }
            (TLS_HANDSHAKE, ..) => {
                connection.send_last("busy: the server can't check certificates, try again later");
                return Err(NotProven::NoKeeper("there is no keeper".to_owned()).into());
            }
            (_, _, Some(keeper)) => keeper.release(),
            (_, _, None) => {}
        }
        Ok(())
    }

    fn handle_socket(&mut self, events: PollFlags) -> Result<(), End> {
        if events.contains(PollFlags::POLLIN) && self.may_take_frames() {
            self.receive()?;
        }
        let may_read = self.may_take_frames();
        let is_awaiting = self.conversation.is_awaiting_draw();
        let connection = &mut self.conversation.connection;
        connection.is_half_closed |= events.contains(CLOSED) && is_awaiting;
        let is_lost = events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP);
        // Bytes that came before the connection was lost are read first.
        if is_lost && (connection.is_half_closed || !may_read) && connection.broken.is_none() {
            connection.broken = Some("connection reset".to_owned());
        }
        Ok(())
    }

    /// The time by which the client must have sent or taken bytes, and the reason to close the connection if it has not.
    fn time_limit(&self) -> Option<(Instant, &'static str)> {
        let connection = &self.conversation.connection;
        if self.stopping_since.is_some() || connection.broken.is_some() {
            return None;
        }
        let timeout = self.conversation.context.config.client_timeout;
        if self.conversation.wants_to_write() {
            return Some((connection.writing_since + timeout, "it did not take its reply in time"));
        }
        if !self.may_take_frames() || connection.is_half_closed || connection.input.has_frame() {
            return None;
        }
        if self.conversation.lacks_first_frame() {
            return Some((self.started + timeout.min(FIRST_FRAME), "it did not send a message in time"));
        }
        (!connection.input.is_empty())
            .then(|| (connection.reading_since + timeout, "it did not finish its message in time"))
    }

    /// Logs how the conversation ended. Makes sure that the client gets the last reply.
    fn close(&mut self, end: &End) {
        let conversation = &mut self.conversation;
        conversation.log_arrival();
        if let End::MadeRoom = end {
            conversation.connection.send_last(BUSY);
        }
        let is_complete = matches!(end, End::Complete(_));
        match (&conversation.session, end) {
            (Some(session), _) => {
                let outcome = if is_complete { Outcome::Success } else { Outcome::Fail };
                session.log_closed(outcome, end);
            }
            (_, End::NotProven(reason)) => {
                conversation.context.counters.add(Counter::NotProven);
                log_not_authenticated(conversation.ip, reason);
            }
            (_, End::Complete(_)) => {}
            (_, failure) => {
                // What became of its message has a line already, unless the reply is pending.
                let has_line = conversation.closing.is_some() && conversation.is_idle();
                let level = if has_line { Level::Debug } else { Level::Info };
                log_client(level, conversation.ip, failure);
            }
        }
        conversation.connection.finish_tls();
        let is_refused = matches!(end, End::NotProven(_));
        if is_complete || is_refused {
            self.linger(is_refused);
        }
    }

    /// Discards for a moment what the client still sends. If a socket is closed with unread bytes, the kernel resets the
    /// connection, and the client may lose the last reply. A client that was `refused` within TLS may be about to send.
    fn linger(&self, refused: bool) {
        let connection = &self.conversation.connection;
        let is_over = connection.broken.is_some() || connection.is_half_closed;
        if is_over || !(refused || connection.first_unread().is_some()) {
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
