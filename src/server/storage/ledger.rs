//! The ledger: takes the requests of a group, decides each, puts the whole group on disk, and only then has answers.
//!
//! It knows nothing of processes and channels, so that a test can drive it over a disk of its own.

use std::time::Duration;

use chrono::{Local, SecondsFormat};
use thiserror::Error;

use super::answer::Answer;
use super::batch::Batch;
use super::bet_log::{BetLog, WriteError};
use super::contest::Contest;
use super::disk::Disk;
use super::recovery::{Recovered, RecoveryError, Rules, recover};
use super::state_file::State;
use crate::ipc::client::ClientToken;
use crate::ipc::refusal::Refusal;
use crate::ipc::reply_pipe::Reply;
use crate::ipc::request_queue::Request;
use crate::ipc::statistics::Statistics;
use crate::lottery::{AgencyId, Draw};

/// What a client may do, by what it has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nothing yet: it may open a session, or change something once.
    New,
    /// It has a session of that agency, and changes only that one.
    Session(AgencyId),
    /// Its one change was made.
    Spent,
}

/// The bets, what is decided about them, and the group that is being made.
#[derive(Debug)]
pub struct Ledger<D> {
    contest: Contest,
    log: BetLog<D>,
    group: Group,
    batch: Batch,
    /// How many bets are on disk.
    kept: u64,
    statistics: Statistics,
}

#[derive(Debug, Default)]
struct Group {
    rows: Vec<u8>,
    ends: Vec<AgencyId>,
    answers: Vec<(ClientToken, u32, Answer)>,
    awaiting: Vec<(ClientToken, u32, Answer)>,
}

/// What a group came to.
#[derive(Debug)]
pub struct Committed {
    /// The answers, in the order of the requests.
    pub answers: Vec<(ClientToken, u32, Answer)>,
    /// What is to be answered once the draw has been made.
    pub awaiting: Vec<(ClientToken, u32, Answer)>,
    /// Whether the bets of this group are on disk, or why not.
    pub bets: Result<(), Refusal>,
    /// Whether the ENDs of this group are on disk, or why not.
    pub ends: Result<(), Refusal>,
    /// Whether agencies have ended with this group.
    pub ended: bool,
    /// Whether the draw was made with this group.
    pub drawn: bool,
}

/// The storage service can't go on: nobody knows what is on disk.
#[derive(Debug, Error)]
#[error("can't tell what is on disk, so the server ends; start it again once the disk is in order: {0}")]
pub struct LedgerError(pub std::io::Error);

/// More rows than these don't join a group, in bytes.
pub const GROUP_LIMIT: usize = 1024 * 1024;

impl<D: Disk> Ledger<D> {
    /// Takes up the files of a disk. Returns how many bytes of a torn row were cut off, too.
    ///
    /// # Errors
    /// They can't be taken up.
    pub fn open(mut disk: D, rules: Rules) -> Result<(Self, u64), RecoveryError> {
        let Recovered { contest, length, cut } = recover(&mut disk, rules)?;
        let this = Self {
            kept: contest.bets(),
            contest,
            log: BetLog::new(disk, length),
            group: Group::default(),
            batch: Batch::default(),
            statistics: Statistics::new(),
        };
        Ok((this, cut))
    }

    /// The contest as it stands.
    pub fn contest(&self) -> &Contest {
        &self.contest
    }

    /// Whether the group has as many rows as it should.
    pub fn is_full(&self) -> bool {
        self.group.rows.len() >= GROUP_LIMIT
    }

    /// Takes one whole request into the group. `rows` are those of a `StoreBets`, else empty.
    pub fn take(&mut self, client: ClientToken, role: &mut Role, id: u32, request: &Request, rows: &[u8]) {
        let answer = self.decide(role, request, rows).unwrap_or_else(Answer::Refused);
        let waits = matches!(request, Request::AwaitResult { .. }) && self.waits_for_draw(answer);
        let list = if waits { &mut self.group.awaiting } else { &mut self.group.answers };
        list.push((client, id, answer));
    }

