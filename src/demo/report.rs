//! The report at the end: compares what the processes said with the file of bets.

use std::fmt::{self, Display};
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder};

use super::contest::Claims;
use super::error::DemoError;
use super::output::Output;
use crate::lottery::AgencyId;
use crate::lottery::bet::parse_decimal;
use crate::lottery::draw::wins;

/// The bets of an agency, and how many of them won.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BetCount {
    /// All of them.
    pub(crate) bets: u64,
    /// Those that won.
    pub(crate) winners: u64,
}

impl Display for BetCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bets and {} winners", self.bets, self.winners)
    }
}

/// Print the table, and compare it with the file, in which each agency must have `bets` bets.
pub(crate) fn check(claims: &Claims, bets: u64, path: &Path, output: &Output) -> Result<(), DemoError> {
    let rows = rows_of(claims);
    for line in table(&rows) {
        output.say(&line)?;
    }
    output.say(&format!("time: {:.2} s", claims.duration.as_secs_f64()))?;
    output.say(&format!("bets: {}", path.display()))?;

    let winning_number = claims.status.draw.as_ref().map(|draw| draw.winning_number);
    let counted = count(path, rows.len(), winning_number)
        .map_err(|error| DemoError::File { path: path.to_owned(), error: error.into() })?;
    for ((agency, told), counted) in rows.into_iter().zip(counted) {
        // Each bet exactly once: not only what the server says, but what the agency's file has.
        let expected = BetCount { bets, ..told };
        if counted != expected || told != expected {
            return Err(DemoError::Disagreement {
                agency,
                counted: counted.to_string(),
                told: expected.to_string(),
            });
        }
    }
    Ok(())
}

fn rows_of(claims: &Claims) -> Vec<(AgencyId, BetCount)> {
    let bets_of = |agency| {
        let found = claims.status.per_agency.iter().find(|row| row.agency == agency);
        found.map_or(0, |row| row.bets)
    };
    claims
        .winners
        .iter()
        .map(|&(agency, winners)| (agency, BetCount { bets: bets_of(agency), winners }))
        .collect()
}

fn table(rows: &[(AgencyId, BetCount)]) -> Vec<String> {
    let total = rows.iter().fold(BetCount::default(), |total, (_, row)| BetCount {
        bets: total.bets + row.bets,
        winners: total.winners + row.winners,
    });
    let mut lines = vec![String::new(), line("agency", "bets stored", "winners")];
    lines.extend(rows.iter().map(|(agency, row)| line(agency, row.bets, row.winners)));
    lines.extend([line("all", total.bets, total.winners), String::new()]);
    lines
}

fn line(agency: impl Display, bets: impl Display, winners: impl Display) -> String {
    // Formatted first: the width is for the text, whatever it is the text of.
    format!("{:>8} {bets:>12} {winners:>8}", agency.to_string())
}

/// Counts the rows of agencies 1 to `agencies`, with a reader that knows nothing of how the server writes.
fn count(path: &Path, agencies: usize, winning_number: Option<u32>) -> csv::Result<Vec<BetCount>> {
    let mut tallies = vec![BetCount::default(); agencies];
    let mut rows = ReaderBuilder::new().has_headers(false).from_path(path)?;
    let mut row = ByteRecord::new();
    while rows.read_byte_record(&mut row)? {
        let column = |index| row.get(index).and_then(parse_decimal);
        let agency = column(0).and_then(AgencyId::new);
        let Some(tally) = agency.and_then(|agency| tallies.get_mut(agency.index())) else { continue };
        tally.bets += 1;
        let won = column(5).zip(winning_number).is_some_and(|(number, winning)| wins(number, winning));
        tally.winners += u64::from(won);
    }
    Ok(tallies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bets_and_winners_are_counted_by_agency() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bets.csv");
        let rows = "1,a,b,1,2000-01-01,7\r\n2,\"a\r\n\",b,2,2000-01-01,7\r\n2,a,b,3,2000-01-01,8\r\n";
        std::fs::write(&path, rows).unwrap();
        let tally = |bets, winners| BetCount { bets, winners };
        assert_eq!(count(&path, 3, Some(7)).unwrap(), [tally(1, 1), tally(2, 1), tally(0, 0)]);
    }

    #[test]
    fn the_table_ends_with_the_sum() {
        let id = |number: u16| AgencyId::new(number).unwrap();
        let rows = [(id(1), BetCount { bets: 10, winners: 1 }), (id(2), BetCount { bets: 20, winners: 2 })];
        let lines = table(&rows);
        assert_eq!(lines[2], "       1           10        1");
        assert_eq!(lines[4], "     all           30        3");
    }
}
