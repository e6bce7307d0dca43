//! The digest of an agency's bets: it tells *what* is stored, as a count tells how much.
//!
//! It starts at 0, and each bet turns it into `XXH3_64(row, seed = previous digest)`, where `row` is the bet's line in
//! `bets.csv`, CRLF included. Lists of bets with the same digest are taken to be equal. This finds mistakes. It does not stop
//! somebody who invents rows to get a certain digest.

use std::borrow::Cow;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// In logs and files it is written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest(pub u64);

impl Digest {
    /// The digest after one more row.
    #[must_use]
    pub fn with_row(self, row: &[u8]) -> Self {
        Self(xxh3_64_with_seed(row, self.0))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u64::deserialize(deserializer).map(Self);
        }
        let text = Cow::<str>::deserialize(deserializer)?;
        let digest = u64::from_str_radix(&text, 16).map(Self).ok();
        let digest = digest.filter(|digest| digest.to_string() == text);
        digest.ok_or_else(|| D::Error::custom("a digest has 16 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_json_it_is_16_lowercase_digits() {
        let digest = Digest(0x1f);
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, "\"000000000000001f\"");
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        for bad in ["31", "\"1f\"", "\"+00000000000001f\"", "\"000000000000001F\"", "\"\""] {
            assert!(serde_json::from_str::<Digest>(bad).is_err(), "{bad}");
        }
    }
}
