//! The upload of a session: batches of bets, many of them in flight.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::bets_file::{Batch, BetsFile, Limits};
use super::connection::{ServerConnection, finish_frame, unexpected_reply};
use super::error::{AgencyError, AttemptError};
use super::progress::Progress;
use crate::config::AgencyConfig;
use crate::logging::{self, Level, Outcome};
use crate::protocol::frame::{FrameType, HEADER_LEN};
use crate::protocol::message::ServerMessage;

/// The most batches in flight.
const WINDOW: usize = 32;
/// About how much goes into one write, in bytes.
const WRITE_SIZE: usize = 64 * 1024;
/// The longest payload to send, in bytes, whatever the server accepts. It bounds the memory.
const MAX_PAYLOAD: u32 = 1 << 20;
/// The length of `first`, which precedes the records of a `SESSION_BETS`, in bytes.
const INDEX_LEN: usize = size_of::<u64>();
/// How often the log says how many bets are acknowledged.
const REPORT_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Upload<'a> {
    connection: &'a mut ServerConnection,
    file: BetsFile,
    path: &'a Path,
    limits: Limits,
    /// The index of the next bet of the file.
    next: u64,
    rest: Rest,
    /// Frames that are encoded but not sent.
    out: Vec<u8>,
    /// The batches in flight, each with the index of the bet after it.
    in_flight: VecDeque<(u64, Batch)>,
    /// How many of the agency's bets are stored.
    acknowledged: u64,
    report_at: Instant,
}

/// The part of the file that is not read.
enum Rest {
    More,
    Nothing,
    /// It begins with a row that can't be sent. The rows before that are sent, and this error follows.
    Bad(AgencyError),
}

impl<'a> Upload<'a> {
    /// Continues with the bet of index `stored`, which `file` gives next.
    pub(super) fn new(
        connection: &'a mut ServerConnection,
        file: BetsFile,
        config: &'a AgencyConfig,
        stored: u64,
        max_payload: u32,
    ) -> Self {
        let bytes = (max_payload.min(MAX_PAYLOAD) as usize).saturating_sub(INDEX_LEN);
        Self {
            connection,
            file,
            path: &config.bets_file,
            limits: Limits { bets: config.batch_max_amount, bytes },
            next: stored,
            rest: Rest::More,
            out: Vec::with_capacity(2 * WRITE_SIZE),
            in_flight: VecDeque::with_capacity(WINDOW),
            acknowledged: stored,
            report_at: Instant::now() + REPORT_EVERY,
        }
    }

    /// Sends the rest of the file and waits until it is stored; returns how many bets the agency has.
    pub(super) fn run(mut self, progress: &Progress, backoff: &mut Backoff<'_>) -> Result<u64, AttemptError> {
        self.send_batches()?;
        self.show(progress);
        progress.uploads_from(self.acknowledged);
        while !self.in_flight.is_empty() {
            self.receive_replies()?;
            backoff.achieved(self.acknowledged);
            self.show(progress);
            self.report();
            self.send_batches()?;
        }
        logging::info("apuesta_enviada", Outcome::Success, &[("cantidad", &self.acknowledged)]);
        match self.rest {
            Rest::Bad(error) => Err(error.into()),
            Rest::More | Rest::Nothing => Ok(self.acknowledged),
        }
    }

    fn show(&self, progress: &Progress) {
        if progress.is_shown() {
            let is_read = matches!(self.rest, Rest::Nothing);
            let all = if is_read { self.next } else { self.file.expected_rows(self.next) };
            progress.expects(all, is_read);
            progress.stored(self.acknowledged);
        }
    }

    fn report(&mut self) {
        let now = Instant::now();
        if now >= self.report_at {
            self.report_at = now + REPORT_EVERY;
            logging::info("apuesta_enviada", Outcome::InProgress, &[("cantidad", &self.acknowledged)]);
        }
    }

    fn send_batches(&mut self) -> Result<(), AttemptError> {
        while matches!(self.rest, Rest::More) && self.in_flight.len() < WINDOW {
            self.encode_batch();
            if self.out.len() >= WRITE_SIZE {
                self.flush()?;
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), AttemptError> {
        self.connection.send(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Encodes the next bets as one frame, or updates `rest`.
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

    /// Waits for a reply and takes all that came with it. The server answers many batches after one sync; the sooner the
    /// window is full again, the more bets share the next sync.
    fn receive_replies(&mut self) -> Result<(), AttemptError> {
        self.receive_reply()?;
        while self.connection.has_reply() && !self.in_flight.is_empty() {
            self.receive_reply()?;
        }
        Ok(())
    }

    fn receive_reply(&mut self) -> Result<(), AttemptError> {
        let reply = self.connection.receive()?;
        let Some((end, batch)) = self.in_flight.pop_front() else { return Ok(()) };
        match reply {
            ServerMessage::SessionStored { stored } if stored >= end => {
                self.acknowledged = end;
                logging::event(
                    Level::Debug,
                    "apuesta_enviada",
                    Outcome::Success,
                    &[("cantidad", &batch.bets)],
                );
                Ok(())
            }
            other => Err(unexpected_reply(&other, &batch.name(self.path))),
        }
    }
}
