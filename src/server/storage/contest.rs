//! The contest, pure: which bets each agency has, which agencies have ended, who won, and what is allowed next.
//!
//! The bets of a group are added first. Then they are [committed](Contest::commit) once they are on disk, or
//! [rolled back](Contest::rollback).

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
    winning_number: u32,
    draw: Option<Draw>,
    ended: u16,
    bets: u64,
    /// How many of the bets are committed.
    committed: u64,
    /// How to remove the bets that are not committed, in the order in which they were added.
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
    /// How many documents won; one may be empty.
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

/// The rows of a request, once they are checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Checked {
    /// How many rows there are, those that were skipped included.
    pub(super) rows: u64,
    /// The length of the rows that were skipped, in bytes.
    pub(super) skipped: usize,
}

/// A position among the bets that are not committed. The bets after it can be removed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark(usize);

impl Contest {
    /// A contest of agencies 1 to `agencies`, without bets.
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

    pub(super) fn draw(&self) -> Option<&Draw> {
        self.draw.as_ref()
    }

    /// How many bets have the winning number.
    pub(super) fn winner_count(&self) -> u64 {
        self.agencies.iter().map(|agency| agency.won).sum()
    }

    pub(super) fn winning_number(&self) -> u32 {
        self.winning_number
    }

    /// The agencies that have ended, in the order of their numbers.
    pub(super) fn ended_agencies(&self) -> impl Iterator<Item = AgencyId> {
        let numbered = (1..=self.agencies()).zip(&self.agencies);
        numbered.filter(|(_, agency)| agency.ended).filter_map(|(number, _)| AgencyId::new(number))
    }

    pub(super) fn has_ended(&self, agency: AgencyId) -> bool {
        self.get(agency).is_ok_and(|agency| agency.ended)
    }

    fn get(&self, agency: AgencyId) -> Result<&Agency, Refusal> {
        self.agencies.get(agency.index()).ok_or(Refusal::NoSuchAgency { agencies: self.agencies() })
    }

    pub(super) fn stored(&self, agency: AgencyId) -> Result<Stored, Refusal> {
        Ok(self.get(agency)?.stored)
    }

    /// The ENDs, as the state file has them.
    pub(super) fn ends(&self) -> impl Iterator<Item = Ended> {
        self.ended_agencies().map(|agency| {
            let Stored { bets, digest } = self.stored(agency).unwrap_or_default();
            Ended { agency, bets, digest }
        })
    }

    pub(super) fn state_of(&self, agency: AgencyId) -> Result<AgencyState, Refusal> {
        Ok(match (&self.draw, self.get(agency)?.ended) {
            (Some(_), _) => AgencyState::Drawn,
            (None, true) => AgencyState::Ended,
            (None, false) => AgencyState::Open,
        })
    }

    /// The winning documents of an agency, separated. None before the draw.
    pub(super) fn winners(&self, agency: AgencyId) -> Result<Option<&[u8]>, Refusal> {
        let winners = &self.get(agency)?.winners;
        Ok(self.draw.as_ref().map(|_| winners.as_slice()))
    }

    /// The counts of all agencies from an index on.
    pub(super) fn counts(&self, from: u16) -> impl Iterator<Item = AgencyCount> {
        let rest = self.agencies.get(from.into()..).unwrap_or_default();
        rest.iter().map(|agency| AgencyCount { bets: agency.stored.bets, ended: agency.ended })
    }

    /// Whether an agency may bring new bets.
    pub(super) fn check_open(&self, agency: AgencyId) -> Result<(), Refusal> {
        match self.state_of(agency)? {
            AgencyState::Open => Ok(()),
            AgencyState::Ended => Err(Refusal::AgencyEnded { agency }),
            AgencyState::Drawn => Err(Refusal::Drawn),
        }
    }

    /// Checks the rows of a request and adds them, except the first `skip`. The handler has checked them too, but it may
    /// have been taken over. If `only` names an agency, a row of another one is refused. If a row is refused, none is added.
    pub(super) fn add(&mut self, rows: &[u8], only: Option<AgencyId>, skip: u64) -> Result<Checked, Refusal> {
        if rows.is_empty() {
            return Err(Refusal::Malformed);
        }
        let mark = self.mark();
        let mut checked = Checked::default();
        let mut last_agency = None;
        let result = for_each_row(rows, |row| {
            if only.is_some_and(|agency| agency != row.agency) {
                return Err(Refusal::OtherAgency);
            }
            checked.rows += 1;
            if checked.rows <= skip {
                checked.skipped += row.bytes.len();
                return Ok(());
            }
            if last_agency.replace(row.agency) != Some(row.agency) {
                self.begin_run(row.agency)?;
            }
            self.add_row(&row)
        });
        result.inspect_err(|_| self.roll_back_to(mark))?;
        Ok(checked)
    }

