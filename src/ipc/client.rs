//! What a client is called: by a secret between the storage service and its handler, and by its number elsewhere.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names one client to the storage service: whoever knows it speaks for the client. It is random, and only the storage
/// service and that client's handler know it. The acceptor draws it in memory that no child gets (`WipeOnForkPage`), and calls
/// the client by its [`ClientSerial`], which is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClientToken(u128);

impl ClientToken {
    /// How many bytes it has.
    pub const LEN: usize = 16;

    /// The token that was drawn as these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }

    /// A new one, for a test.
    #[cfg(test)]
    pub(crate) fn random() -> Self {
        let mut bytes = [0; Self::LEN];
        crate::system::random::fill(&mut bytes).unwrap();
        Self::from_bytes(bytes)
    }
}

/// Counts the clients of a server.
pub type ClientSerial = u64;

impl fmt::Debug for ClientToken {
    /// Never the token itself: whoever knows it can speak for the client.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientToken(..)")
    }
}
