//! The acceptor: the process that was started. It accepts clients, forks a handler for each, reaps its children, restarts
//! storage and the keeper, and stops all of them.
//!
//! It never waits for a client or for storage, and sleeps in one place only. It never locks the shared mutex and touches no
//! bets. If it reads bytes of a client, it discards them. Of the clients' tokens it keeps only the last, in memory that no child
//! inherits.
//!
//! | file | owns |
//! |---|---|
//! | this one | the loop: it alone waits, launches, kills and decides |
//! | `shared_resources` | what all children inherit |
//! | `arrivals` | the listening socket (`listener`), and the clients that have no handler yet |
//! | `storage_link` | the messages that storage has not got; the next client to announce; how often storage has died |
//! | `keeper_link` | the keeper that serves; the keeper that still reads its files; the server's certificate |
//! | `children` | the table of living children: launched and reaped there |
//! | `stop` | the stages of a stop |
//! | `pause` | the pauses after the system has refused something, and the line about it |
//! | `service_manager` | what systemd is told |
//!
//! The path of a client: `arrivals` accepts it, `prepare_next` makes its reply pipe and its token, `storage_link` announces
//! it to storage, and `fork_handler` forks its handler. When the handler has ended, `reap_children` finds it, and
//! `storage_link` tells storage.

mod arrivals;
mod children;
mod keeper_link;
mod listener;
mod pause;
mod service_manager;
mod shared_resources;
mod stop;
mod storage_link;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::getpid;

use self::arrivals::Arrivals;
use self::children::{Child, Children};
use self::keeper_link::KeeperLink;
use self::listener::Listener;
use self::service_manager::{READY, STOPPING, ServiceManager};
use self::shared_resources::SharedResources;
use self::stop::{Stage, Stop};
use self::storage_link::StorageLink;
use super::error::ServerError;
use super::handler::{self, AcceptedClient, HandlerContext};
use super::keeper;
use super::storage;
use crate::config::ServerConfig;
use crate::failpoint::kill_point;
use crate::ipc::channel::channel;
use crate::ipc::control::ToStorage;
use crate::logging::{Level, Outcome, event, info, local_offset};
use crate::system::fd_passing::Sent;
use crate::system::memory::fill_heap_holes;
use crate::system::poll_timeout;
use crate::system::process::{Exit, signal_child};
use crate::system::signal::{Signals, handle_hangups, is_termination};

