//! The state file, `<bets.csv>.state`: what the bets alone don't tell, as JSON that a person can read.
//!
//! ```json
//! {"version":1,"ended":[1,2,5],"draw":null}
//! {"version":1,"ended":[1,2],"draw":{"at":"2026-03-01T20:15:00-03:00","agencies":2,"winning_number":7574}}
//! ```
//!
//! | key | holds |
//! |---|---|
//! | `version` | 1 |
//! | `ended` | the agencies whose END is stored, each once |
//! | `draw` | `null`, or a [`Draw`]: when (RFC 3339), of how many agencies, which number |
//!
//! It is replaced as a whole, never changed: written beside, synced, renamed, and the folder synced.

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::bet_log::WriteError;
use super::disk::Disk;
use crate::lottery::{AgencyId, Draw};

const VERSION: u32 = 1;
/// The longest time that the server writes, and some to spare, in bytes.
const MAX_TIME: usize = 40;

/// What the file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The agencies that have ended.
    pub ended: Vec<AgencyId>,
    /// The draw, if it has been made.
    pub draw: Option<Draw>,
}

/// Each key must be there, and no other: one that was damaged must not be taken for a contest without a draw.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Format {
    version: u32,
    ended: Vec<AgencyId>,
    #[serde(deserialize_with = "Option::deserialize")]
    draw: Option<Draw>,
}

/// The file is not what it should be.
#[derive(Debug, Error)]
pub enum StateError {
    /// No JSON, or not with these keys.
    #[error("it is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    /// The draw is none.
    #[error("its draw must have a time as RFC 3339 has it, and agencies")]
    Draw,
    /// Of another version.
    #[error("it has version {0}, but this server reads version {VERSION}")]
    Version(u32),
}

impl State {
    /// Reads a state file.
    ///
    /// # Errors
    /// It is damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let Format { version, ended, draw } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        let is_possible = |draw: &Draw| {
            draw.agencies > 0 && draw.at.len() <= MAX_TIME && DateTime::parse_from_rfc3339(&draw.at).is_ok()
        };
        if !draw.as_ref().is_none_or(is_possible) {
            return Err(StateError::Draw);
        }
        Ok(Self { ended, draw })
    }

    /// Puts this state on disk in the place of the one before.
    ///
    /// # Errors
    /// It failed.
    pub fn replace(self, disk: &mut impl Disk) -> Result<(), WriteError> {
        let format = Format { version: VERSION, ended: self.ended, draw: self.draw };
        let mut bytes = serde_json::to_vec(&format).map_err(|error| WriteError::NotDone(error.into()))?;
        bytes.push(b'\n');
        disk.write_next_state(&bytes).map_err(WriteError::NotDone)?;
        disk.rename_next_state().map_err(WriteError::NotDone)?;
        // The rename is done, but whether it lasts is not known until the folder is synced.
        disk.sync_folder().or_else(|_| disk.sync_folder()).map_err(WriteError::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_or_of_another_version_is_refused() {
        let good = br#"{"version":1,"ended":[1,65535],"draw":{"at":"2026-03-01T20:15:00-03:00","agencies":2,"winning_number":7}}"#;
        assert_eq!(State::decode(good).unwrap().ended.len(), 2);
        assert!(matches!(
            State::decode(b"{\"version\":2,\"ended\":[],\"draw\":null}"),
            Err(StateError::Version(2))
        ));
        let (no_draw, renamed) =
            (b"{\"version\":1,\"ended\":[1]}", b"{\"version\":1,\"ended\":[1],\"eraw\":null}");
        let both = b"{\"version\":1,\"ended\":[1],\"draw\":null,\"eraw\":null}";
        for bad in [
            &b""[..],
            b"{}",
            b"[]",
            no_draw,
            renamed,
            both,
            b"{\"version\":1,\"ended\":[0],\"draw\":null}",
            &good[..50],
        ] {
            assert!(matches!(State::decode(bad), Err(StateError::Damaged(_))));
        }
    }
}
