//! The control socket, between acceptor and storage. Each storage process gets a fresh one, so no message for a dead process reaches
//! its successor.

use serde::{Deserialize, Serialize};

use super::channel::Channel;
use super::messages::ClientNumber;

pub type AcceptorEnd = Channel<ToStorage, StorageReady>;
pub type StorageEnd = Channel<StorageReady, ToStorage>;

/// What the acceptor sends to storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToStorage {
    /// The key of all vouchers follows. Only with TLS, and before the first client.
    VoucherKey,
    /// A new client; `is_local` if it comes from this machine. Its token follows, and the write end of its reply pipe is attached.
    ClientCame { client: ClientNumber, is_local: bool },
    /// The client's handler has ended.
    ClientGone(ClientNumber),
    /// Store and answer what the queue holds, then end.
    Stop,
}

/// What storage sends to the acceptor: it has recovered and takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageReady {
    /// How many agencies take part.
    pub agencies: u16,
    pub bets_file: FileIdentity,
}

/// Which file it is, whatever its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}
