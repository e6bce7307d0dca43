//! The handler's event loop: the one place where it waits for its client, for storage, for room in the request queue, for
//! a signal and for a time limit. It decides when the connection is closed.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::connection::Connection;
use super::conversation::{CLOSED_WHILE_AWAITING, Conversation};
use super::log_lines::{log_accepted, log_client};
use super::policy::{Mode, Rejection};
use crate::ipc::storage_client::PipeState;
use crate::logging::{Level, Outcome};
use crate::protocol::frame::FrameType;
use crate::system::signal::{Signals, is_termination};

/// How long a client may take to send its first frame.
const FIRST_FRAME: Duration = Duration::from_secs(5);
/// How soon a handler tries again to send to a full queue if no event comes: the handler that was woken instead of this
/// one may have been killed.
const QUEUE_RETRY: Duration = Duration::from_millis(200);
/// How long a handler goes on writing to its client after it was told to stop.
const STOP_WRITING: Duration = Duration::from_millis(300);
/// How long a client that still sends may take to read the last reply.
const LINGER: Duration = Duration::from_secs(1);
/// As `LINGER`, while the server stops.
const STOP_LINGER: Duration = Duration::from_millis(100);

// The keys of the epoll events.
const SOCKET: u64 = 0;
const PIPE: u64 = 1;
const QUEUE: u64 = 2;
const SIGNAL: u64 = 3;

/// Why the connection is closed.
#[derive(Debug)]
pub(super) struct CloseReason {
    /// Success if the conversation is complete or the server stops.
    outcome: Outcome,
    text: String,
}

impl CloseReason {
    fn success(text: impl Into<String>) -> Self {
        Self { outcome: Outcome::Success, text: text.into() }
    }

    fn failure(text: impl Into<String>) -> Self {
        Self { outcome: Outcome::Fail, text: text.into() }
    }
}

#[derive(Debug)]
pub(super) struct Handler<'a> {
    connection: Connection<'a>,
    conversation: Conversation<'a>,
    signals: &'a Signals,
    epoll: Epoll,
    started: Instant,
    /// Whether the client's arrival has been logged.
    is_announced: bool,
    /// What epoll watches the socket for; `None` once the connection is broken.
    interest: Option<EpollFlags>,
    /// Whether epoll watches the queue.
    watches_queue: bool,
    /// When the handler was told to stop.
    stopping_since: Option<Instant>,
}

impl<'a> Handler<'a> {
    pub(super) fn new(
        connection: Connection<'a>,
        conversation: Conversation<'a>,
        signals: &'a Signals,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let readable = |key| EpollEvent::new(EpollFlags::EPOLLIN, key);
        epoll.add(&connection, readable(SOCKET))?;
        epoll.add(conversation.storage.pipe(), readable(PIPE))?;
        epoll.add(signals.as_fd(), readable(SIGNAL))?;
        Ok(Self {
            connection,
            conversation,
            signals,
            epoll,
            started: Instant::now(),
            is_announced: false,
            interest: Some(EpollFlags::EPOLLIN),
            watches_queue: false,
            stopping_since: None,
        })
    }

    /// Serves the client until the connection has to be closed.
    pub(super) fn serve(&mut self) -> CloseReason {
        loop {
            match self.step() {
                Ok(None) => {}
                Ok(Some(reason)) => return reason,
                Err(error) => return CloseReason::failure(error.to_string()),
            }
        }
    }

    /// Does everything that can be done now, then waits for an event.
    fn step(&mut self) -> io::Result<Option<CloseReason>> {
        loop {
            self.conversation.answer(&mut self.connection)?;
            if self.wants_to_write() {
                self.connection.flush();
            }
            // Writing may have made room for frames and pages, and no event tells so.
            if !self.take_frames()? && !self.conversation.can_ask_page(&self.connection) {
                break;
            }
        }
        match self.close_reason() {
            Some(reason) => Ok(Some(reason)),
            None => self.wait(),
        }
    }

