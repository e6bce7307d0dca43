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
//! | `keeper_link` | the keeper that serves, the one that reads its files; what TLS clients are shown |
//! | `children` | the table of living children: launched and reaped there |
//! | `stop` | the stages of a stop |
//! | `pause` | the pauses after the system has refused something |
//! | `service_manager` | what systemd is told |
//!
//! A client's way: `accept_clients`, `prepare_next` (its reply pipe and its token), `storage_link` (storage is told), then
//! `fork_handler`; and when its handler has ended `reap_children`, `storage_link` (storage is told).

mod children;
mod keeper_link;
mod listener;
mod pause;
mod service_manager;
mod shared_resources;
mod stop;
mod storage_link;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::getpid;

use self::children::{Child, Children};
use self::keeper_link::KeeperLink;
use self::listener::{Listener, send_busy};
use self::pause::Pause;
use self::service_manager::{READY, STOPPING, ServiceManager};
use self::shared_resources::SharedResources;
use self::stop::{Stage, Stop};
use self::storage_link::StorageLink;
use super::error::ServerError;
use super::handler::{self, AcceptedClient, HandlerContext, TlsContext};
use super::keeper;
use super::storage::recovery::Rules;
use super::storage::{self, StorageConfig};
use crate::config::ServerConfig;
use crate::failpoint::kill_point;
use crate::ipc::control::{ToStorage, control_pair};
use crate::logging::{Level, Outcome, event, info, local_offset};
use crate::system::fd_passing::{Sent, packet_socket_pair};
use crate::system::poll_timeout;
use crate::system::process::Exit;
use crate::system::signal::{Signals, handle_hangups, is_termination};

/// If so many clients wait for a handler, the acceptor yields the processor after each fork.
const CROWD: usize = 16;
/// The pause after the system has refused what a client or storage needs.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs the server with at most `max_clients` handlers until a signal ends it.
pub(super) fn run(config: &ServerConfig, max_clients: u32) -> Result<(), ServerError> {
    if config.tls_dir.is_some() {
        handle_hangups().map_err(ServerError::of("can't receive signals"))?;
    }
    let signals = Signals::open().map_err(ServerError::of("can't receive signals"))?;
    let manager = ServiceManager::connect();
    let address = config.listen_address();
    let bound = Listener::bind(address, &signals).map_err(|error| ServerError::Listen { address, error })?;
    if let Some(listener) = bound {
        let resources = SharedResources::new(&config.storage_filepath)?;
        let acceptor = Acceptor {
            config,
            max_clients,
            started: Instant::now(),
            signals,
            manager,
            resources,
            listener: Some(listener),
            waiting: VecDeque::new(),
            is_crowded: false,
            client_pause: Pause::default(),
            storage: StorageLink::new().map_err(ServerError::of("can't get secret memory"))?,
            launch_pause: Pause::default(),
            keeper: config
                .tls_dir
                .as_deref()
                .map(KeeperLink::new)
                .transpose()
                .map_err(ServerError::of("can't get secret memory"))?,
            children: Children::default(),
            connections: 0,
            busy: 0,
            stop: None,
            failure: None,
        };
        acceptor.run()?;
    }
    info("shutdown", Outcome::Success, &[]);
    Ok(())
}

struct Acceptor<'a> {
    config: &'a ServerConfig,
    max_clients: u32,
    started: Instant,
    signals: Signals,
    manager: ServiceManager,
    resources: SharedResources,
    /// None once the server stops.
    listener: Option<Listener>,
    /// Clients that were accepted, and have no reply pipe yet.
    waiting: VecDeque<(TcpStream, IpAddr)>,
    /// Whether all places are taken and a client waits. Handlers without a message then make room.
    is_crowded: bool,
    /// The pause before a client is accepted or prepared, after the system had nothing for the one before.
    client_pause: Pause,
    storage: StorageLink,
    /// The pause before storage is launched again, after it could not be launched.
    launch_pause: Pause,
    /// None if TLS is not configured.
    keeper: Option<KeeperLink>,
    children: Children,
    /// Connections accepted since the server started.
    connections: u64,
    /// Clients that were rejected because the system had nothing for them.
    busy: u64,
    stop: Option<Stop>,
    /// Why the server ends by itself, if it does.
    failure: Option<ServerError>,
}

