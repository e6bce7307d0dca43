//! The metrics process: answers `GET /metrics` over HTTP, for Prometheus and its like. It runs if `METRICS_ADDRESS` is set.
//!
//! It is a handler in all but whom it serves: the acceptor forks it, it is confined, it asks the storage service through
//! the request queue and gets its answers through a reply pipe of its own. It serves several scrapers at a time, so that
//! a slow one holds up no other. When storage dies it ends; the acceptor starts it again once there is a new one.

pub mod http;
pub mod scraper;

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use self::scraper::Scraper;
use super::handler::{HandlerContext, StatusQuery};
use crate::ipc::reply_pipe::PipeState;
use crate::ipc::storage_client::StorageClient;
use crate::logging::{self, Level, Outcome, event};
use crate::status::prometheus;
use crate::system::mqueue::QueueSender;
use crate::system::signal::{Signals, is_termination};

/// What the process has.
#[derive(Debug)]
pub struct Channels<'a> {
    /// Where scrapers connect; must not block.
    pub listener: &'a TcpListener,
    /// To the storage service.
    pub queue: &'a QueueSender,
    /// From the storage service; the process's token is in it.
    pub replies: OwnedFd,
    /// To be told to end.
    pub signals: &'a Signals,
}

/// Scrapers that are served at once. A further one takes the place of the one that came first.
const SCRAPERS: usize = 16;
/// Descriptors that the process may have: its own, and one for each scraper.
const DESCRIPTORS: u64 = 32;
/// How soon a full queue is looked at again where no event tells of room.
const QUEUE_RETRY: Duration = Duration::from_millis(20);

const LISTENER: u64 = 0;
const SIGNAL: u64 = 1;
const PIPE: u64 = 2;
const QUEUE: u64 = 3;
const FIRST_SCRAPER: u64 = 4;

/// The process, from its first to its last act. Returns its exit status.
#[must_use]
pub fn run(channels: &Channels<'_>, view: &HandlerContext<'_>) -> i32 {
    logging::freeze_offset(view.offset);
    let served = Metrics::new(channels, view).and_then(|metrics| {
        view.confinement.enter_service(view.acceptor, DESCRIPTORS)?;
        metrics.serve()
    });
    match served {
        Ok(()) => 0,
        Err(error) => {
            event(Level::Warning, "metrics", Outcome::Fail, &[("error", &error)]);
            1
        }
    }
}

struct Metrics<'a> {
    listener: &'a TcpListener,
    signals: &'a Signals,
    storage: StorageClient<'a>,
    view: &'a HandlerContext<'a>,
    epoll: Epoll,
    /// What is being asked of the storage service: the number of the request.
    inquiry: Option<StatusQuery>,
    waits_for_queue: bool,
    /// In places of their own, as the place tells whose an event is.
    scrapers: [Option<Scraper>; SCRAPERS],
    next_place: usize,
}

impl<'a> Metrics<'a> {
    fn new(channels: &'a Channels<'a>, view: &'a HandlerContext<'a>) -> io::Result<Self> {
        let storage = StorageClient::new(channels.queue, channels.replies.as_fd())?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let readable = |data| EpollEvent::new(EpollFlags::EPOLLIN, data);
        epoll.add(channels.listener, readable(LISTENER))?;
        epoll.add(channels.signals, readable(SIGNAL))?;
        epoll.add(storage.pipe(), readable(PIPE))?;
        Ok(Self {
            listener: channels.listener,
            signals: channels.signals,
            storage,
            view,
            epoll,
            inquiry: None,
            waits_for_queue: false,
            scrapers: [const { None }; SCRAPERS],
            next_place: 0,
        })
    }

    /// Serves until it is told to end, or the storage service has ended.
    fn serve(mut self) -> io::Result<()> {
        while self.step()? {}
        Ok(())
    }

    /// Waits until something happens, and deals with it. False once it is over.
    fn step(&mut self) -> io::Result<bool> {
        let mut events = [EpollEvent::empty(); 8];
        let count = match self.epoll.wait(&mut events, self.timeout()) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().take(count) {
            match event.data() {
                LISTENER => self.accept()?,
                SIGNAL if self.is_told_to_end()? => return Ok(false),
                PIPE if !self.take_replies()? => return Ok(false),
                SIGNAL | PIPE | QUEUE => {}
                place => self.ready(place)?,
            }
        }
        self.dismiss_the_late()?;
        self.ask()?;
        Ok(true)
    }

