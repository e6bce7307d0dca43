//! The seal of a draw: which bets it was made of, so that later changes of the file are noticed.

use std::fmt;
use std::io::{self, Read};

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use serde::{Deserialize, Serialize};

use super::hex::Hash;

/// What `bets.csv` held when the draw was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// The number of its rows.
    pub bets: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its hash, as `sha256sum bets.csv` prints it.
    pub sha256: Hash<SHA256_OUTPUT_LEN>,
}

impl fmt::Display for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.bets == 1 { "bet" } else { "bets" };
        write!(f, "{} {noun}, {} bytes, SHA-256 {}", self.bets, self.bytes, self.sha256)
    }
}

/// Counts and hashes the bytes of a file, which come in order and in pieces of any size.
#[derive(Clone)]
pub(crate) struct Hasher {
    context: Context,
    bytes: u64,
}

impl Default for Hasher {
    fn default() -> Self {
        Self { context: Context::new(&SHA256), bytes: 0 }
    }
}

impl Hasher {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// The seal of a file with these bytes, which hold so many bets.
    pub(crate) fn seal(&self, bets: u64) -> Seal {
        let mut sha256 = [0; SHA256_OUTPUT_LEN];
        sha256.copy_from_slice(self.context.clone().finish().as_ref());
        Seal { bets, bytes: self.bytes, sha256: Hash(sha256) }
    }
}

/// Hashes what is read through it.
pub(crate) struct HashingReader<R> {
    pub(crate) inner: R,
    pub(crate) hasher: Hasher,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.add(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_sha256sum_whatever_pieces_the_bytes_come_in() {
        let mut hasher = Hasher::default();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hasher.seal(0).to_string(), format!("0 bets, 0 bytes, SHA-256 {empty}"));
        for piece in ["a", "", "bc"] {
            hasher.add(piece.as_bytes());
        }
        let seal = hasher.seal(1);
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(seal.to_string(), format!("1 bet, 3 bytes, SHA-256 {abc}"));
        let json = format!(r#"{{"bets":1,"bytes":3,"sha256":"{abc}"}}"#);
        assert_eq!(serde_json::to_string(&seal).unwrap(), json);
        assert_eq!(serde_json::from_str::<Seal>(&json).unwrap(), seal);
    }
}
