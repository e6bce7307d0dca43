//! The domain, pure: what a bet is, how it stands in the file, which numbers win.

pub mod agency_id;
pub mod bet;
pub mod digest;
pub mod row;
pub mod seal;

use serde::{Deserialize, Serialize};

pub use agency_id::AgencyId;
pub use bet::{Bet, BetError, TextError};
pub use digest::Digest;
pub use seal::Seal;

/// A draw that has been made. It never changes: what the configuration says later does not matter to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draw {
    /// When it was made: RFC 3339, local time with its offset.
    pub at: String,
    /// How many agencies took part: 1 to this.
    pub agencies: u16,
    /// The number that won.
    pub winning_number: u32,
    /// What the bets were. A draw from before there were seals has none.
    #[serde(default)]
    pub seal: Option<Seal>,
}
