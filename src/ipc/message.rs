//! What the processes say to each other, and how it is written: the only user of `bincode`.
//!
//! A message is a head, written by `bincode`, and after it bulk bytes as they are (rows, documents), which are never
//! copied one by one. All of it is between processes of one executable, so nothing here is a format to keep.

use std::fmt;

use nix::errno::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::lottery::row::RowError;
use crate::lottery::{AgencyId, Draw};
use crate::protocol::message::AgencyState;

/// Names one client to the storage service: whoever knows it speaks for the client. It is random, and only the storage
/// service and that client's handler know it. The acceptor draws it in memory that no child gets (`SecretPage`), and calls
/// the client by its [`ClientSerial`], which is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClientToken(u128);

impl ClientToken {
    /// How many bytes it has.
    pub const LEN: usize = 16;

    /// The token that was drawn as these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }

    /// A new one, for a test.
    #[cfg(test)]
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }
}

/// Counts the clients of a server.
pub type ClientSerial = u64;

impl fmt::Debug for ClientToken {
    /// Never the token itself: whoever knows it can speak for the client.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientToken(..)")
    }
}

/// What a handler asks of the storage service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Binds the client to an agency; asks how far that is. Answer: `Opened`.
    OpenSession {
        /// The agency.
        agency: AgencyId,
    },
    /// Stores the rows that follow. Answer: `Stored`.
    StoreBets {
        /// In a session, the index of the first row in the agency's stream of bets.
        first: Option<u64>,
    },
    /// The agency has no more bets. Answer: `Ended`.
    EndAgency {
        /// The agency.
        agency: AgencyId,
    },
    /// The winning documents from that byte on. Answer: `ResultPage`, or `NotDrawn`.
    Result {
        /// Whose.
        agency: AgencyId,
        /// How many bytes of them the handler has already.
        offset: u64,
        /// Whether the answer shall wait for the draw.
        wait: bool,
    },
    /// How the contest goes, and the counts of the agencies from that index on. Answer: `StatusPage`.
    Status {
        /// How many agencies' counts the handler has already.
        from: u16,
    },
    /// What the storage service counts. Answer: `Statistics`.
    Statistics,
}

/// The head of one message in the request queue. A request that is longer than a message goes in parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartHead {
    /// Who asks.
    pub client: ClientToken,
    /// Numbers the client's requests; the reply repeats it.
    pub id: u32,
    /// The request, in its first part.
    pub request: Option<Request>,
    /// Whether the request is whole with this part.
    pub last: bool,
}

/// What the storage service answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To `OpenSession`.
    Opened {
        /// How many bets of the agency are on disk.
        stored: u64,
        /// How far it is.
        state: AgencyState,
    },
    /// To `StoreBets`: they are on disk.
    Stored {
        /// How many bets of the session's agency are on disk; 0 outside of a session.
        stored: u64,
    },
    /// To `EndAgency`: it is on disk.
    Ended,
    /// To `Result`: the draw has not been made.
    NotDrawn,
    /// To `Result`: bytes of the documents follow.
    ResultPage {
        /// The length of all the agency's documents, separators included, in bytes.
        total: u64,
    },
    /// To `Status`: an [`AgencyCount`] for each of some agencies follows.
    StatusPage {
        /// How many agencies take part.
        agencies: u16,
        /// How many of them have ended.
        ended: u16,
        /// How many bets are on disk.
        bets: u64,
        /// The draw, if it has been made.
        draw: Option<Draw>,
    },
    /// To `Statistics`: [`Statistics`](super::statistics::Statistics) follow.
    Statistics,
    /// It was not done, and changed nothing.
    Refused(Refusal),
}

/// Why a request was refused. Its text is what the client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Refusal {
    /// The agency does not take part.
    #[error("no such agency: the agencies are 1 to {agencies}")]
    NoSuchAgency {
        /// How many do.
        agencies: u16,
    },
    /// A bet after END.
    #[error("agency {agency} has already sent END")]
    AgencyEnded {
        /// Whose.
        agency: AgencyId,
    },
    /// A bet after the draw.
    #[error("the draw has already been made")]
    Drawn,
    /// The bets before it are missing.
    #[error("the first bet would be number {first}, but the next to store is {stored}")]
    Gap {
        /// What the session said.
        first: u64,
        /// What the agency has.
        stored: u64,
    },
    /// A bet of another agency than the session's.
    #[error("a bet of another agency than the session's")]
    OtherAgency,
    /// The disk took nothing of it.
    #[error("it could not be stored: {}", Errno::from_raw(*.errno).desc())]
    Disk {
        /// What the system said: see `errno(3)`.
        errno: i32,
    },
    /// What no honest handler sends.
    #[error("the request makes no sense")]
    Malformed,
}

