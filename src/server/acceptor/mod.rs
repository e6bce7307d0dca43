//! The acceptor: accepts, forks a handler per connection, reaps, keeps the storage service running, and stops all.
//!
//! It never waits on a client or on storage, never locks the shared mutex, and never touches the bets.

mod children;
mod clients;
mod listener;
mod metrics;
mod stop;
mod storage;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::getpid;

use self::children::{Deaths, Handlers, StorageProcess};
use self::clients::Newcomer;
use self::metrics::Metrics;
use self::stop::Stopping;
use super::ServerError;
use super::handler;
use super::view::ServerView;
use crate::config::ServerConfig;
use crate::ipc::finished_agencies::FinishedAgencies;
use crate::ipc::message::ClientSerial;
use crate::ipc::shared_counters::{Counter, SharedCounters};
use crate::logging::{Level, Outcome, event, info, local_offset};
use crate::system::confinement::{Confinement, InForce};
use crate::system::mqueue::{self, QueueReceiver, QueueSender};
use crate::system::process::{Exit, reap};
use crate::system::secret_page::SecretPage;
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
    let queue = mqueue::create().map_err(ServerError::Queue)?;
    warn_of_a_small_queue(&queue.0).map_err(ServerError::Queue)?;
    let finished = FinishedAgencies::new().map_err(ServerError::of("can't share memory"))?;
    let counters = SharedCounters::new().map_err(ServerError::of("can't share memory"))?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
        .and_then(|epoll| {
            epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNAL))?;
            epoll.add(&listener, EpollEvent::new(EpollFlags::empty(), LISTENER))?;
            Ok(epoll)
        })
        .map_err(|error| ServerError::System { what: "can't wait for events", error: error.into() })?;
    let secret = SecretPage::new().map_err(ServerError::of("can't get secret memory"))?;
    let confinement = confinement().map_err(ServerError::of("can't find out how to confine handlers"))?;
    handler::warm_up();
    let acceptor = Acceptor {
        config,
        max_clients,
        signals,
        listener: Some(listener),
        listening: false,
        accepting: false,
        control_interest: EpollFlags::empty(),
        queue,
        finished,
        counters,
        metrics,
        confinement,
        epoll,
        started: Instant::now(),
        storage: None,
        start_storage_at: None,
        agencies: 0,
        deaths: Deaths::default(),
        handlers: Handlers::default(),
        gone: Vec::new(),
        secret,
        clients: 0,
        waiting: VecDeque::new(),
        newcomer: None,
        tell_again: None,
        pause_until: None,
        stopping: None,
        failure: None,
    };
    acceptor.serve()
}

fn confinement() -> io::Result<Confinement> {
    let confinement = Confinement::try_out()?;
    let InForce { identity, limits, landlock, seccomp } = confinement.in_force();
    info(
        "confinement",
        Outcome::Success,
        &[("identity", &identity), ("limits", &limits), ("landlock", &landlock), ("seccomp", &seccomp)],
    );
    Ok(confinement)
}

/// It works as a full one does, but many small messages take longer.
fn warn_of_a_small_queue(queue: &QueueReceiver) -> io::Result<()> {
    if let Some(messages) = queue.small_capacity()? {
        let reason = "this user's bytes in message queues are nearly used up (ulimit -q)";
        event(
            Level::Warning,
            "request_queue",
            Outcome::Success,
            &[("messages", &messages), ("reason", &reason)],
        );
    }
    Ok(())
}

struct Acceptor<'a> {
    config: &'a ServerConfig,
    max_clients: u32,
    signals: Signals,
    /// None once the server stops.
    listener: Option<TcpListener>,
    listening: bool,
    /// Whether the epoll instance waits for connections at present.
    accepting: bool,
    /// What the socket to storage is waited for at present.
    control_interest: EpollFlags,
    queue: (QueueReceiver, QueueSender),
    finished: FinishedAgencies,
    counters: SharedCounters,
    /// None where none are wanted.
    metrics: Option<Metrics>,
    confinement: Confinement,
    epoll: Epoll,
    started: Instant,
    storage: Option<StorageProcess>,
    /// When to try again to start it, where there was no process for it.
    start_storage_at: Option<Instant>,
    /// How many agencies take part, as storage said.
    agencies: u16,
    deaths: Deaths,
    handlers: Handlers,
    /// Clients that are gone and of whom storage has not been told yet.
    gone: Vec<ClientSerial>,
    /// The newcomer's token, at its start.
    secret: SecretPage,
    clients: ClientSerial,
    /// Clients that were accepted and have no handler yet. With the handlers no more than `max_clients`.
    waiting: VecDeque<(TcpStream, IpAddr)>,
    newcomer: Option<Newcomer>,
    /// When what storage has not been told is tried again.
    tell_again: Option<Instant>,
    pause_until: Option<Instant>,
    stopping: Option<Stopping>,
    failure: Option<ServerError>,
}

impl Acceptor<'_> {
    fn serve(mut self) -> Result<(), ServerError> {
        self.start_storage().map_err(ServerError::of("can't start the storage service"))?;
        loop {
            self.advance().map_err(ServerError::of("the acceptor"))?;
            let measured = self.metrics.as_ref().is_some_and(Metrics::is_alive);
            if self.stopping.is_some() && self.storage.is_none() && self.handlers.count() == 0 && !measured {
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
        let pause = self.pause_until.filter(|until| *until > now);
        let stop = self.stopping.as_ref().map(Stopping::next_step);
        if self.can_welcome(now) {
            return EpollTimeout::ZERO;
        }
        let Some(until) = pause
            .into_iter()
            .chain(self.tell_again)
            .chain(self.start_storage_at)
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
            confinement: &self.confinement,
            offset: local_offset(),
            agencies: self.agencies,
            finished: &self.finished,
            max_payload: self.config.max_payload,
            client_timeout: self.config.client_timeout,
            counters: &self.counters,
            max_clients: self.max_clients,
            started: self.started,
            storage_restarts: self.deaths.total(),
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
            if self.storage.as_ref().is_some_and(|storage| storage.pid == pid) {
                self.storage_ended(exit);
            } else if let Some(client) = self.handlers.remove(pid) {
                self.counters.set(Counter::Handlers, self.handlers.count().into());
                self.gone.push(client);
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
