//! The state file, `<bets.csv>.state`: what the bets alone do not tell, as JSON that a person can read.
//!
//! ```json
//! {"version":2,"ended":[{"agency":1,"bets":2,"digest":"c1c3a7c5ab2f3c6f"}],"draw":null}
//! ```
//!
//! | key | holds |
//! |---|---|
//! | `version` | 2 |
//! | `ended` | the agencies whose END is stored, each once, with the number of its bets and their [`Digest`] |
//! | `draw` | `null`, or a [`Draw`]: when (RFC 3339), of how many agencies, which number, and the seal of the bets |
//!
//! A file of version 1 is read too: its `ended` has agencies alone, and its draw has no seal.
//!
//! It is always replaced as a whole: see [`Disk::replace_state`](super::disk::Disk::replace_state).

use std::collections::{BTreeSet, HashSet};
use std::{io, mem};

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::row_reader::RESTORE;
use crate::lottery::agency_id::list;
use crate::lottery::foreign::other_bets_hint;
use crate::lottery::{AgencyId, Digest, Draw};

const VERSION: u32 = 2;
/// Longer than any time that the server writes, in bytes.
const MAX_TIME: usize = 40;

/// What the file holds. Every key is required and no other is allowed: otherwise a damaged file could pass for a contest
/// without a draw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State<E = Ended> {
    version: u32,
    pub(crate) ended: Vec<E>,
    #[serde(deserialize_with = "Option::deserialize")]
    pub(crate) draw: Option<Draw>,
}

/// An END that is stored, and what its agency had stored. Version 1 did not say that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ended {
    pub(crate) agency: AgencyId,
    pub(crate) bets: u64,
    pub(crate) digest: Digest,
}

/// The bets of an agency: how many, and which.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    pub(crate) bets: u64,
    pub(crate) digest: Digest,
}

impl Stored {
    pub(crate) fn add(&mut self, row: &[u8]) {
        self.bets += 1;
        self.digest = self.digest.with_row(row);
    }
}

#[derive(Deserialize)]
#[serde(expecting = "an object with a version")]
struct AnyFormat {
    version: u32,
}

/// Why a state file can't be used.
#[derive(Debug, Error)]
pub enum StateError {
    #[error("it is damaged: {0}; {RESTORE}")]
    Damaged(#[from] serde_json::Error),
    #[error(
        "its draw must have a time as RFC 3339 has it, agencies, and from version 2 on a seal; {RESTORE}"
    )]
    Draw,
    #[error("it has version {0}, but this server reads versions 1 to {VERSION}: start a newer one")]
    Version(u32),
    #[error("{0}; {RESTORE}")]
    Contradiction(String),
}

impl State {
    pub(crate) fn new(ended: Vec<Ended>, draw: Option<Draw>) -> Self {
        Self { version: VERSION, ended, draw }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let AnyFormat { version } = serde_json::from_slice(bytes)?;
        let state = match version {
            1 => {
                let State::<AgencyId> { ended, draw, .. } = serde_json::from_slice(bytes)?;
                let with_agency = |agency| Ended { agency, bets: 0, digest: Digest::default() };
                Self { version, ended: ended.into_iter().map(with_agency).collect(), draw }
            }
            VERSION => serde_json::from_slice(bytes)?,
            _ => return Err(StateError::Version(version)),
        };
        let is_possible = |draw: &Draw| {
            let has_seal = (version == VERSION) == draw.seal.is_some();
            let is_time = draw.at.len() <= MAX_TIME && DateTime::parse_from_rfc3339(&draw.at).is_ok();
            draw.agencies > 0 && is_time && has_seal
        };
        if state.draw.as_ref().is_none_or(is_possible) { Ok(state) } else { Err(StateError::Draw) }
    }

    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Lists the agencies that have ended with other bets than `found`. The first with the right number of them names a cause.
    pub(crate) fn disagreements(&self, found: impl Fn(AgencyId) -> Stored) -> impl Iterator<Item = String> {
        let mut is_hinted = false;
        self.ended.iter().filter_map(move |&Ended { agency, bets, digest }| {
            let (ended, found) = (Stored { bets, digest }, found(agency));
            if self.version == 1 || ended == found {
                return None;
            }
            let text = |Stored { bets, digest }| format!("{bets} bets (digest {digest})");
            let as_many = ended.bets == found.bets;
            let hint = other_bets_hint(as_many && !mem::replace(&mut is_hinted, true));
            Some(format!("agency {agency} ended with {}, but has {}{hint}", text(ended), text(found)))
        })
    }

