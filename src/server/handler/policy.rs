//! What a message means, in a session and outside of one. Nothing here touches the socket or storage.

use std::fmt::Display;

use thiserror::Error;

use super::log_lines::Subject;
use super::query::Query;
use crate::ipc::messages::{Refusal, Request};
use crate::ipc::shared_counters::Counter;
use crate::lottery::{AgencyId, Bet};
use crate::protocol::frame::kind;
use crate::protocol::message::{ClientMessage as Message, MessageError, SESSION_VERSION};
use crate::protocol::record::{RecordError, count_records, push_rows};
use crate::server::access::{Access, Denied};

/// What to do about a message.
#[derive(Debug)]
pub(super) enum Action {
    /// Of that agency, in that version.
    OpenSession(AgencyId, u8),
    /// Have storage write bets or an END.
    Write(Request, Subject),
    Query(Query),
}

/// Why a message is refused.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) subject: Subject,
    pub(super) reason: String,
    /// Whether the connection is closed.
    pub(super) closes: bool,
    /// The counter that counts it.
    pub(super) counter: Counter,
}

impl Rejection {
    pub(super) fn new(subject: Subject, reason: impl Display) -> Self {
        let closes = matches!(subject, Subject::Protocol | Subject::Opening);
        let counter = subject.counter();
        Self { subject, reason: reason.to_string(), closes, counter }
    }

    fn of(subject: Subject, refused: Refused) -> Self {
        let rejection = Self::new(subject, refused);
        let Refused::Denied(_) = refused else { return rejection };
        Self { counter: Counter::NotProven, ..rejection }
    }

    /// A message that the protocol does not allow.
    pub(super) fn violation(reason: impl Display) -> Self {
        Self::new(Subject::Protocol, reason)
    }
}

