//! Encodes and decodes the heads of messages between processes. The only user of `bincode`.
//!
//! A message is a head in `bincode`'s encoding, followed by bulk bytes (rows, documents), which are copied as a block. Both
//! sides run the same executable, so the format may change with every release.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The longest head in bytes: that of a request to prove who the client is. Short replies are no longer than this: see
/// `storage_end`.
pub const MAX_HEAD: usize = 64;

/// A message that cannot be decoded: the other process is broken or hostile.
#[derive(Debug, Error)]
#[error("a malformed message from another process of the server: {0}")]
pub struct BadMessage(String);

impl From<BadMessage> for std::io::Error {
    fn from(error: BadMessage) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// The most memory in bytes that decoding a head may allocate, whatever length it claims for a text.
const MAX_DECODED: usize = 4096;

fn format() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<MAX_DECODED>()
}

/// Encodes a head at the start of `out`, which must be long enough. Returns its length.
pub fn encode(head: &impl Serialize, out: &mut [u8]) -> Result<usize, BadMessage> {
    bincode::serde::encode_into_slice(head, out, format()).map_err(|error| BadMessage(error.to_string()))
}

/// Decodes the head at the start of `bytes`. Returns it and the bytes behind it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), BadMessage> {
    let (head, length) =
        bincode::serde::decode_from_slice(bytes, format()).map_err(|error| BadMessage(error.to_string()))?;
    Ok((head, bytes.get(length..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::control::ToStorage;
    use crate::ipc::keeper::{KeeperReady, KeeperReply, Question, ToKeeper, decode_fields};
    use crate::ipc::messages::{PartHead, Reply, ReplyHead};
    use crate::lottery::Draw;
    use proptest::prelude::*;

    #[test]
    fn a_claimed_length_without_its_bytes_is_an_error_and_not_an_allocation() {
        let at = "2026-03-01T20:15:00-03:00".to_owned();
        let draw = Some(Draw { at: at.clone(), agencies: 2, winning_number: 7574, seal: None });
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
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
            drop(decode::<PartHead>(&bytes));
            drop(decode::<ReplyHead>(&bytes));
            drop(decode::<ToStorage>(&bytes));
            drop(decode::<ToKeeper>(&bytes));
            drop(decode::<KeeperReady>(&bytes));
            drop(decode::<Question>(&bytes));
            drop(decode::<KeeperReply>(&bytes));
            drop(decode_fields(&bytes));
        }
    }
}
