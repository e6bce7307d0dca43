//! Hashes as text: in logs and files they are written in hexadecimal digits, always in the same way.

use std::borrow::Cow;
use std::fmt::{self, Display};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Two lowercase digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> impl Display + use<'_> {
    fmt::from_fn(move |f| bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")))
}

/// A hash of so many bytes. Between processes it is sent as bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash<const N: usize>(pub [u8; N]);

impl<const N: usize> Hash<N> {
    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; N];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
        }
        // There is one way to write a hash: all digits, all lowercase.
        Some(Self(bytes)).filter(|hash| hash.to_string() == text)
    }
}

impl<const N: usize> Display for Hash<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0).fmt(f)
    }
}

impl<const N: usize> fmt::Debug for Hash<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl<const N: usize> Serialize for Hash<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hash<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hash = if deserializer.is_human_readable() {
            Self::parse(&Cow::<str>::deserialize(deserializer)?)
        } else {
            Vec::deserialize(deserializer)?.try_into().ok().map(Self)
        };
        hash.ok_or_else(|| D::Error::custom(format!("a hash must have {} hexadecimal digits", 2 * N)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_json_there_is_one_way_to_write_a_hash() {
        let hash = Hash([0, 0x1f]);
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(json, "\"001f\"");
        assert_eq!(serde_json::from_str::<Hash<2>>(&json).unwrap(), hash);
        for bad in ["31", "\"1f\"", "\"+01f\"", "\"001F\"", "\"001f0\"", "\"001g\"", "\"\"", "\"é\""] {
            assert!(serde_json::from_str::<Hash<2>>(bad).is_err(), "{bad}");
        }
    }
}
