//! The socket between acceptor and storage. Each storage process gets a fresh pair, so no message for a dead one reaches
//! its successor.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::codec::{MAX_HEAD, decode, encode};
use super::messages::{ClientNumber, ClientToken};
use crate::system::fd_passing::{PacketSocket, Received, Sent, packet_socket_pair};

/// What the acceptor sends to storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToStorage {
    /// The key of all vouchers follows. Only with TLS, and before the first client.
    VoucherKey,
    /// A new client, which may come from this machine. Its token follows, and the write end of its reply pipe is attached.
    ClientCame { client: ClientNumber, is_local: bool },
    /// The client's handler has ended.
    ClientGone(ClientNumber),
    /// Store and answer what the queue holds, then end.
    Stop,
}

/// What storage sends to the acceptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromStorage {
    /// Storage has recovered and takes requests. It reports how many agencies take part, and which file has the bets.
    Ready { agencies: u16, bets_file: FileIdentity },
}

/// Which file it is, whatever its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// The bytes of a token or a key.
pub type Secret = [u8; ClientToken::LEN];

/// One end: it sends `S` and receives `R`.
#[derive(Debug)]
pub struct ControlSocket<S, R>(PacketSocket, PhantomData<(S, R)>);

pub type AcceptorEnd = ControlSocket<ToStorage, FromStorage>;
pub type StorageEnd = ControlSocket<FromStorage, ToStorage>;

/// Makes a fresh pair.
pub(crate) fn control_pair() -> io::Result<(AcceptorEnd, StorageEnd)> {
    let (one, other) = packet_socket_pair()?;
    Ok((ControlSocket(one, PhantomData), ControlSocket(other, PhantomData)))
}

impl<S: Serialize, R: DeserializeOwned> ControlSocket<S, R> {
    /// Sends a message without waiting. The secret behind it is not copied: see [`ClientToken`].
    pub(crate) fn send(&self, message: S, secret: &[u8], pipe: Option<BorrowedFd<'_>>) -> io::Result<Sent> {
        let mut head = [0; MAX_HEAD];
        let length = encode(&message, &mut head)?;
        self.0.send([head.get(..length).unwrap_or_default(), secret], pipe)
    }

    /// Receives the next message without waiting, and the secret behind it, if there is one.
    pub(crate) fn receive(&self) -> io::Result<Received<(R, Option<Secret>)>> {
        let mut packet = [0; MAX_HEAD];
        Ok(match self.0.receive(&mut packet)? {
            Received::Packet(packet, pipe) => {
                let (message, secret) = decode(packet)?;
                Received::Packet((message, secret.try_into().ok()), pipe)
            }
            Received::Empty => Received::Empty,
            Received::PeerGone => Received::PeerGone,
        })
    }
}

impl<S, R> AsFd for ControlSocket<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
