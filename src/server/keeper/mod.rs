//! The keeper: the one process that has the server's private key. There is one if TLS is configured.
//!
//! A handler that was taken over can ask it for one signature of a TLS handshake and for one verdict on a certificate, and
//! for nothing else: its memory holds no key that could be stolen. The verdict comes with a voucher, without which storage
//! takes no request of that client.
//!
//! | file | contents |
//! |---|---|
//! | here | the process: its clients, and what each may still ask |
//! | `credentials` | the key, the authorities and the revocations; signatures and verdicts |
//! | `known_signatures` | remembers which signatures of the authorities are valid |

mod credentials;
mod known_signatures;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use self::credentials::Credentials;
use crate::ipc::channel::Channel;
use crate::ipc::keeper::{
    KeeperReady, KeeperReply, MAX_MESSAGE, Question, ToKeeper, decode_fields, encode_fields,
};
use crate::ipc::messages::ClientNumber;
use crate::ipc::voucher::VoucherKey;
use crate::logging::{Level, Outcome, event};
use crate::system::fd_passing::{Received, Sent};
use crate::system::process::GAVE_UP;
use crate::system::retry;
use crate::tls::folder::{FolderError, TlsFolder};

/// The key of epoll events of the acceptor's socket. Clients are numbered from 1.
const ACCEPTOR: ClientNumber = 0;

/// Runs the keeper and returns its exit status. `confine` takes from it what it does not need once it has read its files. If it
/// can't use them, the line that says why has this `level`.
pub(crate) fn run(
    folder: &Path,
    acceptor: &Channel<KeeperReady, ToKeeper>,
    confine: impl FnOnce() -> io::Result<()>,
    level: Level,
) -> i32 {
    let loaded = Keeper::load(&TlsFolder::new(folder), acceptor);
    let keeper = match loaded.and_then(|keeper| confine().map(|()| keeper)) {
        Ok(keeper) => keeper,
        Err(error) => {
            event(level, "tls", Outcome::Fail, &[("error", &error)]);
            return GAVE_UP;
        }
    };
    if let Err(error) = keeper.serve() {
        event(Level::Error, "keeper", Outcome::Fail, &[("error", &error)]);
        return 1;
    }
    0
}

/// Checks that a keeper can use the files of a folder. Returns what it would tell the acceptor.
pub(crate) fn check(folder: &Path) -> Result<KeeperReady, FolderError> {
    Ok(Credentials::load(&TlsFolder::new(folder))?.ready)
}

/// A keeper that has its files.
#[derive(Debug)]
struct Keeper<'a> {
    credentials: Credentials,
    acceptor: &'a Channel<KeeperReady, ToKeeper>,
    epoll: Epoll,
    vouchers: Option<VoucherKey>,
    clients: HashMap<ClientNumber, Client>,
    /// Whether no more clients come, because another keeper has taken over or the server stops.
    is_replaced: bool,
}

/// A client that may still ask.
#[derive(Debug)]
struct Client {
    socket: Channel<KeeperReply, Question>,
    /// Whether it has its signature.
    has_signature: bool,
}

impl<'a> Keeper<'a> {
    /// Reads the files. Afterwards the keeper needs none.
    fn load(folder: &TlsFolder, acceptor: &'a Channel<KeeperReady, ToKeeper>) -> io::Result<Self> {
        let credentials = Credentials::load(folder).map_err(io::Error::other)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(acceptor, EpollEvent::new(EpollFlags::EPOLLIN, ACCEPTOR))?;
        Ok(Self { credentials, acceptor, epoll, vouchers: None, clients: HashMap::new(), is_replaced: false })
    }

    /// Serves clients until the acceptor has closed its end and no client is left.
    fn serve(mut self) -> io::Result<()> {
        let chain = encode_fields(&self.credentials.chain())?;
        if self.acceptor.send(&self.credentials.ready, &chain, None)? != Sent::Done {
            return Ok(());
        }
        let mut buffer = vec![0; MAX_MESSAGE];
        while !self.is_replaced || !self.clients.is_empty() {
            let mut events = [EpollEvent::empty(); 16];
            let count = retry(|| self.epoll.wait(&mut events, EpollTimeout::NONE))?;
            for event in events.iter().take(count) {
                match event.data() {
                    ACCEPTOR => self.take_clients(&mut buffer)?,
                    client => self.answer(client, &mut buffer),
                }
            }
        }
        Ok(())
    }

    /// Takes the acceptor's messages.
    fn take_clients(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            match self.acceptor.receive_with_descriptor(buffer)? {
                Received::Packet((ToKeeper::Key, key), _) => {
                    self.vouchers = key.try_into().ok().map(VoucherKey::new);
                }
                Received::Packet((ToKeeper::ClientCame(client), _), Some(socket)) => self.add(client, socket),
                // The descriptor is missing: this process has reached its limit. The client gets no answer.
                Received::Packet((ToKeeper::ClientCame(_), _), None) => {}
                Received::Empty => return Ok(()),
                Received::PeerGone => {
                    self.is_replaced = true;
                    return Ok(self.epoll.delete(self.acceptor)?);
                }
            }
        }
    }

    fn add(&mut self, client: ClientNumber, socket: OwnedFd) {
        let socket = Channel::from(socket);
        if self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, client)).is_ok() {
            self.clients.insert(client, Client { socket, has_signature: false });
        }
    }

    /// Answers a client's next question. Closes the socket of a client that has asked both questions, or asks anything else.
    fn answer(&mut self, number: ClientNumber, buffer: &mut [u8]) {
        let Some(mut client) = self.clients.remove(&number) else { return };
        let (question, bytes) = match client.socket.receive(buffer) {
            Ok(Received::Packet(message, _)) => message,
            Ok(Received::Empty) => return drop(self.clients.insert(number, client)),
            Ok(Received::PeerGone) | Err(_) => return,
        };
        let answer = self.decide(number, client.has_signature, question, bytes);
        let Some((answer, bytes)) = answer else { return };
        let is_sent = client.socket.send(&answer, &bytes, None).is_ok_and(|sent| sent == Sent::Done);
        if is_sent && !client.has_signature {
            client.has_signature = true;
            self.clients.insert(number, client);
        }
    }

    /// Returns the answer to a client's question, and the bytes behind it; none if the client may not ask this now.
    fn decide(
        &self,
        number: ClientNumber,
        has_signature: bool,
        question: Question,
        bytes: &[u8],
    ) -> Option<(KeeperReply, Vec<u8>)> {
        match (question, &*decode_fields(bytes).ok()?, has_signature) {
            (Question::Sign { scheme }, [hash], false) => {
                Some((KeeperReply::Signed, self.credentials.sign(scheme, hash)?))
            }
            (Question::Prove { scheme }, [hash, signature, chain @ ..], true) => {
                let vouchers = self.vouchers.as_ref()?;
                Some(match self.credentials.identify(scheme, hash, signature, chain) {
                    Ok((peer, serial)) => {
                        (KeeperReply::Proven { peer, voucher: vouchers.sign(number, peer) }, serial)
                    }
                    Err(fault) => (KeeperReply::Rejected(fault), Vec::new()),
                })
            }
            _ => None,
        }
    }
}
