//! The socket from the acceptor to the storage service, and how a test fills it.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::{Client, RunningServer};

/// How many words fit into it, if storage does not read: one for each client that came, and one for each that is gone.
pub fn words_that_fit() -> usize {
    let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_NONBLOCK);
    let (one, _other) = socketpair(AddressFamily::Unix, kind, None, flags).unwrap();
    (0..10_000).find(|_| nix::unistd::write(&one, b"word").is_err()).expect("it is full some time")
}

/// Has the acceptor say so many words, or one less: clients come, and when all have their handlers, they leave.
pub fn have_said(server: &RunningServer, words: usize) {
    let before = server.handlers().len();
    let clients: Vec<Client> = (0..words / 2).map(|_| server.connect()).collect();
    server.wait_for_handlers(before + clients.len());
    drop(clients);
    server.wait_for_handlers(before);
}
