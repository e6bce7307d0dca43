//! The bets of each agency: how many, how many of them won, and their digest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::io::{self, Write};

use crate::lottery::AgencyId;
use crate::lottery::row::Row;
use crate::server::storage::state_file::Stored;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) stored: Stored,
    pub(crate) winners: u64,
}

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stored: Stored { bets, digest }, winners } = self;
        write!(f, "{bets} bets, {winners} winners, digest {digest}")
    }
}

#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<AgencyId, Count>);

impl Tally {
    /// Counts a bet.
    pub(crate) fn add(&mut self, row: &Row<'_>, won: bool) {
        let count = self.0.entry(row.agency).or_default();
        count.stored.add(row.bytes);
        count.winners += u64::from(won);
    }

    pub(crate) fn set(&mut self, agency: AgencyId, count: Count) {
        self.0.insert(agency, count);
    }

    pub(crate) fn of(&self, agency: AgencyId) -> Count {
        self.0.get(&agency).copied().unwrap_or_default()
    }

    /// Returns how many bets all agencies have.
    pub(crate) fn bets(&self) -> u64 {
        self.0.values().map(|count| count.stored.bets).sum()
    }

    pub(crate) fn agencies_with_bets(&self) -> u64 {
        self.0.values().filter(|count| count.stored.bets > 0).count() as u64
    }

    /// Writes a table for people: the agencies 1 to `agencies`, and all others that have bets.
    pub(crate) fn write_table(&self, agencies: u16, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{:>8} {:>12} {:>12}", "agency", "bets", "winners")?;
        let take_part = (1..=agencies).filter_map(AgencyId::new);
        for agency in take_part.chain(self.0.keys().copied()).collect::<BTreeSet<_>>() {
            let Count { stored, winners } = self.of(agency);
            writeln!(out, "{:>8} {:>12} {winners:>12}", agency.get(), stored.bets)?;
        }
        let winners: u64 = self.0.values().map(|count| count.winners).sum();
        writeln!(out, "{:>8} {:>12} {winners:>12}", "all", self.bets())
    }
}