/// While so many accepted clients have no handler, the acceptor yields the processor after each fork.
const MANY_WAITING: usize = 16;

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
        fill_heap_holes();
        let keeper = KeeperLink::new(config.tls_dir.is_some());
        let acceptor = Acceptor {
            config,
            started: Instant::now(),
            signals,
            manager,
            resources,
            arrivals: Arrivals::new(listener, max_clients),
            storage: StorageLink::new().map_err(ServerError::of("can't get secret memory"))?,
            keeper: keeper.map_err(ServerError::of("can't get secret memory"))?,
            children: Children::default(),
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
    started: Instant,
    signals: Signals,
    manager: ServiceManager,
    resources: SharedResources,
    arrivals: Arrivals,
    storage: StorageLink,
    keeper: KeeperLink,
    children: Children,
    stop: Option<Stop>,
    /// The failure that ends the server, if there is one.
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

    /// Waits for an event, and handles it.
    fn step(&mut self) -> io::Result<()> {
        let [signal, storage, keeper, connection] = self.wait()?;
        if signal {
            self.take_signals()?;
        }
        if storage {
            self.storage.receive_ready()?;
        }
        if keeper {
            self.keeper.receive_ready(&self.config.plain_agencies)?;
        }
        self.listen();
        if connection {
            self.arrivals.accept(self.children.handlers());
        }
        self.launch_missing();
        self.prepare_next();
        self.advance_stop();
        self.manager.send();
        while let Some(client) = self.storage.send()? {
            self.fork_handler(&client);
        }
        self.resources.state.set_crowded(self.arrivals.is_crowded(self.children.handlers()));
        Ok(())
    }

    /// Waits for a signal, storage, the keeper or a connection. Returns which of the four are ready.
    fn wait(&self) -> io::Result<[bool; 4]> {
        // All checks use the same time: a pause that ended between two of them would be missed.
        let now = Instant::now();
        let signals = |flags| PollFd::new(self.signals.as_fd(), flags);
        let interests = [
            Some(signals(PollFlags::POLLIN)),
            self.storage.interest(now),
            self.keeper.interest(),
            self.arrivals.interest(self.children.handlers(), now),
        ];
        // A descriptor without flags stands for one that the acceptor does not wait for now.
        let mut fds = interests.map(|fd| fd.unwrap_or_else(|| signals(PollFlags::empty())));
        match poll(&mut fds, self.timeout(now)) {
            Ok(_) | Err(Errno::EINTR) => Ok(fds.map(|fd| fd.any().unwrap_or(true))),
            Err(error) => Err(error.into()),
        }
    }

    /// How long to wait for an event.
    fn timeout(&self, now: Instant) -> PollTimeout {
        let due = [
            self.can_prepare(now).then_some(now),
            self.arrivals.pause.end(now),
            self.storage.due(now),
            self.manager.due(now),
            self.keeper.due(now),
            self.stop.as_ref().map(|stop| stop.due),
        ];
        poll_timeout(due.into_iter().flatten().min(), now)
    }

    fn can_prepare(&self, now: Instant) -> bool {
        self.arrivals.has_next(now) && self.storage.can_announce()
    }

    /// Announces the client that has waited longest to storage. One in each step, so that the acceptor looks at the backlog
    /// between two forks: ten connections can come while it forks once.
    fn prepare_next(&mut self) {
        if !self.can_prepare(Instant::now()) {
            return;
        }
        let Some((socket, ip)) = self.arrivals.take_next() else { return };
        match self.storage.make_reply_pipe() {
            Ok(pipe) => self.storage.announce(socket, ip, pipe),
            Err(error) => self.arrivals.reject(&socket, "accept_connections", &error),
        }
    }

    /// Forks the handler of a client that storage knows.
    fn fork_handler(&mut self, client: &AcceptedClient) {
        match self.launch_handler(client) {
            Ok(()) => {
                self.arrivals.pause.reset();
                if self.arrivals.waiting() >= MANY_WAITING {
                    // Otherwise the acceptor's next turn would come only after each new handler has had one.
                    thread::yield_now();
                }
            }
            Err(error) => {
                self.storage.retire(client.number);
                self.arrivals.reject(&client.socket, "fork", &error);
            }
        }
    }

    fn launch_handler(&mut self, client: &AcceptedClient) -> io::Result<()> {
        kill_point("handler_fork");
        let context = HandlerContext {
            config: self.config,
            acceptor: getpid(),
            signals: &self.signals,
            queue: &self.resources.sender,
            confinement: &self.resources.confinement,
            offset: local_offset(),
            agencies: self.storage.agencies,
            shared: self.resources.state.view(),
            counters: &self.resources.counters,
            connections: self.arrivals.connections,
            handlers: self.children.handlers() + 1,
            busy: self.arrivals.busy,
            max_clients: self.arrivals.places,
            started: self.started,
            storage_restarts: self.storage.deaths,
            identity: self.keeper.identity.as_ref(),
            keeper: self.keeper.connect(client.number).map(Arc::new),
        };
        let keeper = context.keeper.as_ref().map(|keeper| keeper.as_fd());
        let keep = [client.socket.as_fd(), client.replies.as_fd(), context.queue.as_fd()].into_iter();
        let keep: Vec<_> = keep.chain(context.confinement.descriptor()).chain(keeper).collect();
        self.children.launch(Child::Handler(client.number), &keep, || handler::run(client, &context))?;
        Ok(())
    }

    fn launch_storage(&mut self) -> io::Result<()> {
        // Everything that can fail is done before the fork: a child that is not in the table would be lost.
        let (ours, theirs) = channel()?;
        let SharedResources { receiver: queue, state, confinement, .. } = &self.resources;
        if let Some(key) = &self.keeper.key
            && ours.send(&ToStorage::VoucherKey, &**key, None)? != Sent::Done
        {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // Standard input and output stay open, so that no file that storage opens gets their numbers.
        let (input, output) = (io::stdin(), io::stdout());
        let keep = [input.as_fd(), output.as_fd(), queue.as_fd(), theirs.as_fd()];
        let (config, known_file) = (self.config, self.storage.bets_file);
        let body = || storage::run(config, known_file, confinement, queue, &theirs, state);
        state.share_with_child(|| self.children.launch(Child::Storage, &keep, body).map(drop))?;
        self.storage.on_launched(ours);
        Ok(())
    }

    fn launch_keeper(&mut self) -> io::Result<()> {
        let Some(folder) = &self.config.tls_dir else { return Ok(()) };
        let (ours, theirs) = channel()?;
        let level = if self.keeper.is_ready() { Level::Error } else { Level::Critical };
        let (acceptor, confinement) = (getpid(), &self.resources.confinement);
        // Standard input and output stay open, so that no file that the keeper opens gets their numbers.
        let (input, output) = (io::stdin(), io::stdout());
        let keep = [input.as_fd(), output.as_fd(), theirs.as_fd()];
        let keep: Vec<_> = keep.into_iter().chain(confinement.descriptor()).collect();
        let body = || keeper::run(folder, &theirs, || confinement.enter_keeper(acceptor), level);
        let pid = self.children.launch(Child::Keeper, &keep, body)?;
        if let Some(replaced) = self.keeper.on_launched(pid, ours) {
            signal_child(replaced, Signal::SIGKILL);
        }
        Ok(())
    }

    /// Launches storage and the keeper if they are missing, unless the server stops.
    fn launch_missing(&mut self) {
        if self.stop.is_some() {
            return;
        }
        let now = Instant::now();
        if self.storage.must_launch(now)
            && let Err(error) = self.launch_storage()
        {
            self.storage.launch_pause.begin_after("fork", &error);
        }
        if self.keeper.must_launch(now)
            && let Err(error) = self.launch_keeper()
        {
            self.keeper.pause.begin_after("fork", &error);
        }
    }

    /// Begins to listen once storage is ready for the first time, and the keeper too.
    fn listen(&mut self) {
        if self.storage.agencies > 0
            && self.keeper.is_ready()
            && let Some(listener) = self.arrivals.silent_listener()
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
        match self.signals.take()? {
            Some(Signal::SIGHUP) if self.config.tls_dir.is_some() => self.keeper.reload(),
            Some(signal) if is_termination(signal) => {
                // Storage that has just become ready must not be killed as one that recovers.
                self.storage.receive_ready()?;
                self.begin_stop();
            }
            _ => {}
        }
        self.reap_children()
    }

    fn reap_children(&mut self) -> io::Result<()> {
        while let Some((pid, child, exit)) = self.children.reap()? {
            let stopping = self.stop.is_some();
            let tolerated = match child {
                Child::Storage => self.storage.on_exit(exit, stopping),
                Child::Keeper => self.keeper.on_exit(pid, exit, stopping),
                Child::Handler(client) => {
                    self.storage.retire(client);
                    if exit != Exit::Status(0) && !stopping {
                        event(Level::Warning, "handler", Outcome::Fail, &[("pid", &pid), ("error", &exit)]);
                    }
                    Ok(())
                }
            };
            if let Err(failure) = tolerated {
                self.fail(failure);
            }
        }
        Ok(())
    }

    /// Ends the server because of a failure. The first one is reported.
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
        self.arrivals.stop();
        self.storage.drop_pending();
        self.keeper.stop();
        self.children.signal(Signal::SIGTERM, |child| matches!(child, Child::Handler(_)));
    }

    fn advance_stop(&mut self) {
        let Some(stop) = &mut self.stop else { return };
        // Storage that still recovers has nothing to store, and reads no messages.
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
                    self.failure.get_or_insert(ServerError::Stuck { process: child.name(), pid });
                }
            }
        }
    }

    fn has_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.stage == Stage::GiveUp || self.children.is_empty())
    }
}
