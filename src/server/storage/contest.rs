//! The contest, pure: which bets each agency has, which agencies have ended, who won, and what is allowed next.
//!
//! The bets of a group are added first. Then they are [committed](Contest::commit) once they are on disk, or
//! [undone](Contest::undo).

use std::mem;

use super::state_file::{Ended, Stored};
use crate::ipc::messages::{AgencyCount, Refusal};
use crate::lottery::row::{Row, for_each_row};
use crate::lottery::{AgencyId, Draw};
use crate::protocol::message::AgencyState;
use crate::protocol::record::RECORD_SEPARATOR;

/// The contest as it stands.
#[derive(Debug, Clone)]
pub struct Contest {
    agencies: Vec<Agency>,
    pub(super) winning_number: u32,
    pub(super) draw: Option<Draw>,
    ended: u16,
    bets: u64,
    /// How many of the bets are committed.
    committed: u64,
    /// How to undo what is not committed, in the order in which it was done.
    changes: Vec<Change>,
    /// The most bytes of an agency's winning documents.
    longest_result: usize,
}

/// The length of a RESULT is a `u32`.
const LONGEST_RESULT: usize = u32::MAX as usize;

#[derive(Debug, Clone, Default)]
struct Agency {
    stored: Stored,
    ended: bool,
    /// How many documents won. Their bytes do not tell, because a document may be empty.
    won: u64,
    /// The winning documents, as a RESULT's payload has them.
    winners: Vec<u8>,
}

/// An agency as it was before a change.
#[derive(Debug, Clone)]
struct Change {
    agency: AgencyId,
    stored: Stored,
    won: u64,
    winners_len: usize,
}

/// The rows of a request, once they are added.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Added {
    /// How many rows there are, those that were skipped included.
    pub(super) rows: u64,
    /// The length of the rows that were skipped, in bytes.
    pub(super) skipped: usize,
    /// The index of the request's first change.
    pub(super) first_change: usize,
}

impl Contest {
    /// Makes a contest of agencies 1 to `agencies`, without bets.
    pub(super) fn new(agencies: u16, winning_number: u32) -> Self {
        let agencies = vec![Agency::default(); agencies.into()];
        Self {
            agencies,
            winning_number,
            draw: None,
            ended: 0,
            bets: 0,
            committed: 0,
            changes: Vec::new(),
            longest_result: LONGEST_RESULT,
        }
    }

    pub(super) fn agencies(&self) -> u16 {
        u16::try_from(self.agencies.len()).unwrap_or(u16::MAX)
    }

    pub(super) fn ended(&self) -> u16 {
        self.ended
    }

    pub(super) fn bets(&self) -> u64 {
        self.bets
    }

    /// Counts the bets with the winning number.
    pub(super) fn winner_count(&self) -> u64 {
        self.agencies.iter().map(|agency| agency.won).sum()
    }

    /// Lists the agencies in the order of their numbers.
    fn numbered(&self) -> impl Iterator<Item = (AgencyId, &Agency)> {
        (1..=self.agencies()).filter_map(AgencyId::new).zip(&self.agencies)
    }

    pub(super) fn ended_agencies(&self) -> impl Iterator<Item = AgencyId> {
        self.ends().map(|end| end.agency)
    }

    pub(super) fn has_ended(&self, agency: AgencyId) -> bool {
        self.get(agency).is_ok_and(|agency| agency.ended)
    }

    fn get(&self, agency: AgencyId) -> Result<&Agency, Refusal> {
        self.agencies.get(agency.index()).ok_or(Refusal::NoSuchAgency { agencies: self.agencies() })
    }

    fn get_mut(&mut self, agency: AgencyId) -> Result<&mut Agency, Refusal> {
        let agencies = self.agencies();
        self.agencies.get_mut(agency.index()).ok_or(Refusal::NoSuchAgency { agencies })
    }

    pub(super) fn stored(&self, agency: AgencyId) -> Result<Stored, Refusal> {
        Ok(self.get(agency)?.stored)
    }

