//! The acceptor: accepts, forks a handler per connection, reaps, keeps the storage service running, and stops all.
//!
//! It never waits on a client or on storage, never locks the shared mutex, and never touches the bets.

mod metrics;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};
use nix::unistd::getpid;
use rand::TryRng as _;
use rand::rngs::SysRng;

use self::metrics::Metrics;
use super::ServerError;
use super::children::{Deaths, Handlers, StorageProcess};
use super::handler::{self, Client, ServerView};
use super::storage::recovery::Rules;
use super::storage::{self, StorageConfig};
use crate::config::ServerConfig;
use crate::ipc::control::control_pair;
use crate::ipc::finished_agencies::FinishedAgencies;
use crate::ipc::message::{ClientSerial, ClientToken, FromStorage, ToStorage};
use crate::ipc::reply_pipe::reply_pipe;
use crate::ipc::shared_counters::{Counter, SharedCounters};
use crate::logging::{Level, Outcome, event, info, local_offset};
use crate::protocol::message::ServerMessage;
use crate::system::confinement::{Confinement, InForce};
use crate::system::fd_passing::Sent;
use crate::system::mqueue::{self, QueueReceiver, QueueSender};
use crate::system::process::{Exit, fork_child, reap, signal_child};
use crate::system::secret_page::SecretPage;
use crate::system::signal::{Signals, is_termination};

/// How long to leave the listener alone after the system had no descriptor, memory or process to give.
const PAUSE: Duration = Duration::from_millis(200);
/// How soon storage is told again where no event says when it can be.
const TELL_AGAIN: Duration = Duration::from_millis(20);
/// Connections accepted in one round: between two rounds signals and deaths are looked at.
const ROUND: usize = 16;
/// After this from the signal on, storage is told to stop even if handlers are left.
const HANDLERS_HAVE: Duration = Duration::from_millis(450);
/// After this, what has not ended by itself is killed.
const ALL_HAVE: Duration = Duration::from_millis(700);

/// How long a client may be silent before its machine is asked whether it still knows the connection.
const KEEP_ALIVE_SECONDS: u32 = 30;

const LISTENER: u64 = 0;
const SIGNAL: u64 = 1;
const CONTROL: u64 = 2;

/// Runs the server with at most `max_clients` handlers, until it is told to stop.
///
/// # Errors
/// Why it could not start, or ended by itself.
pub fn run(config: &ServerConfig, max_clients: u32) -> Result<(), ServerError> {
    let signals = Signals::open().map_err(ServerError::of("can't receive signals"))?;
    let listener = bind(config)?;
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

fn bind(config: &ServerConfig) -> Result<TcpListener, ServerError> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, socket};
    let address = SocketAddr::new(config.ip, config.port);
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    // Bound now, so that a port in use is found before anything else; listening begins when storage is ready.
    let bound = socket(family, SockType::Stream, flags, None).and_then(|fd| {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        set_for_clients(&fd)?;
        match address {
            SocketAddr::V4(address) => bind(fd.as_raw_fd(), &SockaddrIn::from(address))?,
            SocketAddr::V6(address) => bind(fd.as_raw_fd(), &SockaddrIn6::from(address))?,
        }
        Ok(TcpListener::from(fd))
    });
    bound.map_err(|error| ServerError::Listen { address: address.to_string(), error: error.into() })
}

/// Accepted sockets inherit it: see `tcp(7)`. A reply is written whole, so there is nothing to wait for before it is
/// sent. A session may be idle for as long as it likes, but not once its machine or the network between is gone.
fn set_for_clients(listener: &OwnedFd) -> nix::Result<()> {
    setsockopt(listener, sockopt::TcpNoDelay, &true)?;
    setsockopt(listener, sockopt::KeepAlive, &true)?;
    setsockopt(listener, sockopt::TcpKeepIdle, &KEEP_ALIVE_SECONDS)?;
    setsockopt(listener, sockopt::TcpKeepInterval, &(KEEP_ALIVE_SECONDS / 3))?;
    setsockopt(listener, sockopt::TcpKeepCount, &3)
}

