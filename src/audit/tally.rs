//! The bets of each agency: how many, how many of them won, and their digest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::io::{self, Write};

use crate::lottery::row::Row;
use crate::lottery::{AgencyId, Digest};
use crate::server::storage::state_file::Stored;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) bets: u64,
    pub(crate) winners: u64,
    pub(crate) digest: Digest,
}

impl Count {
    pub(super) fn stored(self) -> Stored {
        Stored { bets: self.bets, digest: self.digest }
    }
}

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bets, {} winners, digest {}", self.bets, self.winners, self.digest)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<AgencyId, Count>);

impl Tally {
    /// Counts a bet.
    pub(crate) fn add(&mut self, row: &Row<'_>, won: bool) {
        let count = self.0.entry(row.agency).or_default();
        count.bets += 1;
        count.winners += u64::from(won);
        count.digest = count.digest.with_row(row.bytes);
    }

    pub(crate) fn set(&mut self, agency: AgencyId, count: Count) {
        self.0.insert(agency, count);
    }

    pub(crate) fn of(&self, agency: AgencyId) -> Count {
        self.0.get(&agency).copied().unwrap_or_default()
    }

    /// The sums over all agencies.
    pub(crate) fn all(&self) -> Count {
        self.0.values().fold(Count::default(), |all, count| Count {
            bets: all.bets + count.bets,
            winners: all.winners + count.winners,
            ..all
        })
    }

    pub(crate) fn agencies_with_bets(&self) -> u64 {
        self.0.values().filter(|count| count.bets > 0).count() as u64
    }

    /// Writes a table for people: the agencies 1 to `agencies`, and all others that have bets.
    pub(crate) fn write_table(&self, agencies: u16, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{:>8} {:>12} {:>12}", "agency", "bets", "winners")?;
        let take_part = (1..=agencies).filter_map(AgencyId::new);
        for agency in take_part.chain(self.0.keys().copied()).collect::<BTreeSet<_>>() {
            let Count { bets, winners, .. } = self.of(agency);
            writeln!(out, "{:>8} {bets:>12} {winners:>12}", agency.get())?;
        }
        let Count { bets, winners, .. } = self.all();
        writeln!(out, "{:>8} {bets:>12} {winners:>12}", "all")
    }
}