    /// Lists the ENDs as the state file has them.
    pub(super) fn ends(&self) -> impl Iterator<Item = Ended> {
        let ended = self.numbered().filter(|(_, agency)| agency.ended);
        ended.map(|(id, Agency { stored, .. })| Ended {
            agency: id,
            bets: stored.bets,
            digest: stored.digest,
        })
    }

    pub(super) fn state_of(&self, agency: AgencyId) -> Result<AgencyState, Refusal> {
        Ok(match (&self.draw, self.get(agency)?.ended) {
            (Some(_), _) => AgencyState::Drawn,
            (None, true) => AgencyState::Ended,
            (None, false) => AgencyState::Open,
        })
    }

    /// Returns the winning documents of an agency, separated; none before the draw.
    pub(super) fn winners(&self, agency: AgencyId) -> Result<Option<&[u8]>, Refusal> {
        let winners = &self.get(agency)?.winners;
        Ok(self.draw.as_ref().map(|_| winners.as_slice()))
    }

    /// Returns the counts of all agencies from an index on.
    pub(super) fn counts(&self, from: u16) -> impl Iterator<Item = AgencyCount> {
        let rest = self.agencies.get(from.into()..).unwrap_or_default();
        rest.iter().map(|agency| AgencyCount { bets: agency.stored.bets, ended: agency.ended })
    }

    /// Checks the rows of a request and adds them, except the first `skip`. The handler has checked them too, but it may
    /// have been taken over. With `only`, all rows must be of that agency. If a row is refused, none is added.
    pub(super) fn add(&mut self, rows: &[u8], only: Option<AgencyId>, skip: u64) -> Result<Added, Refusal> {
        if rows.is_empty() {
            return Err(Refusal::Malformed);
        }
        let mut added = Added { rows: 0, skipped: 0, first_change: self.changes.len() };
        let mut last_agency = None;
        let result = for_each_row(rows, |row| {
            if only.is_some_and(|agency| agency != row.agency) {
                return Err(Refusal::OtherAgency);
            }
            added.rows += 1;
            if added.rows <= skip {
                added.skipped += row.bytes.len();
                return Ok(());
            }
            if last_agency.replace(row.agency) != Some(row.agency) {
                self.begin_run(row.agency)?;
            }
            self.add_row(&row)
        });
        result.inspect_err(|_| self.undo(added.first_change))?;
        Ok(added)
    }

    /// Begins a run of rows of one agency: checks that it may send bets, and remembers what it has.
    fn begin_run(&mut self, id: AgencyId) -> Result<(), Refusal> {
        match self.state_of(id)? {
            AgencyState::Open => {}
            AgencyState::Ended => return Err(Refusal::AgencyEnded { agency: id }),
            AgencyState::Drawn => return Err(Refusal::Drawn),
        }
        let &Agency { stored, won, ref winners, .. } = self.get(id)?;
        self.changes.push(Change { agency: id, stored, won, winners_len: winners.len() });
        Ok(())
    }

    fn add_row(&mut self, row: &Row<'_>) -> Result<(), Refusal> {
        let Some(agency) = self.agencies.get_mut(row.agency.index()) else { return Ok(()) };
        self.bets += 1;
        agency.stored.add(row.bytes);
        if row.number == self.winning_number {
            agency.add_winner(row.document.as_bytes());
            if agency.winners.len() > self.longest_result {
                return Err(Refusal::ResultFull { agency: row.agency });
            }
        }
        Ok(())
    }

    /// Adds a row of the file. Its agency may be beyond the last one until [`Self::settle_agencies`] is called.
    pub(super) fn recover_row(&mut self, row: &Row<'_>) -> Result<(), Refusal> {
        if row.agency.index() >= self.agencies.len() {
            self.agencies.resize_with(row.agency.index() + 1, Agency::default);
        }
        self.add_row(row)
    }

    /// Ends the recovery of rows with `agencies` agencies. Fails with the first agency beyond them that has bets.
    pub(super) fn settle_agencies(&mut self, agencies: u16) -> Result<(), AgencyId> {
        let has_bets = |(_, agency): &(AgencyId, &Agency)| agency.stored.bets > 0;
        if let Some((id, _)) = self.numbered().skip(agencies.into()).find(has_bets) {
            return Err(id);
        }
        self.agencies.resize_with(agencies.into(), Agency::default);
        self.commit();
        Ok(())
    }