/// A client that was accepted, and of whom storage has not been told yet.
struct Newcomer {
    client: Client,
    serial: ClientSerial,
    /// The end of its reply pipe that storage gets.
    pipe: OwnedFd,
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
    newcomer: Option<Newcomer>,
    /// When what storage has not been told is tried again.
    tell_again: Option<Instant>,
    pause_until: Option<Instant>,
    stopping: Option<Stopping>,
    failure: Option<ServerError>,
}

struct Stopping {
    since: Instant,
    told_storage: bool,
    killed: bool,
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
                _ => self.accept_some(),
            }
        }
        self.restart_storage_if_due();
        self.start_metrics_if_due();
        self.talk_to_storage()?;
        self.stop_further()
    }

    fn can_accept(&self, now: Instant) -> bool {
        self.listening
            && self.listener.is_some()
            && self.storage.is_some()
            && self.handlers.count() < self.max_clients
            && self.newcomer.is_none()
            && self.gone.is_empty()
            && self.pause_until.is_none_or(|until| now >= until)
    }

    fn watch_listener(&mut self, now: Instant) -> io::Result<()> {
        let accepting = self.can_accept(now);
        if let Some(listener) = &self.listener
            && accepting != self.accepting
        {
            let flags = if accepting { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
            self.epoll.modify(listener, &mut EpollEvent::new(flags, LISTENER))?;
            self.accepting = accepting;
        }
        Ok(())
    }

    fn timeout(&self, now: Instant) -> EpollTimeout {
        let pause = self.pause_until.filter(|until| *until > now);
        let stop = self
            .stopping
            .as_ref()
            .map(|stopping| stopping.since + if stopping.told_storage { ALL_HAVE } else { HANDLERS_HAVE });
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

    // Clients.

    fn accept_some(&mut self) {
        for _ in 0..ROUND {
            if !self.can_accept(Instant::now()) {
                return;
            }
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((socket, address)) => self.welcome(socket, address.ip()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
                    // Any other is the fault of that one connection.
                    if matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) {
                        self.pause("accept_connections", &error);
                    }
                }
            }
        }
    }

    /// Leaves further clients in the backlog for a moment. Said once, until a client is served again.
    fn pause(&mut self, action: &str, error: &io::Error) {
        if self.pause_until.is_none() {
            event(Level::Error, action, Outcome::Fail, &[("error", error)]);
        }
        self.pause_until = Some(Instant::now() + PAUSE);
    }

    fn welcome(&mut self, socket: TcpStream, ip: IpAddr) {
        self.counters.add(Counter::Connections);
        let pipes = reply_pipe().and_then(|(replies, pipe)| {
            draw_token(&mut self.secret, &pipe)?;
            Ok((replies, pipe))
        });
        match pipes {
            Ok((replies, pipe)) => {
                self.clients += 1;
                let client = Client { socket, ip, replies };
                self.newcomer = Some(Newcomer { client, serial: self.clients, pipe });
                self.introduce();
            }
            Err(error) => {
                self.counters.add(Counter::Busy);
                say_busy(&socket);
                self.pause("accept_connections", &error);
            }
        }
    }

    /// Tells storage of the newcomer, and then forks its handler. Keeps it where storage can't be told now.
    fn introduce(&mut self) {
        let Some(storage) = &self.storage else { return };
        let Some(newcomer) = self.newcomer.take() else { return };
        let token = self.secret.get(..ClientToken::LEN).unwrap_or_default();
        match storage.control.introduce(newcomer.serial, token, newcomer.pipe.as_fd()) {
            Ok(Sent::Done) => self.fork_handler(newcomer),
            // If it is dead, its successor will be told.
            Ok(sent @ (Sent::Full | Sent::Scarce | Sent::PeerGone)) => {
                self.newcomer = Some(newcomer);
                self.could_not_tell(sent);
            }
            Err(error) => {
                self.counters.add(Counter::Busy);
                say_busy(&newcomer.client.socket);
                self.pause("accept_connections", &error);
            }
        }
    }

    fn could_not_tell(&mut self, sent: Sent) {
        if sent == Sent::Scarce {
            self.tell_again = Some(Instant::now() + TELL_AGAIN);
        }
    }

    fn fork_handler(&mut self, newcomer: Newcomer) {
        let Newcomer { client, serial, pipe } = newcomer;
        // Only storage has the write end from here on.
        drop(pipe);
        // It counts from the moment when it may be looked at.
        self.counters.set(Counter::Handlers, u64::from(self.handlers.count()) + 1);
        let view = self.view();
        let (queue, signals) = (&self.queue.1, &self.signals);
        let keep = [client.socket.as_fd(), client.replies.as_fd(), queue.as_fd(), signals.as_fd()];
        let keep: Vec<_> = keep.into_iter().chain(self.confinement.descriptor()).collect();
        match fork_child(&keep, || handler::run(&client, &view, queue, signals)) {
            Ok(pid) => {
                self.pause_until = None;
                self.handlers.add(pid, serial);
            }
            Err(error) => {
                self.counters.set(Counter::Handlers, self.handlers.count().into());
                self.counters.add(Counter::Busy);
                say_busy(&client.socket);
                self.gone.push(serial);
                self.pause("fork", &error);
            }
        }
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

    // The storage service.

    fn start_storage(&mut self) -> io::Result<()> {
        let (ours, theirs) = control_pair()?;
        let config = StorageConfig {
            path: self.config.storage_filepath.clone(),
            rules: Rules {
                clients_amount: self.config.clients_amount,
                winner_number: self.config.winner_number,
            },
            max_payload: self.config.max_payload,
        };
        let (queue, finished) = (&self.queue.0, &self.finished);
        // With standard input and output in their places nothing that it opens can get their numbers.
        let (input, output) = (io::stdin(), io::stdout());
        let keep = [input.as_fd(), output.as_fd(), queue.as_fd(), theirs.as_fd()];
        let pid = fork_child(&keep, || storage::run(&config, queue, &theirs, finished))?;
        self.control_interest = EpollFlags::EPOLLIN;
        self.epoll.add(&ours, EpollEvent::new(self.control_interest, CONTROL))?;
        self.storage = Some(StorageProcess { pid, control: ours, ready: false });
        Ok(())
    }

    /// Starts it again, or later where the system has no process for it now. That is said once.
    fn restart_storage(&mut self) {
        match self.start_storage() {
            Ok(()) => self.start_storage_at = None,
            Err(error) => {
                if self.start_storage_at.is_none() {
                    event(Level::Error, "fork", Outcome::Fail, &[("error", &error)]);
                }
                self.start_storage_at = Some(Instant::now() + PAUSE);
            }
        }
    }

    fn restart_storage_if_due(&mut self) {
        if self.start_storage_at.is_some_and(|at| Instant::now() >= at) {
            self.restart_storage();
        }
    }

    fn listen_to_storage(&mut self) -> io::Result<()> {
        while let Some(storage) = &mut self.storage {
            match storage.control.receive()? {
                Some(FromStorage::Ready { agencies }) => {
                    storage.ready = true;
                    self.agencies = agencies;
                }
                // Its death is learned of by SIGCHLD.
                None => break,
            }
            self.listen()?;
        }
        Ok(())
    }

    /// Begins to listen, once storage is ready for the first time.
    fn listen(&mut self) -> io::Result<()> {
        let Some(listener) = self.listener.as_ref().filter(|_| !self.listening) else { return Ok(()) };
        listen(listener, Backlog::new(i32::from(self.config.listen_backlog).min(libc::SOMAXCONN))?)?;
        self.listening = true;
        let address = listener.local_addr()?;
        info("listen", Outcome::Success, &[("ip", &address.ip()), ("port", &address.port())]);
        Ok(())
    }

    /// Tells storage what it has not been told, as far as its socket takes it.
    fn talk_to_storage(&mut self) -> io::Result<()> {
        if self.tell_again.is_some_and(|at| Instant::now() < at) {
            return self.watch_control();
        }
        self.tell_again = None;
        while let (Some(storage), Some(client)) = (&self.storage, self.gone.last()) {
            let sent = storage.control.send(ToStorage::ClientGone(*client))?;
            if sent != Sent::Done {
                self.could_not_tell(sent);
                break;
            }
            self.gone.pop();
        }
        if self.newcomer.is_some() && self.gone.is_empty() {
            self.introduce();
        }
        self.watch_control()
    }

    /// Waits for room in the control socket where something is left to be said.
    fn watch_control(&mut self) -> io::Result<()> {
        let Some(storage) = &self.storage else { return Ok(()) };
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, !storage.ready);
        let untold = self.newcomer.is_some() || !self.gone.is_empty();
        flags.set(EpollFlags::EPOLLOUT, untold && self.tell_again.is_none());
        if flags != self.control_interest {
            self.epoll.modify(&storage.control, &mut EpollEvent::new(flags, CONTROL))?;
            self.control_interest = flags;
        }
        Ok(())
    }

    fn storage_ended(&mut self, exit: Exit) {
        self.storage = None;
        // Its successor knows none of the clients.
        self.gone.clear();
        let told = self.stopping.as_ref().is_some_and(|stopping| stopping.told_storage || stopping.killed);
        match exit {
            _ if told && exit != Exit::Status(storage::GAVE_UP) => {}
            Exit::Status(storage::GAVE_UP) => self.fail(ServerError::StorageGaveUp),
            _ if self.stopping.is_some() => {}
            _ => {
                let tolerable = self.deaths.add(Instant::now());
                let total = self.deaths.total();
                event(Level::Error, "storage", Outcome::Fail, &[("error", &exit), ("restarts", &total)]);
                if tolerable {
                    self.restart_storage();
                } else {
                    self.fail(ServerError::StorageDies(total));
                }
            }
        }
    }

    // Signals and the end.

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

    fn fail(&mut self, failure: ServerError) {
        self.failure.get_or_insert(failure);
        self.stop();
    }

    fn stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Stopping { since: Instant::now(), told_storage: false, killed: false });
        self.listener = None;
        self.newcomer = None;
        self.start_storage_at = None;
        self.handlers.signal_all(Signal::SIGTERM);
        self.signal_metrics(Signal::SIGTERM);
    }

    /// Storage is told to stop once no handler can send it more, or has had its time; then what is left is killed.
    fn stop_further(&mut self) -> io::Result<()> {
        let Some(stopping) = &mut self.stopping else { return Ok(()) };
        let elapsed = stopping.since.elapsed();
        if let Some(storage) = &self.storage {
            if !storage.ready && !stopping.killed {
                // It is still recovering, has nothing of anybody's, and would not listen.
                signal_child(storage.pid, Signal::SIGKILL);
                stopping.told_storage = true;
            } else if !stopping.told_storage && (self.handlers.count() == 0 || elapsed >= HANDLERS_HAVE) {
                stopping.told_storage = storage.control.send(ToStorage::Stop)? == Sent::Done;
            }
        }
        if elapsed >= ALL_HAVE && !stopping.killed {
            stopping.killed = true;
            self.handlers.signal_all(Signal::SIGKILL);
            self.signal_metrics(Signal::SIGKILL);
            if let Some(storage) = &self.storage {
                signal_child(storage.pid, Signal::SIGKILL);
            }
        }
        Ok(())
    }
}

/// Draws a client's token at the start of the secret page, straight from the system, and puts it into the client's pipe.
fn draw_token(secret: &mut SecretPage, pipe: &OwnedFd) -> io::Result<()> {
    let token = secret.get_mut(..ClientToken::LEN).unwrap_or_default();
    SysRng.try_fill_bytes(token).map_err(io::Error::other)?;
    nix::unistd::write(pipe, token)?;
    Ok(())
}

/// Tells a client that the server can't serve it now. It may come again.
fn say_busy(mut socket: &TcpStream) {
    use std::io::{Read as _, Write as _};
    let mut frame = Vec::new();
    ServerMessage::Error("busy: the server is out of resources, try again later").encode(&mut frame);
    // The client may be gone, and nobody is waited for: what can't be done at once is left.
    socket.set_nonblocking(true).unwrap_or_default();
    socket.write_all(&frame).unwrap_or_default();
    socket.shutdown(std::net::Shutdown::Write).unwrap_or_default();
    socket.read(&mut [0; 8192]).unwrap_or_default();
}