/// Why the contents of a message are refused.
#[derive(Debug, Clone, Copy, Error)]
#[error(transparent)]
enum Refused {
    Malformed(#[from] RecordError),
    Contest(#[from] Refusal),
    Denied(#[from] Denied),
}

/// Decides what to do about a message of a client with this access. `session` is the agency of its session, if it has one. The
/// agencies that take part are 1 to `agencies`. Appends the rows of bets to `rows`.
pub(super) fn decide(
    session: Option<AgencyId>,
    message: Result<Message<'_>, MessageError>,
    agencies: u16,
    access: Access<'_>,
    rows: &mut Vec<u8>,
) -> Result<Action, Rejection> {
    match (session, message) {
        (Some(own), Ok(message)) => in_session(own, message, rows),
        (None, Ok(message)) => outside_of_session(message, agencies, access, rows),
        (Some(_), Err(error)) if is_of_a_session(&error) => {
            Err(Rejection { closes: false, ..Rejection::violation(error) })
        }
        (_, Err(error)) => Err(Rejection::violation(error)),
    }
}

/// Whether the type is allowed in a session and only the payload is malformed. The session then stays open.
fn is_of_a_session(error: &MessageError) -> bool {
    use kind::{AWAIT_RESULT, END, RESULT_REQUEST, SESSION_BETS};
    matches!(error, MessageError::Payload { kind: SESSION_BETS | END | RESULT_REQUEST | AWAIT_RESULT, .. })
}

fn in_session(own: AgencyId, message: Message<'_>, rows: &mut Vec<u8>) -> Result<Action, Rejection> {
    // A message may leave out the agency, but not name another one.
    let check = |named: Option<u8>, subject: fn(u16) -> Subject| match named.map(u16::from) {
        Some(named) if named != own.get() => {
            Err(Rejection::new(subject(named), "this session is of another agency"))
        }
        _ => Ok(own),
    };
    match message {
        Message::SessionBets { first, records } => {
            let outsider = |bet: &Bet<'_>| (bet.agency != own).then_some(Refusal::OtherAgency.into());
            store_bets(Some(first), records, rows, outsider)
        }
        Message::End(named) => check(named, Subject::End).map(end),
        Message::ResultRequest(named) => check(named, Subject::Result).map(|agency| result(agency, false)),
        Message::AwaitResult => Ok(result(own, true)),
        Message::OpenSession { .. } => Err(Rejection::violation("the session is open already")),
        Message::Bet(_) | Message::MultipleBets(_) | Message::StatusRequest => {
            Err(Rejection::violation("this message is not allowed in a session"))
        }
    }
}

fn outside_of_session(
    message: Message<'_>,
    agencies: u16,
    access: Access<'_>,
    rows: &mut Vec<u8>,
) -> Result<Action, Rejection> {
    let check = |number: u32| participant(number, agencies, access);
    let check_named = |named: Option<u8>, subject: fn(u16) -> Subject| {
        let not_named = || Rejection::violation("outside of a session the agency must be named, in 1 byte");
        let named = named.ok_or_else(not_named)?;
        check(named.into()).map_err(|refused| Rejection::of(subject(named.into()), refused))
    };
    let outsider = |bet: &Bet<'_>| check(bet.agency.get().into()).err();
    match message {
        Message::Bet(record) => store_bet(record, rows, outsider),
        Message::MultipleBets(records) => store_bets(None, records, rows, outsider),
        Message::End(named) => check_named(named, Subject::End).map(end),
        Message::ResultRequest(named) => {
            check_named(named, Subject::Result).map(|agency| result(agency, false))
        }
        Message::StatusRequest => access
            .check_status()
            .map(|()| Action::Query(Query::Status(Vec::new())))
            .map_err(|denied| Rejection::of(Subject::Protocol, denied.into())),
        Message::OpenSession { version: version @ 1..=SESSION_VERSION, agency } => check(agency)
            .map(|agency| Action::OpenSession(agency, version))
            .map_err(|refused| Rejection::of(Subject::Opening, refused)),
        Message::OpenSession { version, .. } => Err(Rejection::violation(format_args!(
            "session version {version} is not supported, only 1 to {SESSION_VERSION}"
        ))),
        Message::SessionBets { .. } | Message::AwaitResult => {
            Err(Rejection::violation("there is no session: send OPEN_SESSION first"))
        }
    }
}

/// The agency of that number, if the client may act for it and it takes part.
fn participant(number: u32, agencies: u16, access: Access<'_>) -> Result<AgencyId, Refused> {
    let agency = AgencyId::new(number).ok_or(Refusal::NoSuchAgency { agencies })?;
    access.check_agency(agency)?;
    if agency.get() > agencies {
        return Err(Refusal::NoSuchAgency { agencies }.into());
    }
    Ok(agency)
}

fn end(agency: AgencyId) -> Action {
    Action::Write(Request::EndAgency { agency }, Subject::End(agency.get()))
}

fn result(agency: AgencyId, wait: bool) -> Action {
    Action::Query(Query::Result { agency, wait })
}

fn store_bet(
    record: &[u8],
    rows: &mut Vec<u8>,
    refused: impl Fn(&Bet<'_>) -> Option<Refused>,
) -> Result<Action, Rejection> {
    let mut logged = None;
    let count = push_allowed_rows(record, rows, |bet| {
        logged = Some((bet.document.to_owned(), bet.number));
        refused(bet)
    });
    let subject = Subject::Bet(logged);
    match count {
        Ok(1) => Ok(Action::Write(Request::StoreBets { first: None }, subject)),
        Ok(_) => Err(Rejection::new(subject, "this message takes one bet only")),
        Err(refused) => Err(Rejection::of(subject, refused)),
    }
}

fn store_bets(
    first: Option<u64>,
    records: &[u8],
    rows: &mut Vec<u8>,
    refused: impl Fn(&Bet<'_>) -> Option<Refused>,
) -> Result<Action, Rejection> {
    match push_allowed_rows(records, rows, refused) {
        Ok(count) => Ok(Action::Write(Request::StoreBets { first }, Subject::Bets(count))),
        Err(refused) => Err(Rejection::of(Subject::Bets(count_records(records)), refused)),
    }
}

/// Validates bet records and appends their rows. `refused` says why a bet is refused. Returns the number of bets, or why
/// they are refused: then `rows` holds a part of them.
fn push_allowed_rows(
    records: &[u8],
    rows: &mut Vec<u8>,
    mut refused: impl FnMut(&Bet<'_>) -> Option<Refused>,
) -> Result<usize, Refused> {
    let mut first_refusal = None;
    let count = push_rows(records, rows, |bet| {
        let refusal = refused(bet);
        first_refusal = first_refusal.or(refusal);
    })?;
    first_refusal.map_or(Ok(count), Err)
}
