//! The ledger: decides each request of a group, commits the group to the disk, and then answers.
//!
//! It knows nothing of processes and channels, so that a test can run it on a simulated disk.

use std::io;

use chrono::{Local, SecondsFormat};
use thiserror::Error;

use super::batch::Batch;
use super::contest::Contest;
use super::disk::{Disk, StoreError};
use super::recovery::{Recovered, RecoveryError, Rules, recover};
use super::state_file::State;
use crate::ipc::codec::encode;
use crate::ipc::messages::{ClientToken, Refusal, Reply, Request, Statistics};
use crate::ipc::storage_end::PAGE;
use crate::lottery::{AgencyId, Draw};

/// The size of a group's rows, in bytes, from which on it takes no more requests.
const GROUP_LIMIT: usize = 1024 * 1024;

/// What a client may still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Open a session, or make one change.
    New,
    /// Change this agency.
    Session(AgencyId),
    /// Ask only: its one change was made.
    Spent,
}

/// The contest, its files, and the group that is not committed yet.
#[derive(Debug)]
pub struct Ledger<D> {
    disk: D,
    /// The length of the bets file, in bytes.
    length: u64,
    contest: Contest,
    group: Group,
    batch: Batch,
    statistics: Statistics,
}

/// What one sync puts on disk.
#[derive(Debug, Default)]
struct Group {
    rows: Vec<u8>,
    ends: Vec<AgencyId>,
    answers: Vec<Answer>,
}

/// An answer that a client gets once its group is committed.
#[derive(Debug)]
pub struct Answer {
    pub(super) client: ClientToken,
    /// The number of the request.
    pub(super) id: u32,
    subject: Subject,
}

/// What an answer is about. Its values are looked up when the group is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Opened(AgencyId),
    Stored,
    /// The agency, and the count it must have for all bets of the request to be stored.
    SessionStored(AgencyId, u64),
    Ended(AgencyId),
    /// The agency, and the offset of the page.
    Winners(AgencyId, u64),
    AwaitedWinners(AgencyId),
    /// The index of the first agency to count, if agencies are counted.
    Status(u16),
    Statistics,
    Refused(Refusal),
}

/// A group that was committed.
#[derive(Debug)]
pub struct Committed {
    /// In the order of the requests.
    pub answers: Vec<Answer>,
    /// Whether all of its bets are on disk, or none.
    pub(super) bets: Result<(), Refusal>,
    /// The same of its ENDs, and of the draw if it was due.
    pub(super) ends: Result<(), Refusal>,
    /// Whether agencies ended with this group.
    pub(super) ended: bool,
    /// Whether the draw was made with this group.
    pub(super) drawn: bool,
}

/// It is not known what is on disk: nothing may be answered.
#[derive(Debug, Error)]
#[error("can't tell what is on disk, so the server ends; start it again once the disk is in order: {0}")]
pub struct LedgerError(io::Error);

impl<D: Disk> Ledger<D> {
    /// Recovers the contest from the disk. Also returns how many bytes of a torn row were cut off.
    ///
    /// # Errors
    /// The files are damaged or do not belong to this contest: then they are unchanged.
    pub fn open(mut disk: D, rules: Rules) -> Result<(Self, u64), RecoveryError> {
        let Recovered { contest, length, cut } = recover(&mut disk, rules)?;
        let (group, batch, statistics) = (Group::default(), Batch::default(), Statistics::default());
        Ok((Self { disk, length, contest, group, batch, statistics }, cut))
    }

    /// The contest as it stands.
    pub fn contest(&self) -> &Contest {
        &self.contest
    }

    /// Whether the group should be committed before it takes more.
    pub(super) fn is_full(&self) -> bool {
        self.group.rows.len() >= GROUP_LIMIT
    }

    /// Decides a request and adds it to the group. `rows` belong to a `StoreBets`.
    pub fn take(&mut self, client: ClientToken, role: &mut Role, id: u32, request: &Request, rows: &[u8]) {
        let subject = self.decide(role, request, rows).unwrap_or_else(Subject::Refused);
        self.group.answers.push(Answer { client, id, subject });
    }

