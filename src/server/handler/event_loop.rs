//! The handler's event loop: the one place where it waits for its client, for storage, for room in the request queue, for
//! a signal and for a time limit. It decides when the connection is closed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use thiserror::Error;

use super::connection::Connection;
use super::conversation::Conversation;
use super::log_lines::{log_accepted, log_client};
use super::policy::{Mode, Rejection};
use crate::ipc::storage_client::PipeState;
use crate::logging::{Level, Outcome};
use crate::protocol::frame::FrameType;
use crate::system::signal::is_termination;

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

/// Why a conversation ended before it was complete.
#[derive(Debug, Error)]
enum Failure {
    #[error("closed by the client within a message")]
    ClosedWithinMessage,
    #[error("closed by the client while it awaited the draw")]
    ClosedWhileAwaiting,
    #[error("{0}")]
    TimedOut(&'static str),
    #[error("{0}")]
    Broken(String),
    #[error("the storage service ended")]
    StorageEnded,
    #[error("{0}")]
    System(#[from] io::Error),
}

/// What epoll watches a descriptor for; `None` if it does not watch it.
type Watched = Option<EpollFlags>;

#[derive(Debug)]
pub(super) struct Handler<'a> {
    connection: Connection<'a>,
    conversation: Conversation<'a>,
    epoll: Epoll,
    socket_watched: Watched,
    queue_watched: Watched,
    started: Instant,
    /// Whether the client's arrival has been logged.
    is_announced: bool,
    /// When the handler was told to stop.
    stopping_since: Option<Instant>,
}

impl<'a> Handler<'a> {
    pub(super) fn new(connection: Connection<'a>, conversation: Conversation<'a>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let readable = EpollFlags::EPOLLIN;
        epoll.add(&connection, EpollEvent::new(readable, SOCKET))?;
        epoll.add(conversation.storage.pipe(), EpollEvent::new(readable, PIPE))?;
        epoll.add(conversation.context.signals, EpollEvent::new(readable, SIGNAL))?;
        Ok(Self {
            connection,
            conversation,
            epoll,
            socket_watched: Some(readable),
            queue_watched: None,
            started: Instant::now(),
            is_announced: false,
            stopping_since: None,
        })
    }

    /// Serves the client until the connection has to be closed.
    pub(super) fn serve(mut self) {
        let ended = loop {
            if let Some(ended) = self.step().transpose() {
                break ended;
            }
        };
        self.close(&ended);
    }

    /// Does everything that can be done now, then waits for events. Returns the reason once the conversation is complete.
    fn step(&mut self) -> Result<Option<String>, Failure> {
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
        let complete = self.completion()?;
        if complete.is_none() {
            self.wait()?;
        }
        Ok(complete)
    }

