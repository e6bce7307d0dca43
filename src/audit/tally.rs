//! How many bets and winners each agency has.

use std::fmt;

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
    #[must_use]
    pub fn of(&self, agency: AgencyId) -> Count {
        self.counts.get(agency.index()).copied().unwrap_or_default()
    }

    /// What all have together.
    #[must_use]
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

    /// As a table for people, with a line for each agency that takes part or has bets.
    #[must_use]
    pub fn table(&self, agencies: u16) -> Table<'_> {
        Table { tally: self, agencies }
    }
}

/// A table for people.
#[derive(Debug)]
pub struct Table<'a> {
    tally: &'a Tally,
    agencies: u16,
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  agency         bets      winners")?;
        let last = usize::from(self.agencies).max(self.tally.counts.len());
        let taking_part =
            |agency: &AgencyId| agency.get() <= self.agencies || self.tally.of(*agency).bets > 0;
        for agency in (1..=last).filter_map(AgencyId::new).filter(taking_part) {
            line(f, &agency, self.tally.of(agency))?;
        }
        line(f, &"all", self.tally.all())
    }
}

fn line(f: &mut fmt::Formatter<'_>, agency: &dyn fmt::Display, count: Count) -> fmt::Result {
    // Formatted first: the width is for the text, whatever it is the text of.
    writeln!(f, "{:>8} {:>12} {:>12}", agency.to_string(), count.bets, count.winners)
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
        let text = tally.table(2).to_string();
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
