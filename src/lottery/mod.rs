//! The domain, pure: what a bet is, how it stands in the file, which numbers win.

pub mod agency_id;
pub mod bet;
pub mod draw;
pub mod row;

pub use agency_id::AgencyId;
pub use bet::{Bet, BetError, TextError};
pub use draw::Draw;