    /// Takes the frames that have come. False if there was none, or none may be taken.
    fn take_frames(&mut self) -> io::Result<bool> {
        if let first @ Some(_) = self.connection.next_type() {
            self.announce(first);
        }
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

    /// Logs once that the client came. A health check is logged at DEBUG, so the first byte has to be known.
    fn announce(&mut self, first: Option<u8>) {
        if !self.is_announced {
            let is_check = first == Some(FrameType::StatusRequest as u8);
            log_accepted(if is_check { Level::Debug } else { Level::Info }, self.conversation.ip);
            self.is_announced = true;
        }
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

    fn close_reason(&self) -> Option<CloseReason> {
        let Self { connection, conversation, .. } = self;
        let is_awaiting = conversation.is_awaiting_draw();
        if let Some(since) = self.stopping_since {
            // What storage has been asked is answered, however long it takes. The client has a time limit.
            let waits_for_storage = !conversation.is_idle() && !is_awaiting && !conversation.is_paging();
            let waits_for_client = connection.is_sending() && since.elapsed() <= STOP_WRITING;
            return (!waits_for_storage && !waits_for_client)
                .then(|| CloseReason::success("the server stops"));
        }
        if is_awaiting && (connection.is_half_closed || connection.broken.is_some()) {
            return Some(CloseReason::failure(CLOSED_WHILE_AWAITING));
        }
        if let Some(error) = &connection.broken {
            // What storage has been asked is still answered, in the log.
            let is_over = conversation.is_idle() || conversation.is_paging();
            return is_over.then(|| CloseReason::failure(error.as_str()));
        }
        if !conversation.is_idle() || connection.is_sending() {
            return None;
        }
        if let Some(reason) = conversation.closing() {
            return Some(CloseReason::success(reason));
        }
        if !connection.is_half_closed || connection.has_frame() {
            None
        } else if connection.is_input_empty() {
            Some(CloseReason::success("closed by the client"))
        } else {
            Some(CloseReason::failure("closed by the client within a message"))
        }
    }

    fn wait(&mut self) -> io::Result<Option<CloseReason>> {
        let now = Instant::now();
        self.watch_socket(now)?;
        self.watch_queue()?;
        let time_limit = self.time_limit().map(|(at, _)| at);
        let stop = self.stopping_since.map(|since| since + STOP_WRITING);
        let retry = self.watches_queue.then(|| now + QUEUE_RETRY);
        let until = [time_limit, self.next_report(), stop, retry].into_iter().flatten().min();
        let mut events = [EpollEvent::empty(); 4];
        let count = match self.epoll.wait(&mut events, timeout(until, now)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().take(count) {
            if let Some(reason) = self.handle(event)? {
                return Ok(Some(reason));
            }
        }
        if count == 0 && self.watches_queue {
            self.conversation.storage.send()?;
        }
        let now = Instant::now();
        if let Mode::Session(session) = &mut self.conversation.mode {
            session.report(now);
        }
        // Asked again: the client may have moved just now.
        Ok(match self.time_limit() {
            Some((at, reason)) if now >= at => Some(CloseReason::failure(reason)),
            _ => None,
        })
    }

    fn next_report(&self) -> Option<Instant> {
        if let Mode::Session(session) = &self.conversation.mode { session.next_report() } else { None }
    }

    fn handle(&mut self, event: &EpollEvent) -> io::Result<Option<CloseReason>> {
        match event.data() {
            PIPE => {
                if self.conversation.storage.fill()? == PipeState::Closed {
                    return Ok(Some(CloseReason::failure("the storage service ended")));
                }
            }
            QUEUE => {
                self.conversation.storage.send()?;
                // A handler with more parts to send queues up again behind the others.
                self.epoll.delete(self.conversation.storage.queue())?;
                self.watches_queue = false;
            }
            SIGNAL => {
                if self.signals.take()?.is_some_and(is_termination) {
                    self.stopping_since.get_or_insert_with(Instant::now);
                }
            }
            _ => self.handle_socket(event.events()),
        }
        Ok(None)
    }

    fn handle_socket(&mut self, events: EpollFlags) {
        if events.contains(EpollFlags::EPOLLIN) && self.may_take_frames() {
            self.connection.fill();
        }
        if events.contains(EpollFlags::EPOLLRDHUP) && self.conversation.is_awaiting_draw() {
            self.connection.is_half_closed = true;
        }
        let is_lost = events.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
        // Bytes that came before the connection was lost are read first.
        let is_read = self.connection.is_half_closed || !self.may_take_frames();
        if is_lost && is_read && self.connection.broken.is_none() {
            self.connection.broken = Some("connection reset".to_owned());
        }
    }

    fn watch_socket(&mut self, now: Instant) -> io::Result<()> {
        if self.connection.broken.is_some() {
            if self.interest.take().is_some() {
                // Epoll would report its error again and again.
                self.epoll.delete(&self.connection)?;
            }
            return Ok(());
        }
        let reads = self.may_take_frames() && !self.connection.is_half_closed;
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, reads);
        interest.set(EpollFlags::EPOLLOUT, self.wants_to_write());
        interest.set(EpollFlags::EPOLLRDHUP, self.conversation.is_awaiting_draw());
        if reads && self.interest.is_none_or(|before| !before.contains(EpollFlags::EPOLLIN)) {
            // The time that the handler did not read does not count.
            self.connection.reading_since = now;
        }
        if self.interest != Some(interest) {
            self.epoll.modify(&self.connection, &mut EpollEvent::new(interest, SOCKET))?;
            self.interest = Some(interest);
        }
        Ok(())
    }

    fn watch_queue(&mut self) -> io::Result<()> {
        let storage = &self.conversation.storage;
        if storage.is_sending() && !self.watches_queue {
            // Exclusive: each message that storage takes makes room for one, so only one handler has to wake up.
            let room = EpollFlags::EPOLLOUT | EpollFlags::EPOLLEXCLUSIVE;
            self.epoll.add(storage.queue(), EpollEvent::new(room, QUEUE))?;
        } else if !storage.is_sending() && self.watches_queue {
            self.epoll.delete(storage.queue())?;
        }
        self.watches_queue = storage.is_sending();
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
        if !self.may_take_frames() || connection.is_half_closed || connection.has_frame() {
            return None;
        }
        if !connection.is_input_empty() {
            return Some((connection.reading_since + timeout, "it did not finish its message in time"));
        }
        matches!(self.conversation.mode, Mode::New)
            .then(|| (self.started + timeout.min(FIRST_FRAME), "it did not send a message in time"))
    }

    /// Logs how the conversation ended. Makes sure that the client gets the last reply.
    pub(super) fn close(&mut self, CloseReason { outcome, text }: &CloseReason) {
        self.announce(None);
        match &self.conversation.mode {
            Mode::Session(session) => session.log_closed(*outcome, text),
            Mode::New | Mode::Classic if *outcome == Outcome::Fail => log_client(self.conversation.ip, text),
            Mode::New | Mode::Classic => {}
        }
        if *outcome == Outcome::Success {
            self.linger();
        }
    }

    /// Discards for a moment what the client still sends. If a socket is closed with unread bytes, the kernel resets the
    /// connection, and the client may lose the last reply.
    fn linger(&self) {
        let connection = &self.connection;
        if connection.broken.is_some() || connection.is_half_closed || !connection.has_unread() {
            return;
        }
        connection.finish_writing();
        let limit = if self.stopping_since.is_some() { STOP_LINGER } else { LINGER };
        let until = Instant::now() + limit;
        let mut readable = EpollEvent::new(EpollFlags::EPOLLIN, SOCKET);
        if self.epoll.modify(connection, &mut readable).is_err() {
            return;
        }
        while !connection.discard_input() {
            let now = Instant::now();
            let mut events = [EpollEvent::empty(); 4];
            let waited = self.epoll.wait(&mut events, timeout(Some(until), now));
            // An error can only be EINTR.
            let is_readable =
                waited.map_or(true, |count| events.iter().take(count).any(|event| event.data() == SOCKET));
            if now >= until || !is_readable {
                return;
            }
        }
    }
}

/// The time until then, rounded up to whole milliseconds, so that the wait does not end too early.
fn timeout(until: Option<Instant>, now: Instant) -> EpollTimeout {
    let Some(until) = until else { return EpollTimeout::NONE };
    let millis = until.saturating_duration_since(now).as_micros().div_ceil(1000);
    EpollTimeout::try_from(millis.min(i32::MAX as u128).cast_signed()).unwrap_or(EpollTimeout::ZERO)
}
