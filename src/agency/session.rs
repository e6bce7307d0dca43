//! Session mode: one connection, many batches in flight, and after a break on from what the server has stored.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Instant;

use super::bets_file::{Batch, BetsFile, Limits};
use super::connection::{ServerConnection, finish_frame, unwanted};
use super::error::{AgencyError, Trouble};
use super::pauses::{LONGEST, Pauses};
use super::progress::Progress;
use crate::config::AgencyConfig;
use crate::logging::{self, Outcome};
use crate::lottery::AgencyId;
use crate::protocol::frame::{FrameType, HEADER_LEN};
use crate::protocol::message::{AgencyState, ClientMessage, SESSION_VERSION, ServerMessage};

/// The most batches that are sent and not yet acknowledged.
const WINDOW: usize = 32;
/// About how much goes in one write, in bytes.
const WRITE_SIZE: usize = 64 * 1024;
/// The longest payload that is sent, in bytes, whatever the server would take: memory has a limit.
const MAX_PAYLOAD: u32 = 1 << 20;
/// The index before the records of a `SESSION_BETS`, in bytes.
const INDEX_LEN: usize = size_of::<u64>();

/// Brings all bets and waits for the result: the number of winners.
///
/// # Errors
/// What another try would not mend.
pub fn run(config: &AgencyConfig, progress: &Progress) -> Result<u64, AgencyError> {
    // A file that is not there is told at once, not when the server is.
    BetsFile::open(&config.bets_file, config.id)?;
    let mut pauses = Pauses::shown(progress);
    loop {
        let begun = Instant::now();
        match attend(config, &mut pauses, progress) {
            Ok(winners) => return Ok(winners),
            Err(Trouble::Fatal(error)) => return Err(error),
            Err(Trouble::Lost(lost)) => {
                if begun.elapsed() > LONGEST {
                    pauses.reset();
                }
                pauses.wait(&lost);
            }
        }
    }
}

/// One session, from wherever the server is.
fn attend(config: &AgencyConfig, pauses: &mut Pauses<'_>, progress: &Progress) -> Result<u64, Trouble> {
    let mut connection = ServerConnection::open(&config.server_address)?;
    let opened = open(&mut connection, config.id)?;
    let mut file = BetsFile::open(&config.bets_file, config.id)?;
    file.skip(opened.stored)?;
    let mut stored = opened.stored;
    if opened.state == AgencyState::Open {
        stored = Upload::new(&mut connection, file, config, &opened, progress).run(pauses)?;
        end(&mut connection, config.id)?;
        pauses.reset();
    } else if file.has_more()? {
        let file = config.bets_file.clone();
        return Err(AgencyError::EndedBefore { file, stored: opened.stored }.into());
    }
    progress.waits(stored);
    await_result(&mut connection)
}

/// What the server says of this agency.
struct Opened {
    stored: u64,
    state: AgencyState,
    max_payload: u32,
}

fn open(connection: &mut ServerConnection, agency: AgencyId) -> Result<Opened, Trouble> {
    let message = ClientMessage::OpenSession { version: SESSION_VERSION, agency: agency.get().into() };
    match ask(connection, &message)? {
        ServerMessage::SessionOpened { agency: of, stored, state, max_payload } if of == agency => {
            logging::info("open_session", Outcome::Success, &[("agency_id", &agency), ("stored", &stored)]);
            Ok(Opened { stored, state, max_payload })
        }
        other => Err(unwanted(&other, "to open a session")),
    }
}

fn end(connection: &mut ServerConnection, agency: AgencyId) -> Result<(), Trouble> {
    match ask(connection, &ClientMessage::End(None))? {
        ServerMessage::BetAck => {
            logging::info("end_message", Outcome::Success, &[("agency_id", &agency)]);
            Ok(())
        }
        other => Err(unwanted(&other, "the end of the bets")),
    }
}

fn await_result(connection: &mut ServerConnection) -> Result<u64, Trouble> {
    connection.send_message(&ClientMessage::AwaitResult)?;
    Ok(connection.receive_winners(None)?.ok_or(AgencyError::WrongAnswer)?)
}

fn ask<'a>(
    connection: &'a mut ServerConnection,
    message: &ClientMessage<'_>,
) -> Result<ServerMessage<'a>, Trouble> {
    connection.send_message(message)?;
    connection.receive()
}

