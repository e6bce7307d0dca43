//! Recovery: what the files say about the contest, found in one pass over the bets at each start.
//!
//! A last row that was torn, by a kill or a loss of power in the middle of a write, is cut off: it was never
//! acknowledged. A row that is damaged in the middle is refused, and the file left as it is: what stands after it was
//! acknowledged, and must not be lost. So is a last row that is not whole once the draw has been made: nothing is written
//! from then on, so it was whole, and acknowledged.

use std::io;

use thiserror::Error;

use super::contest::Contest;
use super::contradictions::contradictions;
use super::disk::Disk;
use super::row_reader::{Line, RowReader};
use super::state_file::{State, StateError};
use crate::lottery::AgencyId;
use crate::lottery::row::RowError;

/// What the configuration says about the contest. After the draw, the state file's word counts instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How many agencies take part.
    pub clients_amount: u16,
    /// The number that wins.
    pub winner_number: u32,
}

/// What was found.
#[derive(Debug)]
pub struct Recovered {
    /// The contest as it stands.
    pub contest: Contest,
    /// The length of the bets file, which ends with a whole row.
    pub length: u64,
    /// How many bytes of a torn row were cut off.
    pub cut: u64,
}

/// Why the files can't be taken up.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// The system says no.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A row is damaged.
    #[error("{error}; nothing was changed; restore the file from a backup, or correct that line")]
    Row {
        /// The line it begins in, from 1.
        line: u64,
        /// What is wrong with it.
        error: RowError,
    },
    /// The last row is not whole, but nothing can have been writing it.
    #[error(
        "the row is not whole, but the draw has been made, so it was stored: restore it, nothing was changed"
    )]
    TornAfterDraw {
        /// The line it begins in, from 1.
        line: u64,
    },
    /// The state file can't be read.
    #[error("the state file can't be used: {0}")]
    State(#[from] StateError),
    /// The state file says what can't be.
    #[error("the state file can't be used: {0}; restore both files from one backup, nothing was changed")]
    Contradiction(String),
    /// An agency has what it can't have after a draw in which it had no part.
    #[error(
        "the draw was made of the agencies 1 to {agencies}, but agency {agency} has {what}; restore both files"
    )]
    NoPart {
        /// How many agencies the draw was made of.
        agencies: u16,
        /// The agency that had no part.
        agency: AgencyId,
        /// What it has: bets, or an END.
        what: &'static str,
    },
    /// The configuration would leave out an agency that takes part.
    #[error(
        "CLIENTS_AMOUNT is {clients_amount}, but agency {agency} has {what}; allowed is {agency} or more"
    )]
    LeftOut {
        /// What the configuration says.
        clients_amount: u16,
        /// The agency that would be left out.
        agency: AgencyId,
        /// What it has: bets, or an END.
        what: &'static str,
    },
}

/// Takes up the files. When it returns, all that it found is on disk to stay.
///
/// # Errors
/// The files can't be taken up; they are as they were.
pub fn recover(disk: &mut impl Disk, rules: Rules) -> Result<Recovered, RecoveryError> {
    let state = disk.read_state()?.as_deref().map(State::decode).transpose()?.unwrap_or_default();
    let drawn = state.draw.as_ref();
    let clients_amount = drawn.map_or(rules.clients_amount, |draw| draw.agencies);
    let winner_number = drawn.map_or(rules.winner_number, |draw| draw.winning_number);
    let mut contest = Contest::new(clients_amount, winner_number);
    let is_drawn = drawn.is_some();
    let (length, cut) = read_rows(disk, &mut contest, is_drawn)?;
    let left_out = |what| {
        move |agency| {
            if is_drawn {
                RecoveryError::NoPart { agencies: clients_amount, agency, what }
            } else {
                RecoveryError::LeftOut { clients_amount, agency, what }
            }
        }
    };
    contest.settle_agencies(clients_amount).map_err(left_out("bets"))?;
    for agency in state.ended.iter().copied() {
        contest.end(agency).map_err(|_| left_out("sent END")(agency))?;
    }
    if let Some(found) = contradictions(&state, clients_amount).into_iter().next() {
        return Err(RecoveryError::Contradiction(found));
    }
    contest.set_draw(state.draw);
    if cut > 0 {
        disk.cut(length)?;
    }
    // A process that was killed may have written what no sync has reached.
    disk.sync()?;
    disk.sync_folder()?;
    Ok(Recovered { contest, length, cut })
}

/// Reads all rows; returns how many bytes are whole rows, and how many more there are.
fn read_rows(disk: &impl Disk, contest: &mut Contest, is_drawn: bool) -> Result<(u64, u64), RecoveryError> {
    let mut reader = RowReader::new(|buffer: &mut [u8], at| disk.read_at(buffer, at));
    loop {
        match reader.next_line()? {
            Line::Row(row) => contest.recover_row(row.agency, row.number, row.document.as_bytes()),
            Line::Damaged(error) => return Err(RecoveryError::Row { line: reader.line(), error }),
            Line::End { torn: 1.. } if is_drawn => {
                return Err(RecoveryError::TornAfterDraw { line: reader.line() + 1 });
            }
            Line::End { torn } => return Ok((reader.offset(), torn)),
        }
    }
}