    /// Begins a run of rows of one agency: checks that it may bring new bets, and remembers what it has.
    fn begin_run(&mut self, id: AgencyId) -> Result<(), Refusal> {
        self.check_open(id)?;
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
        let beyond = (1..=self.agencies()).zip(&self.agencies).skip(agencies.into());
        if let Some((number, _)) = beyond.into_iter().find(|(_, agency)| agency.stored.bets > 0) {
            return AgencyId::new(number).map_or(Ok(()), Err);
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

    /// Removes the added bets.
    pub(super) fn rollback(&mut self) {
        self.roll_back_to(Mark(0));
    }

    /// Marks the bets that were added so far.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.changes.len())
    }

    /// Removes the bets that were added after the mark.
    pub(super) fn roll_back_to(&mut self, mark: Mark) {
        for change in self.changes.drain(mark.0.min(self.changes.len())..).rev() {
            let Some(agency) = self.agencies.get_mut(change.agency.index()) else { continue };
            self.bets -= agency.stored.bets - change.stored.bets;
            agency.stored = change.stored;
            agency.won = change.won;
            agency.winners.truncate(change.winners_len);
        }
    }

    /// Marks an agency as ended. False if it was already.
    pub(super) fn end(&mut self, agency: AgencyId) -> Result<bool, Refusal> {
        let changes = !self.get(agency)?.ended;
        if let Some(agency) = self.agencies.get_mut(agency.index()).filter(|_| changes) {
            agency.ended = true;
            self.ended += 1;
        }
        Ok(changes)
    }

    /// Removes an END that could not be stored.
    pub(super) fn undo_end(&mut self, agency: AgencyId) {
        if let Some(agency) = self.agencies.get_mut(agency.index()).filter(|agency| agency.ended) {
            agency.ended = false;
            self.ended -= 1;
        }
    }

    /// Whether the draw must be made now.
    pub(super) fn is_due(&self) -> bool {
        self.draw.is_none() && usize::from(self.ended) == self.agencies.len()
    }

    pub(super) fn set_draw(&mut self, draw: Option<Draw>) {
        self.draw = draw;
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

    fn stored(rows: &[&[u8]]) -> Stored {
        let mut stored = Stored::default();
        for row in rows {
            stored.add(row);
        }
        stored
    }

    const ROW1: &[u8] = b"1,a,b,11,2000-01-01,7574\r\n";
    const ROW2: &[u8] = b"2,a,b,\"2,2\",2000-01-01,7574\r\n";
    const LOSER: &[u8] = b"1,a,b,12,2000-01-01,1\r\n";

    #[test]
    fn a_rollback_removes_what_was_added_since_the_last_commit() {
        let mut contest = Contest::new(2, 7574);
        contest.add(ROW1, None, 0).unwrap();
        assert_eq!(contest.commit(), 1);
        contest.add(&[ROW1, ROW2, LOSER].concat(), None, 0).unwrap();
        let mark = contest.mark();
        contest.add(ROW1, None, 0).unwrap();
        assert_eq!(contest.stored(agency(1)), Ok(stored(&[ROW1, ROW1, LOSER, ROW1])));
        contest.roll_back_to(mark);
        assert_eq!((contest.bets(), contest.stored(agency(1))), (4, Ok(stored(&[ROW1, ROW1, LOSER]))));
        contest.rollback();
        assert_eq!(contest.commit(), 0);
        assert_eq!(contest.bets(), 1);
        assert_eq!(
            [1, 2].map(|number| contest.stored(agency(number))),
            [Ok(stored(&[ROW1])), Ok(stored(&[]))]
        );
        contest.set_draw(Some(Draw { at: "now".into(), agencies: 2, winning_number: 7574, seal: None }));
        assert_eq!(contest.winners(agency(1)), Ok(Some(&b"11"[..])));
    }

    #[test]
    fn rows_that_are_refused_change_nothing() {
        let mut contest = Contest::new(2, 7574);
        contest.end(agency(2)).unwrap();
        let long = [b'1'; 256];
        let mut refused = |rows: &[u8]| {
            let refusal = contest.add(rows, None, 0).unwrap_err();
            assert_eq!((contest.bets(), contest.stored(agency(1))), (0, Ok(stored(&[]))));
            assert!(contest.changes.is_empty());
            refusal
        };
        assert_eq!(refused(b""), Refusal::Malformed);
        for text in [&b"12\x1e34"[..], b"12\x0034", b"\"12\r\n34\"", b"\"1234\"", b"12\xff34", &long] {
            let bad = [b"1,a,b,", text, b",1999-03-17,7\r\n"].concat();
            assert_eq!(refused(&[ROW1, &bad].concat()), Refusal::Malformed, "{text:?}");
        }
        assert_eq!(refused(&[ROW1, ROW2].concat()), Refusal::AgencyEnded { agency: agency(2) });
        assert_eq!(contest.add(ROW2, Some(agency(1)), 1), Err(Refusal::OtherAgency));
    }

    #[test]
    fn a_bet_that_would_make_a_result_too_long_is_refused_and_losing_bets_are_not() {
        let mut contest = Contest { longest_result: 5, ..Contest::new(2, 7574) };
        contest.add(&[ROW1, ROW1].concat(), None, 0).unwrap();
        let full = Err(Refusal::ResultFull { agency: agency(1) });
        assert_eq!(contest.add(&[LOSER, ROW2, ROW1].concat(), None, 0), full);
        assert_eq!((contest.bets(), contest.stored(agency(2))), (2, Ok(stored(&[]))));
        contest.add(&[LOSER, ROW2].concat(), None, 0).unwrap();
        contest.set_draw(Some(Draw { at: "now".into(), agencies: 2, winning_number: 7574, seal: None }));
        assert_eq!(contest.winners(agency(1)), Ok(Some(&b"11\x1e11"[..])));
        assert_eq!(contest.recover_row(&parse_row(ROW1).unwrap()), full.map(drop));
    }
}
