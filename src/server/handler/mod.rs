//! The handler: one process per connection. It cuts the stream into frames, validates them, asks the storage service,
//! and answers.
//!
//! It waits in one place for all that can happen: the socket, the storage service's replies or its end, room in the
//! queue, a signal, a deadline. It touches neither the bets nor another client's channels.

pub mod classic;
pub mod connection;
pub mod dialog;
pub mod rows;
pub mod session;

use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use chrono::FixedOffset;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::Pid;

use self::connection::Connection;
use self::dialog::{Dialog, Mode};
use crate::ipc::finished_agencies::FinishedAgencies;
use crate::ipc::reply_pipe::{PipeState, ReplyReader};
use crate::ipc::shared_counters::SharedCounters;
use crate::ipc::storage_client::StorageClient;
use crate::logging::{self, Level, Outcome, event, info};
use crate::protocol::frame::FrameType;
use crate::system::confinement::Confinement;
use crate::system::mqueue::QueueSender;
use crate::system::signal::{Signals, is_termination};

/// What a handler knows of the server: the state at its fork, and what is shared.
#[derive(Debug)]
pub struct ServerView<'a> {
    /// The process that forked the handler.
    pub acceptor: Pid,
    /// What the handler gives up before it reads a byte.
    pub confinement: &'a Confinement,
    /// How many agencies take part.
    pub agencies: u16,
    /// Which of them have finished.
    pub finished: &'a FinishedAgencies,
    /// The longest payload that is taken, in bytes.
    pub max_payload: u32,
    /// How long a client may stall.
    pub client_timeout: Duration,
    /// The offset of local time, for the log.
    pub offset: FixedOffset,
    /// What is counted for operators.
    pub counters: &'a SharedCounters,
    /// Handlers that may be alive at once.
    pub max_clients: u32,
    /// When the server started.
    pub started: Instant,
    /// How often the storage service was started again.
    pub storage_restarts: u64,
}

/// The client that a handler is for.
#[derive(Debug)]
pub struct Client {
    /// Its socket.
    pub socket: TcpStream,
    /// Its address.
    pub ip: IpAddr,
    /// The end of its reply pipe, which has its token.
    pub replies: OwnedFd,
}

/// How long a client may take to begin its first frame.
const FIRST_FRAME: Duration = Duration::from_secs(5);
/// How long the last reply may take to be read by a client that still sends.
const LINGER: Duration = Duration::from_secs(1);
/// How soon a handler that waits for room in the queue looks for itself: the one that was woken may have been killed.
const QUEUE_RETRY: Duration = Duration::from_millis(200);
/// How long a handler that was told to stop goes on writing.
const STOP_WRITING: Duration = Duration::from_millis(300);
/// As `LINGER`, while the server stops.
const STOP_LINGER: Duration = Duration::from_millis(100);

/// The process, from its first to its last act. Returns its exit status.
#[must_use]
pub fn run(client: &Client, view: &ServerView<'_>, queue: &QueueSender, signals: &Signals) -> i32 {
    logging::freeze_offset(view.offset);
    let Client { socket, ip, replies } = client;
    let mut replies = ReplyReader::new(replies.as_fd());
    let handler = replies
        .take_token()
        .map(|token| StorageClient::new(token, queue, replies))
        .and_then(|storage| Ok((storage, Connection::new(socket, view.max_payload)?)))
        .and_then(|(storage, connection)| Handler::new(connection, Dialog::new(storage, view, *ip), signals))
        .and_then(|handler| {
            probe("before");
            view.confinement.enter(view.acceptor)?;
            probe("handler");
            Ok(handler)
        });
    match handler {
        Ok(mut handler) => {
            let end = handler.serve();
            handler.say_goodbye(&end);
        }
        Err(error) => {
            log_accepted(Level::Info, *ip);
            info("client", Outcome::Fail, &[("ip", ip), ("error", &error)]);
        }
    }
    0
}

fn log_accepted(level: Level, ip: IpAddr) {
    event(level, "accept_connections", Outcome::Success, &[("ip", &ip)]);
}

