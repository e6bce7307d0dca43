//! The domain, pure: what a bet is, how it is written in the file, what identifies a list of bets and a file of them.

#![allow(
    missing_docs,
    clippy::missing_errors_doc,
    reason = "some of it is public, but for tests, benchmarks and fuzz targets alone"
)]

pub(crate) mod agency_id;
pub(crate) mod agency_list;
pub(crate) mod bet;
pub(crate) mod digest;
pub(crate) mod foreign;
pub(crate) mod hex;
pub mod row;
pub(crate) mod seal;

use serde::{Deserialize, Serialize};

pub use agency_id::AgencyId;
pub use agency_list::AgencyList;
pub use bet::{Bet, BetError, TextError};
pub use digest::Digest;
pub use seal::Seal;

/// A draw that has been made. It never changes, whatever the configuration says later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draw {
    /// When it was made: RFC 3339, local time with its offset.
    pub at: String,
    /// How many agencies took part: 1 to this.
    pub agencies: u16,
    pub winning_number: u32,
    /// What the bets were. A draw from before there were seals has none.
    #[serde(default)]
    pub seal: Option<Seal>,
}
