//! How many bets and winners each agency has.

use std::fmt::Display;
use std::io::{self, Write};

use crate::lottery::AgencyId;

/// What one agency has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Its bets.
    pub bets: u64,
    /// Those of them that won.
    pub winners: u64,
}

/// What all agencies have.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Vec<Count>,
}

impl Tally {
    /// Counts a bet.
    pub fn add(&mut self, agency: AgencyId, won: bool) {
        if self.counts.len() <= agency.index() {
            self.counts.resize(agency.index() + 1, Count::default());
        }
        if let Some(count) = self.counts.get_mut(agency.index()) {
            count.bets += 1;
            count.winners += u64::from(won);
        }
    }

    /// What an agency has.
    pub fn of(&self, agency: AgencyId) -> Count {
        self.counts.get(agency.index()).copied().unwrap_or_default()
    }

    /// What all have together.
    pub fn all(&self) -> Count {
        self.counts.iter().fold(Count::default(), |all, count| Count {
            bets: all.bets + count.bets,
            winners: all.winners + count.winners,
        })
    }

    /// The agencies that have bets, each with what it has, in the order of their numbers.
    pub fn with_bets(&self) -> impl Iterator<Item = (AgencyId, Count)> {
        let numbered = self.counts.iter().enumerate();
        numbered
            .filter(|(_, count)| count.bets > 0)
            .filter_map(|(index, count)| Some((AgencyId::new(index + 1)?, *count)))
    }

    /// Writes a table for people, with a line for each agency that takes part or has bets.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write_table(&self, agencies: u16, out: &mut dyn Write) -> io::Result<()> {
        write_row(out, "agency", "bets", "winners")?;
        let last = usize::from(agencies).max(self.counts.len());
        for agency in (1..=last).filter_map(AgencyId::new) {
            let Count { bets, winners } = self.of(agency);
            if agency.get() <= agencies || bets > 0 {
                write_row(out, agency, bets, winners)?;
            }
        }
        let Count { bets, winners } = self.all();
        write_row(out, "all", bets, winners)
    }
}

fn write_row(
    out: &mut dyn Write,
    agency: impl Display,
    bets: impl Display,
    winners: impl Display,
) -> io::Result<()> {
    // Formatted first: the width is for the text, whatever it is the text of.
    writeln!(out, "{:>8} {bets:>12} {winners:>12}", agency.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_who_takes_part_and_who_has_bets() {
        let mut tally = Tally::default();
        let agency = |number: u16| AgencyId::new(number).unwrap();
        tally.add(agency(1), true);
        tally.add(agency(1), false);
        tally.add(agency(4), true);
        let mut text = Vec::new();
        tally.write_table(2, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected = [
            ["agency", "bets", "winners"],
            ["1", "2", "1"],
            ["2", "0", "0"],
            ["4", "1", "1"],
            ["all", "3", "2"],
        ];
        assert_eq!(lines, expected);
        assert_eq!(tally.with_bets().map(|(agency, _)| agency.get()).collect::<Vec<_>>(), [1, 4]);
    }
}
