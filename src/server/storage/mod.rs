//! The storage service: one process, the only reader and writer of the bets.
//!
//! It takes what the request queue holds, decides each request, puts the whole group on disk with one write and one
//! sync, and only then answers, through each client's pipe. When all agencies have ended it makes the draw.
//!
//! It takes its requests from processes that may have been taken over, so it trusts none of them: a head is read within
//! bounds, the rows are checked as if nobody had, and a token says for whom it speaks. Yet it is not confined as the
//! handlers are. It never reads a byte that a client sent as the client sent it, has no client's socket, and its parsers
//! are code without `unsafe`, which a fuzzer runs. It has to open the bets by their path, to replace the state file
//! (create, rename, sync of the folder), to cut the bets at a size, and to take descriptors from the acceptor as long as
//! it lives: a filter that lets all this through would keep little away from one who can already write what the
//! contest is.
//!
//! It never waits for a handler or a client: what it writes to a pipe finds room or ends that client, and the shared
//! mutex it only tries. Signals it leaves to the acceptor, which tells it when to stop.

pub mod answer;
pub mod batch;
pub mod bet_log;
pub mod clients;
pub mod contest;
pub mod contradictions;
pub mod disk;
pub mod ledger;
pub mod recovery;
pub mod row_reader;
#[cfg(test)]
mod simulated_disk;
pub mod state_file;

use std::collections::HashMap;
use std::fmt::Display;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use self::clients::Clients;
use self::disk::FileDisk;
use self::ledger::{Committed, Ledger};
use self::recovery::{RecoveryError, Rules};
use crate::ipc::client::{ClientSerial, ClientToken};
use crate::ipc::control::{FromStorage, StorageEnd, Told};
use crate::ipc::finished_agencies::FinishedAgencies;
use crate::ipc::reply_pipe::ReplyHead;
use crate::ipc::request_queue::{PartHead, RequestReceiver};
use crate::logging::{Field, Level, Outcome, event, info};
use crate::system::mqueue::QueueReceiver;

/// Exit status: it was told to stop, and all it had received is stored and answered.
pub const STOPPED: i32 = 0;
/// Exit status: it ended of its own accord and has logged why; starting it again would not help.
pub const GAVE_UP: i32 = 3;

/// What the service runs with.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// The file of all bets.
    pub path: PathBuf,
    /// The contest's.
    pub rules: Rules,
    /// The longest payload that a client may send, in bytes.
    pub max_payload: u32,
}

/// The process, from its first to its last act. Returns its exit status.
#[must_use]
pub fn run(
    config: &StorageConfig,
    queue: &QueueReceiver,
    control: &StorageEnd,
    finished: &FinishedAgencies,
) -> i32 {
    let Some(ledger) = open_ledger(config) else { return GAVE_UP };
    // A row is longer than its record by the doubled quotes, and by one byte for its end.
    let longest_request = (config.max_payload as usize).saturating_mul(3);
    let service = Service {
        ledger,
        clients: Clients::new(longest_request),
        requests: RequestReceiver::new(queue),
        control,
        finished,
        stale: true,
        stopping: false,
        gone: Vec::new(),
        serials: HashMap::new(),
        bulk: Vec::new(),
    };
    match service.serve() {
        Ok(()) => STOPPED,
        Err(error) => {
            event(Level::Critical, "storage", Outcome::Fail, &[("error", &error)]);
            GAVE_UP
        }
    }
}

fn open_ledger(config: &StorageConfig) -> Option<Ledger<FileDisk>> {
    let path = config.path.display();
    let disk = match FileDisk::open(&config.path) {
        Ok(disk) => disk,
        Err(error) => {
            event(Level::Critical, "recovery", Outcome::Fail, &[("file", &path), ("error", &error)]);
            return None;
        }
    };
    match Ledger::open(disk, config.rules) {
        Ok((ledger, cut)) => {
            log_recovery(config, &ledger, cut);
            Some(ledger)
        }
        Err(error) => {
            log_refusal(config, &error);
            None
        }
    }
}

