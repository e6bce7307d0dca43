//! The socket between acceptor and storage service. Each storage process gets a fresh pair, so nothing that was meant
//! for a dead one reaches its successor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::client::{ClientSerial, ClientToken};
use super::codec::{MAX_HEAD, decode, encode};
use crate::system::fd_passing::{PacketSocket, Received, Sent, packet_socket_pair};

/// What the acceptor tells the storage service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToStorage {
    /// A client came: its token follows, and the write end of its reply pipe is attached.
    ClientCame(ClientSerial),
    /// Its handler has ended.
    ClientGone(ClientSerial),
    /// Store and answer what the queue holds, then end.
    Stop,
}

/// What the storage service tells the acceptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromStorage {
    /// It has recovered and takes requests.
    Ready {
        /// How many agencies take part.
        agencies: u16,
    },
}

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
    /// Tells the storage service something, without waiting.
    ///
    /// # Errors
    /// What the kernel says beyond the outcomes of [`Sent`].
    pub fn send(&self, message: ToStorage) -> io::Result<Sent> {
        self.send_with(message, &[], None)
    }

    /// Announces a client to storage, without waiting. The token is sent from where it is: no copy of it is made
    /// in this process.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn announce(&self, client: ClientSerial, token: &[u8], pipe: BorrowedFd<'_>) -> io::Result<Sent> {
        self.send_with(ToStorage::ClientCame(client), token, Some(pipe))
    }

    fn send_with(&self, message: ToStorage, bulk: &[u8], pipe: Option<BorrowedFd<'_>>) -> io::Result<Sent> {
        let mut head = [0; MAX_HEAD];
        let length = encode(&message, &mut head)?;
        self.0.send([head.get(..length).unwrap_or_default(), bulk], pipe)
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
    /// A client came; its pipe is missing if there was no descriptor for it.
    Came(ClientSerial, ClientToken, Option<OwnedFd>),
    /// A client's handler has ended.
    Gone(ClientSerial),
    /// It is time to stop.
    Stop,
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
                let (message, token) = decode(packet.get(..length).unwrap_or_default())?;
                match message {
                    ToStorage::ClientCame(client) => {
                        let token = token.try_into().map_err(io::Error::other)?;
                        Told::Came(client, ClientToken::from_bytes(token), pipe)
                    }
                    ToStorage::ClientGone(client) => Told::Gone(client),
                    ToStorage::Stop => Told::Stop,
                }
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
        self.0.send([packet.get(..length).unwrap_or_default(), &[]], None)
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
