//! What a message means, and how its reply looks, by the mode of the connection. Nothing here touches the socket or
//! storage.

use std::time::{Duration, Instant};

use super::log_lines::Subject;
use crate::ipc::messages::{Refusal, Reply, Request};
use crate::ipc::shared_counters::Counter;
use crate::logging::{Field, Level, Outcome, info};
use crate::lottery::{AgencyId, Bet};
use crate::protocol::frame::FrameType;
use crate::protocol::message::{ClientMessage, MessageError, SESSION_VERSION, ServerMessage};
use crate::protocol::record::{count_records, push_rows};

/// What kind of connection it is.
#[derive(Debug)]
pub(super) enum Mode {
    /// No message has come.
    New,
    /// One message and at most one reply. Then the server closes.
    Classic,
    /// Any number of messages of one agency, until the client closes.
    Session(Session),
}

/// What to do about a message.
#[derive(Debug)]
pub(super) enum Action {
    OpenSession(AgencyId),
    /// Have storage write bets or an END.
    Write(Request, Subject),
    /// Send the result of an agency. Before the draw, either `wait` for it or say that it is in progress.
    SendResult {
        agency: AgencyId,
        wait: bool,
    },
    SendStatus,
}

/// Why a message is refused, and what follows from it.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) subject: Subject,
    pub(super) reason: String,
    pub(super) counter: Counter,
    /// Whether the connection is closed.
    pub(super) closes: bool,
}

impl Rejection {
    /// A message that the protocol does not allow.
    pub(super) fn violation(reason: impl Into<String>) -> Self {
        Self { subject: Subject::Protocol, reason: reason.into(), counter: Counter::Protocol, closes: true }
    }

    fn bets(subject: Subject, reason: String) -> Self {
        Self { subject, reason, counter: Counter::Bets, closes: false }
    }

    /// A message of an agency that may not send it.
    fn agency(subject: Subject, reason: impl Into<String>) -> Self {
        Self { subject, reason: reason.into(), counter: Counter::Agency, closes: false }
    }
}

impl Mode {
    /// Decides what to do about a message. The agencies that take part are 1 to `agencies`. Appends the rows of bets to
    /// `rows`.
    pub(super) fn decide(
        &self,
        message: Result<ClientMessage<'_>, MessageError>,
        agencies: u16,
        rows: &mut Vec<u8>,
    ) -> Result<Action, Rejection> {
        match (self, message) {
            (Self::Session(session), Ok(message)) => in_session(session.agency, message, rows),
            (Self::New, Ok(ClientMessage::OpenSession { version, agency })) => {
                open_session(version, agency, agencies)
            }
            (Self::New | Self::Classic, Ok(message)) => classic(message, agencies, rows),
            (mode, Err(error)) => {
                let closes = !matches!(mode, Self::Session(_)) || !is_of_a_session(&error);
                Err(Rejection { closes, ..Rejection::violation(error.to_string()) })
            }
        }
    }

    /// Whether the client is told what became of its message. A classic END has no reply.
    pub(super) fn replies_to(&self, subject: &Subject) -> bool {
        !matches!((self, subject), (Self::Classic, Subject::End(_)))
    }

    /// The level of log lines that a session could repeat without end.
    pub(super) fn level(&self) -> Level {
        if matches!(self, Self::Session(_)) { Level::Debug } else { Level::Info }
    }
}

/// The text of a refusal, if the reply is one.
pub(super) fn refusal(reply: &Reply) -> Option<String> {
    match reply {
        Reply::Refused(refusal) => Some(refusal.to_string()),
        Reply::Stored | Reply::SessionStored { .. } | Reply::Ended => None,
        // Storage has answered another question.
        _ => Some(Refusal::Malformed.to_string()),
    }
}

/// The message that tells a client what became of its bets or its END.
pub(super) fn acknowledgement<'e>(reply: &Reply, error: Option<&'e str>) -> ServerMessage<'e> {
    match (error, reply) {
        (Some(error), _) => ServerMessage::Error(error),
        (None, &Reply::SessionStored { stored }) => ServerMessage::SessionStored { stored },
        (None, _) => ServerMessage::BetAck,
    }
}

