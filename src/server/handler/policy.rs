//! What a message means, by the mode of the connection. Nothing here touches the socket or storage.

use thiserror::Error;

use super::log_lines::{Session, Subject};
use crate::ipc::messages::{Refusal, Request};
use crate::ipc::shared_counters::Counter;
use crate::lottery::{AgencyId, Bet};
use crate::protocol::frame::FrameType;
use crate::protocol::message::{ClientMessage as Message, MessageError, SESSION_VERSION};
use crate::protocol::record::{RecordError, count_records, push_rows};
use crate::server::access::{Access, Denied};

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
    /// Of that agency, in that version.
    OpenSession(AgencyId, u8),
    /// Have storage write bets or an END.
    Write(Request, Subject),
    /// Send the result of an agency. Before the draw, either `wait` for it or say that it is in progress.
    SendResult {
        agency: AgencyId,
        wait: bool,
    },
    SendStatus,
}

/// Why a message is refused.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) subject: Subject,
    pub(super) reason: String,
    /// Whether the connection is closed.
    pub(super) closes: bool,
    /// What counts it.
    pub(super) counter: Counter,
}

impl Rejection {
    pub(super) fn new(subject: Subject, reason: impl Into<String>) -> Self {
        let closes = matches!(subject, Subject::Protocol | Subject::Opening);
        let counter = subject.counter();
        Self { subject, reason: reason.into(), closes, counter }
    }

    fn of(subject: Subject, refusal: Refused) -> Self {
        let rejection = Self::new(subject, refusal.to_string());
        let Refused::Denied(_) = refusal else { return rejection };
        Self { counter: Counter::NotProven, ..rejection }
    }

    /// A message that the protocol does not allow.
    pub(super) fn violation(reason: impl Into<String>) -> Self {
        Self::new(Subject::Protocol, reason)
    }
}

