//! The two names of a client: a secret token between storage and the client's handler, and a serial number elsewhere.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The secret that identifies a client to storage: whoever knows it can make requests as that client. It is random, and
/// only storage and the client's handler keep it. The acceptor draws it in memory that no child inherits, and names the
/// client by its [`ClientSerial`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClientToken(u128);

impl ClientToken {
    /// The length in bytes.
    pub const LEN: usize = 16;

    /// Turns the bytes that the acceptor drew into a token.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }

    #[cfg(test)]
    pub(crate) fn random() -> Self {
        let mut bytes = [0; Self::LEN];
        crate::system::random::fill(&mut bytes).unwrap();
        Self::from_bytes(bytes)
    }
}

/// Numbers the clients of a server. Not a secret.
pub type ClientSerial = u64;

impl fmt::Debug for ClientToken {
    /// Hides the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientToken(..)")
    }
}