    fn decide(&mut self, role: &mut Role, request: &Request, rows: &[u8]) -> Result<Subject, Refusal> {
        match *request {
            Request::OpenSession { agency } => {
                self.contest.check_takes_part(agency)?;
                if *role != Role::New {
                    return Err(Refusal::Malformed);
                }
                *role = Role::Session(agency);
                Ok(Subject::Opened(agency))
            }
            Request::StoreBets { first } => match (*role, first) {
                (Role::Session(agency), Some(first)) => self.add_to_session(agency, first, rows),
                (Role::New, None) => {
                    *role = Role::Spent;
                    self.add_classic(rows)
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
                Ok(Subject::Ended(agency))
            }
            Request::Result { agency, offset } => Ok(Subject::Winners(agency, offset)),
            Request::AwaitResult { agency } => Ok(Subject::AwaitedWinners(agency)),
            Request::Status { counts_from } => Ok(Subject::Status(counts_from)),
            Request::Statistics => Ok(Subject::Statistics),
        }
    }

    fn add_classic(&mut self, rows: &[u8]) -> Result<Subject, Refusal> {
        self.batch.check(rows, None, 0, self.contest.winning_number())?;
        self.batch.runs.iter().try_for_each(|(agency, _)| self.contest.check_open(*agency))?;
        self.add(rows);
        Ok(Subject::Stored)
    }

    fn add_to_session(&mut self, agency: AgencyId, first: u64, rows: &[u8]) -> Result<Subject, Refusal> {
        let stored = self.contest.stored(agency)?;
        let skip = stored.checked_sub(first).ok_or(Refusal::Gap { first, stored })?;
        self.batch.check(rows, Some(agency), skip, self.contest.winning_number())?;
        if self.batch.rows > skip {
            self.contest.check_open(agency)?;
            self.add(rows);
        }
        let upto = first.checked_add(self.batch.rows).ok_or(Refusal::Malformed)?;
        Ok(Subject::SessionStored(agency, upto))
    }

    /// Adds the rows of the batch that was checked.
    fn add(&mut self, rows: &[u8]) {
        self.contest.add(&self.batch);
        self.group.rows.extend_from_slice(rows.get(self.batch.new_from..).unwrap_or_default());
    }

    /// Puts the group on disk, and makes the draw if it is due.
    ///
    /// # Errors
    /// It is not known what is on disk.
    pub fn commit(&mut self) -> Result<Committed, LedgerError> {
        let bets = self.commit_bets()?;
        let ended = !self.group.ends.is_empty();
        let due = self.contest.is_due();
        let ends = if ended || due { self.commit_state(due)? } else { Ok(()) };
        let answers = std::mem::take(&mut self.group.answers);
        Ok(Committed { answers, bets, ends, ended: ended && ends.is_ok(), drawn: due && ends.is_ok() })
    }

    fn commit_bets(&mut self) -> Result<Result<(), Refusal>, LedgerError> {
        let rows = &mut self.group.rows;
        if rows.is_empty() {
            return Ok(Ok(()));
        }
        let outcome = known(self.disk.store_rows(rows, self.length))?;
        match outcome {
            Ok(sync) => {
                self.length += rows.len() as u64;
                self.statistics.count_group(self.contest.commit(), sync);
            }
            Err(_) => self.contest.rollback(),
        }
        rows.clear();
        rows.shrink_to(2 * GROUP_LIMIT);
        Ok(outcome.map(drop))
    }

    fn commit_state(&mut self, due: bool) -> Result<Result<(), Refusal>, LedgerError> {
        let draw = if due { Some(self.new_draw()) } else { self.contest.draw().cloned() };
        let state = State { ended: self.contest.ended_agencies().collect(), draw };
        let ends = std::mem::take(&mut self.group.ends);
        let bytes = state.encode().map_err(LedgerError)?;
        let outcome = known(self.disk.store_state(&bytes))?;
        match outcome {
            Ok(()) => self.contest.set_draw(state.draw),
            Err(_) => ends.into_iter().for_each(|agency| self.contest.undo_end(agency)),
        }
        Ok(outcome)
    }

    fn new_draw(&self) -> Draw {
        Draw {
            at: Local::now().to_rfc3339_opts(SecondsFormat::Secs, false),
            agencies: self.contest.agencies(),
            winning_number: self.contest.winning_number(),
        }
    }

    /// The reply to a request of a committed group; its bulk bytes replace those in `bulk`. None if it has to wait for
    /// the draw.
    pub fn reply(&mut self, answer: &Answer, committed: &Committed, bulk: &mut Vec<u8>) -> Option<Reply> {
        bulk.clear();
        let reply = self
            .resolve(answer.subject, committed, bulk)
            .unwrap_or_else(|refusal| Some(Reply::Refused(refusal)));
        if let Some(reply) = &reply {
            self.statistics.count_reply(reply);
        }
        reply
    }

    fn resolve(
        &self,
        subject: Subject,
        committed: &Committed,
        bulk: &mut Vec<u8>,
    ) -> Result<Option<Reply>, Refusal> {
        let contest = &self.contest;
        let reply = match subject {
            Subject::Opened(agency) => {
                Reply::Opened { stored: contest.stored(agency)?, state: contest.state_of(agency)? }
            }
            Subject::Stored => committed.bets.map(|()| Reply::Stored)?,
            Subject::SessionStored(agency, upto) => match (committed.bets, contest.stored(agency)?) {
                // Bets that were stored before are stored, whatever became of the group.
                (Err(refusal), stored) if stored < upto => return Err(refusal),
                (_, stored) => Reply::SessionStored { stored },
            },
            Subject::Ended(agency) => match committed.ends {
                Err(refusal) if !contest.has_ended(agency) => return Err(refusal),
                _ => Reply::Ended,
            },
            Subject::Winners(agency, offset) => {
                contest.winners(agency)?.map_or(Reply::NotDrawn, |winners| result_page(winners, offset, bulk))
            }
            Subject::AwaitedWinners(agency) => {
                return Ok(contest.winners(agency)?.map(|winners| result_page(winners, 0, bulk)));
            }
            Subject::Status(counts_from) => self.status_page(counts_from, bulk),
            Subject::Statistics => {
                bulk.resize(PAGE, 0);
                let length = encode(&self.statistics, bulk).unwrap_or(0);
                bulk.truncate(length);
                Reply::Statistics
            }
            Subject::Refused(refusal) => return Err(refusal),
        };
        Ok(Some(reply))
    }

    fn status_page(&self, counts_from: u16, bulk: &mut Vec<u8>) -> Reply {
        for count in self.contest.counts(counts_from) {
            let mut bytes = [0; 16];
            let length = encode(&count, &mut bytes).unwrap_or(0);
            // The draw is in the head, and needs some room of the page too.
            if bulk.len() + length > PAGE - 64 {
                break;
            }
            bulk.extend_from_slice(bytes.get(..length).unwrap_or_default());
        }
        Reply::StatusPage {
            agencies: self.contest.agencies(),
            ended: self.contest.ended(),
            bets: self.contest.bets(),
            draw: self.contest.draw().cloned(),
        }
    }
}

fn result_page(winners: &[u8], offset: u64, bulk: &mut Vec<u8>) -> Reply {
    let rest = usize::try_from(offset).ok().and_then(|offset| winners.get(offset..)).unwrap_or_default();
    bulk.extend_from_slice(rest.get(..PAGE).unwrap_or(rest));
    Reply::ResultPage { total: winners.len() as u64 }
}

/// Whether rows or a state were stored, unless that is not known.
fn known<T>(stored: Result<T, StoreError>) -> Result<Result<T, Refusal>, LedgerError> {
    match stored {
        Ok(value) => Ok(Ok(value)),
        Err(StoreError::NotStored(error)) => {
            Ok(Err(Refusal::Disk { errno: error.raw_os_error().unwrap_or(0) }))
        }
        Err(StoreError::Unknown(error)) => Err(LedgerError(error)),
    }
}