impl From<RowError> for Refusal {
    /// An honest handler sends whole rows.
    fn from(_: RowError) -> Self {
        Self::Malformed
    }
}

/// The head of one reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyHead {
    /// The request's number.
    pub id: u32,
    /// The answer.
    pub reply: Reply,
}

/// One agency in a `StatusPage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgencyCount {
    /// How many of its bets are on disk.
    pub bets: u64,
    /// Whether it has ended.
    pub ended: bool,
}

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

/// The most bytes that a head takes. A reply of no more than these is a short one: see [`super::reply_pipe`].
pub const MAX_HEAD: usize = 64;

/// A message that can't be read: the other process is not what it should be.
#[derive(Debug, Error)]
#[error("a message between the server's processes makes no sense: {0}")]
pub struct BadMessage(String);

impl From<BadMessage> for std::io::Error {
    fn from(error: BadMessage) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// The most memory that reading a head may take, in bytes: a text's length is not believed before it is checked.
const MAX_READ: usize = 4096;

fn format() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<MAX_READ>()
}

/// Writes a head at the start of `out`; returns its length.
///
/// # Errors
/// `out` is too short.
pub fn encode(head: &impl Serialize, out: &mut [u8]) -> Result<usize, BadMessage> {
    bincode::serde::encode_into_slice(head, out, format()).map_err(|error| BadMessage(error.to_string()))
}

/// Reads a head at the start of `bytes`; returns it, and what follows it.
///
/// # Errors
/// There is none.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), BadMessage> {
    let (head, length) =
        bincode::serde::decode_from_slice(bytes, format()).map_err(|error| BadMessage(error.to_string()))?;
    Ok((head, bytes.get(length..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn length_of(head: &impl Serialize) -> usize {
        encode(head, &mut [0; 512]).unwrap()
    }

    #[test]
    fn heads_are_short() {
        let agency = AgencyId::new(u16::MAX).unwrap();
        let client = ClientToken::random();
        for request in [
            Request::StoreBets { first: Some(u64::MAX) },
            Request::Result { agency, offset: u64::MAX, wait: true },
            Request::Status { from: u16::MAX },
        ] {
            let head = PartHead { client, id: u32::MAX, request: Some(request), last: true };
            assert!(length_of(&head) <= MAX_HEAD);
        }
        for reply in [
            Reply::Opened { stored: u64::MAX, state: AgencyState::Drawn },
            Reply::Refused(Refusal::Gap { first: u64::MAX, stored: u64::MAX }),
            Reply::Refused(Refusal::Disk { errno: i32::MAX }),
            Reply::ResultPage { total: u64::MAX },
        ] {
            assert!(length_of(&ReplyHead { id: u32::MAX, reply }) + 2 <= MAX_HEAD);
        }
    }

    #[test]
    fn a_head_is_read_back_and_the_bulk_behind_it_is_left() {
        let head = PartHead {
            client: ClientToken::random(),
            id: 7,
            request: Some(Request::StoreBets { first: None }),
            last: false,
        };
        let mut bytes = [b'x'; 100];
        let length = encode(&head, &mut bytes).unwrap();
        let (read, bulk): (PartHead, _) = decode(&bytes).unwrap();
        assert_eq!((read, bulk.len()), (head, 100 - length));
    }

    #[test]
    fn a_length_that_is_not_there_is_an_error_and_not_an_allocation() {
        let at = "2026-03-01T20:15:00-03:00".to_owned();
        let draw = Some(Draw { at: at.clone(), agencies: 2, winning_number: 7574 });
        let reply = Reply::StatusPage { agencies: 2, ended: 2, bets: 7, draw };
        let mut bytes = [0; 256];
        let length = encode(&ReplyHead { id: 1, reply }, &mut bytes).unwrap();
        assert!(decode::<ReplyHead>(&bytes[..length]).is_ok());
        let text = bytes.windows(at.len()).position(|window| window == at.as_bytes()).unwrap();
        for claimed in [u64::MAX, u64::from(u32::MAX), 5000] {
            bytes[text - 8..text].copy_from_slice(&claimed.to_le_bytes());
            assert!(decode::<ReplyHead>(&bytes[..length]).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>) {
            drop(decode::<PartHead>(&bytes));
            drop(decode::<ReplyHead>(&bytes));
            drop(decode::<ToStorage>(&bytes));
        }
    }
}
