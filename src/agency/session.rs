//! Session mode: one connection for all messages. After a break, the next session continues from what is stored.

use std::io;
use std::time::Duration;

use super::backoff::Backoff;
use super::bets_file::{BetsFile, Limits};
use super::comparison::Comparison;
use super::connection::{QUIET, ServerConnection};
use super::error::{AgencyError, AttemptError};
use super::progress::Progress;
use super::time_limits::Event;
use super::upload::Upload;
use crate::config::AgencyConfig;
use crate::logging::{self, Level, Outcome};
use crate::lottery::Digest;
use crate::protocol::frame::HEADER_LEN;
use crate::protocol::message::{AgencyState, ClientMessage, ServerMessage};
use crate::tls::client::Target;

/// A version that no server speaks. Every server with sessions refuses it at once, without asking its storage.
const NO_VERSION: u8 = 0;
/// How much later the older of two connections may be answered.
const OVERTAKING: Duration = Duration::from_secs(2);
/// An acknowledged END counts for more than any number of acknowledged bets.
const END_ACKNOWLEDGED: u64 = u64::MAX;
/// How many bets are compared before the progress is shown.
const COMPARED_AT_ONCE: u64 = 10_000;

/// Sends all bets and waits for the result; returns the number of winners.
pub(super) fn run(config: &AgencyConfig, backoff: &mut Backoff<'_>) -> Result<u64, AgencyError> {
    // A missing file is reported at once, even if the server can't be reached.
    BetsFile::open(&config.bets_file, config.id)?;
    let mut client = SessionClient { config, comparison: Comparison::new(), was_open: false };
    backoff.retry(|backoff| client.attempt(backoff))
}

struct SessionClient<'a> {
    config: &'a AgencyConfig,
    comparison: Comparison,
    /// Whether the server has opened a session of this version before.
    was_open: bool,
}

/// What the server says when it opens a session.
#[derive(Clone, Copy)]
struct Opened {
    stored: u64,
    digest: Option<Digest>,
    state: AgencyState,
    max_payload: u32,
}