fn open_session(version: u8, agency: u32, agencies: u16) -> Result<Action, Rejection> {
    if version != SESSION_VERSION {
        let reason = format!("session version {version} is not supported, only {SESSION_VERSION}");
        return Err(Rejection::violation(reason));
    }
    let agency = participant(agency, agencies)
        .map_err(|reason| Rejection { closes: true, ..Rejection::agency(Subject::Protocol, reason) })?;
    Ok(Action::OpenSession(agency))
}

/// The agency of that number, if it takes part.
fn participant(number: u32, agencies: u16) -> Result<AgencyId, String> {
    AgencyId::new(number)
        .filter(|agency| agency.get() <= agencies)
        .ok_or_else(|| Refusal::NoSuchAgency { agencies }.to_string())
}

fn classic(message: ClientMessage<'_>, agencies: u16, rows: &mut Vec<u8>) -> Result<Action, Rejection> {
    let refused = |agency: AgencyId| (agency.get() > agencies).then_some(Refusal::NoSuchAgency { agencies });
    match message {
        ClientMessage::Bet(record) => {
            let mut bet = None;
            let see = |seen: &Bet<'_>| bet = Some((seen.document.to_owned(), seen.number));
            let count = push_allowed_rows(record, rows, refused, see);
            let subject = Subject::Bet(bet);
            match count {
                Ok(1) => Ok(Action::Write(Request::StoreBets { first: None }, subject)),
                Ok(_) => Err(Rejection::bets(subject, "this message takes one bet only".to_owned())),
                Err(reason) => Err(Rejection::bets(subject, reason)),
            }
        }
        ClientMessage::MultipleBets(records) => store_bets(None, records, rows, refused),
        ClientMessage::End(Some(number)) => {
            let subject = Subject::End(number.into());
            match participant(number.into(), agencies) {
                Ok(agency) => Ok(Action::Write(Request::EndAgency { agency }, subject)),
                Err(reason) => Err(Rejection::agency(subject, reason)),
            }
        }
        ClientMessage::ResultRequest(Some(number)) => match participant(number.into(), agencies) {
            Ok(agency) => Ok(Action::SendResult { agency, wait: false }),
            Err(reason) => Err(Rejection::agency(Subject::Result(number.into()), reason)),
        },
        ClientMessage::StatusRequest => Ok(Action::SendStatus),
        ClientMessage::End(None) | ClientMessage::ResultRequest(None) => {
            Err(Rejection::violation("outside of a session the agency must be named, in 1 byte"))
        }
        ClientMessage::SessionBets { .. } | ClientMessage::AwaitResult => {
            Err(Rejection::violation("there is no session: send OPEN_SESSION first"))
        }
        ClientMessage::OpenSession { .. } => {
            Err(Rejection::violation("a session is opened by a connection's first message"))
        }
    }
}

fn in_session(agency: AgencyId, message: ClientMessage<'_>, rows: &mut Vec<u8>) -> Result<Action, Rejection> {
    match message {
        ClientMessage::SessionBets { first, records } => {
            let refused = |bet: AgencyId| (bet != agency).then_some(Refusal::OtherAgency);
            store_bets(Some(first), records, rows, refused)
        }
        ClientMessage::End(named) => {
            check_named(named, agency, Subject::End)?;
            Ok(Action::Write(Request::EndAgency { agency }, Subject::End(agency.get().into())))
        }
        ClientMessage::ResultRequest(named) => {
            check_named(named, agency, Subject::Result)?;
            Ok(Action::SendResult { agency, wait: false })
        }
        ClientMessage::AwaitResult => Ok(Action::SendResult { agency, wait: true }),
        ClientMessage::OpenSession { .. } => Err(Rejection::violation("the session is open already")),
        ClientMessage::Bet(_) | ClientMessage::MultipleBets(_) | ClientMessage::StatusRequest => {
            Err(Rejection::violation("this message is not allowed in a session"))
        }
    }
}

