//! The sockets of the keeper, the process that has the server's private key: one to the acceptor, and for each client one to
//! the client's handler.
//!
//! A message is a head, see [`super::codec`], and then fields: byte strings, each after its length in 2 bytes, little endian.
//!
//! | from | to | head | fields |
//! |---|---|---|---|
//! | acceptor | keeper | [`ToKeeper`], and the key of all vouchers behind [`ToKeeper::Key`] | |
//! | keeper | acceptor | [`Ready`] | the server's certificate and those of its issuers |
//! | handler | keeper | [`Question::Sign`] | the hash of the handshake so far |
//! | handler | keeper | [`Question::Prove`] | the hash of the handshake so far, the client's signature, its certificates |
//! | keeper | handler | [`Answer::Signed`] | the signature |
//! | keeper | handler | [`Answer::Proven`] | the serial number of the certificate |
//! | keeper | handler | [`Answer::Rejected`] | |

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::codec::{MAX_HEAD, decode, encode};
use super::messages::ClientNumber;
use super::voucher::{Peer, Voucher};
use crate::system::fd_passing::{PacketSocket, Received, Sent};

/// What the acceptor sends to the keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToKeeper {
    /// The key of all vouchers follows.
    Key,
    /// A new client. The keeper's end of its socket is attached.
    ClientCame(ClientNumber),
}

/// The keeper has its files, and takes clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The end of the server's certificate, in seconds since 1970.
    pub certificate_until: i64,
    /// Why no client accepts the server's certificate, whatever the time.
    pub unfit: Option<Unfit>,
    /// How many certificates are revoked.
    pub revoked: u32,
    /// Whether a revocation list has expired.
    pub list_expired: bool,
    /// How the key can sign, as TLS numbers it; the best first.
    pub schemes: Vec<u16>,
}

/// What a certificate lacks that is used for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Unfit {
    #[error("it is not for TLS servers (extendedKeyUsage), as that of an agency is not")]
    NotForServers,
    #[error("it names no host (subjectAltName)")]
    NoName,
}

/// A certificate that ends within this time causes a warning. In seconds.
const SOON: i64 = 30 * DAY;
const DAY: i64 = 86_400;

impl Ready {
    /// What the operator should know of the files. `now` is in seconds since 1970.
    pub(crate) fn concerns(&self, now: i64) -> Vec<String> {
        let left = self.certificate_until - now;
        let certificate = match left {
            ..0 => Some("the server's certificate has expired: clients refuse it".to_owned()),
            0..SOON => Some(format!("the server's certificate ends in {} days", left / DAY)),
            _ => None,
        };
        let unfit = self.unfit.map(|unfit| {
            format!("tls.crt of TLS_DIR: {unfit}: clients refuse it; put the server's own tls.crt and tls.key there")
        });
        let list = "a revocation list has expired: it still counts, but later revocations are missing";
        unfit.into_iter().chain(certificate).chain(self.list_expired.then(|| list.to_owned())).collect()
    }
}

/// What a handler asks: each question once, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Sign the server's side of a handshake, by this scheme.
    Sign { scheme: u16 },
    /// Say who the client is that has signed its side of the handshake, by this scheme.
    Prove { scheme: u16 },
}

/// What the keeper answers. If a handler asks for anything else, the keeper closes its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Signed,
    Proven { peer: Peer, voucher: Voucher },
    Rejected(CertificateFault),
}

/// Why a client's certificate is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum CertificateFault {
    #[error("the certificate is malformed")]
    Malformed,
    #[error("the certificate has expired")]
    Expired,
    #[error("the certificate is not valid yet")]
    NotYetValid,
    #[error("the certificate has been revoked")]
    Revoked,
    #[error("the certificate is not signed by an authority of ca.crt")]
    UnknownIssuer,
    #[error(
        "a signature is wrong: the client does not have the certificate's key, or the certificate was changed"
    )]
    BadSignature,
    #[error("the certificate is not for TLS clients")]
    NotForClients,
    #[error("the certificate must name exactly one agency, as the DNS name agency-N, or the operator")]
    WrongName,
    #[error("the certificate is not acceptable")]
    Other,
}

/// The longest message in bytes. A handshake can carry certificates of 64 KiB in all.
pub const MAX_MESSAGE: usize = 72 * 1024;
/// How long a handler waits for an answer. The keeper needs a fraction of a millisecond.
const PATIENCE: Duration = Duration::from_secs(1);

/// Encodes a message.
pub fn encode_message(head: &impl Serialize, fields: &[&[u8]]) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; MAX_HEAD];
    let length = encode(head, &mut bytes)?;
    bytes.truncate(length);
    for field in fields {
        let length = u16::try_from(field.len()).map_err(|_| ErrorKind::InvalidData)?;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(field);
    }
    Ok(bytes)
}

/// Decodes a message whose head is of type `H`.
pub fn decode_message<H: DeserializeOwned>(bytes: &[u8]) -> io::Result<(H, Vec<&[u8]>)> {
    let (head, mut rest) = decode(bytes)?;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let field = rest
            .split_first_chunk()
            .and_then(|(length, rest)| rest.split_at_checked(u16::from_le_bytes(*length).into()));
        let (field, others) = field.ok_or(ErrorKind::InvalidData)?;
        fields.push(field);
        rest = others;
    }
    Ok((head, fields))
}

/// A handler's socket to the keeper.
#[derive(Debug)]
pub struct KeeperClient(PacketSocket);

impl KeeperClient {
    #[must_use]
    pub fn new(socket: PacketSocket) -> Self {
        Self(socket)
    }

    /// Asks the keeper, and waits for its answer and the first field. Only here a handler waits outside of its loop, and only
    /// for a limited time.
    pub fn ask(&self, question: Question, fields: &[&[u8]]) -> io::Result<(Answer, Vec<u8>)> {
        let message = encode_message(&question, fields)?;
        if self.0.send([&message, &[]], None)? != Sent::Done {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let mut buffer = [0; 2048];
        let (answer, fields) = decode_message(self.receive(&mut buffer)?)?;
        Ok((answer, fields.first().copied().unwrap_or_default().to_vec()))
    }

    /// Tells the keeper that this client will ask nothing more.
    pub fn release(&self) {
        self.0.shutdown();
    }

    fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let limit = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], limit) {
            Ok(0) => return Err(ErrorKind::TimedOut.into()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        match self.0.receive(buffer)? {
            Received::Packet(message, _) => Ok(message),
            Received::Empty => Err(ErrorKind::TimedOut.into()),
            Received::PeerGone => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl AsFd for KeeperClient {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_is_decoded_as_it_was_encoded() {
        let long = vec![7; 60_000];
        let fields: [&[u8]; 3] = [b"hash", b"", &long];
        let bytes = encode_message(&Question::Prove { scheme: 0x0403 }, &fields).unwrap();
        let (question, decoded) = decode_message::<Question>(&bytes).unwrap();
        assert_eq!((question, decoded.as_slice()), (Question::Prove { scheme: 0x0403 }, &fields[..]));
        assert!(decode_message::<Question>(&bytes[..bytes.len() - 1]).is_err());
        assert!(encode_message(&question, &[&vec![0; 65_536]]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
            drop(decode_message::<Question>(&bytes));
            drop(decode_message::<Answer>(&bytes));
            drop(decode_message::<Ready>(&bytes));
            drop(decode_message::<ToKeeper>(&bytes));
        }
    }
}
