//! The contest, pure: how many bets each agency has, which agencies have ended, who won, and what is allowed next.
//!
//! The bets of a group are added first. Then they are [committed](Contest::commit) once they are on disk, or
//! [rolled back](Contest::rollback).

use super::batch::Batch;
use crate::ipc::messages::{AgencyCount, Refusal};
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
    /// What the bets that are not committed have changed, in its order.
    changes: Vec<Change>,
}

#[derive(Debug, Clone, Default)]
struct Agency {
    stored: u64,
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
    stored: u64,
    won: u64,
    winners_len: usize,
}

impl Contest {
    /// A contest of agencies 1 to `agencies`, without bets.
    pub(super) fn new(agencies: u16, winning_number: u32) -> Self {
        let agencies = vec![Agency::default(); agencies.into()];
        Self { agencies, winning_number, draw: None, ended: 0, bets: 0, committed: 0, changes: Vec::new() }
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

    pub(super) fn check_takes_part(&self, agency: AgencyId) -> Result<(), Refusal> {
        self.get(agency).map(drop)
    }

    pub(super) fn stored(&self, agency: AgencyId) -> Result<u64, Refusal> {
        Ok(self.get(agency)?.stored)
    }

    pub(super) fn state_of(&self, agency: AgencyId) -> Result<AgencyState, Refusal> {
        Ok(match (&self.draw, self.get(agency)?.ended) {
            (Some(_), _) => AgencyState::Drawn,
            (None, true) => AgencyState::Ended,
            (None, false) => AgencyState::Open,
        })
    }

    /// The winning documents of an agency, separated; none where the draw has not been made.
    pub(super) fn winners(&self, agency: AgencyId) -> Result<Option<&[u8]>, Refusal> {
        let winners = &self.get(agency)?.winners;
        Ok(self.draw.as_ref().map(|_| winners.as_slice()))
    }

    /// The counts of all agencies from an index on.
    pub(super) fn counts(&self, from: u16) -> impl Iterator<Item = AgencyCount> {
        let rest = self.agencies.get(from.into()..).unwrap_or_default();
        rest.iter().map(|agency| AgencyCount { bets: agency.stored, ended: agency.ended })
    }

    /// Whether an agency may bring new bets.
    pub(super) fn check_open(&self, agency: AgencyId) -> Result<(), Refusal> {
        match self.state_of(agency)? {
            AgencyState::Open => Ok(()),
            AgencyState::Ended => Err(Refusal::AgencyEnded { agency }),
            AgencyState::Drawn => Err(Refusal::Drawn),
        }
    }

    /// Adds the new rows of a batch, which all belong to agencies that take part.
    pub(super) fn add(&mut self, batch: &Batch) {
        for &(id, count) in &batch.runs {
            let Some(agency) = self.agencies.get_mut(id.index()) else { continue };
            let Agency { stored, won, .. } = *agency;
            self.changes.push(Change { agency: id, stored, won, winners_len: agency.winners.len() });
            agency.stored += count;
            self.bets += count;
        }
        for (agency, document) in &batch.winners {
            if let Some(agency) = self.agencies.get_mut(agency.index()) {
                agency.add_winner(document);
            }
        }
    }

    /// Adds a row of the file. Its agency may be beyond the last one until [`Self::settle_agencies`] is called.
    pub(super) fn recover_row(&mut self, agency: AgencyId, number: u32, document: &[u8]) {
        if agency.index() >= self.agencies.len() {
            self.agencies.resize_with(agency.index() + 1, Agency::default);
        }
        self.bets += 1;
        if let Some(agency) = self.agencies.get_mut(agency.index()) {
            agency.stored += 1;
            if number == self.winning_number {
                agency.add_winner(document);
            }
        }
    }

    /// Ends the recovery of rows with `agencies` agencies. Fails with the first agency beyond them that has bets.
    pub(super) fn settle_agencies(&mut self, agencies: u16) -> Result<(), AgencyId> {
        let beyond = (1..=self.agencies()).zip(&self.agencies).skip(agencies.into());
        if let Some((number, _)) = beyond.into_iter().find(|(_, agency)| agency.stored > 0) {
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
        while let Some(Change { agency, stored, won, winners_len }) = self.changes.pop() {
            let Some(agency) = self.agencies.get_mut(agency.index()) else { continue };
            agency.stored = stored;
            agency.won = won;
            agency.winners.truncate(winners_len);
        }
        self.bets = self.committed;
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

    fn agency(number: u16) -> AgencyId {
        AgencyId::new(number).unwrap()
    }

    fn add(contest: &mut Contest, rows: &[u8]) {
        let mut batch = Batch::default();
        batch.check(rows, None, 0, contest.winning_number).unwrap();
        contest.add(&batch);
    }

    const ROW1: &[u8] = b"1,a,b,11,2000-01-01,7574\r\n";
    const ROW2: &[u8] = b"2,a,b,\"2,2\",2000-01-01,7574\r\n";
    const LOSER: &[u8] = b"1,a,b,12,2000-01-01,1\r\n";

    #[test]
    fn a_rollback_removes_what_was_added_since_the_last_commit() {
        let mut contest = Contest::new(2, 7574);
        add(&mut contest, ROW1);
        assert_eq!(contest.commit(), 1);
        add(&mut contest, &[ROW1, ROW2, ROW1].concat());
        add(&mut contest, ROW1);
        contest.rollback();
        assert_eq!(contest.commit(), 0);
        assert_eq!((contest.bets(), contest.stored(agency(1)), contest.stored(agency(2))), (1, Ok(1), Ok(0)));
        contest.set_draw(Some(Draw { at: "now".into(), agencies: 2, winning_number: 7574 }));
        assert_eq!(contest.winners(agency(1)), Ok(Some(&b"11"[..])));
    }

    #[test]
    fn skipped_rows_are_checked_but_not_added() {
        let mut contest = Contest::new(2, 7574);
        let rows = [ROW1, LOSER, LOSER].concat();
        let mut batch = Batch::default();
        batch.check(&rows, Some(agency(1)), 2, 7574).unwrap();
        assert_eq!((batch.rows, batch.new_from), (3, ROW1.len() + LOSER.len()));
        contest.add(&batch);
        assert_eq!(contest.stored(agency(1)), Ok(1));
        assert_eq!(batch.check(ROW2, Some(agency(1)), 1, 7574), Err(Refusal::OtherAgency));
    }

    #[test]
    fn an_agency_with_bets_cannot_be_left_out() {
        let mut contest = Contest::new(1, 7574);
        contest.recover_row(agency(3), 7574, b"x");
        assert_eq!(contest.clone().settle_agencies(2), Err(agency(3)));
        assert_eq!(contest.settle_agencies(5), Ok(()));
        assert_eq!((contest.agencies(), contest.stored(agency(3))), (5, Ok(1)));
    }
}
