//! The storage service: one process, the only reader and writer of the bets.
//!
//! It takes what the request queue holds, decides each request, puts the whole group on disk with one write and one
//! sync, and only then answers, through each client's pipe. When all agencies have ended it makes the draw.
//!
//! | file | what |
//! |---|---|
//! | this one | the process: what it waits for, and in which order it acts |
//! | `clients` | the clients that the acceptor announces: what they may ask, and the parts of their requests |
//! | `ledger`, `group` | decides the requests of a group, and commits them |
//! | `answer` | the reply to each |
//! | `contest` | the contest in memory; checks the rows of a request |
//! | `disk`, `file_disk` | what is done to the files |
//! | `paths`, `state_file`, `row_reader` | where the files are, and what is in them |
//! | `opening`, `recovery` | open the files at the start, and read the contest from them |
//! | `simulated_disk` | tests on a disk that fails or stops at any step |
//!
//! Its requests come from processes that may have been taken over, so it trusts none of them: it decodes a head within
//! bounds, checks the rows again, and knows by a token which client makes a request. It is less confined than handlers
//! are: it opens the bets by their path, renames the state file, and receives descriptors.
//!
//! It never waits for a handler or a client. If a reply does not fit into a client's pipe, that client gets no more replies.
//! If the shared mutex is locked, storage tries again later. It handles no signals: the acceptor tells it when to stop.

mod answer;
mod clients;
mod contest;
mod disk;
mod file_disk;
mod group;
mod ledger;
mod opening;
pub(crate) mod paths;
pub(crate) mod recovery;
pub(crate) mod row_reader;
#[cfg(test)]
mod simulated_disk;
pub(crate) mod state_file;

use std::io;
use std::thread::{sleep, yield_now};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

pub use self::disk::{Disk, FileChanged};
pub use self::ledger::Ledger;
pub use self::recovery::Rules;

use self::clients::Clients;
use self::file_disk::FileDisk;
use self::group::Failure;
use self::ledger::Committed;
use self::opening::open;
use crate::config::ServerConfig;
use crate::ipc::control::{FileIdentity, StorageEnd, StorageReady};
use crate::ipc::messages::{ReplyHead, Request};
use crate::ipc::shared_state::SharedState;
use crate::ipc::storage_end::RequestReceiver;
use crate::logging::{Level, Outcome, event, info};
use crate::lottery::hex::hex;
use crate::protocol::record::LONGEST_ROWS;
use crate::system::confinement::Confinement;
use crate::system::fd_passing::Sent;
use crate::system::mqueue::QueueReceiver;
use crate::system::process::GAVE_UP;

/// Exit status: it was told to stop, and has stored and answered everything that it had received.
const STOPPED: i32 = 0;

/// Runs the whole process. `known_file` is the file that an earlier storage process of this server had. Returns the exit status.
pub(crate) fn run(
    config: &ServerConfig,
    known_file: Option<FileIdentity>,
    confinement: &Confinement,
    queue: &QueueReceiver,
    control: &StorageEnd,
    shared: &SharedState,
) -> i32 {
    let ServerConfig { clients_amount, winner_number, .. } = *config;
    let rules = Rules { clients_amount, winner_number };
    let Some((ledger, bets_file)) = open(&config.storage_filepath, known_file, rules) else {
        return GAVE_UP;
    };
    if let Err(error) = confinement.enter_storage(&config.storage_filepath) {
        event(Level::Critical, "storage", Outcome::Fail, &[("error", &error)]);
        return GAVE_UP;
    }
    let longest_request = (config.max_payload as usize).saturating_mul(LONGEST_ROWS);
    let service = Service {
        ledger,
        clients: Clients::new(
            longest_request,
            config.tls_dir.as_ref().map(|_| config.plain_agencies.clone()),
        ),
        requests: RequestReceiver::new(queue),
        control,
        shared,
        stale: true,
        stopping: false,
        bulk: Vec::new(),
    };
    match service.serve(bets_file) {
        Ok(()) => STOPPED,
        Err(error) => {
            event(Level::Critical, "storage", Outcome::Fail, &[("error", &error)]);
            GAVE_UP
        }
    }
}

struct Service<'a> {
    ledger: Ledger<FileDisk>,
    clients: Clients,
    requests: RequestReceiver<'a>,
    control: &'a StorageEnd,
    shared: &'a SharedState,
    /// Whether the shared array lacks an END that is on disk.
    stale: bool,
    stopping: bool,
    bulk: Vec<u8>,
}

/// How soon the service reports again that it is ready, if the socket had no room for the message.
const RETRY_READY: Duration = Duration::from_millis(5);
/// The most messages for one group. A usual group has fewer.
const GROUP_MESSAGES: usize = 20_000;
/// How often the senders get a turn before a group is committed.
const MAX_TURNS: u32 = 4;
/// The time until the shared mutex is tried again, in milliseconds.
const RETRY_MUTEX: u16 = 5;
/// How long handlers have to pass on the last replies.
const LAST_REPLIES: Duration = Duration::from_millis(100);
/// The time until a draw that could not be stored is tried again, in milliseconds.
const RETRY_DRAW: u16 = 500;

