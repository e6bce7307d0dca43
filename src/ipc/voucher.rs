//! Who a client is, and the proof of it that storage accepts.

use std::fmt;

use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::lottery::AgencyId;

/// Who a certificate can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Peer {
    Agency(AgencyId),
    /// May ask for the status only.
    Operator,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agency(agency) => write!(f, "agency-{agency}"),
            Self::Operator => f.write_str("operator"),
        }
    }
}

/// The keeper's statement that a client has proven to be a peer: a keyed hash of both. The handler shows it to storage.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voucher([u8; 32]);

impl fmt::Debug for Voucher {
    /// Hides the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Voucher(..)")
    }
}

/// The key of all vouchers. Only the keeper and storage have it; the acceptor draws it in memory that no child inherits.
#[derive(Debug)]
pub struct VoucherKey(hmac::Key);

impl VoucherKey {
    /// The length in bytes.
    pub const LEN: usize = 16;

    #[must_use]
    pub fn new(bytes: &[u8; Self::LEN]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Vouches that this client is that peer.
    #[must_use]
    pub fn sign(&self, client: u64, peer: Peer) -> Voucher {
        let tag = hmac::sign(&self.0, &subject(client, peer));
        Voucher(tag.as_ref().try_into().unwrap_or_default())
    }

    /// Whether the keeper has vouched that this client is that peer.
    #[must_use]
    pub fn verify(&self, client: u64, peer: Peer, voucher: Voucher) -> bool {
        hmac::verify(&self.0, &subject(client, peer), &voucher.0).is_ok()
    }
}

/// What a voucher is about. Agencies have no number 0.
fn subject(client: u64, peer: Peer) -> [u8; 16] {
    let number = if let Peer::Agency(agency) = peer { agency.get() } else { 0 };
    (u128::from(number) << 64 | u128::from(client)).to_le_bytes()
}