    fn waits_for_draw(&self, answer: Answer) -> bool {
        matches!(answer, Answer::Winners(..)) && self.contest.draw().is_none()
    }

    fn decide(&mut self, role: &mut Role, request: &Request, rows: &[u8]) -> Result<Answer, Refusal> {
        match *request {
            Request::OpenSession { agency } => {
                self.contest.check_takes_part(agency)?;
                if *role != Role::New {
                    return Err(Refusal::Malformed);
                }
                *role = Role::Session(agency);
                Ok(Answer::Opened(agency))
            }
            Request::StoreBets { first } => match (*role, first) {
                (Role::Session(agency), Some(first)) => self.store_session(agency, first, rows),
                (Role::New, None) => {
                    *role = Role::Spent;
                    self.store_classic(rows)
                }
                _ => Err(Refusal::Malformed),
            },
            Request::EndAgency { agency } => {
                match *role {
                    Role::New => *role = Role::Spent,
                    Role::Session(own) if own == agency => {}
                    Role::Session(_) | Role::Spent => return Err(Refusal::Malformed),
                }
                if self.contest.end(agency)? {
                    self.group.ends.push(agency);
                }
                Ok(Answer::Ended(agency))
            }
            Request::Result { agency, offset } => self.winners(agency, offset),
            Request::AwaitResult { agency } => self.winners(agency, 0),
            Request::Status { counts_from } => Ok(Answer::Status(counts_from)),
            Request::Statistics => Ok(Answer::Statistics),
        }
    }

    fn winners(&self, agency: AgencyId, offset: u64) -> Result<Answer, Refusal> {
        self.contest.check_takes_part(agency)?;
        Ok(Answer::Winners(agency, offset))
    }

    fn store_classic(&mut self, rows: &[u8]) -> Result<Answer, Refusal> {
        self.batch.check(rows, None, 0, self.contest.winning_number())?;
        self.contest.check_agencies_of(&self.batch)?;
        self.add(rows);
        Ok(Answer::Stored)
    }

    fn store_session(&mut self, agency: AgencyId, first: u64, rows: &[u8]) -> Result<Answer, Refusal> {
        let stored = self.contest.stored(agency)?;
        let skip = stored.checked_sub(first).ok_or(Refusal::Gap { first, stored })?;
        self.batch.check(rows, Some(agency), skip, self.contest.winning_number())?;
        if self.batch.rows > skip {
            self.contest.check_open(agency)?;
            self.add(rows);
        }
        let upto = first.checked_add(self.batch.rows).ok_or(Refusal::Malformed)?;
        Ok(Answer::SessionStored(agency, upto))
    }

    fn add(&mut self, rows: &[u8]) {
        self.contest.add(&self.batch);
        self.group.rows.extend_from_slice(rows.get(self.batch.new_from..).unwrap_or_default());
    }

    /// Puts the group on disk, and makes the draw if it is due.
    ///
    /// # Errors
    /// Nobody knows what is on disk: nothing may be answered.
    pub fn commit(&mut self) -> Result<Committed, LedgerError> {
        let bets = self.commit_bets()?;
        let ended = !self.group.ends.is_empty();
        let due = self.contest.is_due();
        let ends = if ended || due { self.commit_state(due)? } else { Ok(()) };
        Ok(Committed {
            answers: std::mem::take(&mut self.group.answers),
            awaiting: std::mem::take(&mut self.group.awaiting),
            bets,
            ends,
            ended: ended && ends.is_ok(),
            drawn: due && ends.is_ok(),
        })
    }

