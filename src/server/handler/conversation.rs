//! The conversation with one client: its messages become requests to storage, and storage's replies become messages and log
//! lines, in the order of the client's messages. Nothing here waits.
//!
//! A result can be longer than a pipe holds, so it comes in pages. The next page is asked for once the client has taken
//! what came before: a slow reader costs no memory.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;

use super::connection::Connection;
use super::context::HandlerContext;
use super::log_lines::Subject;
use super::policy::{Action, Mode, Rejection, Session, acknowledgement, refusal};
use super::status_query::StatusQuery;
use crate::ipc::messages::{Reply, Request};
use crate::ipc::storage_client::StorageClient;
use crate::ipc::storage_end::MAX_OUTSTANDING;
use crate::logging::{Field, Level, Outcome, event, info};
use crate::lottery::AgencyId;
use crate::protocol::frame::{Frame, FrameType, header};
use crate::protocol::message::{ClientMessage, ServerMessage};

/// A reply that has not been sent.
#[derive(Debug)]
enum PendingReply {
    /// A refusal that storage had no part in.
    Refusal(String),
    /// Storage has been asked.
    Asked(Question),
    /// Storage is asked once nothing before it is pending.
    Deferred(Query),
}

/// What storage has been asked.
#[derive(Debug)]
enum Question {
    OpenSession(AgencyId),
    /// To store bets or an END.
    Write(Subject),
    Query(Query),
}

/// A question with a long reply: there is no room in the pipe for another reply beside it.
#[derive(Debug)]
enum Query {
    Result(AgencyId, ResultStage),
    Status(StatusQuery),
}

/// How far a result is.
#[derive(Debug, Clone, Copy)]
enum ResultStage {
    /// Storage answers at once. If the draw has not been made, the client either `wait`s for it or is told so. Asking this
    /// first lets a client that half-closes behind an `AWAIT_RESULT` get the result if the draw has been made.
    First { wait: bool },
    /// Storage answers once the draw has been made.
    AwaitDraw,
    /// Storage sends the page that begins at this byte.
    Page { offset: u64 },
}

impl ResultStage {
    fn offset(self) -> u64 {
        if let Self::Page { offset } = self { offset } else { 0 }
    }
}

impl PendingReply {
    fn is_long(&self) -> bool {
        matches!(self, Self::Asked(Question::Query(_)) | Self::Deferred(_))
    }

