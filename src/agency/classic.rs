//! Classic mode: one connection per message, as the original's client does.

use std::thread;
use std::time::Duration;

use super::backoff::Backoff;
use super::bets_file::{BetsFile, Limits};
use super::connection::{ANSWER_TIMEOUT, ServerConnection, finish_frame, unexpected_reply};
use super::error::{AgencyError, AttemptError};
use super::progress::Progress;
use crate::config::AgencyConfig;
use crate::logging::{self, Level, Outcome};
use crate::lottery::Bet;
use crate::protocol::frame::{FrameType, HEADER_LEN};
use crate::protocol::message::{ClientMessage, ServerMessage};
use crate::protocol::record::push_record;

/// The longest packet, in bytes: what the original allows.
const MAX_PACKET: usize = 8192;
/// How long to wait for the server to close the connection of an END. The original's server never closes it.
const END_SILENCE: Duration = Duration::from_millis(500);
/// The pause after the first request for the result. The pauses double up to `LOOP_PERIOD`.
const FIRST_POLL_PAUSE: Duration = Duration::from_millis(250);
/// END is sent again after so many `IN_PROGRESS`: END has no reply, and a server may have lost the first one.
const POLLS_PER_END: usize = 10;

/// Sends all bets and polls for the result; returns the number of winners.
pub(super) fn run(config: &AgencyConfig, progress: &Progress) -> Result<u64, AgencyError> {
    let id = config.id.get();
    let agency = u8::try_from(id).map_err(|_| AgencyError::NoClassicAgency(id))?;
    let mut client = ClassicClient { config, agency, progress, backoff: Backoff::new(Some(progress)) };
    let sent = client.send_bets()?;
    client.send_end(Level::Info)?;
    progress.waits(sent);
    client.poll()
}

struct ClassicClient<'a> {
    config: &'a AgencyConfig,
    agency: u8,
    progress: &'a Progress,
    backoff: Backoff<'a>,
}

impl ClassicClient<'_> {
    /// Sends all bets; returns how many there were.
    fn send_bets(&mut self) -> Result<u64, AgencyError> {
        let config = self.config;
        let limits = Limits { bets: config.batch_max_amount, bytes: MAX_PACKET - HEADER_LEN };
        let mut file = BetsFile::open(&config.bets_file, config.id)?;
        let mut packet = Vec::with_capacity(MAX_PACKET);
        let mut sent = 0;
        self.progress.uploads_from(0);
        loop {
            packet.clear();
            packet.extend_from_slice(&[0; HEADER_LEN]);
            let Some(batch) = file.fill(limits, &mut packet)? else { return Ok(sent) };
            finish_frame(FrameType::MultipleBets, 0, &mut packet);
            if self.progress.is_shown() {
                self.progress.expects(file.expected_rows(sent + batch.bets), false);
            }
            let name = || batch.name(&config.bets_file);
            self.backoff.retry(|_| deliver(&config.server_address, &packet, name))?;
            logging::info("apuesta_enviada", Outcome::Success, &[("cantidad", &batch.bets)]);
            sent += batch.bets;
            self.progress.stored(sent);
        }
    }

    fn send_end(&mut self, level: Level) -> Result<(), AgencyError> {
        let Self { config, agency, .. } = *self;
        self.backoff.retry(|_| try_end(&config.server_address, agency))?;
        logging::event(level, "end_message", Outcome::Success, &[("agency_id", &config.id)]);
        Ok(())
    }

    /// Asks until the draw has been made; returns how many winners there are.
    fn poll(&mut self) -> Result<u64, AgencyError> {
        let Self { config, agency, .. } = *self;
        let mut pause = FIRST_POLL_PAUSE.min(config.loop_period);
        loop {
            for _ in 0..POLLS_PER_END {
                let winners = self.backoff.retry(|_| ask_for_winners(&config.server_address, agency))?;
                if let Some(winners) = winners {
                    return Ok(winners);
                }
                logging::event(Level::Debug, "consulta_ganadores", Outcome::InProgress, &[]);
                thread::sleep(pause);
                pause = (pause * 2).min(config.loop_period);
            }
            self.send_end(Level::Debug)?;
        }
    }
}

/// Sends a packet of bets and waits until they are stored. `name` says which bets they are, for people.
///
/// A packet that was sent whole and not answered must not be sent again: it may be stored.
fn deliver(address: &str, packet: &[u8], name: impl Fn() -> String) -> Result<(), AttemptError> {
    let mut connection = ServerConnection::open(address)?;
    connection.send(packet)?;
    match connection.receive() {
        Ok(ServerMessage::BetAck) => Ok(()),
        Ok(other) => Err(unexpected_reply(&other, &name())),
        Err(AttemptError::Lost(lost)) => Err(AgencyError::UnknownOutcome { bets: name(), lost }.into()),
        Err(error) => Err(error),
    }
}

/// Sends END. It has no reply: our server closes the connection, the original's leaves it open.
fn try_end(address: &str, agency: u8) -> Result<(), AttemptError> {
    let mut connection = ServerConnection::open(address)?;
    connection.send_message(&ClientMessage::End(Some(agency)))?;
    connection.finish_sending()?;
    if !connection.replies_within(END_SILENCE)? {
        return Ok(());
    }
    match connection.receive()? {
        ServerMessage::BetAck => Ok(()),
        other => Err(unexpected_reply(&other, "the end of the bets")),
    }
}

fn ask_for_winners(address: &str, agency: u8) -> Result<Option<u64>, AttemptError> {
    let mut connection = ServerConnection::open(address)?;
    connection.send_message(&ClientMessage::ResultRequest(Some(agency)))?;
    connection.receive_winners(Some(ANSWER_TIMEOUT))
}

/// Sends one bet as a classic BET to the server at `HOST:PORT` and logs what became of it.
pub(crate) fn send_bet(bet: &Bet<'_>, address: &str) -> Result<(), AgencyError> {
    let (mut record, mut packet) = (Vec::new(), Vec::new());
    push_record(bet, &mut record);
    ClientMessage::Bet(&record).encode(&mut packet);
    let result = Backoff::new(None).retry(|_| deliver(address, &packet, || "the bet".to_owned()));
    let (document, number) = (&bet.document, &bet.number);
    match &result {
        Ok(()) => {
            logging::info("apuesta_enviada", Outcome::Success, &[("dni", document), ("numero", number)]);
        }
        Err(error) => logging::event(
            Level::Critical,
            "apuesta_enviada",
            Outcome::Fail,
            &[("dni", document), ("numero", number), ("error", error)],
        ),
    }
    result
}
