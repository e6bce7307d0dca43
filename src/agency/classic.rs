//! Classic mode: one connection per message, as the original's client does.

use std::fmt::Display;
use std::thread;
use std::time::Duration;

use super::backoff::Backoff;
use super::bets_file::{BetsFile, Limits};
use super::error::{AgencyError, AttemptError};
use super::progress::Progress;
use super::time_limits::{Event, TimeLimits};
use crate::config::AgencyConfig;
use crate::logging::{self, Level, Outcome};
use crate::lottery::Bet;
use crate::protocol::frame::HEADER_LEN;
use crate::protocol::message::ClientMessage;
use crate::protocol::record::push_record;
use crate::tls::client::Target;

/// The longest packet unless configured, in bytes: what the original allows.
const MAX_PACKET: usize = 8192;
/// How long to wait for the server to close the connection of an END. The original's server never closes it.
const END_SILENCE: Duration = Duration::from_millis(500);
/// The pause after the first request for the result. The pauses double up to `LOOP_PERIOD`.
const FIRST_POLL_PAUSE: Duration = Duration::from_millis(250);
/// END is sent again after so many `IN_PROGRESS`: it has no reply, and the server may have lost the first one.
const POLLS_PER_END: usize = 10;

/// Sends all bets and polls for the result; returns the number of winners.
pub(super) fn run(config: &AgencyConfig, backoff: &mut Backoff<'_>) -> Result<u64, AgencyError> {
    let id = config.id.get();
    let agency = u8::try_from(id).map_err(|_| AgencyError::NoClassicAgency(id))?;
    let sent = send_bets(config, backoff)?;
    send_end(agency, Level::Info, backoff)?;
    backoff.progress.waits(sent);
    backoff.time_limits.tell(Event::AwaitsResult);
    poll(agency, config.loop_period, backoff)
}

/// Sends all bets; returns how many there were.
fn send_bets(config: &AgencyConfig, backoff: &mut Backoff<'_>) -> Result<u64, AgencyError> {
    let limits = Limits {
        bets: config.batch_max_amount,
        bytes: config.batch_max_bytes.unwrap_or(MAX_PACKET).saturating_sub(HEADER_LEN),
    };
    let mut file = BetsFile::open(&config.bets_file, config.id)?;
    let mut records = Vec::with_capacity(MAX_PACKET);
    let mut sent = 0;
    backoff.progress.uploads_from(0);
    while let Some(batch) = file.next_batch(limits, &mut records)? {
        // Nothing is compared: this forgets the digests.
        file.digest_of(batch.end())?;
        backoff.progress.uploaded(sent, file.expected_rows(), false);
        let message = ClientMessage::MultipleBets(&records);
        let name = file.name(batch);
        backoff.retry(|backoff| deliver(backoff, &message, &name))?;
        logging::info("apuesta_enviada", Outcome::Success, &[("cantidad", &batch.bets)]);
        sent = batch.end();
    }
    Ok(sent)
}

fn send_end(agency: u8, level: Level, backoff: &mut Backoff<'_>) -> Result<(), AgencyError> {
    backoff.retry(|backoff| try_end(backoff, agency))?;
    logging::event(level, "end_message", Outcome::Success, &[("agency_id", &agency)]);
    Ok(())
}

/// Asks until the draw has been made; returns how many winners there are.
fn poll(agency: u8, longest_pause: Duration, backoff: &mut Backoff<'_>) -> Result<u64, AgencyError> {
    let mut pause = FIRST_POLL_PAUSE.min(longest_pause);
    loop {
        for _ in 0..POLLS_PER_END {
            if let Some(winners) = backoff.retry(|backoff| ask_for_winners(backoff, agency))? {
                return Ok(winners);
            }
            logging::event(Level::Debug, "consulta_ganadores", Outcome::InProgress, &[]);
            thread::sleep(pause);
            pause = (pause * 2).min(longest_pause);
        }
        send_end(agency, Level::Debug, backoff)?;
    }
}

/// Sends bets and waits until they are stored. `name` names them for people.
///
/// If they were sent whole and there is no reply, they must not be sent again: they may be stored.
fn deliver(backoff: &Backoff<'_>, bets: &ClientMessage<'_>, name: &dyn Display) -> Result<(), AttemptError> {
    let mut connection = backoff.connect()?;
    connection.send_message(bets)?;
    connection.receive_ack(name).map_err(|error| match error {
        AttemptError::Lost(lost) => AgencyError::UnknownOutcome { bets: name.to_string(), lost }.into(),
        error => error,
    })
}

/// Sends END. It has no reply: our server closes the connection, the original's leaves it open.
fn try_end(backoff: &Backoff<'_>, agency: u8) -> Result<(), AttemptError> {
    let mut connection = backoff.connect()?;
    connection.send_message(&ClientMessage::End(Some(agency)))?;
    connection.finish_sending()?;
    if connection.replies_within(Some(END_SILENCE))? {
        connection.receive_ack("the end of the bets")?;
    }
    Ok(())
}

fn ask_for_winners(backoff: &Backoff<'_>, agency: u8) -> Result<Option<u64>, AttemptError> {
    let mut connection = backoff.connect()?;
    connection.send_message(&ClientMessage::ResultRequest(Some(agency)))?;
    connection.receive_winners()
}

/// Sends one bet to the server and logs the outcome.
pub(crate) fn send_bet(bet: &Bet<'_>, server: &Target) -> Result<(), AgencyError> {
    logging::tag_lines("agency_id", bet.agency.get().into());
    let mut record = Vec::new();
    push_record(bet, &mut record);
    let message = ClientMessage::Bet(&record);
    let result = Backoff::new(server, &Progress::hidden(), TimeLimits::default())
        .retry(|backoff| deliver(backoff, &message, &"the bet"));
    let (document, number) = (&bet.document, &bet.number);
    match &result {
        Ok(()) => {
            logging::info("apuesta_enviada", Outcome::Success, &[("dni", document), ("numero", number)]);
            // The agency has not ended, or the server would have refused the bet.
            let reason = "`loteria agency` refuses to go on with a file that lacks this bet";
            let fields: [logging::Field<'_>; 2] = [("agency_id", &bet.agency), ("reason", &reason)];
            logging::event(Level::Warning, "bet_without_file", Outcome::Success, &fields);
        }
        Err(error) => {
            let fields: [logging::Field<'_>; 3] = [("dni", document), ("numero", number), ("error", error)];
            logging::event(Level::Critical, "apuesta_enviada", Outcome::Fail, &fields);
        }
    }
    result
}
