//! Why storage refuses a request: the text for the client, and the name under which STATUS counts it.

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::lottery::AgencyId;
use crate::lottery::row::RowError;

/// Why a request was refused. `Display` gives the text that is sent to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Refusal {
    /// An agency outside 1..=`agencies`.
    #[error("no such agency: the agencies are 1 to {agencies}")]
    NoSuchAgency {
        /// How many agencies take part.
        agencies: u16,
    },
    /// A bet after END.
    #[error("agency {agency} has already sent END")]
    AgencyEnded {
        /// The agency of the bet.
        agency: AgencyId,
    },
    /// A bet after the draw.
    #[error("the draw has already been made")]
    Drawn,
    /// The session's bets before `first` are missing.
    #[error("the first bet would be number {first}, but the next to store is {stored}")]
    Gap {
        /// The index that the frame names.
        first: u64,
        /// How many bets of the agency are stored.
        stored: u64,
    },
    /// A bet of another agency than the session's.
    #[error("a bet of another agency than the session's")]
    OtherAgency,
    /// The disk refused it. Clients know by the first words that they may send the same again.
    #[error("could not be stored: {}", Errno::from_raw(*.errno).desc())]
    Disk {
        /// See `errno(3)`.
        errno: i32,
    },
    /// A request that a correct handler never makes.
    #[error("malformed request")]
    Malformed,
}

/// The names of the refusals in STATUS.
pub const REASONS: [&str; 7] =
    ["no_such_agency", "agency_ended", "drawn", "gap", "other_agency", "disk", "malformed"];

impl Refusal {
    /// The index of its name in [`REASONS`].
    #[must_use]
    pub fn reason(&self) -> usize {
        match self {
            Self::NoSuchAgency { .. } => 0,
            Self::AgencyEnded { .. } => 1,
            Self::Drawn => 2,
            Self::Gap { .. } => 3,
            Self::OtherAgency => 4,
            Self::Disk { .. } => 5,
            Self::Malformed => 6,
        }
    }
}

impl From<RowError> for Refusal {
    /// A correct handler sends whole rows only.
    fn from(_: RowError) -> Self {
        Self::Malformed
    }
}
