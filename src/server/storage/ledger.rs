//! The ledger: takes the requests of a group, decides each, puts the whole group on disk, and only then has answers.
//!
//! It knows nothing of processes and channels, so that a test can drive it over a disk of its own.

use std::time::Duration;

use chrono::{Local, SecondsFormat};
use thiserror::Error;

use super::bet_log::{BetLog, WriteError};
use super::contest::{Batch, Contest};
use super::disk::Disk;
use super::recovery::{Recovered, RecoveryError, Rules, recover};
use super::state_file::{Extent, State};
use crate::ipc::client::ClientToken;
use crate::ipc::codec::encode;
use crate::ipc::refusal::Refusal;
use crate::ipc::reply_pipe::{PAGE, Reply};
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
    /// As the state file has it.
    writing: Option<Extent>,
    group: Group,
    batch: Batch,
    /// How many bets are on disk.
    kept: u64,
    statistics: Statistics,
}

#[derive(Debug, Default)]
struct Group {
    rows: Vec<u8>,
    deceptive: bool,
    ends: Vec<AgencyId>,
    answers: Vec<(ClientToken, u32, Answer)>,
}

/// What is to be answered once the group is on disk. What it says is looked up then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// To `OpenSession`.
    Opened(AgencyId),
    /// To `StoreBets`.
    Stored(Stored),
    /// To `EndAgency`.
    Ended(AgencyId),
    /// To `Result`: from that byte on.
    Winners(AgencyId, u64),
    /// To `Status`: the counts from that index on.
    Status(u16),
    /// To `Statistics`.
    Statistics,
    /// Decided already.
    Refused(Refusal),
}

/// Bets that are stored if the group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// In a session: its agency, and how many bets that must have for all of these to be there.
    session: Option<(AgencyId, u64)>,
}

