//! The acceptor: accepts, forks a handler per connection, reaps, keeps the storage service running, and stops all.
//!
//! It never waits on a client or on storage, never locks the shared mutex, and never touches the bets.

mod clients;
mod handlers;
mod inherited;
mod listener;
mod metrics;
mod stop;
mod storage;

use std::io;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::getpid;

use self::clients::Arrivals;
use self::handlers::Handlers;
use self::inherited::Inherited;
use self::listener::Listener;
use self::metrics::Metrics;
use self::stop::Stopping;
use self::storage::Storage;
use super::ServerError;
use super::handler;
use super::view::ServerView;
use crate::config::ServerConfig;
use crate::ipc::shared_counters::Counter;
use crate::logging::{Level, Outcome, event, info, local_offset};
use crate::system::process::{Exit, reap};
use crate::system::signal::{Signals, is_termination};

/// How long to wait after the system had no descriptor, memory or process to give.
const PAUSE: Duration = Duration::from_millis(200);

const LISTENER: u64 = 0;
const SIGNAL: u64 = 1;
const CONTROL: u64 = 2;

/// Runs the server with at most `max_clients` handlers, until it is told to stop.
///
/// # Errors
/// Why it could not start, or ended by itself.
pub fn run(config: &ServerConfig, max_clients: u32) -> Result<(), ServerError> {
    let signals = Signals::open().map_err(ServerError::of("can't receive signals"))?;
    let listener = listener::bind(config)?;
    let metrics = Metrics::listen(config.metrics_address.as_deref())?;
    let inherited = Inherited::make()?;
    let acceptor = Acceptor {
        config,
        max_clients,
        epoll: epoll(&signals, &listener).map_err(ServerError::of("can't wait for events"))?,
        signals,
        listener: listener.into(),
        inherited,
        metrics,
        started: Instant::now(),
        storage: Storage::new(),
        handlers: Handlers::default(),
        arrivals: Arrivals::new().map_err(ServerError::of("can't get secret memory"))?,
        stopping: None,
        failure: None,
    };
    handler::warm_up();
    acceptor.serve()
}

fn epoll(signals: &Signals, listener: &TcpListener) -> io::Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNAL))?;
    epoll.add(listener, EpollEvent::new(EpollFlags::empty(), LISTENER))?;
    Ok(epoll)
}

struct Acceptor<'a> {
    config: &'a ServerConfig,
    max_clients: u32,
    signals: Signals,
    epoll: Epoll,
    inherited: Inherited,
    listener: Listener,
    arrivals: Arrivals,
    handlers: Handlers,
    storage: Storage,
    /// None where none are wanted.
    metrics: Option<Metrics>,
    started: Instant,
    stopping: Option<Stopping>,
    /// Why the server ends by itself, if it does.
    failure: Option<ServerError>,
}

impl Acceptor<'_> {
    fn serve(mut self) -> Result<(), ServerError> {
        self.start_storage().map_err(ServerError::of("can't start the storage service"))?;
        loop {
            self.advance().map_err(ServerError::of("the acceptor"))?;
            let measured = self.metrics.as_ref().is_some_and(Metrics::is_alive);
            if self.stopping.is_some()
                && self.storage.process.is_none()
                && self.handlers.count() == 0
                && !measured
            {
                break;
            }
        }
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        info("shutdown", Outcome::Success, &[]);
        Ok(())
    }

    /// Waits until something happens, and deals with it.
    fn advance(&mut self) -> io::Result<()> {
        // One moment for both: a pause that ended between them would end unnoticed.
        let now = Instant::now();
        self.watch_listener(now)?;
        let mut events = [EpollEvent::empty(); 4];
        let count = match self.epoll.wait(&mut events, self.timeout(now)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().take(count) {
            match event.data() {
                SIGNAL => self.take_signals()?,
                CONTROL => self.listen_to_storage()?,
                _ => self.accept_all(),
            }
        }
        self.restart_storage_if_due();
        self.start_metrics_if_due();
        self.welcome_next();
        // After all that may leave something to be told, as it looks to it that the wait ends when that can be.
        self.talk_to_storage()?;
        self.stop_further()
    }

    fn timeout(&self, now: Instant) -> EpollTimeout {
        let pause = self.arrivals.pause_until.filter(|until| *until > now);
        let stop = self.stopping.as_ref().map(Stopping::next_step);
        if self.can_welcome(now) {
            return EpollTimeout::ZERO;
        }
        let Some(until) = pause
            .into_iter()
            .chain(self.storage.tell_again)
            .chain(self.storage.start_at)
            .chain(self.metrics_due())
            .chain(stop)
            .min()
        else {
            return EpollTimeout::NONE;
        };
        let millis = until.saturating_duration_since(now).as_millis() + 1;
        u16::try_from(millis).unwrap_or(u16::MAX).into()
    }

    /// What a process that is forked now knows of the server.
    fn view(&self) -> ServerView<'_> {
        ServerView {
            acceptor: getpid(),
            confinement: &self.inherited.confinement,
            offset: local_offset(),
            agencies: self.storage.agencies,
            finished: &self.inherited.finished,
            max_payload: self.config.max_payload,
            client_timeout: self.config.client_timeout,
            counters: &self.inherited.counters,
            max_clients: self.max_clients,
            started: self.started,
            storage_restarts: self.storage.deaths.total(),
        }
    }

    fn take_signals(&mut self) -> io::Result<()> {
        while let Some(signal) = self.signals.take()? {
            if is_termination(signal) {
                self.stop();
            }
        }
        // SIGCHLD coalesces: one may stand for many.
        while let Some((pid, exit)) = reap()? {
            if self.storage.process.as_ref().is_some_and(|storage| storage.pid == pid) {
                self.storage_ended(exit);
            } else if let Some(client) = self.handlers.remove(pid) {
                self.inherited.counters.set(Counter::Handlers, self.handlers.count().into());
                self.storage.gone.push(client);
                if exit != Exit::Status(0) && self.stopping.is_none() {
                    event(Level::Warning, "handler", Outcome::Fail, &[("pid", &pid), ("error", &exit)]);
                }
            } else {
                self.metrics_ended(pid, exit);
            }
        }
        Ok(())
    }
}