/// Why a message is refused whose form is correct.
#[derive(Debug, Clone, Copy, Error)]
enum Refused {
    #[error(transparent)]
    Refusal(#[from] Refusal),
    #[error(transparent)]
    Denied(#[from] Denied),
}

impl Mode {
    /// Decides what to do about a message of a client with this access. The agencies that take part are 1 to `agencies`.
    /// Appends the rows of bets to `rows`.
    pub(super) fn decide(
        &self,
        message: Result<Message<'_>, MessageError>,
        agencies: u16,
        access: Access<'_>,
        rows: &mut Vec<u8>,
    ) -> Result<Action, Rejection> {
        let session = if let Self::Session(session) = self { Some(session.agency) } else { None };
        let message = message.map_err(|error| Rejection {
            closes: session.is_none() || !is_of_a_session(&error),
            ..Rejection::violation(error.to_string())
        })?;
        let outsider = |bet: &Bet<'_>| participant(bet.agency.get(), agencies, access).err();
        match (session, message) {
            (None, Message::Bet(record)) => store_bet(record, rows, outsider),
            (None, Message::MultipleBets(records)) => store_bets(None, records, rows, outsider),
            (Some(agency), Message::SessionBets { first, records }) => {
                store_bets(Some(first), records, rows, |bet| {
                    (bet.agency != agency).then_some(Refusal::OtherAgency.into())
                })
            }
            (_, Message::End(named)) => {
                let agency = named_agency(session, named, agencies, access, Subject::End)?;
                Ok(Action::Write(Request::EndAgency { agency }, Subject::End(agency.get())))
            }
            (_, Message::ResultRequest(named)) => {
                let agency = named_agency(session, named, agencies, access, Subject::Result)?;
                Ok(Action::SendResult { agency, wait: false })
            }
            (Some(agency), Message::AwaitResult) => Ok(Action::SendResult { agency, wait: true }),
            (None, Message::StatusRequest) => {
                let checked = access.check_status().map(|()| Action::SendStatus);
                checked.map_err(|denied| Rejection::of(Subject::Protocol, denied.into()))
            }
            (None, Message::OpenSession { version: version @ 1..=SESSION_VERSION, agency }) => {
                participant(agency, agencies, access)
                    .map(|agency| Action::OpenSession(agency, version))
                    .map_err(|refused| Rejection::of(Subject::Opening, refused))
            }
            (None, Message::OpenSession { version, .. }) => Err(Rejection::violation(format!(
                "session version {version} is not supported, only 1 to {SESSION_VERSION}"
            ))),
            (Some(_), Message::OpenSession { .. }) => {
                Err(Rejection::violation("the session is open already"))
            }
            (Some(_), Message::Bet(_) | Message::MultipleBets(_) | Message::StatusRequest) => {
                Err(Rejection::violation("this message is not allowed in a session"))
            }
            (None, Message::SessionBets { .. } | Message::AwaitResult) => {
                Err(Rejection::violation("there is no session: send OPEN_SESSION first"))
            }
        }
    }

    pub(super) fn session(&mut self) -> Option<&mut Session> {
        if let Self::Session(session) = self { Some(session) } else { None }
    }

    /// Whether the client is told what became of its message. A classic END has no reply.
    pub(super) fn replies_to(&self, subject: &Subject) -> bool {
        !matches!((self, subject), (Self::Classic, Subject::End(_)))
    }
}

/// Whether the type is allowed in a session and only the payload is malformed. The session then stays open.
fn is_of_a_session(error: &MessageError) -> bool {
    use FrameType::{AwaitResult, End, ResultRequest, SessionBets};
    matches!(error, MessageError::Payload { kind: SessionBets | End | ResultRequest | AwaitResult, .. })
}

/// The agency of that number, if the client may act for it and it takes part.
fn participant(number: impl TryInto<u16>, agencies: u16, access: Access<'_>) -> Result<AgencyId, Refused> {
    let agency = AgencyId::new(number).ok_or(Refusal::NoSuchAgency { agencies })?;
    access.check_agency(agency)?;
    if agency.get() > agencies {
        return Err(Refusal::NoSuchAgency { agencies }.into());
    }
    Ok(agency)
}

/// The agency of a message that may name one. A session may leave it out.
fn named_agency(
    session: Option<AgencyId>,
    named: Option<u8>,
    agencies: u16,
    access: Access<'_>,
    subject: fn(u16) -> Subject,
) -> Result<AgencyId, Rejection> {
    match (session, named.map(u16::from)) {
        (Some(agency), Some(other)) if other != agency.get() => {
            Err(Rejection::new(subject(other), "this session is of another agency"))
        }
        (Some(agency), _) => Ok(agency),
        (None, Some(number)) => {
            participant(number, agencies, access).map_err(|refused| Rejection::of(subject(number), refused))
        }
        (None, None) => Err(Rejection::violation("outside of a session the agency must be named, in 1 byte")),
    }
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
        Err(unstorable) => Err(unstorable.of(subject)),
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
        Err(unstorable) => Err(unstorable.of(Subject::Bets(count_records(records)))),
    }
}

/// Validates bet records and appends their rows. `refused` says why a bet is refused. Returns the number of bets, or why
/// they are refused: then `rows` holds a part of them.
fn push_allowed_rows(
    records: &[u8],
    rows: &mut Vec<u8>,
    mut refused: impl FnMut(&Bet<'_>) -> Option<Refused>,
) -> Result<usize, Unstorable> {
    let mut first_refusal = None;
    let count = push_rows(records, rows, |bet| {
        let refusal = refused(bet);
        first_refusal = first_refusal.or(refusal);
    })
    .map_err(Unstorable::Malformed)?;
    first_refusal.map_or(Ok(count), |refused| Err(Unstorable::Refused(refused)))
}

/// Why bets are not stored.
enum Unstorable {
    Malformed(RecordError),
    Refused(Refused),
}

impl Unstorable {
    fn of(self, subject: Subject) -> Rejection {
        match self {
            Self::Malformed(error) => Rejection::new(subject, error.to_string()),
            Self::Refused(refused) => Rejection::of(subject, refused),
        }
    }
}
