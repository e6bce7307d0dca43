//! The upload of a session: batches of bets, many of them in flight.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::bets_file::{Batch, BetsFile, Limits};
use super::comparison::Comparison;
use super::connection::ServerConnection;
use super::error::{AgencyError, AttemptError};
use super::progress::Progress;
use crate::logging::{self, Level, Outcome};
use crate::protocol::message::{ClientMessage, ServerMessage};

/// The most batches in flight.
const WINDOW: usize = 32;
/// About how much goes into one write, in bytes.
const WRITE_SIZE: usize = 64 * 1024;
/// The longest payload to send, in bytes, whatever the server accepts. It bounds the memory.
const MAX_PAYLOAD: usize = 1 << 20;
/// The length of `first`, which precedes the records of a `SESSION_BETS`, in bytes.
const INDEX_LEN: usize = size_of::<u64>();
/// How often the log says how many bets are acknowledged.
const REPORT_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Upload<'a> {
    connection: &'a mut ServerConnection,
    file: &'a mut BetsFile,
    comparison: &'a mut Comparison,
    limits: Limits,
    /// Set when there are no more batches: the whole file was read, or its next row can't be sent. In the second case
    /// the rows before it are still sent.
    end: Option<Result<(), AgencyError>>,
    /// The records of one batch; kept to reuse its memory.
    records: Vec<u8>,
    /// Frames that are encoded but not sent.
    out: Vec<u8>,
    in_flight: VecDeque<Batch>,
    /// How many of the agency's bets are acknowledged.
    acknowledged: u64,
    report_at: Instant,
}

impl<'a> Upload<'a> {
    /// Prepares to send the bets of the file that were not read yet, in payloads of at most `limits.bytes`.
    pub(super) fn new(
        connection: &'a mut ServerConnection,
        file: &'a mut BetsFile,
        comparison: &'a mut Comparison,
        limits: Limits,
    ) -> Self {
        let bytes = limits.bytes.min(MAX_PAYLOAD).saturating_sub(INDEX_LEN);
        let stored = file.taken();
        Self {
            connection,
            file,
            comparison,
            limits: Limits { bytes, ..limits },
            end: None,
            records: Vec::new(),
            out: Vec::with_capacity(2 * WRITE_SIZE),
            in_flight: VecDeque::with_capacity(WINDOW),
            acknowledged: stored,
            report_at: Instant::now() + REPORT_EVERY,
        }
    }

    /// Sends the rest of the file and waits until it is stored.
    pub(super) fn run(mut self, backoff: &mut Backoff<'_>) -> Result<(), AttemptError> {
        self.send_batches()?;
        self.show(backoff.progress);
        backoff.progress.uploads_from(self.acknowledged);
        while !self.in_flight.is_empty() {
            self.receive_reply()?;
            // The server answers many batches after one sync. Take all their replies before the next batches are sent:
            // the more batches arrive together, the more bets share the next sync.
            if self.connection.has_reply() && !self.in_flight.is_empty() {
                continue;
            }
            backoff.achieved(self.acknowledged);
            self.show(backoff.progress);
            self.report();
            self.send_batches()?;
        }
        let is_all = !matches!(self.end, Some(Err(_)));
        let outcome = if is_all { Outcome::Success } else { Outcome::InProgress };
        logging::info("apuesta_enviada", outcome, &[("cantidad", &self.acknowledged)]);
        Ok(self.end.unwrap_or(Ok(()))?)
    }

    fn show(&self, progress: &Progress) {
        let is_exact = matches!(self.end, Some(Ok(())));
        progress.uploaded(self.acknowledged, self.file.expected_rows(), is_exact);
    }

    fn report(&mut self) {
        let now = Instant::now();
        if now >= self.report_at {
            self.report_at = now + REPORT_EVERY;
            logging::info("apuesta_enviada", Outcome::InProgress, &[("cantidad", &self.acknowledged)]);
        }
    }

    fn send_batches(&mut self) -> Result<(), AttemptError> {
        while self.end.is_none() && self.in_flight.len() < WINDOW {
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

    /// Encodes the next bets as one frame, or sets `end`.
    fn encode_batch(&mut self) {
        match self.file.next_batch(self.limits, &mut self.records) {
            Ok(Some(batch)) => {
                let message = ClientMessage::SessionBets { first: batch.first, records: &self.records };
                message.encode(&mut self.out);
                self.comparison.sends(batch.end());
                self.in_flight.push_back(batch);
            }
            Ok(None) => self.end = Some(Ok(())),
            Err(error) => self.end = Some(Err(error)),
        }
    }

    fn receive_reply(&mut self) -> Result<(), AttemptError> {
        let Some(batch) = self.in_flight.pop_front() else { return Ok(()) };
        match self.connection.receive(self.file.name(batch))? {
            ServerMessage::SessionStored { stored, digest } if stored >= batch.end() => {
                self.comparison.check(self.file, stored, digest)?;
                self.acknowledged = batch.end();
                let fields: [logging::Field<'_>; 1] = [("cantidad", &batch.bets)];
                logging::event(Level::Debug, "apuesta_enviada", Outcome::Success, &fields);
                Ok(())
            }
            _ => Err(AgencyError::WrongReply.into()),
        }
    }
}
