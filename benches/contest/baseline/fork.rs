//! A process for each connection, which stores nothing: the cost of forking alone.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};

use loteria::system::process::reap;

use super::fork_child;
use super::wire::{BET_ACK, Frames, MULTIPLE_BETS, RESULT, RESULT_REQUEST, push_frame};

pub fn run(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (socket, _) = listener.accept()?;
        fork_child(|| i32::from(serve(&socket).is_err()))?;
        while reap()?.is_some() {}
    }
}

fn serve(mut socket: &TcpStream) -> io::Result<()> {
    let mut answer = Vec::new();
    match Frames::of(socket).next()? {
        (MULTIPLE_BETS, _) => push_frame(BET_ACK, b"OK", &mut answer),
        (RESULT_REQUEST, _) => push_frame(RESULT, b"", &mut answer),
        _ => {}
    }
    socket.write_all(&answer)
}