    /// Takes the frames that have come. False if there was none, or none may be taken.
    fn take_frames(&mut self) -> io::Result<bool> {
        if let first @ Some(_) = self.connection.input.first() {
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

    /// The reason to close the connection, once the conversation is complete or the server stops.
    fn completion(&self) -> Result<Option<String>, Failure> {
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
            return Ok((!waits_for_storage && !waits_for_client).then(|| "the server stops".to_owned()));
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
            Ok(Some("closed by the client".to_owned()))
        } else {
            Err(Failure::ClosedWithinMessage)
        }
    }

    fn wait(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        self.watch(now)?;
        let time_limit = self.time_limit().map(|(at, _)| at);
        let report = self.conversation.mode.session().and_then(|session| session.next_report());
        let stop = self.stopping_since.map(|since| since + STOP_WRITING);
        let retry = self.queue_watched.map(|_| now + QUEUE_RETRY);
        let until = [time_limit, report, stop, retry].into_iter().flatten().min();
        let mut events = [EpollEvent::empty(); 4];
        let count = match self.epoll.wait(&mut events, timeout(until, now)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(io::Error::from(error).into()),
        };
        for event in events.iter().take(count) {
            self.handle(event)?;
        }
        if count == 0 && self.queue_watched.is_some() {
            self.conversation.storage.send()?;
        }
        let now = Instant::now();
        if let Some(session) = self.conversation.mode.session() {
            session.report(now);
        }
        // Asked again: the client may have moved just now.
        match self.time_limit() {
            Some((at, reason)) if now >= at => Err(Failure::TimedOut(reason)),
            _ => Ok(()),
        }
    }

    fn handle(&mut self, event: &EpollEvent) -> Result<(), Failure> {
        match event.data() {
            PIPE => match self.conversation.storage.fill()? {
                PipeState::Open => {}
                PipeState::Closed => return Err(Failure::StorageEnded),
                PipeState::Replaced => self.conversation.give_way(&mut self.connection),
            },
            QUEUE => {
                self.conversation.storage.send()?;
                // A handler with more parts to send queues up again behind the others.
                self.watch_queue(false)?;
            }
            SIGNAL => {
                if self.conversation.context.signals.take()?.is_some_and(is_termination) {
                    self.stopping_since.get_or_insert_with(Instant::now);
                }
            }
            _ => self.handle_socket(event.events()),
        }
        Ok(())
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

    /// Has epoll watch what there is to wait for.
    fn watch(&mut self, now: Instant) -> io::Result<()> {
        let reads = self.may_take_frames() && !self.connection.is_half_closed;
        if reads && !self.socket_watched.is_some_and(|before| before.contains(EpollFlags::EPOLLIN)) {
            // The time that the handler did not read does not count.
            self.connection.reading_since = now;
        }
        let mut socket = EpollFlags::empty();
        socket.set(EpollFlags::EPOLLIN, reads);
        socket.set(EpollFlags::EPOLLOUT, self.wants_to_write());
        socket.set(EpollFlags::EPOLLRDHUP, self.conversation.is_awaiting_draw());
        // Of a broken connection, epoll would report the error again and again.
        let socket = self.connection.broken.is_none().then_some(socket);
        set_watched(&self.epoll, self.connection.as_fd(), SOCKET, &mut self.socket_watched, socket)?;
        self.watch_queue(self.conversation.storage.is_sending())
    }

    fn watch_queue(&mut self, is_sending: bool) -> io::Result<()> {
        // Exclusive: each message that storage takes makes room for one, so only one handler has to wake up.
        let room = EpollFlags::EPOLLOUT | EpollFlags::EPOLLEXCLUSIVE;
        let queue = self.conversation.storage.queue();
        set_watched(&self.epoll, queue, QUEUE, &mut self.queue_watched, is_sending.then_some(room))
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
        if !connection.input.is_empty() {
            return Some((connection.reading_since + timeout, "it did not finish its message in time"));
        }
        matches!(self.conversation.mode, Mode::New)
            .then(|| (self.started + timeout.min(FIRST_FRAME), "it did not send a message in time"))
    }

    /// Logs how the conversation ended. Makes sure that the client gets the last reply.
    fn close(&mut self, ended: &Result<String, Failure>) {
        self.announce(None);
        match (&self.conversation.mode, ended) {
            (Mode::Session(session), Ok(reason)) => session.log_closed(Outcome::Success, reason),
            (Mode::Session(session), Err(failure)) => session.log_closed(Outcome::Fail, failure),
            (Mode::New | Mode::Classic, Ok(_)) => {}
            (Mode::New | Mode::Classic, Err(failure)) => {
                // What became of its message has a line already, unless the reply is pending.
                let has_line = self.conversation.closing.is_some() && self.conversation.is_idle();
                let level = if has_line { Level::Debug } else { Level::Info };
                log_client(level, self.conversation.ip, failure);
            }
        }
        if ended.is_ok() {
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
        while Instant::now() < until && !connection.discard_input() {
            let mut event = [EpollEvent::empty()];
            let waited = self.epoll.wait(&mut event, timeout(Some(until), Instant::now()));
            // A signal, or the end of storage.
            if waited == Ok(1) && event.first().is_some_and(|event| event.data() != SOCKET) {
                return;
            }
        }
    }
}

/// Has epoll watch a descriptor for what is `wanted`, if that has changed.
fn set_watched(
    epoll: &Epoll,
    fd: BorrowedFd<'_>,
    key: u64,
    watched: &mut Watched,
    wanted: Watched,
) -> io::Result<()> {
    match (*watched, wanted) {
        (None, Some(flags)) => epoll.add(fd, EpollEvent::new(flags, key))?,
        (Some(before), Some(flags)) if before != flags => {
            epoll.modify(fd, &mut EpollEvent::new(flags, key))?;
        }
        (Some(_), None) => epoll.delete(fd)?,
        _ => {}
    }
    *watched = wanted;
    Ok(())
}

/// The time until then, rounded up to whole milliseconds, so that the wait does not end too early.
fn timeout(until: Option<Instant>, now: Instant) -> EpollTimeout {
    let Some(until) = until else { return EpollTimeout::NONE };
    let millis = until.saturating_duration_since(now).as_micros().div_ceil(1000);
    EpollTimeout::try_from(millis.min(i32::MAX as u128).cast_signed()).unwrap_or(EpollTimeout::ZERO)
}
