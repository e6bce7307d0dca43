//! The acceptor, the process that was started. It accepts clients, forks a handler for each, reaps, keeps the storage
//! service running, and stops all of them.
//!
//! It never waits on a client or on storage: what their sockets do not take at once it keeps, and it sleeps in one place
//! only. It never locks the shared mutex, and never touches the bets. Of the clients' tokens, which it draws, it keeps the
//! last alone, in memory that no child gets.
//!
//! | file | what is there |
//! |---|---|
//! | here | the loop: the one place where it waits, and the one where it reaps |
//! | `children` | the table of living children, and what each is there for |
//! | `inherited` | what is made before the first fork, for all of them |
//! | `listener`, `clients` | the socket; who has come and waits, who is gone |
//! | `newcomer` | how one gets a process that talks to storage: its pipe, its token, the fork |
//! | `storage` | the storage service: started, restarted, told who comes, who is gone, and to stop |
//! | `stop` | the stages of the end |
//!
//! A connection goes through them in this order: `clients`, `newcomer`, `storage` (it is told), `newcomer` (the fork),
//! `children`; and when its handler has ended `children`, `clients`, `storage`.

mod children;
mod clients;
mod inherited;
mod listener;
mod newcomer;
mod stop;
mod storage;

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::getpid;

use self::children::{Child, Children};
use self::clients::Clients;
use self::inherited::Inherited;
use self::listener::Listener;
use self::stop::Stopping;
use self::storage::Storage;
use super::ServerError;
use super::handler;
use super::view::ServerView;
use crate::config::ServerConfig;
use crate::logging::{Outcome, info, local_offset};
use crate::system::process::reap;
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
    let Some(listener) = listener::bind(config, &signals)? else {
        log_shutdown();
        return Ok(());
    };
    let inherited = Inherited::make()?;
    let acceptor = Acceptor {
        config,
        max_clients,
        epoll: epoll(&signals).map_err(ServerError::of("can't wait for events"))?,
        signals,
        listener: Listener::Bound(listener),
        inherited,
        started: Instant::now(),
        children: Children::default(),
        storage: Storage::default(),
        clients: Clients::new().map_err(ServerError::of("can't get secret memory"))?,
        stopping: None,
        failure: None,
    };
    handler::warm_up();
    acceptor.serve()
}

fn epoll(signals: &Signals) -> io::Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNAL))?;
    Ok(epoll)
}

fn log_shutdown() {
    info("shutdown", Outcome::Success, &[]);
}

struct Acceptor<'a> {
    config: &'a ServerConfig,
    max_clients: u32,
    signals: Signals,
    epoll: Epoll,
    inherited: Inherited,
    listener: Listener,
    clients: Clients,
    children: Children,
    storage: Storage,
    started: Instant,
    stopping: Option<Stopping>,
    /// Why the server ends by itself, if it does.
    failure: Option<ServerError>,
}

impl Acceptor<'_> {
    fn serve(mut self) -> Result<(), ServerError> {
        self.start_storage().map_err(ServerError::of("can't start the storage service"))?;
        while !self.has_stopped() {
            self.advance().map_err(ServerError::of("the acceptor"))?;
        }
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        log_shutdown();
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
        self.welcome_next();
        self.stop_further();
        // After all that may leave something to be told, as it looks to it that the wait ends when that can be.
        self.talk_to_storage()
    }

    /// How long to wait where nothing happens, as something is due.
    fn timeout(&self, now: Instant) -> EpollTimeout {
        let due = [
            self.welcome_due(now),
            self.clients.pause_until.filter(|until| *until > now),
            self.storage.start_at,
            self.storage.tell_again,
            self.stopping.and_then(Stopping::due),
        ];
        match due.into_iter().flatten().min() {
            None => EpollTimeout::NONE,
            Some(until) if until <= now => EpollTimeout::ZERO,
            Some(until) => {
                let millis = until.duration_since(now).as_millis() + 1;
                u16::try_from(millis).unwrap_or(u16::MAX).into()
            }
        }
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
                // One that has said that it is ready is not killed as one that recovers.
                self.listen_to_storage()?;
                self.stop();
            }
        }
        self.reap_children()
    }

    fn reap_children(&mut self) -> io::Result<()> {
        // SIGCHLD coalesces: one may stand for many.
        while let Some((pid, exit)) = reap()? {
            match self.children.remove(pid) {
                Some(Child::Storage) => self.storage_ended(exit),
                Some(Child::Handler(client)) => self.handler_ended(pid, client, exit),
                None => {}
            }
        }
        Ok(())
    }
}
