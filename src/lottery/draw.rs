//! The draw: which number wins, and the record that it was made.

use serde::{Deserialize, Serialize};

/// A draw that has been made. It never changes: what the configuration says later does not matter to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draw {
    /// When it was made: RFC 3339, local time with its offset.
    pub at: String,
    /// How many agencies took part: 1 to this.
    pub agencies: u16,
    /// The number that won.
    pub winning_number: u32,
}

/// Whether a bet on `number` wins where `winning_number` was drawn.
#[must_use]
pub fn wins(number: u32, winning_number: u32) -> bool {
    number == winning_number
}