    fn result_stage(&self) -> Option<ResultStage> {
        match self {
            Self::Asked(Question::Query(Query::Result(_, stage)))
            | Self::Deferred(Query::Result(_, stage)) => Some(*stage),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Conversation<'a> {
    pub(super) storage: StorageClient<'a>,
    pub(super) context: &'a HandlerContext<'a>,
    pub(super) ip: IpAddr,
    pub(super) mode: Mode,
    /// In the order of the client's messages.
    pending: VecDeque<PendingReply>,
    /// Why no more messages are taken. The connection is closed once nothing is pending.
    closing: Option<String>,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(storage: StorageClient<'a>, context: &'a HandlerContext<'a>, ip: IpAddr) -> Self {
        Self { storage, context, ip, mode: Mode::New, pending: VecDeque::new(), closing: None }
    }

    pub(super) fn may_take_frames(&self) -> bool {
        let has_room = self.pending.len() < MAX_OUTSTANDING && self.storage.has_room();
        self.closing.is_none() && has_room && !self.pending.back().is_some_and(PendingReply::is_long)
    }

    /// Whether no reply is pending.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether the client waits for the draw and for nothing else.
    pub(super) fn is_awaiting_draw(&self) -> bool {
        matches!(self.next_stage(), Some(ResultStage::AwaitDraw))
    }

    /// Whether a result has been sent in part.
    pub(super) fn is_paging(&self) -> bool {
        matches!(self.next_stage(), Some(ResultStage::Page { .. }))
    }

    /// Whether [`Self::answer`] could now ask for a page that had to wait.
    pub(super) fn can_ask_page(&self, connection: &Connection<'_>) -> bool {
        matches!(self.pending.front(), Some(PendingReply::Deferred(_))) && !connection.is_backed_up()
    }

    fn next_stage(&self) -> Option<ResultStage> {
        self.pending.front().and_then(PendingReply::result_stage)
    }

    /// Why the connection is to be closed once nothing is pending.
    pub(super) fn closing(&self) -> Option<&str> {
        self.closing.as_deref()
    }

    fn close(&mut self, reason: impl Into<String>) {
        self.closing.get_or_insert_with(|| reason.into());
    }

    /// Takes the client's next frame.
    pub(super) fn take(&mut self, frame: Frame<'_>) -> io::Result<()> {
        let message = ClientMessage::decode(frame);
        let decision = self.mode.decide(message, self.context.agencies, self.storage.body());
        if matches!(self.mode, Mode::New) && !matches!(decision, Ok(Action::OpenSession(_))) {
            self.mode = Mode::Classic;
            self.close("answered");
        }
        match decision {
            Ok(Action::OpenSession(agency)) => return self.open_session(agency),
            Ok(Action::Write(request, subject)) => return self.ask(request, Question::Write(subject)),
            Ok(Action::SendResult { agency, wait }) => {
                self.defer(Query::Result(agency, ResultStage::First { wait }));
            }
            Ok(Action::SendStatus) => self.defer(Query::Status(StatusQuery::default())),
            Err(rejection) => {
                self.storage.clear_body();
                self.reject(rejection);
            }
        }
        Ok(())
    }

    fn open_session(&mut self, agency: AgencyId) -> io::Result<()> {
        self.context.confine_session()?;
        // Storage answers in order, so the frames behind this one can be taken at once.
        self.mode = Mode::Session(Session::new(agency, 0));
        self.ask(Request::OpenSession { agency }, Question::OpenSession(agency))
    }

    /// Asks storage, with the bulk bytes in its body. The reply is pending.
    fn ask(&mut self, request: Request, question: Question) -> io::Result<()> {
        self.storage.ask(request)?;
        self.pending.push_back(PendingReply::Asked(question));
        Ok(())
    }

    fn defer(&mut self, query: Query) {
        self.pending.push_back(PendingReply::Deferred(query));
    }

    /// Refuses a message, or bytes that are no frame.
    pub(super) fn reject(&mut self, Rejection { subject, reason, counter, closes }: Rejection) {
        self.context.counters.add(counter);
        subject.log(self.ip, self.mode.level(), Some(&reason));
        if let (Mode::Session(session), Subject::Bets(_)) = (&mut self.mode, &subject) {
            session.refused += 1;
        }
        if closes {
            self.close(reason.clone());
        }
        if self.mode.replies_to(&subject) {
            self.pending.push_back(PendingReply::Refusal(reason));
        }
    }

    /// Sends the replies that are known, in order.
    pub(super) fn answer(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        while let Some(next) = self.pending.pop_front() {
            match next {
                PendingReply::Refusal(reason) => connection.send(&ServerMessage::Error(&reason)),
                PendingReply::Deferred(Query::Result(_, ResultStage::Page { .. }))
                    if connection.is_backed_up() =>
                {
                    self.pending.push_front(next);
                    break;
                }
                PendingReply::Deferred(query) => self.ask_query(query, connection)?,
                PendingReply::Asked(question) => {
                    let Some((reply, bulk)) = self.storage.next_reply()? else {
                        self.pending.push_front(PendingReply::Asked(question));
                        break;
                    };
                    let bulk = bulk.to_vec();
                    self.answer_question(question, reply, &bulk, connection)?;
                }
            }
        }
        Ok(())
    }

    fn answer_question(
        &mut self,
        question: Question,
        reply: Reply,
        bulk: &[u8],
        connection: &mut Connection<'_>,
    ) -> io::Result<()> {
        match question {
            Question::OpenSession(agency) => self.answer_open(agency, &reply, connection),
            Question::Write(subject) => self.answer_write(&subject, &reply, connection),
            Question::Query(Query::Result(agency, stage)) => {
                return self.answer_result(agency, stage, &reply, bulk, connection);
            }
            Question::Query(Query::Status(query)) => {
                return self.answer_status(query, reply, bulk, connection);
            }
        }
        Ok(())
    }

    fn answer_open(&mut self, agency: AgencyId, reply: &Reply, connection: &mut Connection<'_>) {
        if let &Reply::Opened { stored, state } = reply {
            let fields: [Field<'_>; 3] = [("agency_id", &agency), ("stored", &stored), ("ip", &self.ip)];
            info("session_opened", Outcome::Success, &fields);
            self.mode = Mode::Session(Session::new(agency, stored));
            let max_payload = self.context.max_payload;
            connection.send(&ServerMessage::SessionOpened { agency, stored, state, max_payload });
        } else {
            let reason = refusal(reply).unwrap_or_default();
            Subject::Protocol.log(self.ip, self.mode.level(), Some(&reason));
            connection.send(&ServerMessage::Error(&reason));
            self.close(reason);
        }
    }

    fn answer_write(&mut self, subject: &Subject, reply: &Reply, connection: &mut Connection<'_>) {
        let error = refusal(reply);
        subject.log(self.ip, self.mode.level(), error.as_deref());
        if let (Mode::Session(session), Subject::Bets(_)) = (&mut self.mode, subject) {
            session.count(reply);
        }
        if self.mode.replies_to(subject) {
            connection.send(&acknowledgement(reply, error.as_deref()));
        }
    }

    fn answer_status(
        &mut self,
        mut query: StatusQuery,
        reply: Reply,
        bulk: &[u8],
        connection: &mut Connection<'_>,
    ) -> io::Result<()> {
        let Some(status) = query.take(reply, bulk, self.context)? else {
            return self.ask_query(Query::Status(query), connection);
        };
        event(Level::Debug, "status_request", Outcome::Success, &[("ip", &self.ip)]);
        connection.send(&ServerMessage::Status(&serde_json::to_vec(&status)?));
        Ok(())
    }

    fn ask_query(&mut self, query: Query, connection: &mut Connection<'_>) -> io::Result<()> {
        match query {
            Query::Result(agency, ResultStage::First { wait })
                if self.context.finished.some_unfinished(self.context.agencies) =>
            {
                if wait {
                    return self.ask_result(agency, ResultStage::AwaitDraw);
                }
                self.send_in_progress(agency, connection);
                Ok(())
            }
            Query::Result(agency, stage) => self.ask_result(agency, stage),
            Query::Status(query) => self.ask(query.request(), Question::Query(Query::Status(query))),
        }
    }

    fn ask_result(&mut self, agency: AgencyId, stage: ResultStage) -> io::Result<()> {
        let request = match stage {
            ResultStage::AwaitDraw => Request::AwaitResult { agency },
            ResultStage::First { .. } | ResultStage::Page { .. } => {
                Request::Result { agency, offset: stage.offset() }
            }
        };
        self.ask(request, Question::Query(Query::Result(agency, stage)))
    }

    fn answer_result(
        &mut self,
        agency: AgencyId,
        stage: ResultStage,
        reply: &Reply,
        bulk: &[u8],
        connection: &mut Connection<'_>,
    ) -> io::Result<()> {
        match (reply, stage) {
            (&Reply::ResultPage { total }, _) => {
                self.send_page(agency, stage.offset(), total, bulk, connection);
            }
            (Reply::NotDrawn, ResultStage::First { wait: false }) => {
                self.send_in_progress(agency, connection);
            }
            (Reply::NotDrawn, _) if connection.is_half_closed => self.close(CLOSED_WHILE_AWAITING),
            (Reply::NotDrawn, _) => return self.ask_result(agency, ResultStage::AwaitDraw),
            (other, _) => {
                let error = refusal(other).unwrap_or_default();
                Subject::Result(agency.get().into()).log(self.ip, self.mode.level(), Some(&error));
                connection.send(&ServerMessage::Error(&error));
            }
        }
        Ok(())
    }

    fn send_page(
        &mut self,
        agency: AgencyId,
        offset: u64,
        total: u64,
        page: &[u8],
        connection: &mut Connection<'_>,
    ) {
        if offset == 0 {
            let Ok(length) = u32::try_from(total) else {
                return self.reject(Rejection::violation("the result is too long for a message"));
            };
            Subject::Result(agency.get().into()).log(self.ip, self.mode.level(), None);
            connection.send_with(|output| output.extend_from_slice(&header(FrameType::Result, length)));
        }
        connection.send_with(|output| output.extend_from_slice(page));
        let offset = offset + page.len() as u64;
        if offset < total && !page.is_empty() {
            self.defer(Query::Result(agency, ResultStage::Page { offset }));
        }
    }

    fn send_in_progress(&self, agency: AgencyId, connection: &mut Connection<'_>) {
        event(self.mode.level(), "result_request", Outcome::InProgress, &[("agency_id", &agency)]);
        connection.send(&ServerMessage::InProgress);
    }
}

/// The reason if a client closes or half-closes while it awaits the draw.
pub(super) const CLOSED_WHILE_AWAITING: &str = "closed by the client while it awaited the draw";