    fn timeout(&self) -> EpollTimeout {
        let now = Instant::now();
        let deadlines = self.scrapers.iter().flatten().map(Scraper::deadline);
        let retry = self.waits_for_queue.then_some(now + QUEUE_RETRY);
        let Some(until) = deadlines.chain(retry).min() else { return EpollTimeout::NONE };
        let millis = until.saturating_duration_since(now).as_millis() + 1;
        EpollTimeout::try_from(millis.min(60_000).cast_signed()).unwrap_or(EpollTimeout::ZERO)
    }

    fn is_told_to_end(&self) -> io::Result<bool> {
        Ok(self.signals.take()?.is_some_and(is_termination))
    }

    // Scrapers.

    fn accept(&mut self) -> io::Result<()> {
        let (socket, address) = match self.listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
                // Any other is the fault of that one connection. These would be reported for ever.
                let scarce = matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM);
                return if scarce { Err(error) } else { Ok(()) };
            }
        };
        let free = self.scrapers.iter().position(Option::is_none);
        let place = free.unwrap_or(self.next_place);
        self.next_place = (place + 1) % SCRAPERS;
        let scraper = Scraper::new(socket, address.ip(), Instant::now());
        self.epoll.add(&scraper, EpollEvent::new(scraper.interest(), FIRST_SCRAPER + place as u64))?;
        if let Some(slot) = self.scrapers.get_mut(place) {
            *slot = Some(scraper);
        }
        Ok(())
    }

    fn ready(&mut self, data: u64) -> io::Result<()> {
        let place = usize::try_from(data.saturating_sub(FIRST_SCRAPER)).unwrap_or(SCRAPERS);
        self.advance(place, Scraper::ready)
    }

    fn dismiss_the_late(&mut self) -> io::Result<()> {
        (0..SCRAPERS).try_for_each(|place| {
            self.advance(place, |scraper, now| {
                if now >= scraper.deadline() {
                    scraper.late(now);
                }
            })
        })
    }

    /// Has something done with the scraper of that place, if there is one; then waits for what it wants, or drops it.
    fn advance(&mut self, place: usize, act: impl FnOnce(&mut Scraper, Instant)) -> io::Result<()> {
        let Some(slot) = self.scrapers.get_mut(place) else { return Ok(()) };
        let Some(scraper) = slot else { return Ok(()) };
        let before = scraper.interest();
        act(scraper, Instant::now());
        if scraper.is_over() {
            *slot = None;
        } else if scraper.interest() != before {
            let mut wanted = EpollEvent::new(scraper.interest(), FIRST_SCRAPER + place as u64);
            self.epoll.modify(&*scraper, &mut wanted)?;
        }
        Ok(())
    }

    // The storage service.

    /// Asks, if a scraper waits and nothing is being asked.
    fn ask(&mut self) -> io::Result<()> {
        let wanted = self.scrapers.iter().flatten().any(Scraper::is_asking);
        if wanted && self.inquiry.is_none() {
            let query = StatusQuery::default();
            self.storage.ask(query.request())?;
            self.inquiry = Some(query);
        } else if self.storage.is_sending() {
            self.storage.send()?;
        }
        let sends = self.storage.is_sending();
        if sends && !self.waits_for_queue {
            self.epoll.add(self.storage.queue(), EpollEvent::new(EpollFlags::EPOLLOUT, QUEUE))?;
        } else if !sends && self.waits_for_queue {
            self.epoll.delete(self.storage.queue())?;
        }
        self.waits_for_queue = sends;
        Ok(())
    }

    /// Takes what the storage service says. False where it has ended.
    fn take_replies(&mut self) -> io::Result<bool> {
        let state = self.storage.fill()?;
        while let Some((reply, bulk)) = self.storage.next_reply()? {
            let bulk = bulk.to_vec();
            let Some(mut query) = self.inquiry.take() else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a reply to no question"));
            };
            match query.take(reply, &bulk, self.view)? {
                None => {
                    self.storage.ask(query.request())?;
                    self.inquiry = Some(query);
                }
                Some(status) => self.answer(&prometheus::text(&status))?,
            }
        }
        Ok(state == PipeState::Open)
    }

    fn answer(&mut self, text: &str) -> io::Result<()> {
        (0..SCRAPERS).try_for_each(|place| self.advance(place, |scraper, now| scraper.answer(text, now)))
    }
}