/// Refuses a message that names another agency than the session's.
fn check_named(
    named: Option<u8>,
    agency: AgencyId,
    subject: impl FnOnce(u32) -> Subject,
) -> Result<(), Rejection> {
    match named {
        Some(other) if u16::from(other) != agency.get() => {
            Err(Rejection::agency(subject(other.into()), "this session is of another agency"))
        }
        _ => Ok(()),
    }
}

/// Whether the type is allowed in a session and only the payload is malformed. The session then stays open.
fn is_of_a_session(error: &MessageError) -> bool {
    use FrameType::{AwaitResult, End, ResultRequest, SessionBets};
    matches!(error, MessageError::Payload { kind: SessionBets | End | ResultRequest | AwaitResult, .. })
}

fn store_bets(
    first: Option<u64>,
    records: &[u8],
    rows: &mut Vec<u8>,
    refused: impl Fn(AgencyId) -> Option<Refusal>,
) -> Result<Action, Rejection> {
    match push_allowed_rows(records, rows, refused, |_| ()) {
        Ok(count) => Ok(Action::Write(Request::StoreBets { first }, Subject::Bets(count))),
        Err(reason) => Err(Rejection::bets(Subject::Bets(count_records(records)), reason)),
    }
}

/// Validates bet records and appends their rows. `refused` says why an agency's bets are refused; `see` gets each bet.
/// Returns the number of bets, or why they are refused: then `rows` holds a part of them.
fn push_allowed_rows(
    records: &[u8],
    rows: &mut Vec<u8>,
    refused: impl Fn(AgencyId) -> Option<Refusal>,
    mut see: impl FnMut(&Bet<'_>),
) -> Result<usize, String> {
    let mut refusal = None;
    let count = push_rows(records, rows, |bet| {
        see(bet);
        refusal = refusal.or_else(|| refused(bet.agency));
    })
    .map_err(|error| error.to_string())?;
    refusal.map_or(Ok(count), |refusal: Refusal| Err(refusal.to_string()))
}

/// Makes this process find out which vector instructions the machine has, before any handler is forked. Each handler would
/// find out for itself otherwise: in a virtual machine that takes 10 µs.
pub(crate) fn warm_up() {
    let record = b"1\x1fNombre\x1fApellido\x1f1\x1f2000-01-01\x1f1";
    let stored = push_rows(record, &mut Vec::new(), |_| ());
    debug_assert_eq!(stored, Ok(1));
}

/// How often a session that makes progress logs it.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// A session, and what has been logged about it.
#[derive(Debug)]
pub(super) struct Session {
    agency: AgencyId,
    /// How many bets of the agency are on disk.
    stored: u64,
    /// How many frames of bets were refused.
    pub(super) refused: u64,
    reported: u64,
    report_at: Instant,
}

impl Session {
    pub(super) fn new(agency: AgencyId, stored: u64) -> Self {
        Self { agency, stored, refused: 0, reported: stored, report_at: Instant::now() + REPORT_INTERVAL }
    }

    /// Counts a frame of bets that was answered.
    pub(super) fn count(&mut self, reply: &Reply) {
        match *reply {
            Reply::SessionStored { stored } => self.stored = self.stored.max(stored),
            _ => self.refused += 1,
        }
    }

    /// When the next progress line is due, if there is progress.
    pub(super) fn next_report(&self) -> Option<Instant> {
        (self.stored != self.reported).then_some(self.report_at)
    }

    /// Logs the progress if that is due.
    pub(super) fn report(&mut self, now: Instant) {
        if self.next_report().is_some_and(|due| now >= due) {
            self.reported = self.stored;
            self.report_at = now + REPORT_INTERVAL;
            let fields: [Field<'_>; 2] = [("agency_id", &self.agency), ("stored", &self.stored)];
            info("session_progress", Outcome::InProgress, &fields);
        }
    }

    pub(super) fn log_closed(&self, outcome: Outcome, reason: &str) {
        let Self { agency, stored, refused, .. } = self;
        info(
            "session_closed",
            outcome,
            &[("agency_id", agency), ("stored", stored), ("refused", refused), ("reason", &reason)],
        );
    }
}