    /// Makes the added bets part of the contest. Returns how many there are.
    pub(super) fn commit(&mut self) -> u64 {
        self.changes.clear();
        let added = self.bets - self.committed;
        self.committed = self.bets;
        added
    }

    /// Removes the bets that were added by the changes from this index on.
    pub(super) fn undo(&mut self, first: usize) {
        for change in self.changes.drain(first.min(self.changes.len())..).rev() {
            let Some(agency) = self.agencies.get_mut(change.agency.index()) else { continue };
            self.bets -= agency.stored.bets - change.stored.bets;
            agency.stored = change.stored;
            agency.won = change.won;
            agency.winners.truncate(change.winners_len);
        }
    }

    /// Marks an agency as ended. Returns false if it was already.
    pub(super) fn end(&mut self, agency: AgencyId) -> Result<bool, Refusal> {
        let had_ended = mem::replace(&mut self.get_mut(agency)?.ended, true);
        self.ended += u16::from(!had_ended);
        Ok(!had_ended)
    }

    /// Removes an END that could not be stored.
    pub(super) fn undo_end(&mut self, agency: AgencyId) {
        let had_ended = self.get_mut(agency).is_ok_and(|agency| mem::replace(&mut agency.ended, false));
        self.ended -= u16::from(had_ended);
    }

    /// Tells whether the draw must be made now.
    pub(super) fn is_due(&self) -> bool {
        self.draw.is_none() && usize::from(self.ended) == self.agencies.len()
    }
}

impl Agency {
    fn add_winner(&mut self, document: &[u8]) {
        if self.won > 0 {
            self.winners.push(RECORD_SEPARATOR);
        }
        self.won += 1;
        self.winners.extend_from_slice(document);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lottery::row::parse_row;

    fn agency(number: u16) -> AgencyId {
        AgencyId::new(number).unwrap()
    }

    const ROW1: &[u8] = b"1,a,b,11,2000-01-01,7574\r\n";
    const ROW2: &[u8] = b"2,a,b,\"2,2\",2000-01-01,7574\r\n";
    const LOSER: &[u8] = b"1,a,b,12,2000-01-01,1\r\n";

    #[test]
    fn rows_that_are_refused_change_nothing() {
        let mut contest = Contest::new(2, 7574);
        contest.end(agency(2)).unwrap();
        let malformed = [ROW1, b"1,a,b,12\x0034,1999-03-17,7\r\n"].concat();
        let of_two = [ROW1, ROW2].concat();
        for (rows, only, skip, refusal) in [
            (&b""[..], None, 0, Refusal::Malformed),
            (&malformed, None, 0, Refusal::Malformed),
            (&of_two, None, 0, Refusal::AgencyEnded { agency: agency(2) }),
            (&of_two, Some(agency(1)), 0, Refusal::OtherAgency),
            (ROW2, Some(agency(1)), 1, Refusal::OtherAgency),
        ] {
            assert_eq!(contest.add(rows, only, skip), Err(refusal));
            assert_eq!((contest.bets(), contest.stored(agency(1))), (0, Ok(Stored::default())));
            assert!(contest.changes.is_empty());
        }
    }

    #[test]
    fn a_bet_that_would_make_a_result_too_long_is_refused_and_losing_bets_are_not() {
        let mut contest = Contest { longest_result: 5, ..Contest::new(2, 7574) };
        contest.add(&[ROW1, ROW1].concat(), None, 0).unwrap();
        let full = Refusal::ResultFull { agency: agency(1) };
        assert_eq!(contest.add(&[LOSER, ROW2, ROW1].concat(), None, 0), Err(full));
        assert_eq!((contest.bets(), contest.stored(agency(2))), (2, Ok(Stored::default())));
        contest.add(&[LOSER, ROW2].concat(), None, 0).unwrap();
        contest.draw = Some(Draw { at: "now".into(), agencies: 2, winning_number: 7574, seal: None });
        assert_eq!(contest.winners(agency(1)), Ok(Some(&b"11\x1e11"[..])));
        assert_eq!(contest.recover_row(&parse_row(ROW1).unwrap()), Err(full));
    }
}