fn log_refusal(config: &StorageConfig, error: &RecoveryError) {
    let path = config.path.display();
    let state_path = format!("{path}.state");
    let (file, line): (&dyn Display, Option<&dyn Display>) = match error {
        RecoveryError::Row { line, .. } | RecoveryError::TornAfterDraw { line } => (&path, Some(line)),
        RecoveryError::State(_) | RecoveryError::Contradiction(_) => (&state_path, None),
        RecoveryError::Io(_) | RecoveryError::LeftOut { .. } | RecoveryError::NoPart { .. } => (&path, None),
    };
    let fields: Vec<Field<'_>> = [("file", Some(file)), ("line", line), ("error", Some(error))]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    event(Level::Critical, "recovery", Outcome::Fail, &fields);
}

fn log_recovery(config: &StorageConfig, ledger: &Ledger<FileDisk>, cut: u64) {
    let contest = ledger.contest();
    let path = config.path.display();
    if cut > 0 {
        let fields: [Field<'_>; 2] = [("file", &path), ("bytes", &cut)];
        event(Level::Warning, "torn_row_cut", Outcome::Success, &fields);
    }
    let drawn = Rules { clients_amount: contest.agencies(), winner_number: contest.winning_number() };
    if drawn != config.rules {
        let rule = "the draw has been made; its agencies and number hold, not those of the configuration";
        event(
            Level::Warning,
            "configuration_ignored",
            Outcome::Success,
            &[
                ("clients_amount", &drawn.clients_amount),
                ("lottery_winner_number", &drawn.winner_number),
                ("reason", &rule),
            ],
        );
    }
    info(
        "recovery",
        Outcome::Success,
        &[
            ("file", &path),
            ("bets", &contest.bets()),
            ("agencies", &contest.agencies()),
            ("ended", &contest.ended()),
            ("drawn", &contest.draw().is_some()),
        ],
    );
}

struct Service<'a> {
    ledger: Ledger<FileDisk>,
    clients: Clients,
    requests: RequestReceiver<'a>,
    control: &'a StorageEnd,
    finished: &'a FinishedAgencies,
    /// Whether the shared array lacks an END that is on disk.
    stale: bool,
    stopping: bool,
    /// Clients whose handlers have ended, until what these had sent is taken.
    gone: Vec<ClientToken>,
    /// What the acceptor calls the clients whose handlers live.
    serials: HashMap<ClientSerial, ClientToken>,
    bulk: Vec<u8>,
}

/// How soon the shared mutex is tried again, in milliseconds.
const RETRY_MUTEX: u16 = 5;
/// How soon a draw is tried again that could not be written, in milliseconds.
const RETRY_DRAW: u16 = 500;

