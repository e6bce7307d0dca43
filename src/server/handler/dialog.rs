//! The dialog with one client: what it asked, what is owed to it, and in which order. It turns messages into requests
//! to the storage service, and that one's replies into messages and log lines. Nothing here waits.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::time::Instant;

use super::connection::Connection;
use super::log_lines::{log_protocol, log_status};
use super::session::Session;
use super::winners::{self, Stage};
use super::{classic, session};
use crate::ipc::refusal::Refusal;
use crate::ipc::reply_pipe::{MAX_OUTSTANDING, Reply};
use crate::ipc::request_queue::Request;
use crate::ipc::shared_counters::Counter;
use crate::ipc::storage_client::StorageClient;
use crate::lottery::AgencyId;
use crate::protocol::frame::Frame;
use crate::protocol::message::{ClientMessage, ServerMessage};
use crate::server::inquiry::{Inquiry, Step};
use crate::server::view::ServerView;

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

/// What is owed to the client.
#[derive(Debug)]
pub enum Owed {
    /// What the storage service will say to the request of that number.
    Reply(u32, Question),
    /// What is asked for when nothing else is owed, and then answered.
    Later(Later),
    /// A refusal.
    Error(String),
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
    /// The END of a classic client, which is not told what became of it.
    End(AgencyId),
    /// The END of a session.
    SessionEnd(AgencyId),
    /// The winners of an agency.
    Winners(AgencyId, Stage),
    /// How the contest goes.
    Status(Inquiry),
}

/// What has a long answer: no frame is taken until it is sent.
#[derive(Debug, Clone, Copy)]
pub enum Later {
    /// The winners of an agency; once the draw has been made, if the client waits for it.
    Winners {
        /// The agency.
        agency: AgencyId,
        /// Whether the client waits.
        wait: bool,
    },
    /// The next page of the winners, once the client has taken what came before.
    Page {
        /// The agency.
        agency: AgencyId,
        /// Where it begins, in bytes.
        offset: u64,
    },
    /// How the contest goes.
    Status,
}

impl Owed {
    fn is_long(&self) -> bool {
        matches!(self, Self::Later(_) | Self::Reply(_, Question::Winners(..) | Question::Status(_)))
    }
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
    /// In the order in which it is to be sent.
    owed: VecDeque<Owed>,
    /// Why nothing more is taken from the client; it ends once all that is owed is sent.
    ending: Option<String>,
}

impl<'a> Dialog<'a> {
    /// With a client that has said nothing.
    #[must_use]
    pub fn new(storage: StorageClient<'a>, view: &'a ServerView<'a>, ip: IpAddr) -> Self {
        Self { storage, view, ip, mode: Mode::New, owed: VecDeque::new(), ending: None }
    }

    /// Whether a frame may be taken now.
    #[must_use]
    pub fn may_take_frames(&self) -> bool {
        let few = self.owed.len() < MAX_OUTSTANDING && self.storage.has_room();
        self.ending.is_none() && few && !self.owed.back().is_some_and(Owed::is_long)
    }

