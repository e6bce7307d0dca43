//! The dialog with one client: what it asked, what is owed to it, and in which order. It turns messages into requests
//! to the storage service, and that one's replies into messages and log lines. Nothing here waits.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::time::Instant;

use super::connection::Connection;
use super::session::Session;
use super::{ServerView, classic, session};
use crate::ipc::finished_agencies::Finished;
use crate::ipc::message::{Refusal, Reply, ReplyHead, Request};
use crate::ipc::reply_pipe::MAX_OUTSTANDING;
use crate::ipc::shared_counters::Counter;
use crate::ipc::storage_client::StorageClient;
use crate::logging::{Level, Outcome, event, info};
use crate::lottery::AgencyId;
use crate::protocol::frame::{Frame, FrameType, header};
use crate::protocol::message::{ClientMessage, ServerMessage};
use crate::server::inquiry::{Inquiry, Step};

/// What the client has shown itself to be.
#[derive(Debug)]
pub enum Mode {
    /// It has not said anything.
    New,
    /// One message, one reply.
    Classic,
    /// A session that is being opened, or is open.
    Session(Session),
}

/// What is owed to the client, in the order in which it is to be sent.
#[derive(Debug)]
pub enum Owed {
    /// What the storage service will say to that request.
    Storage(u32, Question),
    /// A refusal.
    Error(String),
    /// That the draw has not been made.
    InProgress,
}

/// What was asked of the storage service, for when it answers.
#[derive(Debug)]
pub enum Question {
    /// One classic bet.
    Bet {
        /// Its document.
        document: String,
        /// Its number.
        number: u32,
    },
    /// Classic bets, so many.
    Bets(usize),
    /// Bets of a session, so many.
    SessionBets(usize),
    /// May this agency open a session?
    Open(AgencyId),
    /// Has this agency ended? A session is told, a classic client is not.
    End(AgencyId),
    /// The winners of an agency.
    Winners {
        /// The agency.
        agency: AgencyId,
        /// How many bytes of them have come.
        got: u64,
        /// Whether the client waits for the draw.
        wait: bool,
        /// Whether the storage service does so too.
        pending: bool,
    },
    /// How the contest goes.
    Status(Inquiry),
}

/// What has to wait until nothing else is owed: its answer can be long.
#[derive(Debug, Clone, Copy)]
pub enum Deferred {
    /// The winners of an agency.
    Winners {
        /// The agency.
        agency: AgencyId,
        /// Whether to wait for the draw.
        wait: bool,
    },
    /// How the contest goes.
    Status,
}

/// The dialog.
#[derive(Debug)]
pub struct Dialog<'a> {
    /// The channels to the storage service.
    pub storage: StorageClient<'a>,
    /// What the handler knows of the server.
    pub view: &'a ServerView<'a>,
    /// Who the client is.
    pub ip: IpAddr,
    /// What it has shown itself to be.
    pub mode: Mode,
    owed: VecDeque<Owed>,
    deferred: Option<Deferred>,
    /// The page to ask for once the client has taken what came before.
    next_page: Option<(AgencyId, u64)>,
    /// Why nothing more is taken from the client; it ends once all that is owed is sent.
    ending: Option<String>,
}

impl<'a> Dialog<'a> {
    /// With a client that has said nothing.
    #[must_use]
    pub fn new(storage: StorageClient<'a>, view: &'a ServerView<'a>, ip: IpAddr) -> Self {
        Self {
            storage,
            view,
            ip,
            mode: Mode::New,
            owed: VecDeque::new(),
            deferred: None,
            next_page: None,
            ending: None,
        }
    }

    /// Whether a frame may be taken now.
    #[must_use]
    pub fn takes_frames(&self) -> bool {
        let streams = self.owed.iter().any(|owed| matches!(owed, Owed::Storage(_, Question::Winners { .. })));
        let few = self.owed.len() < MAX_OUTSTANDING;
        self.ending.is_none() && self.deferred.is_none() && !streams && few && self.storage.has_room()
    }

