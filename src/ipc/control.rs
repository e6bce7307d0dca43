//! The socket between acceptor and storage. Each storage process gets a fresh pair, so no message for a dead one reaches
//! its successor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::client::{ClientSerial, ClientToken};
use super::codec::{MAX_HEAD, decode, encode};
use crate::system::fd_passing::{PacketSocket, Received, Sent, packet_socket_pair};

/// What the acceptor sends to storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToStorage {
    /// A new client. Its token follows, and the write end of its reply pipe is attached.
    ClientCame(ClientSerial),
    /// The client's handler has ended.
    ClientGone(ClientSerial),
    /// Store and answer what the queue holds, then end.
    Stop,
}

/// What storage sends to the acceptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromStorage {
    /// Storage has recovered and takes requests.
    Ready {
        /// How many agencies take part.
        agencies: u16,
    },
}

/// What storage receives from the acceptor.
#[derive(Debug)]
pub enum FromAcceptor {
    /// A new client. The pipe is missing if this process had no descriptor left for it.
    ClientCame(ClientSerial, ClientToken, Option<OwnedFd>),
    /// The client's handler has ended.
    ClientGone(ClientSerial),
    /// Store and answer what the queue holds, then end.
    Stop,
    /// The acceptor has ended.
    Hangup,
}

/// The acceptor's end.
#[derive(Debug)]
pub struct AcceptorEnd(PacketSocket);

/// Storage's end.
#[derive(Debug)]
pub struct StorageEnd(PacketSocket);

/// Makes a fresh pair.
pub(crate) fn control_pair() -> io::Result<(AcceptorEnd, StorageEnd)> {
    let (one, other) = packet_socket_pair()?;
    Ok((AcceptorEnd(one), StorageEnd(other)))
}

impl AcceptorEnd {
    pub(crate) fn send(&self, message: ToStorage) -> io::Result<Sent> {
        self.send_with(message, &[], None)
    }

    /// Announces a client to storage. The token is sent from where it lies: this process makes no copy of it.
    pub(crate) fn announce(
        &self,
        client: ClientSerial,
        token: &[u8],
        pipe: BorrowedFd<'_>,
    ) -> io::Result<Sent> {
        self.send_with(ToStorage::ClientCame(client), token, Some(pipe))
    }

    fn send_with(&self, message: ToStorage, bulk: &[u8], pipe: Option<BorrowedFd<'_>>) -> io::Result<Sent> {
        let mut head = [0; MAX_HEAD];
        let length = encode(&message, &mut head)?;
        self.0.send([head.get(..length).unwrap_or_default(), bulk], pipe)
    }

    /// Receives the next message; `None` if there is none, or storage has ended.
    pub(crate) fn receive(&self) -> io::Result<Option<FromStorage>> {
        let mut packet = [0; MAX_HEAD];
        match self.0.receive(&mut packet)? {
            Received::Packet(length, _) => Ok(Some(decode(packet.get(..length).unwrap_or_default())?.0)),
            Received::Empty | Received::PeerGone => Ok(None),
        }
    }
}

impl StorageEnd {
    /// Receives the next message; `None` if there is none.
    pub(crate) fn receive(&self) -> io::Result<Option<FromAcceptor>> {
        let mut packet = [0; MAX_HEAD];
        let (length, pipe) = match self.0.receive(&mut packet)? {
            Received::Packet(length, pipe) => (length, pipe),
            Received::Empty => return Ok(None),
            Received::PeerGone => return Ok(Some(FromAcceptor::Hangup)),
        };
        let (message, token) = decode(packet.get(..length).unwrap_or_default())?;
        Ok(Some(match message {
            ToStorage::ClientCame(client) => {
                let token = ClientToken::from_bytes(token.try_into().map_err(io::Error::other)?);
                FromAcceptor::ClientCame(client, token, pipe)
            }
            ToStorage::ClientGone(client) => FromAcceptor::ClientGone(client),
            ToStorage::Stop => FromAcceptor::Stop,
        }))
    }

    /// Sends a message, without waiting.
    pub(crate) fn send(&self, message: FromStorage) -> io::Result<Sent> {
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
