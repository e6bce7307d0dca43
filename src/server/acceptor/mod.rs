//! The acceptor: the process that was started. It accepts clients, forks a handler for each, reaps its children, restarts
//! storage, and stops all of them.
//!
//! It never waits for a client or for storage, and sleeps in one place only. It never locks the shared mutex, touches no
//! bets, and reads no byte of a client but to throw it away. It keeps the token of the last client only, in memory that no
//! child inherits.
//!
//! | file | owns |
//! |---|---|
//! | here | the loop: it alone waits, launches, kills and decides |
//! | `shared_resources` | what all children inherit |
//! | `listener` | the listening socket |
//! | `storage_link` | what storage must still be told; the client that it is told of next; its deaths |
//! | `children` | the table of living children: launched and reaped there |
//! | `stop` | the stages of a stop |
//! | `pause` | the pauses after the system has refused something |
//!
//! A client's way: `accept_clients`, `prepare_next` (its reply pipe and its token), `storage_link` (storage is told), then
//! `fork_handler`; and when its handler has ended `reap_children`, `storage_link` (storage is told).

mod children;
mod listener;
mod pause;
mod shared_resources;
mod stop;
mod storage_link;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid};

use self::children::{Child, Children};
use self::listener::{Listener, send_busy};
use self::pause::Pause;
use self::shared_resources::SharedResources;
use self::stop::{Stop, StopAction};
use self::storage_link::StorageLink;
use super::error::ServerError;
use super::handler::HandlerContext;
use super::handler::{self, AcceptedClient};
use super::storage::recovery::Rules;
use super::storage::{self, StorageConfig};
use crate::config::ServerConfig;
use crate::failpoint::kill_point;
use crate::ipc::messages::ClientSerial;
use crate::ipc::shared_counters::Counter;
use crate::logging::{Level, Outcome, event, info, local_offset};
use crate::system::process::Exit;
use crate::system::signal::{Signals, is_termination};

/// The number of the signals' events.
const SIGNAL: u64 = 2;

/// If so many clients wait for a handler, the acceptor yields the processor after each fork.
const CROWD: usize = 16;

/// Runs the server with at most `max_clients` handlers until a signal ends it.
///
/// # Errors
/// Why it could not start, or ended by itself.
pub fn run(config: &ServerConfig, max_clients: u32) -> Result<(), ServerError> {
    let signals = Signals::open().map_err(ServerError::of("can't receive signals"))?;
    let address = config.listen_address();
    let bound = Listener::bind(address, &signals).map_err(|error| ServerError::Listen { address, error })?;
    if let Some(listener) = bound {
        Acceptor::new(config, max_clients, signals, listener)?.run()?;
    }
    info("shutdown", Outcome::Success, &[]);
    Ok(())
}

struct Acceptor<'a> {
    config: &'a ServerConfig,
    max_clients: u32,
    started: Instant,
    signals: Signals,
    epoll: Epoll,
    resources: SharedResources,
    /// None once the server stops.
    listener: Option<Listener>,
    /// Clients that were accepted, and have no reply pipe yet.
    waiting: VecDeque<(TcpStream, IpAddr)>,
    /// The pause before a client is accepted or prepared, after the system had nothing for the one before.
    client_pause: Pause,
    storage: StorageLink,
    children: Children,
    stop: Option<Stop>,
    /// Why the server ends by itself, if it does.
    failure: Option<ServerError>,
}

impl<'a> Acceptor<'a> {
    fn new(
        config: &'a ServerConfig,
        max_clients: u32,
        signals: Signals,
        listener: Listener,
    ) -> Result<Self, ServerError> {
        let resources = SharedResources::new(&config.storage_filepath)?;
        handler::warm_up();
        Ok(Self {
            config,
            max_clients,
            started: Instant::now(),
            epoll: epoll(&signals).map_err(ServerError::of("can't wait for events"))?,
            signals,
            resources,
            listener: Some(listener),
            waiting: VecDeque::new(),
            client_pause: Pause::default(),
            storage: StorageLink::new().map_err(ServerError::of("can't get secret memory"))?,
            children: Children::default(),
            stop: None,
            failure: None,
        })
    }

    fn run(mut self) -> Result<(), ServerError> {
        self.launch_storage().map_err(ServerError::of("can't start the storage service"))?;
        while !self.has_stopped() {
            self.step().map_err(ServerError::of("the acceptor"))?;
        }
        self.failure.map_or(Ok(()), Err)
    }

