//! How the heads of messages between the processes are written: the only user of `bincode`.
//!
//! A message is a head, written by `bincode`, and after it bulk bytes as they are (rows, documents), which are never
//! copied one by one. All of it is between processes of one executable, so nothing here is a format to keep.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

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
    use crate::ipc::client::ClientToken;
    use crate::ipc::control::ToStorage;
    use crate::ipc::reply_pipe::{Reply, ReplyHead};
    use crate::ipc::request_queue::{PartHead, Request};
    use crate::lottery::Draw;
    use proptest::prelude::*;

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
