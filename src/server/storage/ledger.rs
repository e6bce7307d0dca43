//! The ledger: decides each request of a group, commits the group to the disk, and then answers.
//!
//! It uses no processes and no channels, so that a test can run it on a simulated disk.
//!
//! [`Ledger::take`] decides a request in memory and adds its rows to the group. [`Ledger::commit`] writes and syncs the
//! group. If the write of several requests fails, they are decided again in their order, and the rows of each are written
//! alone: what the disk does not take is refused, and harms no other client. If the sync fails, all rows are refused.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use chrono::{Local, SecondsFormat};
use thiserror::Error;

use super::answer::{Answer, Decision};
use super::contest::{Added, Contest};
use super::disk::{Disk, FileChanged};
use super::group::{Failure, Group, Role, Taken, WriteAlone};
use super::recovery::{Recovered, RecoveryError, Rules, recover};
use super::state_file::{State, Stored};
use crate::ipc::messages::{ClientToken, Refusal, Reply, Request, Statistics};
use crate::lottery::seal::Hasher;
use crate::lottery::{AgencyId, Draw};

/// The contest, its files, and the group that is not committed yet.
pub struct Ledger<D> {
    disk: D,
    /// The length of the bets file, in bytes.
    length: u64,
    /// Has hashed what is stored.
    hasher: Hasher,
    contest: Contest,
    /// The roles of all clients but new ones.
    roles: HashMap<ClientToken, Role>,
    group: Group,
    /// Clients that make no more requests. Their roles are still needed if the group has to be decided again.
    gone: Vec<ClientToken>,
    statistics: Statistics,
}

/// A group that was committed: each of its requests was carried out or refused.
#[derive(Debug)]
pub struct Committed {
    /// In the order of the requests.
    pub answers: Vec<Answer>,
    /// What the disk did not take: of the bets, and of the state.
    pub(super) failures: [Option<Failure>; 2],
    /// Whether agencies ended with this group.
    pub(super) ended: bool,
    /// Whether the draw was made with this group.
    pub(super) drawn: bool,
    /// Set if the bets file is not as storage left it. Then all requests were refused, and nothing more can be stored.
    pub(super) changed: Option<LedgerError>,
}

/// Why nothing more can be stored.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// Nothing may be answered.
    #[error("can't tell what is on disk, so the server ends; start it again once the disk is in order: {0}")]
    Unknown(io::Error),
    /// Nothing of the group was stored.
    #[error(
        "the bets file was changed while the server had it: {0}; put it back as it was, and start the server again"
    )]
    Changed(#[from] FileChanged),
}

impl<D: Disk> Ledger<D> {
    /// Recovers the contest from the disk. Also returns how many bytes of a torn row were cut off.
    ///
    /// # Errors
    /// The files are damaged or do not belong to this contest: then they are unchanged.
    pub fn open(mut disk: D, rules: Rules) -> Result<(Self, u64), RecoveryError> {
        let Recovered { contest, hasher, length, cut } = recover(&mut disk, rules)?;
        let ledger = Self {
            disk,
            length,
            hasher,
            contest,
            roles: HashMap::new(),
            group: Group::default(),
            gone: Vec::new(),
            statistics: Statistics::default(),
        };
        Ok((ledger, cut))
    }

    /// Returns the contest as it stands.
    pub fn contest(&self) -> &Contest {
        &self.contest
    }

    /// Tells whether the group should be committed before it takes more.
    pub(super) fn is_full(&self) -> bool {
        self.group.is_full()
    }

    /// Decides a request and adds it to the group. `rows` belong to a `StoreBets`.
    pub fn take(&mut self, client: ClientToken, id: u32, request: Request, rows: &[u8]) {
        let role = self.roles.get(&client).copied().unwrap_or_default();
        let mut new_role = role;
        let before = self.group.rows.len();
        let decision = self.decide(&mut new_role, request, rows);
        if new_role != role {
            self.roles.insert(client, new_role);
        }
        let stored = self.group.rows.len() - before;
        self.group.push(Answer { client, id, request, decision }, role, rows, stored);
    }

    /// Forgets a client that makes no more requests, once the group is committed.
    pub(super) fn forget(&mut self, client: ClientToken) {
        self.gone.push(client);
    }

    fn decide(&mut self, role: &mut Role, request: Request, rows: &[u8]) -> Decision {
        match request {
            Request::OpenSession { agency } => {
                self.contest.stored(agency)?;
                if *role != Role::New {
                    return Err(Refusal::Malformed);
                }
                *role = Role::Session { agency, needs: 0 };
                Ok(None)
            }
            Request::StoreBets { first } => match (role, first) {
                (Role::Session { agency, needs }, Some(first)) => {
                    self.add_to_session(*agency, needs, first, rows).map(Some)
                }
                (role @ Role::New, None) => {
                    *role = Role::Spent;
                    let added = self.contest.add(rows, None, 0)?;
                    self.add(rows, &added).map(|()| None)
                }
                _ => Err(Refusal::Malformed),
            },
            Request::EndAgency { agency } => {
                match *role {
                    Role::New => *role = Role::Spent,
                    Role::Session { agency: own, needs } if own == agency => {
                        self.check_nothing_is_missing(agency, needs)?;
                    }
                    Role::Session { .. } | Role::Spent => return Err(Refusal::Malformed),
                }
                if self.contest.end(agency)? {
                    self.group.ends.push(agency);
                }
                Ok(None)
            }
            // The others change nothing.
            _ => Ok(None),
        }
    }