impl Service<'_> {
    fn serve(mut self, bets_file: FileIdentity) -> io::Result<()> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let readable = EpollEvent::new(EpollFlags::EPOLLIN, 0);
        epoll.add(self.requests.queue, readable)?;
        epoll.add(self.control, readable)?;
        // The draw is due if all agencies have ended already: CLIENTS_AMOUNT may be lower than before.
        self.commit()?;
        self.report_ready(bets_file)?;
        while !self.stopping {
            match epoll.wait(&mut [EpollEvent::empty(); 2], self.timeout()) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            self.stopping |= self.clients.take_announcements(self.control)?;
            self.take_group()?;
            self.reap_clients()?;
            self.commit()?;
        }
        // The acceptor stops storage when no handler is left, or when it no longer waits for handlers.
        while self.requests.queue.waiting()? > 0 {
            self.take_group()?;
            self.commit()?;
        }
        Ok(())
    }

    /// Reports to the acceptor that this service is ready. It may wait for room in the socket: before it is ready it has no
    /// clients, and the acceptor stops it with SIGKILL.
    fn report_ready(&self, bets_file: FileIdentity) -> io::Result<()> {
        let agencies = self.ledger.contest().agencies();
        let ready = StorageReady { agencies, bets_file };
        while matches!(self.control.send(&ready, &[], None)?, Sent::Full | Sent::Scarce) {
            sleep(RETRY_READY);
        }
        Ok(())
    }

    fn timeout(&self) -> EpollTimeout {
        if self.stale {
            EpollTimeout::from(RETRY_MUTEX)
        } else if self.ledger.contest().is_due() {
            EpollTimeout::from(RETRY_DRAW)
        } else {
            EpollTimeout::NONE
        }
    }

    /// Takes requests until the queue is empty or the group is full. The number of messages is limited too: a handler that was
    /// taken over may send messages without end that belong to no request.
    ///
    /// The queue holds few messages. When it is empty, its senders get a turn first: the larger a group, the fewer syncs.
    fn take_group(&mut self) -> io::Result<()> {
        let (mut came, mut turns) = (false, 0);
        for _ in 0..GROUP_MESSAGES {
            if self.ledger.is_full() {
                break;
            }
            if self.take_message()? {
                came = true;
            } else if came && turns < MAX_TURNS && self.clients.count() > 1 {
                came = false;
                turns += 1;
                yield_now();
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Forgets the clients whose handlers have ended. First takes the messages that the queue holds: theirs are among them.
    fn reap_clients(&mut self) -> io::Result<()> {
        loop {
            // Taking messages may end more clients. These get a round of their own.
            let gone = self.clients.take_gone();
            if gone.is_empty() {
                return Ok(());
            }
            for _ in 0..self.requests.queue.waiting()? {
                self.take_message()?;
            }
            for client in gone {
                self.clients.remove(client);
                self.ledger.forget(client);
            }
        }
    }

    /// Returns false if the queue is empty. A message that is malformed is dropped, and does not end the group.
    fn take_message(&mut self) -> io::Result<bool> {
        let Some(message) = self.requests.receive()? else { return Ok(false) };
        let Ok((head, rows)) = message else { return Ok(true) };
        if !self.clients.knows(head.client) {
            // Queue and socket have no common order: the announcement of this client may still be in the socket.
            self.stopping |= self.clients.take_announcements(self.control)?;
        }
        if let Some((request, rows)) = self.clients.take_part(&head, rows) {
            self.ledger.take(head.client, head.id, request, &rows);
        }
        Ok(true)
    }

    /// Puts the group on disk, and answers.
    fn commit(&mut self) -> io::Result<()> {
        let mut committed = self.ledger.commit().map_err(io::Error::other)?;
        log_commit(&committed, self.ledger.contest());
        if committed.ended || self.stale {
            self.stale = !self.shared.publish(self.ledger.contest().ended_agencies());
        }
        if self.ledger.contest().draw.is_some() {
            committed.answers.extend(self.clients.take_awaiting());
        }
        for answer in &committed.answers {
            match self.ledger.reply(answer, &mut self.bulk) {
                Some(reply) => {
                    self.clients.reply(answer.client, &ReplyHead { id: answer.id, reply }, &self.bulk);
                }
                None => self.clients.await_draw(*answer),
            }
        }
        for answer in &committed.answers {
            self.clients.flush(answer.client);
        }
        for answer in &committed.answers {
            if let (Request::OpenSession { agency }, Ok(_)) = (answer.request, answer.decision) {
                self.clients.open_session(answer.client, agency);
            }
        }
        let Some(changed) = committed.changed else { return Ok(()) };
        // The handlers end with the server, and need a moment to send the refusals.
        sleep(LAST_REPLIES);
        Err(io::Error::other(changed))
    }
}

fn log_commit(committed: &Committed, contest: &contest::Contest) {
    for (action, failure) in ["storage_write", "state_write"].into_iter().zip(&committed.failures) {
        let Some(Failure { refusal, requests }) = failure else { continue };
        event(Level::Error, action, Outcome::Fail, &[("error", refusal), ("requests", requests)]);
    }
    if committed.drawn
        && let Some(seal) = contest.draw.as_ref().and_then(|draw| draw.seal)
    {
        let (number, winners) = (contest.winning_number, contest.winner_count());
        info(
            "sorteo",
            Outcome::Success,
            &[
                ("numero", &number),
                ("bets", &seal.bets),
                ("winners", &winners),
                ("bytes", &seal.bytes),
                ("sha256", &hex(&seal.sha256)),
            ],
        );
    }
}
