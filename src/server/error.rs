//! Why the server ends by itself.

use std::io;
use std::net::SocketAddr;

use nix::unistd::Pid;
use thiserror::Error;

use crate::system::mqueue::QueueError;

/// Descriptors that the acceptor has while it accepts a single client.
pub(super) const MINIMUM_DESCRIPTORS: u64 = 16;

#[derive(Debug, Error)]
pub(crate) enum ServerError {
    #[error("can't listen on {address} (SERVER_IP, SERVER_PORT): {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("can't make the request queue: {0}")]
    Queue(#[from] QueueError),
    /// The process may have too few descriptors for a single client.
    #[error("ulimit -n is {0}, but the server needs at least {MINIMUM_DESCRIPTORS} descriptors")]
    TooFewDescriptors(u64),
    /// Storage has ended by itself, and has logged why.
    #[error("the storage service gave up")]
    StorageGaveUp,
    /// The keeper can't use its files, and has logged why.
    #[error("the certificates can't be used")]
    KeeperGaveUp,
    #[error("the storage service died {0} times, the last ones within 10 s")]
    StorageDies(u64),
    /// A child was killed but has not ended.
    #[error(
        "{process} (process {pid}) was killed but does not end: it waits in the kernel, as for a disk that does not answer"
    )]
    Stuck { process: &'static str, pid: Pid },
    /// A call failed that the server can't do without.
    #[error("{what}: {error}")]
    System { what: &'static str, error: io::Error },
}

impl ServerError {
    /// Makes the error of a call that the server can't do without: `what` failed.
    pub(crate) fn of(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::System { what, error }
    }
}
