//! How many bets and winners each agency has.

use std::fmt::{self, Display};
use std::io::{self, Write};

use crate::lottery::AgencyId;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) bets: u64,
    pub(crate) winners: u64,
}

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bets and {} winners", self.bets, self.winners)
    }
}

/// The counts of all agencies.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: Vec<Count>,
}

impl Tally {
    /// Counts a bet.
    pub(crate) fn add(&mut self, agency: AgencyId, won: bool) {
        let Count { bets, winners } = self.of(agency);
        self.set(agency, Count { bets: bets + 1, winners: winners + u64::from(won) });
    }

    pub(crate) fn set(&mut self, agency: AgencyId, count: Count) {
        if self.counts.len() <= agency.index() {
            self.counts.resize(agency.index() + 1, Count::default());
        }
        if let Some(found) = self.counts.get_mut(agency.index()) {
            *found = count;
        }
    }

    pub(crate) fn of(&self, agency: AgencyId) -> Count {
        self.counts.get(agency.index()).copied().unwrap_or_default()
    }

    /// The sum of all counts.
    pub(crate) fn all(&self) -> Count {
        self.counts.iter().fold(Count::default(), |all, count| Count {
            bets: all.bets + count.bets,
            winners: all.winners + count.winners,
        })
    }

    pub(crate) fn agencies_with_bets(&self) -> u64 {
        self.counts.iter().filter(|count| count.bets > 0).count() as u64
    }

    /// Writes a table for people: the agencies 1 to `agencies`, and all others that have bets.
    pub(crate) fn write_table(&self, agencies: u16, out: &mut dyn Write) -> io::Result<()> {
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
    // A `Display` of a type need not obey the width, a text does.
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
        assert_eq!(tally.agencies_with_bets(), 2);
    }
}