    fn add_to_session(
        &mut self,
        agency: AgencyId,
        needs: &mut u64,
        first: u64,
        rows: &[u8],
    ) -> Result<Stored, Refusal> {
        let stored = self.contest.stored(agency)?.bets;
        let skip = stored.checked_sub(first).ok_or(Refusal::Gap { first, stored })?;
        let added = self.contest.add(rows, Some(agency), skip)?;
        self.add(rows, &added).inspect_err(|_| *needs = first.saturating_add(added.rows))?;
        self.contest.stored(agency)
    }

    /// Adds the rows of a request to the group. If they must be written alone and can't be, refuses them and removes them from
    /// the contest.
    fn add(&mut self, rows: &[u8], added: &Added) -> Result<(), Refusal> {
        let rows = rows.get(added.skipped..).unwrap_or_default();
        if !rows.is_empty() {
            self.write_alone(rows).inspect_err(|_| self.contest.undo(added.first_change))?;
            self.group.rows.extend_from_slice(rows);
        }
        Ok(())
    }

    /// Refuses an END of a session whose earlier bets the disk refused.
    fn check_nothing_is_missing(&self, agency: AgencyId, needs: u64) -> Result<(), Refusal> {
        let stored = self.contest.stored(agency)?.bets;
        if stored < needs && !self.contest.has_ended(agency) {
            return Err(Refusal::Gap { first: needs, stored });
        }
        Ok(())
    }

    /// Puts the group on disk, and makes the draw if it is due.
    ///
    /// # Errors
    /// It is not known what is on disk.
    pub fn commit(&mut self) -> Result<Committed, LedgerError> {
        let was_drawn = self.contest.draw.is_some();
        let (failures, changed) = match self.store() {
            Ok(failures) => (failures, None),
            Err(changed @ LedgerError::Changed(_)) => {
                self.refuse_all();
                ([None; 2], Some(changed))
            }
            Err(error) => return Err(error),
        };
        for client in self.gone.drain(..) {
            self.roles.remove(&client);
        }
        let ended = self.group.ends.iter().any(|agency| self.contest.has_ended(*agency));
        let drawn = !was_drawn && self.contest.draw.is_some();
        Ok(Committed { answers: self.group.finish(), failures, ended, drawn, changed })
    }

    /// Stores the bets, then the ENDs and the draw. What the disk does not take is refused.
    fn store(&mut self) -> Result<[Option<Failure>; 2], LedgerError> {
        Ok([self.store_bets()?, self.store_state()?])
    }

    fn store_bets(&mut self) -> Result<Option<Failure>, LedgerError> {
        if !self.group.has_bets() {
            return Ok(None);
        }
        self.disk.check(self.length)?;
        if self.group.rows.is_empty() {
            return Ok(None);
        }
        let mut failed = None;
        if let Err(error) = self.disk.append(&self.group.rows) {
            self.disk.cut(self.length).map_err(LedgerError::Unknown)?;
            // The rows of a single request were written alone already.
            let refused_len = if self.group.has_several_with_bets() { usize::MAX } else { 0 };
            failed = Some(self.decide_again(refused_len, &error)?);
        }
        let sync = match self.sync() {
            Ok(sync) => sync,
            // The kernel may mark the lost pages as clean. A second sync would then succeed without writing them. So all rows
            // are refused and cut off, and this sync makes the cut durable.
            Err(error) => {
                failed = Some(self.decide_again(0, &error)?);
                self.sync().map_err(LedgerError::Unknown)?
            }
        };
        self.check_stored()?;
        self.length = self.new_length();
        self.hasher.add(&self.group.rows);
        let bets = self.contest.commit();
        if bets > 0 {
            self.statistics.count_group(bets, sync);
        }
        Ok(failed.filter(|failed| failed.requests > 0))
    }

    /// Checks that the rows of the group are in the file at the path. Cuts them off if they are not.
    fn check_stored(&mut self) -> Result<(), LedgerError> {
        let Err(changed) = self.disk.check(self.new_length()) else { return Ok(()) };
        if !matches!(changed, FileChanged::Moved) {
            return Err(LedgerError::Unknown(io::Error::other(changed)));
        }
        self.disk.cut(self.length).and_then(|()| self.disk.sync()).map_err(LedgerError::Unknown)?;
        Err(changed.into())
    }