    /// Waits until something happens, and does what follows from it.
    fn step(&mut self) -> io::Result<()> {
        self.wait_and_react()?;
        self.restart_storage();
        self.prepare_next();
        self.advance_stop();
        while let Some((serial, client)) = self.storage.send()? {
            self.fork_handler(serial, &client);
        }
        self.storage.watch(&self.epoll)
    }

    fn wait_and_react(&mut self) -> io::Result<()> {
        // One moment for both: a pause that ended between them would end unnoticed.
        let now = Instant::now();
        let accepts = self.can_accept(now);
        if let Some(listener) = &mut self.listener {
            listener.watch(accepts, &self.epoll)?;
        }
        let mut events = [EpollEvent::empty(); 3];
        let count = match self.epoll.wait(&mut events, self.timeout(now)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().take(count) {
            match event.data() {
                SIGNAL => self.take_signals()?,
                storage_link::EVENT => self.receive_from_storage()?,
                _ => self.accept_clients(),
            }
        }
        Ok(())
    }

    /// How long to wait if nothing happens.
    fn timeout(&self, now: Instant) -> EpollTimeout {
        let due = [
            self.can_prepare(now).then_some(now),
            self.client_pause.end(now),
            self.storage.due(now),
            self.stop.and_then(Stop::due),
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

    fn can_accept(&self, now: Instant) -> bool {
        let waiting = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        self.listener.as_ref().is_some_and(Listener::is_listening)
            && self.children.handlers().saturating_add(waiting) < self.max_clients
            && self.client_pause.end(now).is_none()
    }

    /// Accepts all connections that wait. An accept is far quicker than a fork, and a client that finds the backlog full
    /// tries again only after a second.
    fn accept_clients(&mut self) {
        while self.can_accept(Instant::now()) {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok(Some((socket, ip))) => {
                    self.resources.counters.add(Counter::Connections);
                    self.waiting.push_back((socket, ip));
                }
                Ok(None) => return,
                Err(error) => self.pause_clients("accept_connections", &error),
            }
        }
    }

    fn can_prepare(&self, now: Instant) -> bool {
        !self.waiting.is_empty() && self.storage.can_announce() && self.client_pause.end(now).is_none()
    }

    /// Announces the client that has waited longest to storage. Only one in each step: a fork takes longer than ten
    /// connections take to come, so the backlog is looked at in between.
    fn prepare_next(&mut self) {
        if !self.can_prepare(Instant::now()) {
            return;
        }
        let Some((socket, ip)) = self.waiting.pop_front() else { return };
        match self.storage.make_reply_pipe() {
            Ok((replies, pipe)) => self.storage.announce(AcceptedClient { socket, ip, replies }, pipe),
            Err(error) => self.reject(&socket, "accept_connections", &error),
        }
    }

    /// Forks the handler of a client that storage knows.
    fn fork_handler(&mut self, serial: ClientSerial, client: &AcceptedClient) {
        match self.launch_handler(serial, client) {
            Ok(()) => {
                self.client_pause.succeed();
                if self.waiting.len() >= CROWD {
                    // The new handlers must not keep the acceptor from the backlog until each has had its turn.
                    thread::yield_now();
                }
            }
            Err(error) => {
                self.count_handlers(0);
                self.storage.retire(serial);
                self.reject(&client.socket, "fork", &error);
            }
        }
    }

    fn launch_handler(&mut self, serial: ClientSerial, client: &AcceptedClient) -> io::Result<()> {
        kill_point!("handler_fork");
        // Before the fork: the handler may be asked for the number at once.
        self.count_handlers(1);
        let context = HandlerContext {
            acceptor: getpid(),
            confinement: &self.resources.confinement,
            offset: local_offset(),
            agencies: self.storage.agencies(),
            finished: &self.resources.finished,
            max_payload: self.config.max_payload,
            client_timeout: self.config.client_timeout,
            counters: &self.resources.counters,
            max_clients: self.max_clients,
            started: self.started,
            storage_restarts: self.storage.deaths(),
        };
        let (queue, signals) = (&self.resources.sender, &self.signals);
        let keep = [client.socket.as_fd(), client.replies.as_fd(), queue.as_fd(), signals.as_fd()];
        let keep: Vec<_> = keep.into_iter().chain(context.confinement.descriptor()).collect();
        self.children.launch(Child::Handler(serial), &keep, || handler::run(client, &context, queue, signals))
    }

    /// Publishes the number of handlers, and of those that are about to be forked.
    fn count_handlers(&self, about_to_be: u32) {
        self.resources.counters.set(Counter::Handlers, (self.children.handlers() + about_to_be).into());
    }

    /// Sends a client away because the system has refused what its handler needs.
    fn reject(&mut self, socket: &TcpStream, action: &str, error: &io::Error) {
        self.resources.counters.add(Counter::Busy);
        send_busy(socket);
        self.pause_clients(action, error);
    }

    /// Leaves further clients where they are for a moment.
    fn pause_clients(&mut self, action: &str, error: &io::Error) {
        if self.client_pause.begin() {
            event(Level::Error, action, Outcome::Fail, &[("error", error)]);
        }
    }

    fn launch_storage(&mut self) -> io::Result<()> {
        // All that can fail comes before the fork: a child that is not in the table would be lost.
        let (ours, theirs) = StorageLink::connect(&self.epoll)?;
        let ServerConfig { clients_amount, winner_number, max_payload, .. } = *self.config;
        let path = self.config.storage_filepath.clone();
        let config = StorageConfig { path, rules: Rules { clients_amount, winner_number }, max_payload };
        let (queue, finished) = (&self.resources.receiver, &self.resources.finished);
        // Standard input and output stay, so that no file that storage opens gets their numbers.
        let (input, output) = (io::stdin(), io::stdout());
        let keep = [input.as_fd(), output.as_fd(), queue.as_fd(), theirs.as_fd()];
        self.children.launch(Child::Storage, &keep, || storage::run(&config, queue, &theirs, finished))?;
        self.storage.on_launched(ours);
        Ok(())
    }

    fn restart_storage(&mut self) {
        if self.stop.is_none()
            && self.storage.can_launch(Instant::now())
            && let Err(error) = self.launch_storage()
        {
            self.storage.on_launch_failed(&error);
        }
    }

    /// The first time that storage is ready, the server begins to listen.
    fn receive_from_storage(&mut self) -> io::Result<()> {
        if self.storage.receive_ready()?
            && let Some(listener) = &mut self.listener
            && let Err(error) = listener.listen(self.config.listen_backlog, &self.epoll)
        {
            let address = self.config.listen_address();
            self.fail(ServerError::Listen { address, error });
        }
        Ok(())
    }

    fn take_signals(&mut self) -> io::Result<()> {
        while let Some(signal) = self.signals.take()? {
            if is_termination(signal) {
                // Storage that has just become ready must not be killed as one that recovers.
                self.receive_from_storage()?;
                self.begin_stop();
            }
        }
        self.reap_children()
    }

    fn reap_children(&mut self) -> io::Result<()> {
        while let Some((pid, child, exit)) = self.children.reap()? {
            match child {
                Child::Storage => {
                    if let Err(failure) = self.storage.on_exit(exit, self.stop.is_some()) {
                        self.fail(failure);
                    }
                }
                Child::Handler(client) => self.on_handler_exit(pid, client, exit),
            }
        }
        Ok(())
    }

    fn on_handler_exit(&mut self, pid: Pid, client: ClientSerial, exit: Exit) {
        self.count_handlers(0);
        self.storage.retire(client);
        if exit != Exit::Status(0) && self.stop.is_none() {
            event(Level::Warning, "handler", Outcome::Fail, &[("pid", &pid), ("error", &exit)]);
        }
    }

    /// Ends the server by itself. The first reason counts.
    fn fail(&mut self, failure: ServerError) {
        self.failure.get_or_insert(failure);
        self.begin_stop();
    }

    fn begin_stop(&mut self) {
        if self.stop.is_some() {
            return;
        }
        self.stop = Some(Stop::begin(Instant::now()));
        self.listener = None;
        self.waiting.clear();
        self.storage.drop_pending();
        self.children.signal(Signal::SIGTERM, |child| child != Child::Storage);
    }

    fn advance_stop(&mut self) {
        let Some(stop) = &mut self.stop else { return };
        match stop.advance(Instant::now(), self.children.handlers(), self.storage.is_recovering()) {
            None => {}
            Some(StopAction::TellStorage) => self.storage.stop(),
            Some(StopAction::KillStorage) => {
                self.children.signal(Signal::SIGKILL, |child| child == Child::Storage);
            }
            Some(StopAction::KillAll) => self.children.signal(Signal::SIGKILL, |_| true),
            Some(StopAction::GiveUp) => {
                if let Some((pid, child)) = self.children.any() {
                    self.failure.get_or_insert(ServerError::Stuck { process: child.to_string(), pid });
                }
            }
        }
    }

    fn has_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop == Stop::GivenUp || self.children.is_empty())
    }
}

fn epoll(signals: &Signals) -> io::Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNAL))?;
    Ok(epoll)
}