    /// Whether nothing is owed to the client.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.owed.is_empty()
    }

    /// Whether the client waits for the draw and for nothing else.
    #[must_use]
    pub fn is_awaiting(&self) -> bool {
        matches!(self.owed.front(), Some(Owed::Reply(_, Question::Winners(_, Stage::Awaited))))
    }

    /// Whether a long result is under way, so that what has come of it may wait for more.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        matches!(
            self.owed.front(),
            Some(
                Owed::Later(Later::Page { .. }) | Owed::Reply(_, Question::Winners(_, Stage::Paging { .. }))
            )
        )
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

    /// Takes a frame.
    ///
    /// # Errors
    /// The storage service can't be asked.
    pub fn take(&mut self, frame: Frame<'_>) -> io::Result<()> {
        match (&self.mode, ClientMessage::decode(frame)) {
            (&Mode::Session(Session { agency, .. }), message) => session::take(self, agency, message),
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

    /// Asks the storage service, with what is in its body; its answer is owed to the client.
    ///
    /// # Errors
    /// It can't be asked.
    pub fn ask(&mut self, request: Request, question: Question) -> io::Result<()> {
        let id = self.storage.ask(request)?;
        self.owed.push_back(Owed::Reply(id, question));
        Ok(())
    }

    /// Asks for what has a long answer, once nothing else is owed.
    pub fn ask_later(&mut self, later: Later) {
        self.owed.push_back(Owed::Later(later));
    }

    /// Owes a refusal.
    pub fn refuse(&mut self, reason: impl Into<String>) {
        self.owed.push_back(Owed::Error(reason.into()));
    }

    /// Owes a refusal of bets, whose rows are thrown away.
    pub fn refuse_bets(&mut self, reason: impl Into<String>) {
        self.view.counters.add(Counter::Bets);
        self.storage.clear_body();
        self.refuse(reason);
    }

    /// Owes a refusal of what the protocol does not allow.
    pub fn refuse_message(&mut self, reason: String) {
        self.view.counters.add(Counter::Protocol);
        log_protocol(self.ip, &reason);
        self.refuse(reason);
    }

    /// Owes a refusal of what the protocol does not allow, and then the end.
    pub fn refuse_and_end(&mut self, reason: impl Into<String>) {
        let reason = reason.into();
        self.refuse_message(reason.clone());
        self.end(reason);
    }

    /// Owes a refusal that has been counted, and then the end.
    pub fn end_refused(&mut self, reason: String) {
        log_protocol(self.ip, &reason);
        self.refuse(reason.clone());
        self.end(reason);
    }

    /// Sends what is owed and can be sent: refusals, and what the storage service has said.
    ///
    /// # Errors
    /// The storage service makes no sense, or can't be asked.
    pub fn answer(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        while let Some(owed) = self.owed.pop_front() {
            match owed {
                Owed::Error(reason) => connection.send(&ServerMessage::Error(&reason)),
                Owed::Later(Later::Page { .. }) if connection.is_backed_up() => {
                    self.owed.push_front(owed);
                    break;
                }
                Owed::Later(later) => self.ask_now(later, connection)?,
                Owed::Reply(id, question) => match self.storage.next_reply()? {
                    Some((head, bulk)) if head.id == id => {
                        let bulk = bulk.to_vec();
                        self.answer_question(question, head.reply, &bulk, connection)?;
                    }
                    Some(_) => {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "a reply to no question"));
                    }
                    None => {
                        self.owed.push_front(Owed::Reply(id, question));
                        break;
                    }
                },
            }
        }
        Ok(())
    }

    /// Whether [`Self::answer`] has more to do since the client took what came before.
    #[must_use]
    pub fn can_ask_page(&self, connection: &Connection<'_>) -> bool {
        matches!(self.owed.front(), Some(Owed::Later(Later::Page { .. }))) && !connection.is_backed_up()
    }

    fn ask_now(&mut self, later: Later, connection: &mut Connection<'_>) -> io::Result<()> {
        match later {
            Later::Winners { agency, wait } => winners::ask(self, agency, wait, connection),
            Later::Page { agency, offset } => winners::ask_page(self, agency, offset),
            Later::Status => {
                let (inquiry, request) = Inquiry::of_all();
                self.ask(request, Question::Status(inquiry))
            }
        }
    }

    fn answer_question(
        &mut self,
        question: Question,
        reply: Reply,
        bulk: &[u8],
        connection: &mut Connection<'_>,
    ) -> io::Result<()> {
        match question {
            Question::Bet { document, number } => classic::answer_bet(&document, number, &reply, connection),
            Question::Bets(count) => classic::answer_bets(count, &reply, connection),
            Question::SessionBets(count) => session::answer_bets(self, count, &reply, connection),
            Question::Open(agency) => session::answer_open(self, agency, &reply, connection),
            Question::End(agency) => classic::answer_end(agency, &reply),
            Question::SessionEnd(agency) => session::answer_end(agency, &reply, connection),
            Question::Winners(agency, stage) => {
                return winners::answer(self, agency, stage, &reply, bulk, connection);
            }
            Question::Status(inquiry) => return self.answer_status(inquiry, reply, bulk, connection),
        }
        Ok(())
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
                log_status(self.ip);
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

/// Says that it is done, or why it is not.
pub fn acknowledge(error: Option<&str>, connection: &mut Connection<'_>) {
    connection.send(&error.map_or(ServerMessage::BetAck, ServerMessage::Error));
}

/// Why a request was refused, if it was.
#[must_use]
pub fn refusal(reply: &Reply) -> Option<String> {
    match reply {
        Reply::Refused(refusal) => Some(refusal.to_string()),
        Reply::Stored | Reply::SessionStored { .. } | Reply::Ended => None,
        // An answer to another question: the storage service is not what it should be.
        _ => Some(Refusal::Malformed.to_string()),
    }
}