/// Finds out, before any handler is forked, what each of them would else find out for itself: which instructions this
/// machine has for searching bytes. In a virtual machine that is a trap to its host, some 10 µs.
pub fn warm_up() {
    let record = b"1\x1fNombre\x1fApellido\x1f1\x1f2000-01-01\x1f1";
    let stored = rows::push_rows(record, &mut Vec::new(), |_| ());
    debug_assert_eq!(stored, Ok(1));
}

/// For the test of what a handler can do at that stage: see `system::probe`.
#[cfg_attr(not(debug_assertions), expect(unused_variables, reason = "a release has no failpoints"))]
pub(crate) fn probe(stage: &str) {
    #[cfg(debug_assertions)]
    fail::fail_point!("handler_probe", |wanted: Option<String>| {
        if wanted.as_deref() == Some(stage) {
            crate::system::probe::try_everything(stage);
        }
    });
}

/// How the service of a client ended.
#[derive(Debug)]
enum End {
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

const SOCKET: u64 = 0;
const PIPE: u64 = 1;
const QUEUE: u64 = 2;
const SIGNAL: u64 = 3;

struct Handler<'a> {
    connection: Connection<'a>,
    dialog: Dialog<'a>,
    signals: &'a Signals,
    epoll: Epoll,
    started: Instant,
    /// The log says that the client came.
    announced: bool,
    /// What the socket is waited for at present; none once it is broken.
    interest: Option<EpollFlags>,
    waits_for_queue: bool,
    /// The connection is of no more use; what was asked is still answered, in the log.
    broken: Option<String>,
    stopping: Option<Instant>,
}

