//! Session mode: one connection for all messages. After a break, the next session continues from what is stored.

use std::time::Duration;

use super::backoff::Backoff;
use super::bets_file::BetsFile;
use super::connection::{QUIET, ServerConnection, unexpected_reply};
use super::error::{AgencyError, AttemptError, ConnectionLost};
use super::progress::Progress;
use super::upload::Upload;
use crate::config::AgencyConfig;
use crate::logging::{self, Level, Outcome};
use crate::protocol::message::{AgencyState, ClientMessage, SESSION_VERSION, ServerMessage};

/// A version that no server speaks. Every server with sessions refuses it at once, without asking its storage.
const NO_VERSION: u8 = 0;
/// How much later the older of two connections may be answered.
const OVERTAKING: Duration = Duration::from_secs(2);
/// An acknowledged END counts for more than any number of acknowledged bets.
const END_ACKNOWLEDGED: u64 = u64::MAX;

/// Sends all bets and waits for the result; returns the number of winners.
pub(super) fn run(config: &AgencyConfig, progress: &Progress) -> Result<u64, AgencyError> {
    // A missing file is reported at once, even if the server can't be reached.
    BetsFile::open(&config.bets_file, config.id)?;
    let mut client = SessionClient { config, progress, was_open: false };
    Backoff::new(Some(progress)).retry(|backoff| client.attempt(backoff))
}

struct SessionClient<'a> {
    config: &'a AgencyConfig,
    progress: &'a Progress,
    /// Whether the server has opened a session before.
    was_open: bool,
}

impl SessionClient<'_> {
    /// Runs one session, from the opening to the result.
    fn attempt(&mut self, backoff: &mut Backoff<'_>) -> Result<u64, AttemptError> {
        let Self { config, progress, .. } = *self;
        let mut connection = ServerConnection::open(&config.server_address)?;
        let (mut stored, state, max_payload) = self.open(&mut connection, backoff)?;
        let mut file = BetsFile::open(&config.bets_file, config.id)?;
        file.skip(stored)?;
        if state == AgencyState::Open {
            let upload = Upload::new(&mut connection, file, config, stored, max_payload);
            stored = upload.run(progress, backoff)?;
            self.end(&mut connection)?;
            backoff.achieved(END_ACKNOWLEDGED);
        } else if file.has_row()? {
            return Err(AgencyError::EndedBefore { file: config.bets_file.clone(), stored }.into());
        }
        progress.waits(stored);
        connection.send_message(&ClientMessage::AwaitResult)?;
        Ok(connection.receive_winners(None)?.ok_or(AgencyError::WrongReply)?)
    }

    /// Opens the session. Returns how many bets are stored, what the agency may still do, and the longest payload.
    fn open(
        &mut self,
        connection: &mut ServerConnection,
        backoff: &mut Backoff<'_>,
    ) -> Result<(u64, AgencyState, u32), AttemptError> {
        let agency = self.config.id;
        let message = ClientMessage::OpenSession { version: SESSION_VERSION, agency: agency.get().into() };
        connection.send_message(&message)?;
        if !self.was_open && !connection.replies_soon()? && self.server_lacks_sessions() {
            return Err(AgencyError::NoSessions.into());
        }
        match connection.receive()? {
            ServerMessage::SessionOpened { agency: of, stored, state, max_payload } if of == agency => {
                // While sessions keep failing for the same reason, the log does not repeat this either.
                let is_news = backoff.has_warned() || !self.was_open;
                let level = if is_news { Level::Info } else { Level::Debug };
                let fields: [logging::Field<'_>; 2] = [("agency_id", &agency), ("stored", &stored)];
                logging::event(level, "open_session", Outcome::Success, &fields);
                self.was_open = true;
                Ok((stored, state, max_payload))
            }
            other => Err(unexpected_reply(&other, "to open a session")),
        }
    }

    fn end(&self, connection: &mut ServerConnection) -> Result<(), AttemptError> {
        connection.send_message(&ClientMessage::End(None))?;
        connection.receive_ack("the end of the bets")?;
        logging::info("end_message", Outcome::Success, &[("agency_id", &self.config.id)]);
        Ok(())
    }

    /// Returns whether the server answers classic messages but not `OPEN_SESSION`.
    ///
    /// The test is made twice, because a server that restarts may close one connection and answer the next.
    fn server_lacks_sessions(&self) -> bool {
        (0..2).all(|_| self.answers_only_classic().unwrap_or(false))
    }

    /// Sends `OPEN_SESSION` over one connection, then `RESULT_REQUEST` over another.
    ///
    /// A server accepts connections in order. Once the second is answered, even a slow or full server has accepted the
    /// first, and answers it if it speaks sessions.
    fn answers_only_classic(&self) -> Result<bool, ConnectionLost> {
        let address = &self.config.server_address;
        let agency = self.config.id.get();
        let mut session = ServerConnection::open(address)?;
        session.send_message(&ClientMessage::OpenSession { version: NO_VERSION, agency: agency.into() })?;
        let mut classic = ServerConnection::open(address)?;
        // Any answer will do, even one about another agency.
        classic.send_message(&ClientMessage::ResultRequest(Some(u8::try_from(agency).unwrap_or(1))))?;
        Ok(classic.replies_within(QUIET)? && !session.replies_within(OVERTAKING).unwrap_or(false))
    }
}
