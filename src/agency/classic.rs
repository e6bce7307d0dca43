//! Classic mode: one connection per message, as the original's client does.

use std::fmt::Display;
use std::thread;
use std::time::Duration;

use super::backoff::Backoff;
use super::bets_file::{BetsFile, Limits};
use super::connection::ANSWER_TIMEOUT;
use super::error::{AgencyError, AttemptError};
use super::progress::Progress;
use super::time_limits::TimeLimits;
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
pub(super) fn run(
    config: &AgencyConfig,
    server: &Target,
    progress: &Progress,
    limits: TimeLimits,
) -> Result<u64, AgencyError> {
    let id = config.id.get();
    let agency = u8::try_from(id).map_err(|_| AgencyError::NoClassicAgency(id))?;
    let mut client =
        ClassicClient { config, agency, progress, backoff: Backoff::new(server, Some(progress), limits) };
    let sent = client.send_bets()?;
    client.send_end(Level::Info)?;
    progress.waits(sent);
    client.backoff.time_limits.awaits_result();
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
        let Self { config, progress, .. } = *self;
        let limits = Limits {
            bets: config.batch_max_amount,
            bytes: config.batch_max_bytes.unwrap_or(MAX_PACKET).saturating_sub(HEADER_LEN),
        };
        let mut file = BetsFile::open(&config.bets_file, config.id)?;
        let mut records = Vec::with_capacity(MAX_PACKET);
        let mut sent = 0;
        progress.uploads_from(0);
        while let Some(batch) = file.next_batch(limits, &mut records)? {
            // No digests are compared.
            file.forget_digests();
            progress.uploaded(sent, file.expected_rows(), false);
            let message = ClientMessage::MultipleBets(&records);
            let name = file.name(batch);
            self.backoff.retry(|backoff| deliver(backoff, &message, &name))?;
            logging::info("apuesta_enviada", Outcome::Success, &[("cantidad", &batch.bets)]);
            sent = batch.end();
        }
        Ok(sent)
    }

    fn send_end(&mut self, level: Level) -> Result<(), AgencyError> {
        let Self { config, agency, .. } = *self;
        self.backoff.retry(|backoff| try_end(backoff, agency))?;
        logging::event(level, "end_message", Outcome::Success, &[("agency_id", &config.id)]);
        Ok(())
    }

    /// Asks until the draw has been made; returns how many winners there are.
    fn poll(&mut self) -> Result<u64, AgencyError> {
        let Self { config, agency, .. } = *self;
        let mut pause = FIRST_POLL_PAUSE.min(config.loop_period);
        loop {
            for _ in 0..POLLS_PER_END {
                let winners = self.backoff.retry(|backoff| ask_for_winners(backoff, agency))?;
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

/// Sends bets and waits until they are stored. `name` names them for people.
///
/// If they were sent whole and there is no reply, they must not be sent again: they may be stored.
fn deliver(
    backoff: &mut Backoff<'_>,
    bets: &ClientMessage<'_>,
    name: &dyn Display,
) -> Result<(), AttemptError> {
    let mut connection = backoff.connect()?;
    connection.send_message(bets)?;
    connection.receive_ack(name).map_err(|error| match error {
        AttemptError::Lost(lost) => AgencyError::UnknownOutcome { bets: name.to_string(), lost }.into(),
        error => error,
    })
}

/// Sends END. It has no reply: our server closes the connection, the original's leaves it open.
fn try_end(backoff: &mut Backoff<'_>, agency: u8) -> Result<(), AttemptError> {
    let mut connection = backoff.connect()?;
    connection.send_message(&ClientMessage::End(Some(agency)))?;
    connection.finish_sending()?;
    if connection.replies_within(END_SILENCE)? {
        connection.receive_ack("the end of the bets")
    } else {
        Ok(())
    }
}

fn ask_for_winners(backoff: &mut Backoff<'_>, agency: u8) -> Result<Option<u64>, AttemptError> {
    let mut connection = backoff.connect()?;
    connection.send_message(&ClientMessage::ResultRequest(Some(agency)))?;
    connection.receive_winners(Some(ANSWER_TIMEOUT))
}

/// Sends one bet to the server and logs the outcome.
pub(crate) fn send_bet(bet: &Bet<'_>, server: &Target) -> Result<(), AgencyError> {
    logging::tag_lines("agency_id", bet.agency.get().into());
    let mut record = Vec::new();
    push_record(bet, &mut record);
    let message = ClientMessage::Bet(&record);
    let result = Backoff::new(server, None, TimeLimits::default())
        .retry(|backoff| deliver(backoff, &message, &"the bet"));
    let (document, number) = (&bet.document, &bet.number);
    let log = |level, outcome, fields: &[logging::Field<'_>]| {
        logging::event(level, "apuesta_enviada", outcome, fields);
    };
    match &result {
        Ok(()) => {
            log(Level::Info, Outcome::Success, &[("dni", document), ("numero", number)]);
            // The agency has not ended, or the server would have refused the bet.
            let reason = "`loteria agency` refuses to go on with a file that lacks this bet";
            let fields: [logging::Field<'_>; 2] = [("agency_id", &bet.agency), ("reason", &reason)];
            logging::event(Level::Warning, "bet_without_file", Outcome::Success, &fields);
        }
        Err(error) => {
            log(Level::Critical, Outcome::Fail, &[("dni", document), ("numero", number), ("error", error)]);
        }
    }
    result
}