/// What a group came to.
#[derive(Debug, Default)]
pub struct Committed {
    /// The answers, in the order of the requests.
    pub answers: Vec<(ClientToken, u32, Answer)>,
    /// Why the bets of this group are not on disk.
    pub bets_failed: Option<i32>,
    /// Why the ENDs of this group are not on disk.
    pub ends_failed: Option<i32>,
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
        let Recovered { contest, length, cut, writing } = recover(&mut disk, rules)?;
        let mut this = Self {
            kept: contest.bets(),
            contest,
            log: BetLog::new(disk, length),
            writing,
            group: Group::default(),
            batch: Batch::default(),
            statistics: Statistics::new(),
        };
        this.clear_note().map_err(|LedgerError(error)| error)?;
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
        self.group.answers.push((client, id, answer));
    }

    fn decide(&mut self, role: &mut Role, request: &Request, rows: &[u8]) -> Result<Answer, Refusal> {
        match *request {
            Request::OpenSession { agency } => {
                self.contest.stored(agency)?;
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
            Request::Result { agency, offset, .. } => {
                self.contest.stored(agency)?;
                Ok(Answer::Winners(agency, offset))
            }
            Request::Status { from } => Ok(Answer::Status(from)),
            Request::Statistics => Ok(Answer::Statistics),
        }
    }

    fn store_classic(&mut self, rows: &[u8]) -> Result<Answer, Refusal> {
        self.contest.check_rows(rows, None, 0, &mut self.batch)?;
        self.contest.check_agencies_of(&self.batch)?;
        self.add(rows);
        Ok(Answer::Stored(Stored { session: None }))
    }

    fn store_session(&mut self, agency: AgencyId, first: u64, rows: &[u8]) -> Result<Answer, Refusal> {
        let stored = self.contest.stored(agency)?;
        let skip = stored.checked_sub(first).ok_or(Refusal::Gap { first, stored })?;
        self.contest.check_rows(rows, Some(agency), skip, &mut self.batch)?;
        if self.batch.rows > skip {
            self.contest.check_open(agency)?;
            self.add(rows);
        }
        let upto = first.checked_add(self.batch.rows).ok_or(Refusal::Malformed)?;
        Ok(Answer::Stored(Stored { session: Some((agency, upto)) }))
    }

    fn add(&mut self, rows: &[u8]) {
        self.contest.add(&self.batch);
        self.group.deceptive |= self.batch.deceptive;
        self.group.rows.extend_from_slice(rows.get(self.batch.new_from..).unwrap_or_default());
    }

    /// Puts the group on disk, and makes the draw if it is due.
    ///
    /// # Errors
    /// Nobody knows what is on disk: nothing may be answered.
    pub fn commit(&mut self) -> Result<Committed, LedgerError> {
        let bets_failed = self.commit_bets()?;
        let ended = !self.group.ends.is_empty();
        let due = self.contest.is_due();
        let ends_failed = if ended || due { self.commit_state(due)? } else { None };
        Ok(Committed {
            answers: std::mem::take(&mut self.group.answers),
            bets_failed,
            ends_failed,
            ended: ended && ends_failed.is_none(),
            drawn: due && ends_failed.is_none(),
        })
    }

    fn commit_bets(&mut self) -> Result<Option<i32>, LedgerError> {
        if self.group.rows.is_empty() {
            return Ok(None);
        }
        let extent = self.group.deceptive.then(|| self.log.extent_of(self.group.rows.len()));
        let noted = if extent.is_some() { failure(self.write_state(extent))? } else { None };
        let mut sync = Duration::ZERO;
        let failed = match noted {
            Some(errno) => Some(errno),
            None => failure(self.log.append(&self.group.rows).map(|time| sync = time))?,
        };
        self.group.deceptive = false;
        self.clear_note()?;
        self.group.rows.clear();
        self.group.rows.shrink_to(2 * GROUP_LIMIT);
        if failed.is_none() {
            self.contest.keep_bets();
            self.statistics.group(self.contest.bets() - self.kept, sync);
            self.kept = self.contest.bets();
        } else {
            self.contest.take_back_bets();
        }
        Ok(failed)
    }

    /// Writes the state as it was before the group, and with it where the group is going to stand, if that has to be
    /// known: see [`State::writing`].
    fn write_state(&mut self, writing: Option<Extent>) -> Result<(), WriteError> {
        let ends = &self.group.ends;
        let ended = self.contest.ended_agencies().filter(|agency| !ends.contains(agency)).collect();
        let state = State { ended, draw: self.contest.draw().cloned(), writing };
        state.replace(self.log.disk())?;
        self.writing = writing;
        Ok(())
    }

    /// Takes the note back: the group is whole, or gone. Where that can't be written, the next state has it.
    fn clear_note(&mut self) -> Result<(), LedgerError> {
        if self.writing.is_some() {
            failure(self.write_state(None))?;
        }
        Ok(())
    }

    fn commit_state(&mut self, due: bool) -> Result<Option<i32>, LedgerError> {
        let draw = if due {
            Some(Draw {
                at: Local::now().to_rfc3339_opts(SecondsFormat::Secs, false),
                agencies: self.contest.agencies(),
                winning_number: self.contest.winning_number(),
            })
        } else {
            self.contest.draw().cloned()
        };
        let state =
            State { ended: self.contest.ended_agencies().collect(), draw: draw.clone(), writing: None };
        let failed = failure(state.replace(self.log.disk()))?;
        let ends = std::mem::take(&mut self.group.ends);
        if failed.is_none() {
            self.writing = None;
            self.contest.set_draw(draw);
        } else {
            for agency in ends {
                self.contest.take_back_end(agency);
            }
        }
        Ok(failed)
    }

    /// What an answer of a group that was committed says, and its bulk bytes, which go to `bulk`.
    pub fn reply(&mut self, answer: Answer, committed: &Committed, bulk: &mut Vec<u8>) -> Reply {
        bulk.clear();
        let reply = self.look_up(answer, committed, bulk).unwrap_or_else(Reply::Refused);
        self.statistics.answered(&reply);
        reply
    }

    fn look_up(&self, answer: Answer, committed: &Committed, bulk: &mut Vec<u8>) -> Result<Reply, Refusal> {
        let disk = |errno| Refusal::Disk { errno };
        match answer {
            Answer::Opened(agency) => Ok(Reply::Opened {
                stored: self.contest.stored(agency)?,
                state: self.contest.state_of(agency)?,
            }),
            Answer::Stored(Stored { session: None }) => {
                committed.bets_failed.map_or(Ok(Reply::Stored { stored: 0 }), |errno| Err(disk(errno)))
            }
            Answer::Stored(Stored { session: Some((agency, upto)) }) => {
                let stored = self.contest.stored(agency)?;
                // Bets that were on disk before are so whatever became of the group.
                match committed.bets_failed {
                    Some(errno) if stored < upto => Err(disk(errno)),
                    _ => Ok(Reply::Stored { stored }),
                }
            }
            Answer::Ended(agency) => match committed.ends_failed {
                Some(errno) if self.contest.ended_agencies().all(|ended| ended != agency) => Err(disk(errno)),
                _ => Ok(Reply::Ended),
            },
            Answer::Winners(agency, offset) => {
                let Some(winners) = self.contest.winners(agency)? else { return Ok(Reply::NotDrawn) };
                let rest = usize::try_from(offset).ok().and_then(|offset| winners.get(offset..));
                let rest = rest.unwrap_or_default();
                bulk.extend_from_slice(rest.get(..PAGE).unwrap_or(rest));
                Ok(Reply::ResultPage { total: winners.len() as u64 })
            }
            Answer::Status(from) => Ok(self.status(from, bulk)),
            Answer::Statistics => {
                bulk.resize(PAGE, 0);
                let length = encode(&self.statistics, bulk).unwrap_or(0);
                bulk.truncate(length);
                Ok(Reply::Statistics)
            }
            Answer::Refused(refusal) => Err(refusal),
        }
    }

    fn status(&self, from: u16, bulk: &mut Vec<u8>) -> Reply {
        for count in self.contest.counts(from) {
            let mut bytes = [0; 16];
            // A count is short; and a page holds as many as fit, the draw's share left.
            let length = encode(&count, &mut bytes).unwrap_or(0);
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

/// Splits failures: one that was undone is the system's number for it, any other ends the service.
fn failure(outcome: Result<(), WriteError>) -> Result<Option<i32>, LedgerError> {
    match outcome {
        Ok(()) => Ok(None),
        Err(WriteError::NotDone(error)) => Ok(Some(error.raw_os_error().unwrap_or(0))),
        Err(WriteError::Unknown(error)) => Err(LedgerError(error)),
    }
}
