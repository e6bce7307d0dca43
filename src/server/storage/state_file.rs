//! The state file, `<bets.csv>.state`: what the bets alone do not tell, as JSON that a person can read.
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
//! It is always replaced as a whole: see [`Disk::store_state`](super::disk::Disk::store_state).

use std::collections::HashSet;
use std::io;

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::lottery::agency_id::list;
use crate::lottery::{AgencyId, Draw};

const VERSION: u32 = 1;
/// Longer than any time that the server writes, in bytes.
const MAX_TIME: usize = 40;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) ended: Vec<AgencyId>,
    pub(crate) draw: Option<Draw>,
}

/// Every key is required and no other is allowed: a damaged file must not be taken for a contest without a draw.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Format {
    version: u32,
    ended: Vec<AgencyId>,
    #[serde(deserialize_with = "Option::deserialize")]
    draw: Option<Draw>,
}

/// Why a state file can't be used.
#[derive(Debug, Error)]
pub enum StateError {
    #[error("it is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    #[error("its draw must have a time as RFC 3339 has it, and agencies")]
    Draw,
    #[error("it has version {0}, but this server reads version {VERSION}")]
    Version(u32),
}

impl State {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let Format { version, ended, draw } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        let is_possible = |draw: &Draw| {
            draw.agencies > 0 && draw.at.len() <= MAX_TIME && DateTime::parse_from_rfc3339(&draw.at).is_ok()
        };
        if draw.as_ref().is_none_or(is_possible) { Ok(Self { ended, draw }) } else { Err(StateError::Draw) }
    }

    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let Self { ended, draw } = self.clone();
        let mut bytes = serde_json::to_vec(&Format { version: VERSION, ended, draw })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Everything in it that can't be true in a contest of agencies 1 to `agencies`.
    pub(crate) fn contradictions(&self, agencies: u16) -> Vec<String> {
        let outside = list(self.ended.iter().copied().filter(|agency| agency.get() > agencies));
        let outside = outside.map(|list| {
            format!("it has ENDs of agencies that do not take part (1 to {agencies} do): {list}")
        });
        let missing = self.draw.as_ref().and_then(|draw| list(self.not_ended(draw.agencies)));
        let missing = missing.map(|list| format!("it has a draw, but no END of these agencies: {list}"));
        [outside, self.repeated(), missing].into_iter().flatten().collect()
    }

    /// Whether exactly the agencies 1 to `agencies` have ended.
    pub(crate) fn all_ended(&self, agencies: u16) -> bool {
        self.ended.iter().all(|agency| agency.get() <= agencies) && self.not_ended(agencies).next().is_none()
    }

    fn repeated(&self) -> Option<String> {
        let mut ended = self.ended.clone();
        ended.sort_unstable();
        let repeated = ended.chunk_by(|one, next| one == next).filter(|same| same.len() > 1);
        list(repeated.filter_map(|same| same.first().copied()))
            .map(|list| format!("it has several ENDs of these agencies: {list}"))
    }

    fn not_ended(&self, agencies: u16) -> impl Iterator<Item = AgencyId> {
        let ended: HashSet<_> = self.ended.iter().copied().collect();
        (1..=agencies).filter_map(AgencyId::new).filter(move |agency| !ended.contains(agency))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_or_of_another_version_is_refused() {
        let good = r#"{"version":1,"ended":[1,65535],"draw":{"at":"2026-03-01T20:15:00-03:00","agencies":2,"winning_number":7}}"#;
        assert_eq!(State::decode(good.as_bytes()).unwrap().ended.len(), 2);
        let newer = State::decode(br#"{"version":2,"ended":[],"draw":null}"#);
        assert!(matches!(newer, Err(StateError::Version(2))));
        let no_draw = r#"{"version":1,"ended":[1]}"#;
        let no_agency = r#"{"version":1,"ended":[0],"draw":null}"#;
        for bad in [no_draw, no_agency, &good.replace("draw", "eraw"), &good[..50]] {
            assert!(matches!(State::decode(bad.as_bytes()), Err(StateError::Damaged(_))), "{bad}");
        }
        let no_time = good.replace("2026-03-01T", "2026-03-01");
        assert!(matches!(State::decode(no_time.as_bytes()), Err(StateError::Draw)));
    }

    #[test]
    fn each_contradiction_is_named() {
        let state = |ended: &[u16], drawn: Option<u16>| State {
            ended: ended.iter().filter_map(|number| AgencyId::new(*number)).collect(),
            draw: drawn.map(|agencies| Draw { at: String::new(), agencies, winning_number: 7 }),
        };
        let text = state(&[1, 3], Some(2)).contradictions(2).join("; ");
        assert!(text.contains("(1 to 2 do): 3") && text.contains("no END of these agencies: 2"), "{text}");
        let text = state(&[2, 1, 2, 1, 2], None).contradictions(2).join("; ");
        assert_eq!(text, "it has several ENDs of these agencies: 1, 2");
        let text = state(&[], Some(9)).contradictions(9).join("; ");
        assert!(text.contains("agencies: 1, 2, 3, 4, 5 and 4 more"), "{text}");
    }
}
