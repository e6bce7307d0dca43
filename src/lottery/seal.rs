//! The seal of a draw: which bets it was made of, so that later changes of the file are noticed.

use std::fmt;
use std::io::{self, Read};

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use serde::{Deserialize, Serialize};

use super::hex::{self, hex};

/// What `bets.csv` held when the draw was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// The number of its rows.
    pub bets: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its hash, as `sha256sum bets.csv` prints it.
    #[serde(with = "hex")]
    pub sha256: [u8; SHA256_OUTPUT_LEN],
}

impl fmt::Display for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.bets == 1 { "bet" } else { "bets" };
        write!(f, "{} {noun}, {} bytes, SHA-256 {}", self.bets, self.bytes, hex(&self.sha256))
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

    /// Returns the seal of a file with these bytes, which hold so many bets.
    pub(crate) fn seal(&self, bets: u64) -> Seal {
        let mut sha256 = [0; SHA256_OUTPUT_LEN];
        sha256.copy_from_slice(self.context.clone().finish().as_ref());
        Seal { bets, bytes: self.bytes, sha256 }
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
