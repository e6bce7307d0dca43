//! The load: clients of the protocol, whose frames are made before the clock starts, so that the time is the server's.

pub mod classic;
pub mod session;
pub mod stream;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long the server may leave a client without an answer before the run is given up.
const PATIENCE: Duration = Duration::from_mins(1);

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}