impl Service<'_> {
    fn serve(mut self) -> io::Result<()> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let readable = EpollEvent::new(EpollFlags::EPOLLIN, 0);
        epoll.add(&self.requests, readable)?;
        epoll.add(self.control, readable)?;
        // The last agency may have been the last because CLIENTS_AMOUNT is less than it was.
        self.commit()?;
        self.control.send(FromStorage::Ready { agencies: self.ledger.contest().agencies() })?;
        while !self.stopping {
            match epoll.wait(&mut [EpollEvent::empty(); 2], self.timeout()) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            self.listen_to_acceptor()?;
            self.take_group()?;
            self.forget_the_gone()?;
            self.commit()?;
        }
        // The acceptor said so when no handler was left to send more, or none that could be waited for.
        while self.requests.waiting()? > 0 {
            self.take_group()?;
            self.commit()?;
        }
        Ok(())
    }

    /// How long to wait where nothing comes, as something is left to be done.
    fn timeout(&self) -> EpollTimeout {
        if self.stale {
            EpollTimeout::from(RETRY_MUTEX)
        } else if self.ledger.contest().is_due() {
            EpollTimeout::from(RETRY_DRAW)
        } else {
            EpollTimeout::NONE
        }
    }

    fn listen_to_acceptor(&mut self) -> io::Result<()> {
        loop {
            match self.control.receive()? {
                Told::Came(client, token, Some(pipe)) => {
                    self.serials.insert(client, token);
                    self.clients.came(token, pipe);
                }
                Told::Came(_, _, None) => {
                    let error = "out of descriptors: raise the limit (ulimit -n), or lower MAX_CLIENTS";
                    event(Level::Error, "client_came", Outcome::Fail, &[("error", &error)]);
                }
                Told::Gone(client) => {
                    if let Some(token) = self.serials.remove(&client) {
                        self.clients.stop_replies(token);
                        self.gone.push(token);
                    }
                }
                Told::Stop | Told::AcceptorGone => {
                    self.stopping = true;
                    return Ok(());
                }
                Told::Nothing => return Ok(()),
            }
        }
    }

    /// Takes requests until the queue is empty or the group has enough.
    fn take_group(&mut self) -> io::Result<()> {
        while !self.ledger.is_full() && self.take_message()? {}
        Ok(())
    }

    /// Forgets the clients whose handlers have ended, after taking what these had sent: it is in the queue by now.
    fn forget_the_gone(&mut self) -> io::Result<()> {
        while !self.gone.is_empty() {
            // Taking messages may bring word of more that are gone; what these had sent is counted in the next round.
            let gone = std::mem::take(&mut self.gone);
            for _ in 0..self.requests.waiting()? {
                self.take_message()?;
            }
            for token in gone {
                self.clients.drop_client(token);
            }
        }
        Ok(())
    }

    fn take_message(&mut self) -> io::Result<bool> {
        let Some((head, bytes)) = self.requests.receive()? else { return Ok(false) };
        if self.clients.knows(head.client) {
            take_part(&mut self.clients, &mut self.ledger, head, bytes);
            return Ok(true);
        }
        // Queue and socket have no common order: the acceptor's word about this client may still be in the socket.
        let bytes = bytes.to_vec();
        self.listen_to_acceptor()?;
        take_part(&mut self.clients, &mut self.ledger, head, &bytes);
        Ok(true)
    }

    /// Puts the group on disk, and answers.
    fn commit(&mut self) -> io::Result<()> {
        let mut committed = self.ledger.commit().map_err(io::Error::other)?;
        log_commit(&committed, self.ledger.contest());
        if committed.ended || self.stale {
            self.stale = !self.finished.publish(self.ledger.contest().ended_agencies());
        }
        for (client, id, answer) in std::mem::take(&mut committed.awaiting) {
            self.clients.await_draw(client, id, answer);
        }
        let answers = std::mem::take(&mut committed.answers);
        for &(client, id, answer) in &answers {
            let reply = self.ledger.reply(answer, &committed, &mut self.bulk);
            self.clients.reply(client, &ReplyHead { id, reply }, &self.bulk);
        }
        for (client, ..) in &answers {
            self.clients.flush(*client);
        }
        if self.ledger.contest().draw().is_some() {
            self.answer_awaiting(&committed);
        }
        Ok(())
    }

    fn answer_awaiting(&mut self, committed: &Committed) {
        for (client, id, answer) in self.clients.take_awaiting() {
            let reply = self.ledger.reply(answer, committed, &mut self.bulk);
            self.clients.reply(client, &ReplyHead { id, reply }, &self.bulk);
            self.clients.flush(client);
        }
    }
}

/// Takes a part; hands the request, if it is whole with it, to the ledger.
fn take_part(clients: &mut Clients, ledger: &mut Ledger<FileDisk>, head: PartHead, bytes: &[u8]) {
    let client = head.client;
    clients.take_part(head, bytes, |role, id, request, rows| ledger.take(client, role, id, request, rows));
}

fn log_commit(committed: &Committed, contest: &contest::Contest) {
    for (outcome, what) in [(committed.bets, "storage_write"), (committed.ends, "state_write")] {
        if let Err(error) = outcome {
            let refused = committed.answers.len();
            event(Level::Error, what, Outcome::Fail, &[("error", &error), ("requests", &refused)]);
        }
    }
    if committed.drawn {
        let (number, bets, winners) = (contest.winning_number(), contest.bets(), contest.winner_count());
        info("sorteo", Outcome::Success, &[("numero", &number), ("bets", &bets), ("winners", &winners)]);
    }
}