    fn sync(&mut self) -> io::Result<Duration> {
        let start = Instant::now();
        self.disk.sync().map(|()| start.elapsed())
    }

    /// Rolls the group back, decides its requests again in their order, and writes the rows of each alone. Rows of
    /// `refused_len` bytes or more are refused. Cuts off what the file then holds besides the group.
    fn decide_again(&mut self, refused_len: usize, error: &io::Error) -> Result<Failure, LedgerError> {
        let alone = WriteAlone { refused_len, refusal: refusal_of(error) };
        let group = self.roll_back();
        self.group.alone = Some(alone);
        group.into_requests(|Answer { client, id, request, .. }, rows| self.take(client, id, request, rows));
        let refusal = self.group.alone.take().unwrap_or(alone).refusal;
        self.disk.cut(self.new_length()).map_err(LedgerError::Unknown)?;
        let is_refused = |taken: &&Taken| matches!(taken.answer.decision, Err(Refusal::Disk { .. }));
        let requests = self.group.requests.iter().filter(is_refused).count();
        Ok(Failure { refusal, requests })
    }

    fn roll_back(&mut self) -> Group {
        let group = std::mem::take(&mut self.group);
        self.contest.undo(0);
        group.ends.iter().for_each(|agency| self.contest.undo_end(*agency));
        for Taken { answer, role, .. } in group.requests.iter().rev() {
            self.roles.insert(answer.client, *role);
        }
        group
    }

    /// Writes the rows of one request, if each request's rows have to be written alone.
    fn write_alone(&mut self, rows: &[u8]) -> Result<(), Refusal> {
        let length = self.new_length();
        let Some(alone) = &mut self.group.alone else { return Ok(()) };
        if rows.len() < alone.refused_len {
            let Err(error) = self.disk.append(rows) else { return Ok(()) };
            // If the file can't be cut now, nothing else is written. The cut is tried again at the end.
            let can_go_on = self.disk.cut(length).is_ok();
            *alone = WriteAlone {
                refused_len: if can_go_on { rows.len() } else { 0 },
                refusal: refusal_of(&error),
            };
        }
        Err(alone.refusal)
    }

    /// Returns the length that the bets file has with the rows of the group, in bytes.
    fn new_length(&self) -> u64 {
        self.length + self.group.rows.len() as u64
    }

    /// Stores the ENDs, and the draw if it is due. If that fails, the ENDs are refused.
    fn store_state(&mut self) -> Result<Option<Failure>, LedgerError> {
        let due = self.contest.is_due();
        if self.group.ends.is_empty() && !due {
            return Ok(None);
        }
        // The state file at the path may be that of another server by now.
        if !self.group.has_bets() {
            self.disk.check(self.length)?;
        }
        let draw = if due { Some(self.new_draw()) } else { self.contest.draw.clone() };
        let state = State::new(self.contest.ends().collect(), draw);
        let bytes = state.encode().map_err(LedgerError::Unknown)?;
        if let Err(error) = self.disk.replace_state(&bytes) {
            return Ok(Some(self.refuse_ends(refusal_of(&error))));
        }
        self.disk.sync_folder().or_else(|_| self.disk.sync_folder()).map_err(LedgerError::Unknown)?;
        self.contest.draw = state.draw;
        Ok(None)
    }

    fn refuse_all(&mut self) {
        self.group = self.roll_back();
        for Taken { answer, .. } in &mut self.group.requests {
            answer.decision = Err(Refusal::FileChanged);
        }
    }

    fn refuse_ends(&mut self, refusal: Refusal) -> Failure {
        self.group.ends.iter().for_each(|agency| self.contest.undo_end(*agency));
        let mut requests = 0;
        for Taken { answer, .. } in &mut self.group.requests {
            if let (Request::EndAgency { agency }, Ok(_)) = (answer.request, answer.decision)
                && !self.contest.has_ended(agency)
            {
                answer.decision = Err(refusal);
                requests += 1;
            }
        }
        Failure { refusal, requests }
    }

    fn new_draw(&self) -> Draw {
        Draw {
            at: Local::now().to_rfc3339_opts(SecondsFormat::Secs, false),
            agencies: self.contest.agencies(),
            winning_number: self.contest.winning_number,
            seal: Some(self.hasher.seal(self.contest.bets())),
        }
    }

    /// Makes the reply to a request of a committed group. Its bulk bytes replace those in `bulk`. Returns none if it must wait
    /// for the draw.
    pub fn reply(&mut self, answer: &Answer, bulk: &mut Vec<u8>) -> Option<Reply> {
        bulk.clear();
        let reply = answer
            .resolve(&self.contest, &self.statistics, bulk)
            .unwrap_or_else(|refusal| Some(Reply::Refused(refusal)));
        if let Some(reply) = &reply {
            self.statistics.count_reply(reply);
        }
        reply
    }
}

fn refusal_of(error: &io::Error) -> Refusal {
    Refusal::Disk { errno: error.raw_os_error().unwrap_or(0) }
}
