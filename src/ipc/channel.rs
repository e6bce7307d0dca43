//! A socket between two processes that carries messages of one type in each direction, and descriptors. No call waits.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::{MAX_HEAD, decode, encode};
use crate::system::fd_passing::{Received, Sent, receive_packet, send_packet, socket_pair};

/// One end: it sends messages with the head `S` and receives those with the head `R`.
#[derive(Debug)]
pub struct Channel<S, R> {
    socket: OwnedFd,
    heads: PhantomData<(S, R)>,
}

/// Makes both ends.
pub fn channel<S, R>() -> io::Result<(Channel<S, R>, Channel<R, S>)> {
    let (one, other) = socket_pair()?;
    Ok((one.into(), other.into()))
}

impl<S, R> From<OwnedFd> for Channel<S, R> {
    /// Takes an end that was received. [`channel`] must have made it, for the same heads.
    fn from(socket: OwnedFd) -> Self {
        Self { socket, heads: PhantomData }
    }
}

impl<S: Serialize, R: DeserializeOwned> Channel<S, R> {
    /// Sends a message. The bytes behind its head may be a secret: this process makes no copy of them.
    pub fn send(&self, head: &S, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<Sent> {
        let mut buffer = [0; MAX_HEAD];
        let length = encode(head, &mut buffer)?;
        send_packet(&self.socket, [buffer.get(..length).unwrap_or_default(), bytes], descriptor)
    }

    /// Receives the next message into `buffer`, which must be long enough for it. Returns its head and the bytes behind it.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Received<(R, &'b [u8])>> {
        receive_packet(&self.socket, buffer, false, |bytes| Ok(decode(bytes)?))
    }

    /// Like [`Self::receive`], and takes the descriptor too. Only for a peer that is trusted to send one at most.
    pub fn receive_with_descriptor<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Received<(R, &'b [u8])>> {
        receive_packet(&self.socket, buffer, true, |bytes| Ok(decode(bytes)?))
    }
}

impl<S, R> AsFd for Channel<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