    /// Whether nothing is owed to the client.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.owed.is_empty() && self.deferred.is_none()
    }

    /// Why it ends, if it does.
    #[must_use]
    pub fn ending(&self) -> Option<&str> {
        self.ending.as_deref()
    }

    /// Ends the dialog once all that is owed is sent.
    pub fn end(&mut self, reason: impl Into<String>) {
        self.ending.get_or_insert_with(|| reason.into());
    }

    /// Whether the client waits for the draw and for nothing else.
    #[must_use]
    pub fn is_awaiting(&self) -> bool {
        matches!(self.owed.front(), Some(Owed::Storage(_, Question::Winners { pending: true, got: 0, .. })))
    }

    /// Whether a long result is under way, so that what has come of it may wait for more.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        matches!(self.owed.front(), Some(Owed::Storage(_, Question::Winners { got: 1.., .. })))
    }

    /// Takes a frame.
    ///
    /// # Errors
    /// The storage service can't be asked.
    pub fn take(&mut self, frame: Frame<'_>) -> io::Result<()> {
        match (&self.mode, ClientMessage::decode(frame)) {
            (Mode::Session(_), message) => session::take(self, message),
            (Mode::New, Ok(ClientMessage::OpenSession { version, agency })) => {
                session::open(self, version, agency)
            }
            (Mode::New | Mode::Classic, message) => {
                self.mode = Mode::Classic;
                self.end("answered");
                classic::take(self, message)
            }
        }
    }

    /// Owes a refusal.
    pub fn refuse(&mut self, reason: impl Into<String>) {
        self.owed.push_back(Owed::Error(reason.into()));
    }

    /// Owes a refusal of what the protocol does not allow, and then the end.
    pub fn refuse_and_end(&mut self, reason: impl Into<String>) {
        self.view.counters.add(Counter::Protocol);
        self.end_refused(reason.into());
    }

    /// Owes a refusal that has been counted, and then the end.
    pub fn end_refused(&mut self, reason: String) {
        log_protocol(self.ip, &reason);
        self.refuse(reason.clone());
        self.end(reason);
    }

    /// Asks the storage service, with what is in its body; its answer is owed to the client.
    ///
    /// # Errors
    /// It can't be asked.
    pub fn ask(&mut self, request: Request, question: Question) -> io::Result<()> {
        let id = self.storage.ask(request)?;
        self.owed.push_back(Owed::Storage(id, question));
        Ok(())
    }

    /// Asks for what has a long answer, once nothing else is owed.
    ///
    /// # Errors
    /// The storage service can't be asked.
    pub fn defer(&mut self, deferred: Deferred) -> io::Result<()> {
        self.deferred = Some(deferred);
        self.take_deferred()
    }

    fn take_deferred(&mut self) -> io::Result<()> {
        if !self.owed.is_empty() || !self.storage.has_room() {
            return Ok(());
        }
        match self.deferred.take() {
            Some(Deferred::Winners { agency, wait }) => self.ask_winners(agency, wait),
            Some(Deferred::Status) => {
                let (inquiry, request) = Inquiry::of_all();
                self.ask(request, Question::Status(inquiry))
            }
            None => Ok(()),
        }
    }

    fn ask_winners(&mut self, agency: AgencyId, wait: bool) -> io::Result<()> {
        let before_draw = self.view.finished.all_finished(self.view.agencies) == Finished::No;
        if before_draw && !wait {
            self.log_in_progress(agency);
            self.owed.push_back(Owed::InProgress);
            return Ok(());
        }
        // Without the array's word that it is too early the storage service is asked at once: who half-closes after
        // the draw is still answered, who does so before it is not.
        let pending = before_draw;
        let request = Request::Result { agency, offset: 0, wait: pending };
        self.ask(request, Question::Winners { agency, got: 0, wait, pending })
    }

    /// Sends what is owed and can be sent: refusals, and what the storage service has said.
    ///
    /// # Errors
    /// The storage service makes no sense, or can't be asked.
    pub fn answer(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        loop {
            match self.owed.front() {
                Some(Owed::Error(reason)) => connection.send(&ServerMessage::Error(reason)),
                Some(Owed::InProgress) => connection.send(&ServerMessage::InProgress),
                Some(Owed::Storage(..)) => {
                    if self.take_reply(connection)? {
                        continue;
                    }
                    break;
                }
                None if self.deferred.is_some() && self.storage.has_room() => {
                    self.take_deferred()?;
                    continue;
                }
                None => break,
            }
            self.owed.pop_front();
        }
        self.ask_page(connection)
    }

    /// Whether the next page of a result is to be asked for, and the client has taken what came before.
    #[must_use]
    pub fn can_ask_page(&self, connection: &Connection<'_>) -> bool {
        self.next_page.is_some() && !connection.is_backed_up()
    }

    fn ask_page(&mut self, connection: &Connection<'_>) -> io::Result<()> {
        if !self.can_ask_page(connection) {
            return Ok(());
        }
        let Some((agency, offset)) = self.next_page.take() else { return Ok(()) };
        let id = self.storage.ask(Request::Result { agency, offset, wait: false })?;
        if let Some(Owed::Storage(owed, _)) = self.owed.front_mut() {
            *owed = id;
        }
        Ok(())
    }

    /// Takes one reply of the storage service. False where none has come.
    fn take_reply(&mut self, connection: &mut Connection<'_>) -> io::Result<bool> {
        if self.next_page.is_some() {
            return Ok(false);
        }
        let Some((ReplyHead { id, reply }, bulk)) = self.storage.next_reply()? else { return Ok(false) };
        let (question, bulk) = match self.owed.pop_front() {
            Some(Owed::Storage(owed, question)) if owed == id => (question, bulk.to_vec()),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "a reply to no question")),
        };
        self.answer_question(question, reply, &bulk, connection)?;
        Ok(true)
    }

    fn answer_question(
        &mut self,
        question: Question,
        reply: Reply,
        bulk: &[u8],
        connection: &mut Connection<'_>,
    ) -> io::Result<()> {
        match (question, reply) {
            (Question::Bet { document, number }, reply) => {
                let error = refusal(&reply);
                classic::log_bet(Some((&document, number)), error.as_deref());
                connection.send(&error.as_deref().map_or(ServerMessage::BetAck, ServerMessage::Error));
            }
            (Question::Bets(count), reply) => {
                let error = refusal(&reply);
                classic::log_bets(Level::Info, count, error.as_deref());
                connection.send(&error.as_deref().map_or(ServerMessage::BetAck, ServerMessage::Error));
            }
            (Question::SessionBets(count), reply) => self.answer_session_bets(count, &reply, connection),
            (Question::Open(agency), Reply::Opened { stored, state }) => {
                self.mode = Mode::Session(Session::opened(agency, stored, self.ip));
                let max_payload = self.view.max_payload;
                connection.send(&ServerMessage::SessionOpened { agency, stored, state, max_payload });
            }
            (Question::Open(_), reply) => {
                // Storage has counted it.
                self.end_refused(refusal(&reply).unwrap_or_default());
            }
            (Question::End(agency), reply) => self.answer_end(agency, &reply, connection),
            (Question::Winners { agency, got, wait, pending }, reply) => {
                return self.answer_winners((agency, got, wait, pending), &reply, bulk, connection);
            }
            (Question::Status(inquiry), reply) => {
                return self.answer_status(inquiry, reply, bulk, connection);
            }
        }
        Ok(())
    }

    fn answer_session_bets(&mut self, count: usize, reply: &Reply, connection: &mut Connection<'_>) {
        let error = refusal(reply);
        classic::log_bets(Level::Debug, count, error.as_deref());
        let Mode::Session(session) = &mut self.mode else { return };
        match (reply, error) {
            (Reply::Stored { stored }, _) => {
                session.stored(*stored);
                connection.send(&ServerMessage::SessionStored { stored: *stored });
            }
            (_, error) => {
                session.refused();
                connection.send(&ServerMessage::Error(&error.unwrap_or_default()));
            }
        }
    }

    fn answer_end(&mut self, agency: AgencyId, reply: &Reply, connection: &mut Connection<'_>) {
        let error = refusal(reply);
        classic::log_end(agency.get().into(), error.as_deref());
        if matches!(self.mode, Mode::Session(_)) {
            connection.send(&error.as_deref().map_or(ServerMessage::BetAck, ServerMessage::Error));
        }
    }

    fn answer_winners(
        &mut self,
        (agency, got, wait, pending): (AgencyId, u64, bool, bool),
        reply: &Reply,
        bulk: &[u8],
        connection: &mut Connection<'_>,
    ) -> io::Result<()> {
        match reply {
            Reply::ResultPage { total } => {
                if got == 0 {
                    let Ok(length) = u32::try_from(*total) else {
                        self.refuse_and_end("the result is too long for a message");
                        return Ok(());
                    };
                    info("result_request", Outcome::Success, &[("agency_id", &agency)]);
                    connection
                        .send_with(|output| output.extend_from_slice(&header(FrameType::Result, length)));
                }
                connection.send_with(|output| output.extend_from_slice(bulk));
                let got = got + bulk.len() as u64;
                if got < *total && !bulk.is_empty() {
                    self.next_page = Some((agency, got));
                    self.owed.push_front(Owed::Storage(0, Question::Winners { agency, got, wait, pending }));
                }
                Ok(())
            }
            Reply::NotDrawn if wait && !connection.half_closed => {
                let request = Request::Result { agency, offset: 0, wait: true };
                self.ask(request, Question::Winners { agency, got: 0, wait, pending: true })
            }
            Reply::NotDrawn if wait => {
                self.end("closed by the client while it awaited the draw");
                Ok(())
            }
            Reply::NotDrawn => {
                self.log_in_progress(agency);
                connection.send(&ServerMessage::InProgress);
                Ok(())
            }
            other => {
                let error = refusal(other).unwrap_or_default();
                classic::log_result_refused(agency.get().into(), &error);
                connection.send(&ServerMessage::Error(&error));
                Ok(())
            }
        }
    }

    /// A session may ask as often as it likes; a classic client connects for it, which is told anyway.
    fn log_in_progress(&self, agency: AgencyId) {
        let level = if matches!(self.mode, Mode::Session(_)) { Level::Debug } else { Level::Info };
        event(level, "result_request", Outcome::InProgress, &[("agency_id", &agency)]);
    }

    fn answer_status(
        &mut self,
        inquiry: Inquiry,
        reply: Reply,
        bulk: &[u8],
        connection: &mut Connection<'_>,
    ) -> io::Result<()> {
        match inquiry.take(reply, bulk, self.view)? {
            Step::Ask(inquiry, request) => self.ask(request, Question::Status(inquiry)),
            Step::Done(status) => {
                let json = serde_json::to_vec(&status)?;
                event(Level::Debug, "status_request", Outcome::Success, &[("ip", &self.ip)]);
                connection.send(&ServerMessage::Status(&json));
                Ok(())
            }
        }
    }

    /// When a session has to say how far it is, if it has.
    #[must_use]
    pub fn next_report(&self) -> Option<Instant> {
        if let Mode::Session(session) = &self.mode { session.next_report() } else { None }
    }

    /// Says how far a session is, if it is time.
    pub fn report(&mut self, now: Instant) {
        if let Mode::Session(session) = &mut self.mode {
            session.report(now);
        }
    }
}

/// Why a request was refused, if it was.
fn refusal(reply: &Reply) -> Option<String> {
    match reply {
        Reply::Refused(refusal) => Some(refusal.to_string()),
        Reply::Stored { .. } | Reply::Ended => None,
        // An answer to another question: the storage service is not what it should be.
        _ => Some(Refusal::Malformed.to_string()),
    }
}

/// The line about a message that is none.
pub fn log_protocol(ip: IpAddr, error: &dyn std::fmt::Display) {
    info("protocol", Outcome::Fail, &[("ip", &ip), ("error", error)]);
}
