//! The end of the contest: what the processes said, compared with what is in the file of bets.

use std::path::Path;

use indicatif::ProgressBar;

use super::contest::Claims;
use super::error::DemoError;
use super::output::Output;
use crate::audit::{Count, Files, Report, Tally};
use crate::server::storage::Rules;

/// Prints the table and compares it with the file, in which each agency must have `bets` bets.
pub(super) fn check(claims: &Claims, bets: u64, path: &Path, output: &Output) -> Result<(), DemoError> {
    let told = tally_of(claims);
    let agencies = u16::try_from(claims.winners.len()).unwrap_or(u16::MAX);
    let mut table = Vec::new();
    told.write_table(agencies, &mut table)?;
    output.say(&format!("\n{}", String::from_utf8_lossy(&table)))?;
    output.say(&format!("time: {:.2} s", claims.duration.as_secs_f64()))?;
    output.say(&format!("bets: {}", path.display()))?;

    let winner_number = claims.status.draw.as_ref().map_or(0, |draw| draw.winning_number);
    let rules = Rules { clients_amount: agencies, winner_number };
    let files = Files::open(path)?;
    let report = Report::read(&files, rules, None, &ProgressBar::hidden(), |_| Ok(()))?;
    for &(agency, winners) in &claims.winners {
        // Each bet exactly once: not only what the server says, but what the agency's file has.
        let (told, counted, expected) = (told.of(agency), report.tally.of(agency), Count { bets, winners });
        if counted != expected || told != expected {
            return Err(DemoError::Disagreement { agency, counted, told: expected });
        }
    }
    if report.is_good() { Ok(()) } else { Err(DemoError::BadFile(path.to_owned())) }
}

/// The bets that the server counted, and the winners that the agencies were told.
fn tally_of(claims: &Claims) -> Tally {
    let mut tally = Tally::default();
    for &(agency, winners) in &claims.winners {
        let row = claims.status.per_agency.iter().find(|row| row.agency == agency);
        tally.set(agency, Count { bets: row.map_or(0, |row| row.bets), winners });
    }
    tally
}