impl SessionClient<'_> {
    /// Runs one session, from the opening to the result.
    fn attempt(&mut self, backoff: &mut Backoff<'_>) -> Result<u64, AttemptError> {
        let config = self.config;
        let (mut connection, opened) = self.open(backoff)?;
        let mut file = BetsFile::open(&config.bets_file, config.id)?;
        self.compare(&mut file, opened, backoff.progress)?;
        if opened.state == AgencyState::Open {
            let longest = config.batch_max_bytes.unwrap_or(usize::MAX).saturating_sub(HEADER_LEN);
            let bytes = longest.min(opened.max_payload as usize);
            let limits = Limits { bets: config.batch_max_amount, bytes };
            Upload::new(&mut connection, &mut file, &mut self.comparison, limits).run(backoff)?;
            self.end(&mut connection, &mut file)?;
            backoff.achieved(END_ACKNOWLEDGED);
        } else if file.has_row()? {
            let (file, stored) = (config.bets_file.clone(), opened.stored);
            return Err(AgencyError::EndedBefore { file, stored }.into());
        }
        backoff.progress.waits(file.taken());
        backoff.time_limits.tell(Event::AwaitsResult);
        connection.send_message(&ClientMessage::AwaitResult)?;
        connection.replies_within(None)?;
        Ok(connection.receive_winners()?.ok_or(AgencyError::WrongReply)?)
    }

    /// Opens a session over a new connection.
    fn open(&mut self, backoff: &mut Backoff<'_>) -> Result<(ServerConnection, Opened), AttemptError> {
        let mut connection = ServerConnection::open(backoff.server)?;
        match self.open_over(&mut connection, backoff) {
            // The server may know only version 1. Any other reason makes it refuse that too.
            Err(AttemptError::Fatal(AgencyError::Refused { .. })) if self.comparison.version > 1 => {
                self.comparison.version = 1;
                self.was_open = false;
                self.open(backoff)
            }
            opened => Ok((connection, opened?)),
        }
    }

    fn open_over(
        &mut self,
        connection: &mut ServerConnection,
        backoff: &mut Backoff<'_>,
    ) -> Result<Opened, AttemptError> {
        let (agency, version) = (self.config.id, self.comparison.version);
        connection.send_message(&ClientMessage::OpenSession { version, agency: agency.get().into() })?;
        if !self.was_open && !connection.replies_soon()? && self.server_lacks_sessions(backoff.server) {
            return Err(AgencyError::NoSessions.into());
        }
        match connection.receive("to open a session")? {
            ServerMessage::SessionOpened { agency: of, stored, state, max_payload, digest }
                if of == agency =>
            {
                if !self.was_open && version == 1 {
                    let reason =
                        "the server does not know digests, so the stored bets are not compared with the file";
                    let fields: [logging::Field<'_>; 2] = [("version", &version), ("reason", &reason)];
                    logging::event(Level::Warning, "session_version", Outcome::Success, &fields);
                }
                // While sessions keep failing for the same reason, the log does not repeat this either.
                let is_news = backoff.has_warned() || !self.was_open;
                let level = if is_news { Level::Info } else { Level::Debug };
                let fields: [logging::Field<'_>; 2] = [("agency_id", &agency), ("stored", &stored)];
                logging::event(level, "open_session", Outcome::Success, &fields);
                self.was_open = true;
                backoff.time_limits.tell(Event::Connected);
                Ok(Opened { stored, digest, state, max_payload })
            }
            _ => Err(AgencyError::WrongReply.into()),
        }
    }

    /// Checks that the stored bets are the first ones of the file, which then continues behind them.
    fn compare(
        &mut self,
        file: &mut BetsFile,
        opened: Opened,
        progress: &Progress,
    ) -> Result<(), AgencyError> {
        progress.compares(opened.stored);
        while file.taken() + COMPARED_AT_ONCE < opened.stored
            && file.digest_of(file.taken() + COMPARED_AT_ONCE)?.is_some()
        {
            progress.compared(file.taken());
        }
        self.comparison.check(file, opened.stored, opened.digest)
    }

    /// Sends END. Its log line says which bets the server has confirmed.
    fn end(&mut self, connection: &mut ServerConnection, file: &mut BetsFile) -> Result<(), AttemptError> {
        connection.send_message(&ClientMessage::End(None))?;
        connection.receive_ack("the end of the bets")?;
        let is_confirmed = self.comparison.version > 1 && self.confirm(connection, file)?;
        let (bets, digest) = (file.taken(), file.digest());
        let fields: [logging::Field<'_>; 3] =
            [("agency_id", &self.config.id), ("bets", &bets), ("digest", &digest)];
        let confirmed = if is_confirmed { &fields[..] } else { &fields[..2] };
        logging::info("end_message", Outcome::Success, confirmed);
        Ok(())
    }

    /// Compares the bets with which the agency has ended: until END, another client could store bets behind those of the
    /// last acknowledgement. The first bet is sent again: nothing is stored, and the reply has the digest of all bets.
    /// Returns false if the file has no bet to send.
    fn confirm(
        &mut self,
        connection: &mut ServerConnection,
        file: &mut BetsFile,
    ) -> Result<bool, AttemptError> {
        let mut records = Vec::new();
        let limits = Limits { bets: 1, bytes: usize::MAX };
        let mut again = BetsFile::open(&self.config.bets_file, self.config.id)?;
        let Some(batch) = again.next_batch(limits, &mut records)? else { return Ok(false) };
        connection.send_message(&ClientMessage::SessionBets { first: batch.first, records: &records })?;
        match connection.receive(file.name(batch))? {
            ServerMessage::SessionStored { stored, digest } => {
                self.comparison.check(file, stored, digest)?;
                Ok(true)
            }
            _ => Err(AgencyError::WrongReply.into()),
        }
    }

    /// Returns whether the server answers classic messages but not `OPEN_SESSION`.
    ///
    /// The test is made twice, because a server that restarts may close one connection and answer the next.
    fn server_lacks_sessions(&self, server: &Target) -> bool {
        (0..2).all(|_| self.answers_only_classic(server).unwrap_or(false))
    }

    /// Sends `OPEN_SESSION` over one connection, then `RESULT_REQUEST` over another.
    ///
    /// A server accepts connections in order. Once the second is answered, even a slow or full server has accepted the
    /// first, and answers it if it speaks sessions.
    fn answers_only_classic(&self, server: &Target) -> io::Result<bool> {
        let agency = self.config.id.get();
        let mut session = ServerConnection::open(server)?;
        session.send_message(&ClientMessage::OpenSession { version: NO_VERSION, agency: agency.into() })?;
        let mut classic = ServerConnection::open(server)?;
        // Any reply will do, even one about another agency.
        classic.send_message(&ClientMessage::ResultRequest(Some(u8::try_from(agency).unwrap_or(1))))?;
        let has_classic = classic.replies_within(Some(QUIET))?;
        Ok(has_classic && !session.replies_within(Some(OVERTAKING)).unwrap_or(false))
    }
}
