//! Classic mode: one connection per message, as the original's client.

use std::thread;

use super::bets_file::{BetsFile, Limits};
use super::connection::{ANSWER_TIMEOUT, ServerConnection, finish_frame, unwanted};
use super::error::{AgencyError, Lost, Trouble};
use super::pauses::Pauses;
use super::progress::Progress;
use crate::config::AgencyConfig;
use crate::logging::{self, Level, Outcome};
use crate::protocol::frame::{FrameType, HEADER_LEN};
use crate::protocol::message::{ClientMessage, ServerMessage};

/// The longest packet, in bytes: what the original allows.
const MAX_PACKET: usize = 8192;
/// After so many answers that the draw has not been made, END is sent again: nothing says whether it was recorded. A
/// storage service that was killed, or a full disk, may have lost it, and then all agencies would wait for ever.
const QUESTIONS_FOR_AN_END: usize = 10;

/// Brings all bets and polls for the result: the number of winners.
///
/// # Errors
/// What another try would not mend, or could make worse.
pub fn run(config: &AgencyConfig, progress: &Progress) -> Result<u64, AgencyError> {
    let id = config.id.get();
    let agency = u8::try_from(id).map_err(|_| AgencyError::NoClassicAgency(id))?;
    let mut client = Classic { config, progress, pauses: Pauses::shown(progress) };
    let sent = client.send_bets()?;
    client.pauses.patiently(|| send_end(config, agency))?;
    logging::info("end_message", Outcome::Success, &[("agency_id", &config.id)]);
    progress.waits(sent);
    client.poll(agency)
}

struct Classic<'a> {
    config: &'a AgencyConfig,
    progress: &'a Progress,
    pauses: Pauses<'a>,
}

impl Classic<'_> {
    /// Sends all bets; returns how many there were.
    fn send_bets(&mut self) -> Result<u64, AgencyError> {
        let config = self.config;
        let limits = Limits { bets: config.batch_max_amount, bytes: MAX_PACKET - HEADER_LEN };
        let mut file = BetsFile::open(&config.bets_file, config.id)?;
        let mut packet = Vec::with_capacity(MAX_PACKET);
        let mut sent = 0;
        loop {
            packet.clear();
            packet.extend_from_slice(&[0; HEADER_LEN]);
            let Some(batch) = file.fill(limits, &mut packet)? else { return Ok(sent) };
            finish_frame(FrameType::MultipleBets, 0, &mut packet);
            if self.progress.is_shown() {
                self.progress.expects(file.expected_rows(sent + batch.bets), false);
            }
            if sent == 0 {
                self.progress.uploads_from(0);
            }
            let name = || batch.name(&config.bets_file);
            self.pauses.patiently(|| deliver(&config.server_address, &packet, name))?;
            logging::info("apuesta_enviada", Outcome::Success, &[("cantidad", &batch.bets)]);
            sent += batch.bets;
            self.progress.stored(sent);
        }
    }

    /// Asks until the draw has been made; returns how many winners there are.
    fn poll(&mut self, agency: u8) -> Result<u64, AgencyError> {
        let config = self.config;
        loop {
            for _ in 0..QUESTIONS_FOR_AN_END {
                if let Some(winners) = self.pauses.patiently(|| ask_for_winners(config, agency))? {
                    return Ok(winners);
                }
                logging::event(Level::Debug, "consulta_ganadores", Outcome::InProgress, &[]);
                thread::sleep(config.loop_period);
            }
            self.pauses.patiently(|| send_end(config, agency))?;
            logging::event(Level::Debug, "end_message", Outcome::Success, &[("agency_id", &config.id)]);
        }
    }
}

/// Sends bets, whose `name` is for people, and waits until they are stored.
///
/// Only what did not go out whole may be sent again: there is no index by which the server would know it.
///
/// # Errors
/// They were refused, may be sent again, or it is not known whether they are stored.
pub fn deliver(address: &str, packet: &[u8], name: impl Fn() -> String) -> Result<(), Trouble> {
    let mut connection = ServerConnection::open(address)?;
    connection.send(packet)?;
    match connection.receive() {
        Ok(ServerMessage::BetAck) => Ok(()),
        Ok(other) => Err(unwanted(&other, &name())),
        Err(Trouble::Lost(lost)) => Err(AgencyError::UnknownOutcome { bets: name(), lost }.into()),
        Err(fatal) => Err(fatal),
    }
}

/// An END has no answer: the server closes the connection when it has taken it.
fn send_end(config: &AgencyConfig, agency: u8) -> Result<(), Trouble> {
    let mut connection = ServerConnection::open(&config.server_address)?;
    connection.send_message(&ClientMessage::End(Some(agency)))?;
    match connection.receive() {
        Err(Trouble::Lost(Lost::Closed)) | Ok(ServerMessage::BetAck) => Ok(()),
        Ok(other) => Err(unwanted(&other, "the end of the bets")),
        Err(trouble) => Err(trouble),
    }
}

fn ask_for_winners(config: &AgencyConfig, agency: u8) -> Result<Option<u64>, Trouble> {
    let mut connection = ServerConnection::open(&config.server_address)?;
    connection.send_message(&ClientMessage::ResultRequest(Some(agency)))?;
    connection.receive_winners(Some(ANSWER_TIMEOUT))
}
