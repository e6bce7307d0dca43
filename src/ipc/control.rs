//! The socket between acceptor and storage service. Each storage process gets a fresh pair, so nothing that was meant
//! for a dead one reaches its successor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::message::{FromStorage, MAX_HEAD, ToStorage, decode, encode};
use crate::system::fd_passing::{PacketSocket, Received, Sent, packet_socket_pair};

/// The acceptor's end.
#[derive(Debug)]
pub struct AcceptorEnd(PacketSocket);

/// The storage service's end.
#[derive(Debug)]
pub struct StorageEnd(PacketSocket);

/// A fresh pair.
///
/// # Errors
/// No descriptors are to be had.
pub fn control_pair() -> io::Result<(AcceptorEnd, StorageEnd)> {
    let (one, other) = packet_socket_pair()?;
    Ok((AcceptorEnd(one), StorageEnd(other)))
}

impl AcceptorEnd {
    /// Tells the storage service something, without waiting; `pipe` goes with `ClientCame`.
    ///
    /// # Errors
    /// What the kernel says beyond the outcomes of [`Sent`].
    pub fn send(&self, message: ToStorage, pipe: Option<BorrowedFd<'_>>) -> io::Result<Sent> {
        let mut packet = [0; MAX_HEAD];
        let length = encode(&message, &mut packet)?;
        self.0.send(packet.get(..length).unwrap_or_default(), pipe)
    }

    /// What the storage service has said, if it has.
    ///
    /// # Errors
    /// What the kernel says; a message that makes no sense.
    pub fn receive(&self) -> io::Result<Option<FromStorage>> {
        let mut packet = [0; MAX_HEAD];
        match self.0.receive(&mut packet)? {
            Received::Packet(length, _) => Ok(Some(decode(packet.get(..length).unwrap_or_default())?.0)),
            Received::Empty | Received::PeerGone => Ok(None),
        }
    }
}

/// What the storage service got from its socket.
#[derive(Debug)]
pub enum Told {
    /// A message, and the pipe that came with it.
    Message(ToStorage, Option<OwnedFd>),
    /// Nothing more for now.
    Nothing,
    /// The acceptor is dead.
    AcceptorGone,
}

impl StorageEnd {
    /// What the acceptor has said, if it has.
    ///
    /// # Errors
    /// What the kernel says; a message that makes no sense.
    pub fn receive(&self) -> io::Result<Told> {
        let mut packet = [0; MAX_HEAD];
        Ok(match self.0.receive(&mut packet)? {
            Received::Packet(length, pipe) => {
                Told::Message(decode(packet.get(..length).unwrap_or_default())?.0, pipe)
            }
            Received::Empty => Told::Nothing,
            Received::PeerGone => Told::AcceptorGone,
        })
    }

    /// Tells the acceptor something.
    ///
    /// # Errors
    /// What the kernel says beyond the outcomes of [`Sent`].
    pub fn send(&self, message: FromStorage) -> io::Result<Sent> {
        let mut packet = [0; MAX_HEAD];
        let length = encode(&message, &mut packet)?;
        self.0.send(packet.get(..length).unwrap_or_default(), None)
    }
}

impl AsFd for AcceptorEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for StorageEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
