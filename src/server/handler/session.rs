//! Sessions: many frames over one connection, of one agency, answered in the order in which they came.

use std::io;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::dialog::{Dialog, Later, Mode, Question, acknowledge, refusal};
use super::log_lines::{
    log_bets, log_end, log_result_refused, log_session_closed, log_session_opened, log_session_progress,
};
use crate::ipc::refusal::Refusal;
use crate::ipc::reply_pipe::Reply;
use crate::ipc::request_queue::Request;
use crate::ipc::shared_counters::Counter;
use crate::logging::{Level, Outcome};
use crate::lottery::AgencyId;
use crate::protocol::frame::FrameType;
use crate::protocol::message::{ClientMessage, MessageError, SESSION_VERSION, ServerMessage};
use crate::protocol::record::{count_records, push_rows};
use crate::system::process::schedule_as_batch;

/// How often a session that goes forward says how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// A session, and what the log has to say of it.
#[derive(Debug)]
pub struct Session {
    /// Its agency.
    pub agency: AgencyId,
    stored: u64,
    refused: u64,
    reported: u64,
    report_at: Instant,
}

impl Session {
    fn new(agency: AgencyId, stored: u64) -> Self {
        Self { agency, stored, refused: 0, reported: stored, report_at: Instant::now() + REPORT_EVERY }
    }

    /// When there is something to say.
    #[must_use]
    pub fn next_report(&self) -> Option<Instant> {
        (self.stored != self.reported).then_some(self.report_at)
    }

    /// Says how far it is, if it is time.
    pub fn report(&mut self, now: Instant) {
        if self.next_report().is_none_or(|at| now < at) {
            return;
        }
        self.reported = self.stored;
        self.report_at = now + REPORT_EVERY;
        log_session_progress(self.agency, self.stored);
    }

    /// Says how it ended.
    pub fn log_closed(&self, outcome: Outcome, reason: &str) {
        log_session_closed(outcome, self.agency, self.stored, self.refused, reason);
    }
}

/// Takes the `OPEN_SESSION` that a connection began with.
///
/// # Errors
/// The storage service can't be asked.
pub fn open(dialog: &mut Dialog<'_>, version: u8, agency: u32) -> io::Result<()> {
    if version != SESSION_VERSION {
        dialog
            .refuse_and_end(format!("session version {version} is not spoken here, only {SESSION_VERSION}"));
        return Ok(());
    }
    let agency = match dialog.view.agency(agency) {
        Ok(agency) => agency,
        Err(refusal) => {
            dialog.view.counters.add(Counter::Agency);
            dialog.end_refused(refusal.to_string());
            return Ok(());
        }
    };
    schedule_as_batch();
    dialog.view.confinement.enter_session()?;
    super::probe("session");
    // Frames behind this one are taken already, as the storage service answers in order.
    dialog.mode = Mode::Session(Session::new(agency, 0));
    dialog.ask(Request::OpenSession { agency }, Question::Open(agency))
}

/// Says whether the session is open.
pub fn answer_open(
    dialog: &mut Dialog<'_>,
    agency: AgencyId,
    reply: &Reply,
    connection: &mut Connection<'_>,
) {
    match *reply {
        Reply::Opened { stored, state } => {
            log_session_opened(agency, stored, dialog.ip);
            dialog.mode = Mode::Session(Session::new(agency, stored));
            let max_payload = dialog.view.max_payload;
            connection.send(&ServerMessage::SessionOpened { agency, stored, state, max_payload });
        }
        // Storage has counted it.
        _ => dialog.end_refused(refusal(reply).unwrap_or_default()),
    }
}

