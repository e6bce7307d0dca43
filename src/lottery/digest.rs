//! The digest of an agency's bets: it tells *what* is stored, as a count tells how much.
//!
//! It starts at 0, and each bet turns it into `XXH3_64(row, seed = previous digest)`, where `row` is the bet's line in
//! `bets.csv`, CRLF included. Lists of bets with the same digest are taken to be equal. This finds mistakes. It does not stop
//! somebody who invents rows to get a certain digest.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::hex::{self, hex};

/// The digest in big-endian order. In logs and files it is written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest(#[serde(with = "hex")] pub [u8; 8]);

impl Digest {
    /// Returns the digest after one more row.
    #[must_use]
    pub fn with_row(self, row: &[u8]) -> Self {
        Self(xxh3_64_with_seed(row, u64::from_be_bytes(self.0)).to_be_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_json_there_is_one_way_to_write_a_digest() {
        let digest = Digest([0, 0, 0, 0, 0, 0, 0, 0x1f]);
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, "\"000000000000001f\"");
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        let longer_or_shorter = "1f 00000000000000001f";
        let otherwise_written = "+00000000000001f 000000000000001F 000000000000001g 00000000000000é";
        for bad in longer_or_shorter.split(' ').chain(otherwise_written.split(' ')).chain([""]) {
            assert!(serde_json::from_str::<Digest>(&format!("\"{bad}\"")).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Digest>("31").is_err());
    }
}
