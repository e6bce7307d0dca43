//! The sockets of the keeper, the process that has the server's private key: one to the acceptor, and for each client one
//! to the client's handler.
//!
//! | from | to | head | behind it |
//! |---|---|---|---|
//! | acceptor | keeper | [`ToKeeper::Key`] | the key of all vouchers |
//! | acceptor | keeper | [`ToKeeper::ClientCame`] | |
//! | keeper | acceptor | [`KeeperReady`] | fields: the server's certificate and those of its issuers |
//! | handler | keeper | [`Question::Sign`] | a field: the hash of the handshake so far |
//! | handler | keeper | [`Question::Prove`] | fields: the hash of the handshake so far, the client's signature, its certificates |
//! | keeper | handler | [`KeeperReply::Signed`] | the signature |
//! | keeper | handler | [`KeeperReply::Proven`] | the serial number of the certificate |
//! | keeper | handler | [`KeeperReply::Rejected`] | |
//!
//! A field is a byte string behind its length in 2 bytes, little endian.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, AsRawFd as _};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{Shutdown, shutdown};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::channel::Channel;
use super::messages::ClientNumber;
use super::voucher::{Peer, Voucher};
use crate::system::fd_passing::{Received, Sent};
use crate::system::retry;

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
pub struct KeeperReady {
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

impl KeeperReady {
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
pub enum KeeperReply {
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
/// How long a handler waits for an answer, in milliseconds. The keeper needs a fraction of one.
const PATIENCE: u16 = 1000;

/// Encodes fields.
pub fn encode_fields(fields: &[&[u8]]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for field in fields {
        let length = u16::try_from(field.len()).map_err(|_| ErrorKind::InvalidData)?;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(field);
    }
    Ok(bytes)
}

/// Decodes fields.
pub fn decode_fields(mut bytes: &[u8]) -> io::Result<Vec<&[u8]>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let field = bytes
            .split_first_chunk()
            .and_then(|(length, rest)| rest.split_at_checked(u16::from_le_bytes(*length).into()));
        let (field, rest) = field.ok_or(ErrorKind::InvalidData)?;
        fields.push(field);
        bytes = rest;
    }
    Ok(fields)
}

/// A handler's end of its socket to the keeper.
pub type KeeperClient = Channel<Question, KeeperReply>;

impl KeeperClient {
    /// Asks the keeper, and waits for its answer. Returns the bytes behind the answer too. The handler waits
    /// here, outside of its loop, for a limited time.
    pub fn ask(&self, question: Question, fields: &[&[u8]]) -> io::Result<(KeeperReply, Vec<u8>)> {
        if self.send(&question, &encode_fields(fields)?, None)? != Sent::Done {
            return Err(ErrorKind::BrokenPipe.into());
        }
        retry(|| poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], PATIENCE))?;
        match self.receive(&mut [0; 2048])? {
            Received::Packet((answer, bytes), _) => Ok((answer, bytes.to_vec())),
            Received::Empty => Err(ErrorKind::TimedOut.into()),
            Received::PeerGone => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Tells the keeper that this client will ask nothing more, even if other processes have this end too.
    pub fn release(&self) {
        // Fails only if the keeper is gone.
        shutdown(self.as_fd().as_raw_fd(), Shutdown::Both).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_as_they_were_encoded() {
        let long = vec![7; 60_000];
        let fields: [&[u8]; 3] = [b"hash", b"", &long];
        let bytes = encode_fields(&fields).unwrap();
        assert_eq!(decode_fields(&bytes).unwrap(), fields);
        assert!(decode_fields(&bytes[..bytes.len() - 1]).is_err());
        assert!(encode_fields(&[&vec![0; 65_536]]).is_err());
    }
}