/// Takes a frame of a session of that agency.
///
/// # Errors
/// The storage service can't be asked.
pub fn take(
    dialog: &mut Dialog<'_>,
    agency: AgencyId,
    message: Result<ClientMessage<'_>, MessageError>,
) -> io::Result<()> {
    match message {
        Ok(ClientMessage::SessionBets { first, records }) => return bets(dialog, agency, first, records),
        Ok(ClientMessage::End(named)) => return end(dialog, agency, named),
        Ok(ClientMessage::ResultRequest(named)) => result(dialog, agency, named),
        Ok(ClientMessage::AwaitResult) => dialog.ask_later(Later::Winners { agency, wait: true }),
        Ok(ClientMessage::OpenSession { .. }) => dialog.refuse_and_end("the session is open already"),
        Ok(ClientMessage::Bet(_) | ClientMessage::MultipleBets(_) | ClientMessage::StatusRequest) => {
            dialog.refuse_and_end("this message has no place in a session");
        }
        Err(error) if is_of_a_session(&error) => dialog.refuse_message(error.to_string()),
        Err(error) => dialog.refuse_and_end(error.to_string()),
    }
    Ok(())
}

/// Whether the message has its place in a session, and only its payload is wrong: the session then stays open.
fn is_of_a_session(error: &MessageError) -> bool {
    use FrameType::{AwaitResult, End, ResultRequest, SessionBets};
    matches!(error, MessageError::Payload { kind: SessionBets | End | ResultRequest | AwaitResult, .. })
}

fn bets(dialog: &mut Dialog<'_>, agency: AgencyId, first: u64, records: &[u8]) -> io::Result<()> {
    let mut others = false;
    let checked = push_rows(records, dialog.storage.body(), |bet| others |= bet.agency != agency);
    let error = match checked {
        Ok(count) if !others => {
            return dialog.ask(Request::StoreBets { first: Some(first) }, Question::SessionBets(count));
        }
        Ok(_) => Refusal::OtherAgency.to_string(),
        Err(error) => error.to_string(),
    };
    log_bets(Level::Debug, count_records(records), Some(&error));
    if let Mode::Session(session) = &mut dialog.mode {
        session.refused += 1;
    }
    dialog.refuse_bets(error);
    Ok(())
}

/// Says what became of the bets of a frame.
pub fn answer_bets(dialog: &mut Dialog<'_>, count: usize, reply: &Reply, connection: &mut Connection<'_>) {
    let error = refusal(reply);
    log_bets(Level::Debug, count, error.as_deref());
    let Mode::Session(session) = &mut dialog.mode else { return };
    match (reply, error) {
        (&Reply::SessionStored { stored }, _) => {
            session.stored = session.stored.max(stored);
            connection.send(&ServerMessage::SessionStored { stored });
        }
        (_, error) => {
            session.refused += 1;
            connection.send(&ServerMessage::Error(&error.unwrap_or_default()));
        }
    }
}

const OTHERS: &str = "this session is of another agency";

fn end(dialog: &mut Dialog<'_>, agency: AgencyId, named: Option<u8>) -> io::Result<()> {
    if let Some(other) = other_than(agency, named) {
        log_end(other, Some(OTHERS));
        refuse_others(dialog);
        return Ok(());
    }
    dialog.ask(Request::EndAgency { agency }, Question::SessionEnd(agency))
}

/// Says what became of an END.
pub fn answer_end(agency: AgencyId, reply: &Reply, connection: &mut Connection<'_>) {
    let error = refusal(reply);
    log_end(agency.get().into(), error.as_deref());
    acknowledge(error.as_deref(), connection);
}

fn result(dialog: &mut Dialog<'_>, agency: AgencyId, named: Option<u8>) {
    if let Some(other) = other_than(agency, named) {
        log_result_refused(other, OTHERS);
        return refuse_others(dialog);
    }
    dialog.ask_later(Later::Winners { agency, wait: false });
}

fn refuse_others(dialog: &mut Dialog<'_>) {
    dialog.view.counters.add(Counter::Agency);
    dialog.refuse(OTHERS);
}

fn other_than(agency: AgencyId, named: Option<u8>) -> Option<u32> {
    named.map(u32::from).filter(|named| *named != u32::from(agency.get()))
}
