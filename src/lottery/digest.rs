//! The digest of an agency's bets: it tells *what* is stored, as a count tells how much.
//!
//! It starts at 0, and each bet turns it into `XXH3_64(row, seed = previous digest)`, where `row` is the bet's line in
//! `bets.csv`, CRLF included. Lists of bets with the same digest are taken to be equal. This finds mistakes. It does not stop
//! somebody who invents rows to get a certain digest.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::hex::Hash;

/// In logs and files it is written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Hash<8>", into = "Hash<8>")]
pub struct Digest(pub u64);

impl Digest {
    /// The digest after one more row.
    #[must_use]
    pub fn with_row(self, row: &[u8]) -> Self {
        Self(xxh3_64_with_seed(row, self.0))
    }
}

impl From<Hash<8>> for Digest {
    fn from(hash: Hash<8>) -> Self {
        Self(u64::from_be_bytes(hash.0))
    }
}

impl From<Digest> for Hash<8> {
    fn from(digest: Digest) -> Self {
        Self(digest.0.to_be_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hash::from(*self).fmt(f)
    }
}
