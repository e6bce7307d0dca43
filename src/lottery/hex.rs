//! Hashes as text. In logs and files they are written in hexadecimal digits, two lowercase ones for each byte.
//!
//! With `#[serde(with = "hex")]` a hash is this text in JSON, and bytes in messages between processes.

use std::borrow::Cow;
use std::fmt::{self, Display};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn hex(bytes: &[u8]) -> impl Display + use<'_> {
    fmt::from_fn(move |f| bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")))
}

fn parse<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    // There is one way to write a hash: all digits, all lowercase.
    Some(bytes).filter(|bytes| hex(bytes).to_string() == text)
}

pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.collect_str(&hex(bytes))
    } else {
        serializer.serialize_bytes(bytes)
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
    deserializer: D,
) -> Result<[u8; N], D::Error> {
    let bytes = if deserializer.is_human_readable() {
        parse(&Cow::<str>::deserialize(deserializer)?)
    } else {
        Vec::deserialize(deserializer)?.try_into().ok()
    };
    bytes.ok_or_else(|| D::Error::custom(format!("a hash must have {} hexadecimal digits", 2 * N)))
}
