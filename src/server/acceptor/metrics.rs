//! The acceptor's part in the metrics: it opens their socket, and keeps their process running.

use std::io::{self, Error};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Acceptor;
use super::clients::draw_token;
use crate::ipc::client::{ClientSerial, ClientToken};
use crate::ipc::reply_pipe::reply_pipe;
use crate::logging::{Level, Outcome, event, info};
use crate::server::ServerError;
use crate::server::metrics::{self, Channels};
use crate::system::fd_passing::Sent;
use crate::system::process::{Exit, fork_child, signal_child};

/// How soon the process is started again after it failed, or could not be started.
const PAUSE: Duration = Duration::from_secs(1);

/// The socket, and the process that serves it.
pub(super) struct Metrics {
    listener: TcpListener,
    process: Option<(Pid, ClientSerial)>,
    /// Not before then.
    start_at: Instant,
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
        Ok(Some(Self { listener, process: None, start_at: Instant::now() }))
    }

    /// Whether its process lives.
    pub(super) fn is_alive(&self) -> bool {
        self.process.is_some()
    }
}

fn listen(address: &str) -> io::Result<TcpListener> {
    let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    let listener = TcpListener::bind(&*addresses)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Acceptor<'_> {
    /// When the metrics process is to be started, if it is to be.
    pub(super) fn metrics_due(&self) -> Option<Instant> {
        let ready = self.storage.process.as_ref().is_some_and(|storage| storage.ready);
        let metrics = self.metrics.as_ref().filter(|metrics| !metrics.is_alive())?;
        // The secret page has room for one token, and a newcomer's may be in it.
        (ready && self.stopping.is_none() && self.arrivals.newcomer.is_none()).then_some(metrics.start_at)
    }

    pub(super) fn start_metrics_if_due(&mut self) {
        if self.metrics_due().is_none_or(|at| Instant::now() < at) {
            return;
        }
        let serial = self.arrivals.next_serial();
        let started = self.start_metrics(serial);
        let Some(metrics) = &mut self.metrics else { return };
        match started {
            Ok(pid) => metrics.process = Some((pid, serial)),
            Err(error) => {
                metrics.start_at = Instant::now() + PAUSE;
                event(Level::Error, "metrics", Outcome::Fail, &[("error", &error)]);
            }
        }
    }

    /// Tells storage of one more client, and then forks the process, as for any other.
    fn start_metrics(&mut self, serial: ClientSerial) -> io::Result<Pid> {
        let (replies, pipe) = reply_pipe()?;
        draw_token(&mut self.arrivals.secret, &pipe)?;
        let (Some(storage), Some(metrics)) = (&self.storage.process, &self.metrics) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let token = self.arrivals.secret.get(..ClientToken::LEN).unwrap_or_default();
        if storage.control.introduce(serial, token, pipe.as_fd())? != Sent::Done {
            return Err(Error::other("storage could not be told of it"));
        }
        // Only storage has the write end from here on.
        drop(pipe);
        let view = self.view();
        let (listener, queue, signals) = (&metrics.listener, &self.inherited.sender, &self.signals);
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
        let forked = fork_child(&keep, || metrics::run(&channels, &view));
        if forked.is_err() {
            self.storage.gone.push(serial);
        }
        forked
    }

    /// Sends the metrics process a signal, if it lives.
    pub(super) fn signal_metrics(&self, signal: Signal) {
        if let Some((pid, _)) = self.metrics.as_ref().and_then(|metrics| metrics.process) {
            signal_child(pid, signal);
        }
    }

    /// A child has ended that may have been the metrics process.
    pub(super) fn metrics_ended(&mut self, pid: Pid, exit: Exit) {
        let Some(metrics) = self.metrics.as_mut() else { return };
        let Some((_, serial)) = metrics.process.take_if(|(own, _)| *own == pid) else { return };
        self.storage.gone.push(serial);
        // It ends by itself when storage does.
        if exit != Exit::Status(0) && self.stopping.is_none() {
            metrics.start_at = Instant::now() + PAUSE;
            event(Level::Warning, "metrics", Outcome::Fail, &[("pid", &pid), ("error", &exit)]);
        }
    }
}