    fn commit_bets(&mut self) -> Result<Result<(), Refusal>, LedgerError> {
        if self.group.rows.is_empty() {
            return Ok(Ok(()));
        }
        let mut sync = Duration::ZERO;
        let stored = undone(self.log.append(&self.group.rows).map(|time| sync = time))?;
        self.group.rows.clear();
        self.group.rows.shrink_to(2 * GROUP_LIMIT);
        if stored.is_ok() {
            self.contest.keep_bets();
            self.statistics.group(self.contest.bets() - self.kept, sync);
            self.kept = self.contest.bets();
        } else {
            self.contest.take_back_bets();
        }
        Ok(stored)
    }

    fn commit_state(&mut self, due: bool) -> Result<Result<(), Refusal>, LedgerError> {
        let draw = if due {
            Some(Draw {
                at: Local::now().to_rfc3339_opts(SecondsFormat::Secs, false),
                agencies: self.contest.agencies(),
                winning_number: self.contest.winning_number(),
            })
        } else {
            self.contest.draw().cloned()
        };
        let state = State { ended: self.contest.ended_agencies().collect(), draw: draw.clone() };
        let stored = undone(state.replace(self.log.disk()))?;
        let ends = std::mem::take(&mut self.group.ends);
        if stored.is_ok() {
            self.contest.set_draw(draw);
        } else {
            for agency in ends {
                self.contest.take_back_end(agency);
            }
        }
        Ok(stored)
    }

    /// What an answer of a group that was committed says, and its bulk bytes, which go to `bulk`.
    pub fn reply(&mut self, answer: Answer, committed: &Committed, bulk: &mut Vec<u8>) -> Reply {
        bulk.clear();
        let reply = answer.look_up(&self.contest, &self.statistics, committed, bulk);
        let reply = reply.unwrap_or_else(Reply::Refused);
        self.statistics.answered(&reply);
        reply
    }
}

/// Splits failures: one that was undone refuses what it was for, any other ends the service.
fn undone(outcome: Result<(), WriteError>) -> Result<Result<(), Refusal>, LedgerError> {
    match outcome {
        Ok(()) => Ok(Ok(())),
        Err(WriteError::NotDone(error)) => {
            Ok(Err(Refusal::Disk { errno: error.raw_os_error().unwrap_or(0) }))
        }
        Err(WriteError::Unknown(error)) => Err(LedgerError(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulated_disk::SimulatedDisk;
    use super::*;

    fn ask(ledger: &mut Ledger<SimulatedDisk>, request: &Request) -> Committed {
        ledger.take(ClientToken::random(), &mut Role::New, 1, request, &[]);
        ledger.commit().unwrap()
    }

    #[test]
    fn a_wait_for_the_draw_is_answered_after_it_and_a_wait_in_vain_at_once() {
        let [own, other] = [1_u16, 2].map(|number| AgencyId::new(number).unwrap());
        let rules = Rules { clients_amount: 1, winner_number: 1 };
        let (mut ledger, _) = Ledger::open(SimulatedDisk::empty(), rules).unwrap();
        let mut bulk = Vec::new();

        let early = ask(&mut ledger, &Request::AwaitResult { agency: own });
        assert_eq!((early.answers.len(), early.awaiting.len()), (0, 1));
        let refused = ask(&mut ledger, &Request::AwaitResult { agency: other });
        let reply = ledger.reply(refused.answers[0].2, &refused, &mut bulk);
        assert_eq!(reply, Reply::Refused(Refusal::NoSuchAgency { agencies: 1 }));

        let drawn = ask(&mut ledger, &Request::EndAgency { agency: own });
        assert!(drawn.drawn);
        assert_eq!(ledger.reply(early.awaiting[0].2, &drawn, &mut bulk), Reply::ResultPage { total: 0 });
        let late = ask(&mut ledger, &Request::AwaitResult { agency: own });
        assert_eq!((late.answers.len(), late.awaiting.len()), (1, 0));
        assert_eq!(ledger.reply(late.answers[0].2, &late, &mut bulk), Reply::ResultPage { total: 0 });
    }
}