fn limits(config: &AgencyConfig, max_payload: u32) -> Limits {
    let bytes = (max_payload.min(MAX_PAYLOAD) as usize).saturating_sub(INDEX_LEN);
    Limits { bets: config.batch_max_amount, bytes }
}

/// What is left of the file.
enum Rest {
    More,
    Nothing,
    /// A row that can't be sent. What stands before it still is, and is waited for.
    Bad(AgencyError),
}

/// Bets on their way.
struct Upload<'a> {
    connection: &'a mut ServerConnection,
    file: BetsFile,
    path: &'a Path,
    limits: Limits,
    /// The index of the next bet of the file.
    next: u64,
    rest: Rest,
    /// Frames that are encoded and not sent.
    out: Vec<u8>,
    /// Batches that are not acknowledged, each with the count of bets that its acknowledgement must reach.
    in_flight: VecDeque<(u64, Batch)>,
    progress: &'a Progress,
}

impl<'a> Upload<'a> {
    fn new(
        connection: &'a mut ServerConnection,
        file: BetsFile,
        config: &'a AgencyConfig,
        opened: &Opened,
        progress: &'a Progress,
    ) -> Self {
        Self {
            connection,
            file,
            path: &config.bets_file,
            limits: limits(config, opened.max_payload),
            next: opened.stored,
            rest: Rest::More,
            out: Vec::with_capacity(2 * WRITE_SIZE),
            in_flight: VecDeque::with_capacity(WINDOW),
            progress,
        }
    }

    /// Sends what is left of the file, until all of it is acknowledged; returns how many bets there are.
    fn run(mut self, pauses: &mut Pauses<'_>) -> Result<u64, Trouble> {
        let stored = self.next;
        self.send_batches()?;
        self.show(stored);
        self.progress.uploads_from(stored);
        while !self.in_flight.is_empty() {
            self.take_answers()?;
            pauses.reset();
            self.send_batches()?;
        }
        match self.rest {
            Rest::Bad(error) => Err(error.into()),
            Rest::More | Rest::Nothing => Ok(self.next),
        }
    }

    /// Shows how many bets are acknowledged, of how many.
    fn show(&self, acknowledged: u64) {
        if self.progress.is_shown() {
            let is_read = matches!(self.rest, Rest::Nothing);
            let all = if is_read { self.next } else { self.file.expected_rows(self.next) };
            self.progress.expects(all, is_read);
            self.progress.stored(acknowledged);
        }
    }

    fn send_batches(&mut self) -> Result<(), Trouble> {
        while matches!(self.rest, Rest::More) && self.in_flight.len() < WINDOW {
            self.encode_batch();
            if self.out.len() >= WRITE_SIZE {
                self.flush()?;
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Trouble> {
        self.connection.send(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Encodes the next bets as one frame, or finds that there are none.
    fn encode_batch(&mut self) {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; HEADER_LEN]);
        self.out.extend_from_slice(&self.next.to_be_bytes());
        match self.file.fill(self.limits, &mut self.out) {
            Ok(Some(batch)) => {
                finish_frame(FrameType::SessionBets, start, &mut self.out);
                self.next += batch.bets;
                self.in_flight.push_back((self.next, batch));
                return;
            }
            Ok(None) => self.rest = Rest::Nothing,
            Err(error) => self.rest = Rest::Bad(error),
        }
        self.out.truncate(start);
    }

    /// Waits for an answer, and takes those that came with it: the server answers many batches after one sync, and the
    /// sooner the window is full again, the more bets share the next one.
    fn take_answers(&mut self) -> Result<(), Trouble> {
        self.take_answer()?;
        while self.connection.has_answer() && !self.in_flight.is_empty() {
            self.take_answer()?;
        }
        Ok(())
    }

    fn take_answer(&mut self) -> Result<(), Trouble> {
        let answer = self.connection.receive()?;
        let Some((reached, batch)) = self.in_flight.pop_front() else { return Ok(()) };
        match answer {
            ServerMessage::SessionStored { stored } if stored >= reached => {
                logging::info("apuesta_enviada", Outcome::Success, &[("cantidad", &batch.bets)]);
                self.show(reached);
                Ok(())
            }
            other => Err(unwanted(&other, &batch.name(self.path))),
        }
    }
}