impl<'a> Handler<'a> {
    fn new(connection: Connection<'a>, dialog: Dialog<'a>, signals: &'a Signals) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let interest = EpollFlags::EPOLLIN;
        epoll.add(&connection, EpollEvent::new(interest, SOCKET))?;
        epoll.add(dialog.storage.pipe(), EpollEvent::new(EpollFlags::EPOLLIN, PIPE))?;
        epoll.add(signals.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, SIGNAL))?;
        Ok(Self {
            connection,
            dialog,
            signals,
            epoll,
            started: Instant::now(),
            announced: false,
            interest: Some(interest),
            waits_for_queue: false,
            broken: None,
            stopping: None,
        })
    }

    fn serve(&mut self) -> End {
        loop {
            match self.step() {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(error) => return End::Failed(error),
            }
        }
    }

    /// Does what can be done, then waits until there is more.
    fn step(&mut self) -> io::Result<Option<End>> {
        loop {
            self.dialog.answer(&mut self.connection)?;
            self.write();
            // Each may have made room for the others, and no event would tell of it.
            let more = self.take_frames()? || self.dialog.can_ask_page(&self.connection);
            if !more {
                break;
            }
        }
        if let Some(end) = self.end() {
            return Ok(Some(end));
        }
        self.wait()
    }

    fn takes_frames(&self) -> bool {
        self.stopping.is_none()
            && self.broken.is_none()
            && !self.connection.is_backed_up()
            && self.dialog.takes_frames()
    }

    /// Says in the log that the client came. Health checks would bury the story of the contest, so they are DEBUG, and who
    /// came is told once it has shown what it is.
    fn announce(&mut self, first: Option<u8>) {
        if !self.announced {
            let is_check = first == Some(FrameType::StatusRequest as u8);
            log_accepted(if is_check { Level::Debug } else { Level::Info }, self.dialog.ip);
            self.announced = true;
        }
    }

    /// Takes the frames that have come, as far as they may be taken. False if there was none.
    fn take_frames(&mut self) -> io::Result<bool> {
        let mut any = false;
        if let first @ Some(_) = self.connection.next_type() {
            self.announce(first);
        }
        while self.takes_frames() {
            match self.connection.next_frame() {
                Ok(Some(frame)) => self.dialog.take(frame)?,
                Ok(None) => break,
                Err(error) => self.dialog.refuse_and_end(error.to_string()),
            }
            any = true;
        }
        Ok(any)
    }

    fn wants_to_write(&self) -> bool {
        let holds = self.dialog.is_streaming() && !self.connection.is_backed_up();
        self.broken.is_none() && self.connection.is_sending() && !holds
    }

    fn write(&mut self) {
        if self.wants_to_write()
            && let Err(error) = self.connection.flush()
        {
            self.broken = Some(error.to_string());
        }
    }

    /// Whether it is over, and how.
    fn end(&mut self) -> Option<End> {
        let unsent = self.broken.is_none() && self.connection.is_sending();
        if let Some(since) = self.stopping {
            // What storage has is answered, however long it takes; only the client's pace has a limit.
            let waits = !self.dialog.is_idle() && !self.dialog.is_awaiting() && !self.dialog.is_streaming();
            let late = since.elapsed() > STOP_WRITING;
            return (!waits && (!unsent || late)).then_some(End::Stopped);
        }
        if self.broken.is_some() && self.dialog.is_streaming() {
            return self.broken.clone().map(End::Client);
        }
        if self.dialog.is_awaiting() && (self.connection.half_closed || self.broken.is_some()) {
            return Some(End::Client("closed by the client while it awaited the draw".to_owned()));
        }
        if !self.dialog.is_idle() || unsent {
            return None;
        }
        if let Some(error) = &self.broken {
            return Some(End::Client(error.clone()));
        }
        if let Some(reason) = self.dialog.ending() {
            return Some(End::Done(reason.to_owned()));
        }
        (self.connection.half_closed && !self.connection.has_frame()).then(|| {
            if self.connection.is_input_empty() {
                End::Done("closed by the client".to_owned())
            } else {
                End::Client("closed by the client within a message".to_owned())
            }
        })
    }

    fn wait(&mut self) -> io::Result<Option<End>> {
        self.register()?;
        let now = Instant::now();
        let stop = self.stopping.map(|at| at + STOP_WRITING);
        let retry = self.waits_for_queue.then(|| now + QUEUE_RETRY);
        let until = [self.deadline().map(|(at, _)| at), self.dialog.next_report(), stop, retry]
            .into_iter()
            .flatten()
            .min();
        let mut events = [EpollEvent::empty(); 4];
        let count = match self.epoll.wait(&mut events, timeout_until(until, now)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().take(count) {
            if let Some(end) = self.react(event.data(), event.events())? {
                return Ok(Some(end));
            }
        }
        let now = Instant::now();
        if count == 0 && self.waits_for_queue {
            self.dialog.storage.send()?;
        }
        self.dialog.report(now);
        // What has just come counts: a client is late only if it still has not moved.
        Ok(match self.deadline() {
            Some((at, what)) if now >= at => Some(End::Client(what.to_owned())),
            _ => None,
        })
    }

    fn react(&mut self, what: u64, events: EpollFlags) -> io::Result<Option<End>> {
        match what {
            PIPE => {
                if self.dialog.storage.fill()? == PipeState::Closed {
                    return Ok(Some(End::StorageGone));
                }
            }
            QUEUE => {
                self.dialog.storage.send()?;
                // Who has more to send waits again behind the others: a long request has many parts.
                self.epoll.delete(self.dialog.storage.queue())?;
                self.waits_for_queue = false;
            }
            SIGNAL => {
                while let Some(signal) = self.signals.take()? {
                    if is_termination(signal) {
                        self.stopping.get_or_insert_with(Instant::now);
                    }
                }
            }
            _ => self.react_to_socket(events),
        }
        Ok(None)
    }

    fn react_to_socket(&mut self, events: EpollFlags) {
        let read = if events.contains(EpollFlags::EPOLLIN) && self.takes_frames() {
            self.connection.fill()
        } else {
            Ok(())
        };
        if events.contains(EpollFlags::EPOLLRDHUP) && self.dialog.is_awaiting() {
            self.connection.half_closed = true;
        }
        let lost = events.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
        // A connection that is lost may have bytes that came before: they are read first.
        if let Err(error) = read {
            self.broken = Some(error.to_string());
        } else if lost && (self.connection.half_closed || !self.takes_frames()) {
            self.broken = Some("connection reset".to_owned());
        }
    }

    /// Tells the kernel what the socket and the queue are waited for.
    fn register(&mut self) -> io::Result<()> {
        let reads = self.takes_frames() && !self.connection.half_closed;
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, reads);
        interest.set(EpollFlags::EPOLLOUT, self.wants_to_write());
        interest.set(EpollFlags::EPOLLRDHUP, self.dialog.is_awaiting());
        if reads && self.interest.is_none_or(|before| !before.contains(EpollFlags::EPOLLIN)) {
            // It was the server that did not read.
            self.connection.reading_since = Instant::now();
        }
        if self.broken.is_some() {
            if self.interest.take().is_some() {
                // Its errors would be reported for ever.
                self.epoll.delete(&self.connection)?;
            }
        } else if self.interest != Some(interest) {
            self.epoll.modify(&self.connection, &mut EpollEvent::new(interest, SOCKET))?;
            self.interest = Some(interest);
        }
        let sends = self.dialog.storage.is_sending();
        if sends && !self.waits_for_queue {
            // Each message that is taken out makes room for one: to wake all that wait would be in vain for the others.
            let room = EpollFlags::EPOLLOUT | EpollFlags::EPOLLEXCLUSIVE;
            self.epoll.add(self.dialog.storage.queue(), EpollEvent::new(room, QUEUE))?;
        } else if !sends && self.waits_for_queue {
            self.epoll.delete(self.dialog.storage.queue())?;
        }
        self.waits_for_queue = sends;
        Ok(())
    }

    /// By when the client has to have moved, and what it means if it has not.
    fn deadline(&self) -> Option<(Instant, &'static str)> {
        if self.stopping.is_some() || self.broken.is_some() {
            return None;
        }
        let timeout = self.dialog.view.client_timeout;
        if self.wants_to_write() {
            return Some((self.connection.writing_since + timeout, "it did not take its reply in time"));
        }
        if !self.takes_frames() || self.connection.half_closed || self.connection.has_frame() {
            return None;
        }
        if !self.connection.is_input_empty() {
            return Some((self.connection.reading_since + timeout, "it did not finish its message in time"));
        }
        matches!(self.dialog.mode, Mode::New)
            .then_some((self.started + timeout.min(FIRST_FRAME), "it did not send a message in time"))
    }

    /// Logs how it ended, and closes so that the client gets what was sent.
    fn say_goodbye(&mut self, end: &End) {
        self.announce(None);
        let failure = format!("{end}");
        let outcome =
            if matches!(end, End::Done(_) | End::Stopped) { Outcome::Success } else { Outcome::Fail };
        match &self.dialog.mode {
            Mode::Session(session) => session.closed(outcome, &failure),
            Mode::New | Mode::Classic if outcome == Outcome::Fail => {
                info("client", outcome, &[("ip", &self.dialog.ip), ("error", &failure)]);
            }
            Mode::New | Mode::Classic => {}
        }
        if let End::Done(_) | End::Stopped = end {
            self.linger();
        }
    }

    fn linger(&mut self) {
        if self.broken.is_some() || self.connection.half_closed || !self.connection.has_unread() {
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

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done(reason) | Self::Client(reason) => f.write_str(reason),
            Self::Stopped => f.write_str("the server stops"),
            Self::StorageGone => f.write_str("the storage service ended"),
            Self::Failed(error) => write!(f, "{error}"),
        }
    }
}

/// The time to wait, rounded up to whole milliseconds so that a deadline is over when the wait is.
fn timeout_until(until: Option<Instant>, now: Instant) -> EpollTimeout {
    let Some(until) = until else { return EpollTimeout::NONE };
    let millis = until.saturating_duration_since(now).as_micros().div_ceil(1000);
    EpollTimeout::try_from(millis.min(i32::MAX as u128).cast_signed()).unwrap_or(EpollTimeout::ZERO)
}
