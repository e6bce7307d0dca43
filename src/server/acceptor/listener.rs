//! The server's socket: its address, and what the sockets accepted from it inherit.

use std::io::{self, ErrorKind};
use std::mem;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};

use super::{Acceptor, LISTENER};
use crate::config::ServerConfig;
use crate::logging::{Outcome, info};
use crate::server::ServerError;
use crate::system::signal::{Signals, is_termination};

/// How long a client may be silent before its machine is asked whether it still knows the connection.
const KEEP_ALIVE_SECONDS: u32 = 30;

/// How long to wait for a port in use: a handler that was forked just before its server was killed holds the socket until
/// it closes it.
const PORT_PATIENCE: Duration = Duration::from_secs(1);
const PORT_PAUSE: Duration = Duration::from_millis(10);

/// The socket: its states, in their order.
pub(super) enum Listener {
    /// It has its address. It is not waited for: one that does not listen would be reported as hung up for ever.
    Bound(TcpListener),
    /// Clients can connect.
    Listening {
        /// The epoll instance has it.
        socket: TcpListener,
        /// That waits for connections at present.
        accepting: bool,
    },
    /// The server stops.
    Closed,
}

impl Acceptor<'_> {
    /// Begins to listen, if it has not begun.
    pub(super) fn listen(&mut self) -> io::Result<()> {
        let Listener::Bound(socket) = &self.listener else { return Ok(()) };
        listen(socket, Backlog::new(i32::from(self.config.listen_backlog).min(libc::SOMAXCONN))?)?;
        self.epoll.add(socket, EpollEvent::new(EpollFlags::empty(), LISTENER))?;
        let address = socket.local_addr()?;
        info("listen", Outcome::Success, &[("ip", &address.ip()), ("port", &address.port())]);
        self.listener = match mem::replace(&mut self.listener, Listener::Closed) {
            Listener::Bound(socket) => Listener::Listening { socket, accepting: false },
            other => other,
        };
        Ok(())
    }

    /// Waits for connections where one more can be taken.
    pub(super) fn watch_listener(&mut self, now: Instant) -> io::Result<()> {
        let wanted = self.can_accept(now);
        if let Listener::Listening { socket, accepting } = &mut self.listener
            && wanted != *accepting
        {
            let flags = if wanted { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
            self.epoll.modify(&*socket, &mut EpollEvent::new(flags, LISTENER))?;
            *accepting = wanted;
        }
        Ok(())
    }
}

/// Binds the server's socket: now, so that a port in use is found before anything else; listening begins when storage is
/// ready. None if a signal has ended the wait for the port.
///
/// # Errors
/// The address is in use, or is none of this machine's.
pub(super) fn bind(config: &ServerConfig, signals: &Signals) -> Result<Option<TcpListener>, ServerError> {
    let address = SocketAddr::new(config.ip, config.port);
    bind_once_free(address, signals).map_err(|error| failed(config, error))
}

fn bind_once_free(address: SocketAddr, signals: &Signals) -> io::Result<Option<TcpListener>> {
    let until = Instant::now() + PORT_PATIENCE;
    loop {
        match bind_at(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                if signals.wait(PORT_PAUSE)?.is_some_and(is_termination) {
                    return Ok(None);
                }
            }
            bound => return bound.map(Some),
        }
    }
}

fn bind_at(address: SocketAddr) -> io::Result<TcpListener> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, socket};
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    set_for_clients(&fd)?;
    match address {
        SocketAddr::V4(address) => bind(fd.as_raw_fd(), &SockaddrIn::from(address))?,
        SocketAddr::V6(address) => bind(fd.as_raw_fd(), &SockaddrIn6::from(address))?,
    }
    Ok(TcpListener::from(fd))
}

/// Why it can't listen.
pub(super) fn failed(config: &ServerConfig, error: io::Error) -> ServerError {
    let address = SocketAddr::new(config.ip, config.port).to_string();
    ServerError::Listen { address, settings: "SERVER_IP, SERVER_PORT", error }
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
