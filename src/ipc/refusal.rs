//! Why the storage service refuses a request: what its client reads, and what operators see counted.

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::lottery::AgencyId;
use crate::lottery::row::RowError;

/// Why a request was refused. Its text is what the client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Refusal {
    /// The agency does not take part.
    #[error("no such agency: the agencies are 1 to {agencies}")]
    NoSuchAgency {
        /// How many do.
        agencies: u16,
    },
    /// A bet after END.
    #[error("agency {agency} has already sent END")]
    AgencyEnded {
        /// Whose.
        agency: AgencyId,
    },
    /// A bet after the draw.
    #[error("the draw has already been made")]
    Drawn,
    /// The bets before it are missing.
    #[error("the first bet would be number {first}, but the next to store is {stored}")]
    Gap {
        /// What the session said.
        first: u64,
        /// What the agency has.
        stored: u64,
    },
    /// A bet of another agency than the session's.
    #[error("a bet of another agency than the session's")]
    OtherAgency,
    /// The disk took nothing of it. Clients know by the first words that they may try again.
    #[error("could not be stored: {}", Errno::from_raw(*.errno).desc())]
    Disk {
        /// What the system said: see `errno(3)`.
        errno: i32,
    },
    /// What no honest handler sends.
    #[error("the request makes no sense")]
    Malformed,
}

/// The reasons of the storage service's refusals, by their names for operators.
pub const REASONS: [&str; 7] =
    ["no_such_agency", "agency_ended", "drawn", "gap", "other_agency", "disk", "malformed"];

impl Refusal {
    /// Its place in [`REASONS`].
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
    /// An honest handler sends whole rows.
    fn from(_: RowError) -> Self {
        Self::Malformed
    }
}
