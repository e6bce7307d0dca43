//! The listening socket, and how a client is rejected.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, accept4, bind, listen, setsockopt, socket,
    sockopt,
};

use crate::logging::{Outcome, info};
use crate::protocol::message::ServerMessage;
use crate::system::signal::{Signals, is_termination};

/// How long a client may be silent before the kernel asks its machine whether the connection still exists.
const KEEP_ALIVE_SECONDS: u32 = 30;

/// The size of a client's buffer in the kernel for each direction, in bytes. By default a client can make both grow to several
/// megabytes.
const SOCKET_BUFFER: usize = 128 * 1024;

/// How long to wait for a port in use. A handler that was forked just before its server was killed has the socket until it
/// closes it.
const PORT_PATIENCE: Duration = Duration::from_secs(1);
const PORT_PAUSE: Duration = Duration::from_millis(10);

pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) is_listening: bool,
}

impl Listener {
    /// Binds the socket. Returns none if a signal ends the wait for the port.
    pub(super) fn bind(address: SocketAddr, signals: &Signals) -> io::Result<Option<Self>> {
        let until = Instant::now() + PORT_PATIENCE;
        loop {
            match bind_at(address) {
                Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                    if signals.wait(PORT_PAUSE)?.is_some_and(is_termination) {
                        return Ok(None);
                    }
                }
                bound => return Ok(Some(Self { socket: bound?, is_listening: false })),
            }
        }
    }

    /// Begins to listen.
    pub(super) fn listen(&mut self, backlog: u16) -> io::Result<()> {
        listen(&self.socket, Backlog::new(i32::from(backlog).min(libc::SOMAXCONN))?)?;
        self.is_listening = true;
        let address = self.socket.local_addr()?;
        info("listen", Outcome::Success, &[("ip", &address.ip()), ("port", &address.port())]);
        Ok(())
    }

    /// Accepts a connection. None if no client waits.
    pub(super) fn accept(&self) -> io::Result<Option<(TcpStream, IpAddr)>> {
        // The filter of system calls lets no process make the socket non-blocking later.
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let accepted = accept4(&self.socket, flags).map_err(io::Error::from).and_then(|socket| {
            let socket = TcpStream::from(socket);
            let ip = socket.peer_addr()?.ip();
            Ok((socket, ip))
        });
        // Nobody waits, or this client gave up while it waited. The next poll reports those behind it.
        let no_client = [ErrorKind::WouldBlock, ErrorKind::ConnectionAborted, ErrorKind::NotConnected];
        match accepted {
            Err(error) if no_client.contains(&error.kind()) => Ok(None),
            accepted => accepted.map(Some),
        }
    }
}

fn bind_at(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    set_client_options(&fd)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(TcpListener::from(fd))
}

/// Sets options that accepted sockets inherit (`tcp(7)`). Replies are written whole, so the kernel need not wait for more
/// bytes. A session may be idle without limit, but not if its machine or the network is gone.
fn set_client_options(listener: &OwnedFd) -> nix::Result<()> {
    setsockopt(listener, sockopt::TcpNoDelay, &true)?;
    setsockopt(listener, sockopt::RcvBuf, &SOCKET_BUFFER)?;
    setsockopt(listener, sockopt::SndBuf, &SOCKET_BUFFER)?;
    setsockopt(listener, sockopt::KeepAlive, &true)?;
    setsockopt(listener, sockopt::TcpKeepIdle, &KEEP_ALIVE_SECONDS)?;
    setsockopt(listener, sockopt::TcpKeepInterval, &(KEEP_ALIVE_SECONDS / 3))?;
    setsockopt(listener, sockopt::TcpKeepCount, &3)
}

/// Tells a client that the server is busy. Does not block: what can't be sent at once is dropped.
pub(super) fn send_busy(mut socket: &TcpStream) {
    let mut frame = Vec::new();
    ServerMessage::Error("busy: the server is out of resources, try again later").encode(&mut frame);
    socket.write_all(&frame).unwrap_or_default();
    socket.shutdown(Shutdown::Write).unwrap_or_default();
    // Closing a socket with unread bytes resets the connection, and the client could lose the message.
    socket.read(&mut [0; 8192]).unwrap_or_default();
}