    /// Lists everything in the file that can't be true in a contest of agencies 1 to `agencies`.
    pub(crate) fn contradictions(&self, agencies: u16) -> Vec<String> {
        let outside = self.agencies().filter(|agency| agency.get() > agencies);
        let mut seen = HashSet::new();
        let repeated: BTreeSet<_> = self.agencies().filter(|agency| !seen.insert(*agency)).collect();
        let missing = self.draw.iter().flat_map(|draw| self.not_ended(draw.agencies));
        [
            (&*format!("ENDs of agencies that do not take part (1 to {agencies} do)"), list(outside)),
            ("several ENDs of these agencies", list(repeated.into_iter())),
            ("a draw, but no END of these agencies", list(missing)),
        ]
        .into_iter()
        .filter_map(|(what, list)| Some(format!("it has {what}: {}", list?)))
        .collect()
    }

    /// Tells whether exactly the agencies 1 to `agencies` have ended.
    pub(crate) fn all_ended(&self, agencies: u16) -> bool {
        self.agencies().all(|agency| agency.get() <= agencies) && self.not_ended(agencies).next().is_none()
    }

    fn agencies(&self) -> impl Iterator<Item = AgencyId> {
        self.ended.iter().map(|ended| ended.agency)
    }

    fn not_ended(&self, agencies: u16) -> impl Iterator<Item = AgencyId> {
        let ended: HashSet<_> = self.agencies().collect();
        (1..=agencies).filter_map(AgencyId::new).filter(move |agency| !ended.contains(agency))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAL: &str = r#","seal":{"bets":3,"bytes":99,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#;
    const ENDED: &str = r#"{"agency":65535,"bets":3,"digest":"000000000000001f"}"#;

    #[test]
    fn what_is_damaged_or_of_another_version_is_refused() {
        let draw = r#"{"at":"2026-03-01T20:15:00-03:00","agencies":2,"winning_number":7}"#;
        let old = format!(r#"{{"version":1,"ended":[1,65535],"draw":{draw}}}"#);
        let sealed = draw.replace('}', SEAL) + "}";
        let good = format!(r#"{{"version":2,"ended":[{ENDED}],"draw":{sealed}}}"#);
        let state = State::decode(good.as_bytes()).unwrap();
        let (agency, digest) = (AgencyId::new(65_535).unwrap(), Digest(0x1f_u64.to_be_bytes()));
        assert_eq!(state.ended, [Ended { agency, bets: 3, digest }]);
        assert_eq!(State::decode(&state.encode().unwrap()).unwrap(), state);
        let old_state = State::decode(old.as_bytes()).unwrap();
        assert!(old_state.agencies().eq([AgencyId::new(1).unwrap(), agency]));
        assert_eq!(old_state.disagreements(|_| Stored { bets: 3, digest }).count(), 0);
        let no_draw = r#"{"version":1,"ended":[1]}"#;
        let no_agency = r#"{"version":1,"ended":[0],"draw":null}"#;
        let no_digest = r#"{"version":2,"ended":[1],"draw":null}"#;
        let bad_hash = good.replace("e3b0", "E3b0");
        let broken = [&good.replace("draw", "eraw"), &good[..150], &old[..50]];
        for bad in [no_draw, no_agency, no_digest, &bad_hash].into_iter().chain(broken.map(|bad| bad as &str))
        {
            assert!(matches!(State::decode(bad.as_bytes()), Err(StateError::Damaged(_))), "{bad}");
        }
        let no_time = old.replace("2026-03-01T", "2026-03-01");
        for bad in [no_time, good.replace(SEAL, ""), old.replace(draw, &sealed)] {
            assert!(matches!(State::decode(bad.as_bytes()), Err(StateError::Draw)), "{bad}");
        }
    }
}
