//! Recovery: reads the contest from the files, in one pass over the bets at each start.
//!
//! A torn last row, left by a kill or a loss of power during a write, was never acknowledged: it is cut off. A damaged
//! row is refused, and the files are left as they are: what follows it was acknowledged. After the draw nothing is
//! written, so a last row that is not whole was acknowledged, and is refused too.

use std::io;

use thiserror::Error;

use super::contest::Contest;
use super::disk::Disk;
use super::row_reader::{Damage, Line, RESTORE, RowReader};
use super::state_file::{Ended, State, StateError};
use crate::ipc::messages::Refusal;
use crate::lottery::foreign::other_bets_hint;
use crate::lottery::seal::Hasher;
use crate::lottery::{AgencyId, Seal};

/// What the configuration says about the contest. After the draw, the state file overrides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How many agencies take part.
    pub clients_amount: u16,
    /// The number that wins.
    pub winner_number: u32,
}

pub(super) struct Recovered {
    pub(super) contest: Contest,
    pub(super) hasher: Hasher,
    /// The length of the bets file, in bytes.
    pub(super) length: u64,
    /// How many bytes of a torn row were cut off.
    pub(super) cut: u64,
}

/// Why a server can't start with these files.
#[derive(Debug, Error)]
pub enum RecoveryError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{damage}")]
    Row { line: u64, damage: Damage },
    #[error(
        "the row is not whole, but the draw has been made, so it was stored; {RESTORE}, nothing was changed"
    )]
    TornAfterDraw { line: u64 },
    #[error("{0}: the file can't be used with this LOTTERY_WINNER_NUMBER; nothing was changed")]
    Refused(Refusal),
    #[error(
        "this is not the file of the draw: it has {found}, but the draw was made of {sealed}{}; {RESTORE}, nothing was \
         changed",
        other_bets_hint(found.bets == sealed.bets)
    )]
    Sealed { sealed: Seal, found: Seal },
    #[error("the state file can't be used: {0}; nothing was changed")]
    State(#[from] StateError),
    /// An agency that had no part in the draw has bets or an END.
    #[error("the draw was made of the agencies 1 to {agencies}, but agency {agency} has {what}; {RESTORE}")]
    NoPart { agencies: u16, agency: AgencyId, what: &'static str },
    /// An agency that the configuration leaves out has bets or an END.
    #[error(
        "CLIENTS_AMOUNT is {clients_amount}, but agency {agency} has {what}; allowed is {agency} or more"
    )]
    LeftOut { clients_amount: u16, agency: AgencyId, what: &'static str },
}

/// Reads the files, and makes durable what it found. Files that it refuses are unchanged.
pub(super) fn recover(disk: &mut impl Disk, rules: Rules) -> Result<Recovered, RecoveryError> {
    let stored_state = disk.read_state()?;
    let state = match &stored_state {
        Some(bytes) => State::decode(bytes)?,
        None => State::new(Vec::new(), None),
    };
    let drawn = state.draw.as_ref();
    let agencies = drawn.map_or(rules.clients_amount, |draw| draw.agencies);
    let winner_number = drawn.map_or(rules.winner_number, |draw| draw.winning_number);
    let mut contest = Contest::new(agencies, winner_number);
    let mut hasher = Hasher::default();
    let (length, torn) = read_rows(disk, &mut contest, &mut hasher, drawn.is_some())?;
    let found = hasher.seal(contest.bets());
    if let Some(sealed) = drawn.and_then(|draw| draw.seal).filter(|sealed| *sealed != found) {
        return Err(RecoveryError::Sealed { sealed, found });
    }
    check_agencies(&mut contest, &state, agencies)?;
    contest.draw.clone_from(&state.draw);
    if torn > 0 {
        disk.cut(length)?;
    }
    if stored_state.is_none() {
        // From now on a missing bets file is known to be lost.
        disk.replace_state(&state.encode()?)?;
    }
    // A process that was killed may have written rows, or replaced the state, without syncing that.
    disk.sync()?;
    disk.sync_folder()?;
    Ok(Recovered { contest, hasher, length, cut: torn })
}

/// Reads all rows. Returns how many bytes are whole rows, and how many bytes of a torn row follow.
fn read_rows(
    disk: &impl Disk,
    contest: &mut Contest,
    hasher: &mut Hasher,
    is_drawn: bool,
) -> Result<(u64, u64), RecoveryError> {
    let mut reader = RowReader::new(disk.bets()?);
    loop {
        match reader.next_line()? {
            Line::Row(row) => {
                hasher.add(row.bytes);
                contest.recover_row(&row).map_err(RecoveryError::Refused)?;
            }
            Line::Damaged(damage) => return Err(RecoveryError::Row { line: reader.line(), damage }),
            Line::End { torn: 1.. } if is_drawn => {
                return Err(RecoveryError::TornAfterDraw { line: reader.line() + 1 });
            }
            Line::End { torn } => return Ok((reader.offset(), torn)),
        }
    }
}

/// Adds the ENDs, unless an agency with bets or an END takes no part, or the state file contradicts itself.
fn check_agencies(contest: &mut Contest, state: &State, agencies: u16) -> Result<(), RecoveryError> {
    let takes_no_part = |agency, what| match state.draw {
        Some(_) => RecoveryError::NoPart { agencies, agency, what },
        None => RecoveryError::LeftOut { clients_amount: agencies, agency, what },
    };
    contest.settle_agencies(agencies).map_err(|agency| takes_no_part(agency, "bets"))?;
    for &Ended { agency, .. } in &state.ended {
        contest.end(agency).map_err(|_| takes_no_part(agency, "sent END"))?;
    }
    let disagreements = state.disagreements(|agency| contest.stored(agency).unwrap_or_default());
    match state.contradictions(agencies).into_iter().chain(disagreements).next() {
        Some(contradiction) => Err(StateError::Contradiction(contradiction).into()),
        None => Ok(()),
    }
}
