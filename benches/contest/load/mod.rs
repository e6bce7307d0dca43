//! The load: clients of the protocol. Their frames are made before the clock starts, so that the server's time is measured.

pub mod classic;
pub mod session;
pub mod stream;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A run fails if the server does not answer within this time.
const PATIENCE: Duration = Duration::from_mins(1);

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}
