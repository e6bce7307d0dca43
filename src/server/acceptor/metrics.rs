//! The acceptor's part in the metrics: it opens their socket, and keeps their process running.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::Acceptor;
use super::listener::{PORT_PATIENCE, PORT_PAUSE};
use super::newcomer::Guest;
use crate::ipc::client::ClientSerial;
use crate::logging::{Level, Outcome, event, info};
use crate::server::ServerError;
use crate::server::metrics::{self, Channels};
use crate::system::process::{Exit, fork_child};

/// How soon the process is started again after it failed, or could not be started.
const PAUSE: Duration = Duration::from_secs(1);

/// The socket, and when somebody shall serve it.
pub(super) struct Metrics {
    listener: TcpListener,
    /// When their process is to be started. None while it lives, or is a newcomer.
    start_at: Option<Instant>,
}

impl Metrics {
    /// Listens at an address, if there is one.
    pub(super) fn listen(address: Option<&str>) -> Result<Option<Self>, ServerError> {
        let Some(address) = address else { return Ok(None) };
        let settings = "METRICS_ADDRESS";
        let failed = |error| ServerError::Listen { address: address.to_owned(), settings, error };
        let listener = listen(address).map_err(failed)?;
        let at = listener.local_addr().map_err(failed)?;
        info("metrics_listen", Outcome::Success, &[("ip", &at.ip()), ("port", &at.port())]);
        Ok(Some(Self { listener, start_at: Some(Instant::now()) }))
    }
}

fn listen(address: &str) -> io::Result<TcpListener> {
    let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    let until = Instant::now() + PORT_PATIENCE;
    let listener = loop {
        match TcpListener::bind(&*addresses) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => sleep(PORT_PAUSE),
            bound => break bound?,
        }
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Acceptor<'_> {
    /// When the metrics process is to be started, if it is to be.
    pub(super) fn metrics_due(&self) -> Option<Instant> {
        let ready = self.storage.process.as_ref().is_some_and(|storage| storage.ready);
        let metrics = self.metrics.as_ref().filter(|_| ready && self.stopping.is_none())?;
        metrics.start_at
    }

    /// Those who scrape get their process now.
    pub(super) fn take_scrapers(&mut self) -> Option<Guest> {
        self.metrics.as_mut()?.start_at.take().map(|_| Guest::Scrapers)
    }

    /// Forks their process.
    pub(super) fn fork_metrics(&self, replies: OwnedFd) -> io::Result<Pid> {
        let Some(Metrics { listener, .. }) = &self.metrics else { return Err(ErrorKind::NotFound.into()) };
        let view = self.view();
        let (queue, signals) = (&self.inherited.sender, &self.signals);
        let channels = Channels { listener, queue, replies, signals };
        // With standard input and output in their places no scraper's socket can get their numbers.
        let (input, output) = (io::stdin(), io::stdout());
        let keep = [
            input.as_fd(),
            output.as_fd(),
            listener.as_fd(),
            queue.as_fd(),
            channels.replies.as_fd(),
            signals.as_fd(),
        ];
        let keep: Vec<_> = keep.into_iter().chain(view.confinement.descriptor()).collect();
        fork_child(&keep, || metrics::run(&channels, &view))
    }

    /// The system has not given what their process needs.
    pub(super) fn metrics_not_started(&mut self, error: &io::Error) {
        event(Level::Error, "metrics", Outcome::Fail, &[("error", error)]);
        self.start_metrics_at(Instant::now() + PAUSE);
    }

    /// It is started again, once there is a storage service that it can ask.
    pub(super) fn metrics_ended(&mut self, pid: Pid, client: ClientSerial, exit: Exit) {
        self.clients.gone.push(client);
        let now = Instant::now();
        // It ends by itself when storage does.
        let by_itself = exit == Exit::Status(0);
        self.start_metrics_at(if by_itself { now } else { now + PAUSE });
        if !by_itself && self.stopping.is_none() {
            event(Level::Warning, "metrics", Outcome::Fail, &[("pid", &pid), ("error", &exit)]);
        }
    }

    fn start_metrics_at(&mut self, at: Instant) {
        if let Some(metrics) = &mut self.metrics {
            metrics.start_at = Some(at);
        }
    }
}
