//! The handler's loop. It waits in one place for all that can happen: the socket, the storage service's replies or its
//! end, room in the queue, a signal, a deadline.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::connection::Connection;
use super::dialog::{Dialog, Mode};
use super::goodbye::{Ending, STOP_WRITING};
use super::log_lines::log_accepted;
use crate::ipc::reply_pipe::PipeState;
use crate::logging::Level;
use crate::protocol::frame::FrameType;
use crate::system::signal::{Signals, is_termination};

/// How long a client may take to begin its first frame.
const FIRST_FRAME: Duration = Duration::from_secs(5);
/// How soon a handler that waits for room in the queue looks for itself: the one that was woken may have been killed.
const QUEUE_RETRY: Duration = Duration::from_millis(200);

pub(super) const SOCKET: u64 = 0;
const PIPE: u64 = 1;
const QUEUE: u64 = 2;
const SIGNAL: u64 = 3;

/// A handler that serves its client.
#[derive(Debug)]
pub struct Handler<'a> {
    pub(super) connection: Connection<'a>,
    pub(super) dialog: Dialog<'a>,
    signals: &'a Signals,
    pub(super) epoll: Epoll,
    started: Instant,
    /// The log says that the client came.
    announced: bool,
    /// What the socket is waited for at present; none once it is broken.
    interest: Option<EpollFlags>,
    waits_for_queue: bool,
    /// The connection is of no more use; what was asked is still answered, in the log.
    pub(super) broken: Option<String>,
    /// Since when it is to end.
    pub(super) stopping: Option<Instant>,
}

impl<'a> Handler<'a> {
    /// A handler that has not read anything.
    ///
    /// # Errors
    /// No descriptors are to be had.
    pub fn new(connection: Connection<'a>, dialog: Dialog<'a>, signals: &'a Signals) -> io::Result<Self> {
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

    /// Serves the client until that is over. Returns how it ended.
    pub fn serve(&mut self) -> Ending {
        loop {
            match self.step() {
                Ok(None) => {}
                Ok(Some(ending)) => return ending,
                Err(error) => return Ending::Failed(error),
            }
        }
    }

    /// Does what can be done, then waits until there is more.
    fn step(&mut self) -> io::Result<Option<Ending>> {
        loop {
            self.dialog.answer(&mut self.connection)?;
            self.write();
            // Each may have made room for the others, and no event would tell of it.
            let more = self.take_frames()? || self.dialog.can_ask_page(&self.connection);
            if !more {
                break;
            }
        }
        if let Some(ending) = self.ending() {
            return Ok(Some(ending));
        }
        self.wait()
    }

    fn may_take_frames(&self) -> bool {
        self.stopping.is_none()
            && self.broken.is_none()
            && !self.connection.is_backed_up()
            && self.dialog.may_take_frames()
    }

    /// Says in the log that the client came. Health checks would bury the story of the contest, so they are DEBUG, and who
    /// came is told once it has shown what it is.
    pub(super) fn announce(&mut self, first: Option<u8>) {
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
        while self.may_take_frames() {
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

    fn wait(&mut self) -> io::Result<Option<Ending>> {
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
            if let Some(ending) = self.react(event.data(), event.events())? {
                return Ok(Some(ending));
            }
        }
        let now = Instant::now();
        if count == 0 && self.waits_for_queue {
            self.dialog.storage.send()?;
        }
        self.dialog.report(now);
        // What has just come counts: a client is late only if it still has not moved.
        Ok(match self.deadline() {
            Some((at, what)) if now >= at => Some(Ending::Client(what.to_owned())),
            _ => None,
        })
    }

    fn react(&mut self, what: u64, events: EpollFlags) -> io::Result<Option<Ending>> {
        match what {
            PIPE => {
                if self.dialog.storage.fill()? == PipeState::Closed {
                    return Ok(Some(Ending::StorageGone));
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
        let read = if events.contains(EpollFlags::EPOLLIN) && self.may_take_frames() {
            self.connection.fill()
        } else {
            Ok(())
        };
        if events.contains(EpollFlags::EPOLLRDHUP) && self.dialog.is_awaiting() {
            self.connection.see_half_close();
        }
        let lost = events.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
        // A connection that is lost may have bytes that came before: they are read first.
        if let Err(error) = read {
            self.broken = Some(error.to_string());
        } else if lost && (self.connection.is_half_closed() || !self.may_take_frames()) {
            self.broken = Some("connection reset".to_owned());
        }
    }

    /// Tells the kernel what the socket and the queue are waited for.
    fn register(&mut self) -> io::Result<()> {
        let reads = self.may_take_frames() && !self.connection.is_half_closed();
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, reads);
        interest.set(EpollFlags::EPOLLOUT, self.wants_to_write());
        interest.set(EpollFlags::EPOLLRDHUP, self.dialog.is_awaiting());
        if reads && self.interest.is_none_or(|before| !before.contains(EpollFlags::EPOLLIN)) {
            self.connection.read_again();
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
            return Some((self.connection.writing_since() + timeout, "it did not take its reply in time"));
        }
        if !self.may_take_frames() || self.connection.is_half_closed() || self.connection.has_frame() {
            return None;
        }
        if !self.connection.is_input_empty() {
            return Some((
                self.connection.reading_since() + timeout,
                "it did not finish its message in time",
            ));
        }
        matches!(self.dialog.mode, Mode::New)
            .then_some((self.started + timeout.min(FIRST_FRAME), "it did not send a message in time"))
    }
}

/// The time to wait, rounded up to whole milliseconds so that a deadline is over when the wait is.
pub(super) fn timeout_until(until: Option<Instant>, now: Instant) -> EpollTimeout {
    let Some(until) = until else { return EpollTimeout::NONE };
    let millis = until.saturating_duration_since(now).as_micros().div_ceil(1000);
    EpollTimeout::try_from(millis.min(i32::MAX as u128).cast_signed()).unwrap_or(EpollTimeout::ZERO)
}