impl Acceptor<'_> {
    fn run(mut self) -> Result<(), ServerError> {
        self.launch_storage().map_err(ServerError::of("can't start the storage service"))?;
        while !self.has_stopped() {
            self.step().map_err(ServerError::of("the acceptor"))?;
        }
        self.failure.map_or(Ok(()), Err)
    }

    /// Waits until something happens, and does what follows from it.
    fn step(&mut self) -> io::Result<()> {
        let [signal, message, keeper, connection] = self.wait()?;
        if signal {
            self.take_signals()?;
        }
        if message {
            self.receive_from_storage()?;
        }
        if keeper {
            self.receive_from_keeper()?;
        }
        if connection {
            self.is_crowded = !self.has_place();
            self.accept_clients();
        }
        self.restart_storage();
        self.restart_keeper();
        self.prepare_next();
        self.advance_stop();
        self.manager.send(Instant::now());
        while let Some(client) = self.storage.send()? {
            self.fork_handler(&client);
        }
        self.is_crowded &= !self.has_place();
        self.resources.state.set_crowded(self.is_crowded);
        Ok(())
    }

    /// Waits for a signal, for storage, for the keeper and for a connection. Returns which of them has come.
    fn wait(&self) -> io::Result<[bool; 4]> {
        // One moment for all: a pause that ended in between would end unnoticed.
        let now = Instant::now();
        // Takes the place of what is not waited for.
        let nothing = || PollFd::new(self.signals.as_fd(), PollFlags::empty());
        let mut fds = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            self.storage.interest(now).map_or_else(nothing, |(fd, flags)| PollFd::new(fd, flags)),
            self.keeper
                .as_ref()
                .and_then(KeeperLink::interest)
                .map_or_else(nothing, |socket| PollFd::new(socket, PollFlags::POLLIN)),
            self.watched_listener(now)
                .map_or_else(nothing, |listener| PollFd::new(listener.socket.as_fd(), PollFlags::POLLIN)),
        ];
        match poll(&mut fds, self.timeout(now)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(fds.map(|fd| fd.any().unwrap_or(true)))
    }

    /// How long to wait if nothing happens.
    fn timeout(&self, now: Instant) -> PollTimeout {
        let due = [
            self.can_prepare(now).then_some(now),
            self.client_pause.end(now),
            self.launch_pause.end(now),
            self.storage.pause.end(now),
            self.manager.due(now),
            self.keeper.as_ref().and_then(|keeper| keeper.due(now)),
            self.stop.as_ref().map(|stop| stop.due),
        ];
        poll_timeout(due.into_iter().flatten().min(), now)
    }

    /// Whether fewer than `max_clients` clients have been accepted.
    fn has_place(&self) -> bool {
        let waiting = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        self.children.handlers().saturating_add(waiting) < self.max_clients
    }

    /// The listener, if an event of it matters: a client may be accepted, or it is not known yet that one waits for a place.
    fn watched_listener(&self, now: Instant) -> Option<&Listener> {
        let matters = if self.has_place() { self.client_pause.end(now).is_none() } else { !self.is_crowded };
        self.listener.as_ref().filter(|listener| matters && listener.is_listening)
    }

    /// Accepts all connections that wait. An accept is far quicker than a fork, and a client that finds the backlog full
    /// tries again only after a second.
    fn accept_clients(&mut self) {
        while self.has_place()
            && let Some(listener) = self.watched_listener(Instant::now())
        {
            match listener.accept() {
                Ok(Some((socket, ip))) => {
                    self.connections += 1;
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
            Ok(pipe) => self.storage.announce(socket, ip, pipe),
            Err(error) => self.reject(&socket, "accept_connections", &error),
        }
    }

    /// Forks the handler of a client that storage knows.
    fn fork_handler(&mut self, client: &AcceptedClient) {
        match self.launch_handler(client) {
            Ok(()) => {
                self.client_pause.succeed();
                if self.waiting.len() >= CROWD {
                    // The new handlers must not keep the acceptor from the backlog until each has had its turn.
                    thread::yield_now();
                }
            }
            Err(error) => {
                self.storage.retire(client.serial);
                self.reject(&client.socket, "fork", &error);
            }
        }
    }

    fn launch_handler(&mut self, client: &AcceptedClient) -> io::Result<()> {
        kill_point!("handler_fork");
        let tls = self.keeper.as_ref().map(|keeper| TlsContext {
            identity: keeper.identity.as_ref(),
            plain: &self.config.plain_agencies,
        });
        let socket = self.keeper.as_ref().and_then(|keeper| keeper.connect(client.serial)).map(Arc::new);
        let context = HandlerContext {
            acceptor: getpid(),
            queue: &self.resources.sender,
            confinement: &self.resources.confinement,
            offset: local_offset(),
            agencies: self.storage.agencies,
            shared: self.resources.state.view(),
            max_payload: self.config.max_payload,
            client_timeout: self.config.client_timeout,
            refusals: &self.resources.refusals,
            connections: self.connections,
            handlers: self.children.handlers() + 1,
            busy: self.busy,
            max_clients: self.max_clients,
            started: self.started,
            storage_restarts: self.storage.deaths.total,
            tls,
        };
        let keep = [client.socket.as_fd(), client.replies.as_fd(), context.queue.as_fd()];
        let keep = keep.into_iter().chain(context.confinement.descriptor());
        let keep: Vec<_> = keep.chain(socket.as_ref().map(|socket| socket.as_fd())).collect();
        self.children
            .launch(Child::Handler(client.serial), &keep, || handler::run(client, socket.as_ref(), &context))
    }

    /// Sends a client away because the system has refused what its handler needs.
    fn reject(&mut self, socket: &TcpStream, action: &str, error: &io::Error) {
        self.busy += 1;
        send_busy(socket);
        self.pause_clients(action, error);
    }

    /// Leaves further clients where they are for a moment.
    fn pause_clients(&mut self, action: &str, error: &io::Error) {
        if self.client_pause.begin(PAUSE) {
            event(Level::Error, action, Outcome::Fail, &[("error", error)]);
        }
    }

    fn launch_storage(&mut self) -> io::Result<()> {
        // All that can fail comes before the fork: a child that is not in the table would be lost.
        let (ours, theirs) = control_pair()?;
        let ServerConfig { clients_amount, winner_number, max_payload, .. } = *self.config;
        let path = self.config.storage_filepath.clone();
        let SharedResources { receiver: queue, state, confinement, .. } = &self.resources;
        let rules = Rules { clients_amount, winner_number };
        let plain_agencies = self.keeper.as_ref().map(|_| self.config.plain_agencies.clone());
        let known_file = self.storage.bets_file;
        let config = StorageConfig { path, known_file, rules, max_payload, plain_agencies };
        if let Some(keeper) = &self.keeper
            && ours.send(ToStorage::VoucherKey, keeper.key(), None)? != Sent::Done
        {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // Standard input and output stay, so that no file that storage opens gets their numbers.
        let (input, output) = (io::stdin(), io::stdout());
        let keep = [input.as_fd(), output.as_fd(), queue.as_fd(), theirs.as_fd()];
        let body = || storage::run(&config, confinement, queue, &theirs, state);
        state.share_with_child(|| self.children.launch(Child::Storage, &keep, body))?;
        self.storage.on_launched(ours);
        self.launch_pause.succeed();
        Ok(())
    }

    fn restart_storage(&mut self) {
        if self.stop.is_none()
            && !self.storage.is_running()
            && self.launch_pause.end(Instant::now()).is_none()
            && let Err(error) = self.launch_storage()
            && self.launch_pause.begin(PAUSE)
        {
            event(Level::Error, "fork", Outcome::Fail, &[("error", &error)]);
        }
    }

    fn launch_keeper(&mut self) -> io::Result<()> {
        let Some(keeper) = &mut self.keeper else { return Ok(()) };
        let (ours, theirs) = packet_socket_pair()?;
        let generation = keeper.next_generation();
        let level = if keeper.identity.is_some() { Level::Error } else { Level::Critical };
        let folder = keeper.folder().to_owned();
        let (acceptor, confinement) = (getpid(), &self.resources.confinement);
        // Standard input and output stay, so that no file that the keeper opens gets their numbers.
        let (input, output) = (io::stdin(), io::stdout());
        let keep = [input.as_fd(), output.as_fd(), theirs.as_fd()];
        let keep: Vec<_> = keep.into_iter().chain(confinement.descriptor()).collect();
        self.children.launch(Child::Keeper(generation), &keep, || {
            keeper::run(&folder, &theirs, || confinement.enter_keeper(acceptor), level)
        })?;
        keeper.on_launched(ours);
        Ok(())
    }

    fn restart_keeper(&mut self) {
        let must_launch = self.keeper.as_ref().is_some_and(|keeper| keeper.must_launch(Instant::now()));
        if self.stop.is_none()
            && must_launch
            && let Err(error) = self.launch_keeper()
            && self.keeper.as_mut().is_some_and(KeeperLink::on_failed_launch)
        {
            event(Level::Error, "fork", Outcome::Fail, &[("error", &error)]);
        }
    }

    fn receive_from_keeper(&mut self) -> io::Result<()> {
        if let Some(keeper) = &mut self.keeper {
            keeper.receive_ready(&self.config.plain_agencies)?;
        }
        self.listen();
        Ok(())
    }

    fn receive_from_storage(&mut self) -> io::Result<()> {
        self.storage.receive_ready()?;
        self.listen();
        Ok(())
    }

    /// Once storage is ready for the first time, and the keeper too, the server begins to listen.
    fn listen(&mut self) {
        let has_identity = self.keeper.as_ref().is_none_or(|keeper| keeper.identity.is_some());
        if self.storage.agencies > 0
            && has_identity
            && let Some(listener) = self.listener.as_mut().filter(|listener| !listener.is_listening)
        {
            match listener.listen(self.config.listen_backlog) {
                Ok(()) => self.manager.tell(READY),
                Err(error) => {
                    let address = self.config.listen_address();
                    self.fail(ServerError::Listen { address, error });
                }
            }
        }
    }

    fn take_signals(&mut self) -> io::Result<()> {
        let signal = self.signals.take()?;
        match (signal, &mut self.keeper) {
            (Some(Signal::SIGHUP), Some(keeper)) => keeper.reload(),
            // A service manager asks for a reload, and there is nothing to reload. It has no terminal that could hang up.
            (Some(Signal::SIGHUP), None) if self.manager.is_connected() => {}
            (Some(signal), _) if is_termination(signal) => {
                // Storage that has just become ready must not be killed as one that recovers.
                self.receive_from_storage()?;
                self.begin_stop();
            }
            _ => {}
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
                Child::Keeper(generation) => {
                    let is_final = self
                        .keeper
                        .as_mut()
                        .is_some_and(|keeper| keeper.on_exit(generation, exit, self.stop.is_some()));
                    if is_final {
                        self.fail(ServerError::KeeperGaveUp);
                    }
                }
                Child::Handler(client) => {
                    self.storage.retire(client);
                    if exit != Exit::Status(0) && self.stop.is_none() {
                        event(Level::Warning, "handler", Outcome::Fail, &[("pid", &pid), ("error", &exit)]);
                    }
                }
            }
        }
        Ok(())
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
        self.manager.tell(STOPPING);
        self.listener = None;
        self.waiting.clear();
        self.storage.drop_pending();
        if let Some(keeper) = &mut self.keeper {
            keeper.stop();
        }
        self.children.signal(Signal::SIGTERM, |child| matches!(child, Child::Handler(_)));
    }

    fn advance_stop(&mut self) {
        let Some(stop) = &mut self.stop else { return };
        // Storage that still recovers has nothing to store, and does not listen to a message.
        let is_recovering = self.storage.is_recovering();
        let has_handlers = self.children.handlers() > 0 && !is_recovering;
        match stop.advance(Instant::now(), has_handlers) {
            None | Some(Stage::Handlers) => {}
            Some(Stage::Storage) if is_recovering => {
                self.children.signal(Signal::SIGKILL, |child| child == Child::Storage);
            }
            Some(Stage::Storage) => self.storage.stop(),
            Some(Stage::Kill) => self.children.signal(Signal::SIGKILL, |_| true),
            Some(Stage::GiveUp) => {
                if let Some((pid, child)) = self.children.any() {
                    self.failure.get_or_insert(ServerError::Stuck { process: child.to_string(), pid });
                }
            }
        }
    }

    fn has_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.stage == Stage::GiveUp || self.children.is_empty())
    }
}
