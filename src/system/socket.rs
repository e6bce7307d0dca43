//! Sockets that never block: see `accept4(2)`.

use std::io;
use std::net::{TcpListener, TcpStream};

use nix::sys::socket::{SockFlag, accept4};

/// Accepts a connection. Its socket does not block from the start: no process of the server may change that later.
pub(crate) fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    Ok(accept4(listener, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC)?.into())
}
