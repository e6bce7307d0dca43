//! The conversation with one client: turns its messages into requests to storage, and storage's replies into messages and
//! log lines, in the order of the client's messages. Nothing here waits.
//!
//! A result can be longer than a pipe holds, so it comes in pages. The next page is asked for once the client has taken
//! what came before: a slow reader costs no memory.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::IpAddr;

use super::connection::Connection;
use super::context::HandlerContext;
use super::keeper_gate::Proof;
use super::log_lines::{Session, Subject, log_accepted, log_authenticated};
use super::policy::{Action, Mode, Rejection};
use super::status_query::StatusQuery;
use crate::ipc::messages::{Refusal, Reply, Request};
use crate::ipc::shared_counters::Counter;
use crate::ipc::storage_client::StorageClient;
use crate::ipc::storage_end::MAX_OUTSTANDING;
use crate::logging::{Level, Outcome, event};
use crate::lottery::{AgencyId, Digest};
use crate::protocol::frame::{Frame, FrameType, header};
use crate::protocol::message::{AgencyState, ClientMessage, ServerMessage};
use crate::server::access::{Access, is_local};

/// A reply that has not been sent.
#[derive(Debug)]
enum Pending {
    Refusal(String),
    /// Storage has been shown who the client is. The client gets no reply.
    Proof,
    /// Storage has been asked to open a session.
    Opening,
    /// Storage has been asked to write bets or an END.
    Write(Subject),
    /// Storage will be asked when all earlier replies have been sent.
    Deferred(Query),
    Asked(Query),
}

/// A question with a long reply. The pipe has no room for another reply beside it.
#[derive(Debug)]
enum Query {
    Result(AgencyId, ResultStage),
    Status(StatusQuery),
}

/// How far a result is.
#[derive(Debug, Clone, Copy)]
enum ResultStage {
    /// Storage answers at once. If there is no draw yet, the client is told so; with `wait` storage is asked again, with
    /// `AwaitDraw`. Thus a client that half-closes behind an `AWAIT_RESULT` gets its result if the draw has been made.
    First { wait: bool },
    /// Storage answers once the draw has been made.
    AwaitDraw,
    /// Storage sends the page that begins at this byte.
    Page { offset: u64 },
}

impl Query {
    fn request(&self) -> Request {
        match *self {
            Self::Result(agency, ResultStage::First { .. }) => Request::Result { agency, offset: 0 },
            Self::Result(agency, ResultStage::AwaitDraw) => Request::AwaitResult { agency },
            Self::Result(agency, ResultStage::Page { offset }) => Request::Result { agency, offset },
            Self::Status(ref query) => query.request(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Conversation<'a> {
    pub(super) storage: StorageClient<'a>,
    pub(super) context: &'a HandlerContext<'a>,
    pub(super) ip: IpAddr,
    /// What the client may do.
    access: Access<'a>,
    /// The serial number of the client's certificate, once that is proven.
    certificate_serial: Vec<u8>,
    pub(super) mode: Mode,
    /// Whether the client's arrival has been logged.
    is_announced: bool,
    /// Whether its message is one that clients send again and again, so that its lines are DEBUG: a request for the status,
    /// or a classic END or result request that repeats one of its agency.
    is_routine: bool,
    /// In the order of the client's messages.
    pending: VecDeque<Pending>,
    /// Why no more messages are taken. The connection is closed once nothing is pending.
    pub(super) closing: Option<Cow<'static, str>>,
    /// Whether another session of the agency has replaced this one.
    pub(super) is_replaced: bool,
}

/// The reason that a replaced session's client is told. Clients know by the first word that they may come back.
const REPLACED: &str =
    "busy: the agency has opened another session, and the one that was quiet for longest has to go";

impl<'a> Conversation<'a> {
    pub(super) fn new(storage: StorageClient<'a>, context: &'a HandlerContext<'a>, ip: IpAddr) -> Self {
        let (mode, pending) = (Mode::New, VecDeque::new());
        let access = Access { plain: context.tls.map(|tls| tls.plain), is_local: is_local(ip), proven: None };
        Self {
            storage,
            context,
            ip,
            access,
            certificate_serial: Vec::new(),
            mode,
            is_announced: false,
            is_routine: false,
            pending,
            closing: None,
            is_replaced: false,
        }
    }

    /// Takes who the client has proven to be, and shows storage the keeper's voucher.
    pub(super) fn prove(&mut self, Proof { peer, voucher, serial }: Proof) -> io::Result<()> {
        self.access.proven = Some(peer);
        self.certificate_serial = serial;
        self.ask(Request::Prove { peer, voucher }, Pending::Proof)
    }

    pub(super) fn may_take_frames(&self) -> bool {
        let has_room = self.pending.len() < MAX_OUTSTANDING && self.storage.has_room();
        let has_query = matches!(self.pending.back(), Some(Pending::Deferred(_) | Pending::Asked(_)));
        self.closing.is_none() && has_room && !has_query
    }

    /// Whether no reply is pending.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether no further message is taken, and every reply is known.
    pub(super) fn is_over(&self) -> bool {
        self.closing.is_some() && self.is_idle()
    }

    /// Whether the client waits for the draw and for nothing else.
    pub(super) fn is_awaiting_draw(&self) -> bool {
        matches!(self.pending.front(), Some(Pending::Asked(Query::Result(_, ResultStage::AwaitDraw))))
    }

    /// Whether a result has been sent in part.
    pub(super) fn is_paging(&self) -> bool {
        let Some(Pending::Deferred(query) | Pending::Asked(query)) = self.pending.front() else {
            return false;
        };
        matches!(query, Query::Result(_, ResultStage::Page { .. }))
    }

    /// Whether [`Self::answer`] could now ask for a page that had to wait.
    pub(super) fn can_ask_page(&self, connection: &Connection<'_>) -> bool {
        matches!(self.pending.front(), Some(Pending::Deferred(_))) && !connection.is_backed_up()
    }

    /// Ends the session because another one has replaced it. Storage has answered all that it had received, and takes no more.
    pub(super) fn give_way(&mut self, connection: &mut Connection<'_>) {
        // Within a result the client would take the message for a part of it.
        if !self.is_paging() {
            connection.send(&ServerMessage::Error(REPLACED));
        }
        self.pending.clear();
        self.close(REPLACED);
        self.is_replaced = true;
    }

    fn close(&mut self, reason: impl Into<Cow<'static, str>>) {
        self.closing.get_or_insert_with(|| reason.into());
    }

    /// Takes the client's next frame.
    pub(super) fn take(&mut self, frame: Frame<'_>) -> io::Result<()> {
        let message = ClientMessage::decode(frame);
        let decision = self.mode.decide(message, self.context.agencies, self.access, self.storage.body());
        if matches!(self.mode, Mode::New) {
            self.begin(&decision);
        }
        match decision {
            Ok(Action::OpenSession(agency, version)) => {
                self.context.confine_session()?;
                // Storage answers in order, so the frames behind this one can be taken at once.
                self.mode = Mode::Session(Session::new(agency, version));
                self.ask(Request::OpenSession { agency }, Pending::Opening)?;
            }
            Ok(Action::Write(request, subject)) => self.ask(request, Pending::Write(subject))?,
            Ok(Action::SendResult { agency, wait }) => {
                self.defer(Query::Result(agency, ResultStage::First { wait }));
            }
            Ok(Action::SendStatus) => {
                self.context.counters.add(Counter::StatusRequests);
                self.defer(Query::Status(StatusQuery::default()));
            }
            Err(rejection) => {
                self.storage.clear_body();
                self.reject(rejection);
            }
        }
        Ok(())
    }

    /// Begins the conversation with what was decided about the first message, which is the only one unless it opens a session.
    fn begin(&mut self, first: &Result<Action, Rejection>) {
        let HandlerContext { shared, counters, agencies, .. } = self.context;
        self.is_routine = match *first {
            Ok(Action::SendStatus) => true,
            Ok(Action::Write(Request::EndAgency { agency }, _)) => shared.has_finished(agency),
            Ok(Action::SendResult { agency, .. }) => {
                shared.some_unfinished(*agencies) && counters.polls_again(agency)
            }
            _ => false,
        };
        self.announce();
        if !matches!(first, Ok(Action::OpenSession(..))) {
            self.mode = Mode::Classic;
            self.close("answered");
        }
    }

    /// Logs once that the client came, and who it has proven to be.
    pub(super) fn announce(&mut self) {
        if !mem::replace(&mut self.is_announced, true) {
            log_accepted(self.ip, self.is_routine);
            if let Some(peer) = self.access.proven {
                log_authenticated(self.ip, self.is_routine, peer, &self.certificate_serial);
            }
        }
    }

    /// Asks storage, with the bulk bytes in its body.
    fn ask(&mut self, request: Request, pending: Pending) -> io::Result<()> {
        self.storage.ask(request)?;
        self.pending.push_back(pending);
        Ok(())
    }

    fn ask_query(&mut self, query: Query) -> io::Result<()> {
        self.ask(query.request(), Pending::Asked(query))
    }

    fn defer(&mut self, query: Query) {
        self.pending.push_back(Pending::Deferred(query));
    }

    /// Refuses a message, or bytes that are no frame.
    pub(super) fn reject(&mut self, rejection: Rejection) {
        self.announce();
        self.context.counters.add(rejection.counter);
        let reply = self.refuse(rejection);
        self.pending.extend(reply);
    }

    /// Does what follows from a refusal. Returns the reply, if there is one.
    fn refuse(&mut self, Rejection { subject, reason, closes, .. }: Rejection) -> Option<Pending> {
        self.log(&subject, Err(&reason));
        if closes {
            self.close(reason.clone());
        }
        self.mode.replies_to(&subject).then_some(Pending::Refusal(reason))
    }

    /// Logs what became of a message, or why it was refused.
    fn log(&mut self, subject: &Subject, outcome: Result<Outcome, &str>) {
        let session = self.mode.session();
        let agency = session.as_ref().map(|session| session.agency);
        if session.is_none_or(|session| session.count(subject, outcome)) {
            subject.log(self.ip, agency, self.is_routine, outcome);
        }
    }

    /// Sends the replies that are known, in order.
    pub(super) fn answer(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        while let Some(next) = self.pending.pop_front() {
            match next {
                Pending::Refusal(reason) => connection.send(&ServerMessage::Error(&reason)),
                Pending::Deferred(Query::Result(_, ResultStage::Page { .. }))
                    if connection.is_backed_up() =>
                {
                    self.pending.push_front(next);
                    break;
                }
                Pending::Deferred(query) => self.ask_if_needed(query, connection)?,
                Pending::Proof | Pending::Opening | Pending::Write(_) | Pending::Asked(_) => {
                    let Some((reply, bulk)) = self.storage.next_reply()? else {
                        self.pending.push_front(next);
                        break;
                    };
                    let bulk = bulk.to_vec();
                    self.take_reply(next, reply, &bulk, connection)?;
                }
            }
        }
        Ok(())
    }

    /// Asks storage, unless the array of finished agencies says that the draw has not been made.
    fn ask_if_needed(&mut self, query: Query, connection: &mut Connection<'_>) -> io::Result<()> {
        match query {
            Query::Result(agency, ResultStage::First { wait })
                if self.context.shared.some_unfinished(self.context.agencies) =>
            {
                self.await_draw(agency, wait, connection)
            }
            query => self.ask_query(query),
        }
    }

    /// The draw has not been made: waits for it, or tells the client.
    fn await_draw(
        &mut self,
        agency: AgencyId,
        wait: bool,
        connection: &mut Connection<'_>,
    ) -> io::Result<()> {
        if wait {
            return self.ask_query(Query::Result(agency, ResultStage::AwaitDraw));
        }
        self.log(&Subject::Result(agency.get()), Ok(Outcome::InProgress));
        connection.send(&ServerMessage::InProgress);
        Ok(())
    }

    /// Takes storage's reply to what was `asked`.
    fn take_reply(
        &mut self,
        asked: Pending,
        reply: Reply,
        bulk: &[u8],
        connection: &mut Connection<'_>,
    ) -> io::Result<()> {
        match (asked, reply) {
            (Pending::Proof, Reply::Proven) => {}
            (Pending::Opening, Reply::Opened { stored, digest, state }) => {
                self.session_opened(stored, digest, state, connection);
            }
            (Pending::Write(subject), Reply::Stored | Reply::Ended) => {
                self.acknowledge(&subject, &ServerMessage::BetAck, connection);
            }
            (Pending::Write(subject), Reply::SessionStored { stored, digest }) => {
                let digest = self.mode.session().and_then(|session| session.stored(stored, digest));
                self.acknowledge(&subject, &ServerMessage::SessionStored { stored, digest }, connection);
            }
            (Pending::Asked(Query::Result(agency, stage)), Reply::ResultPage { total }) => {
                self.send_page(agency, stage, total, bulk, connection);
            }
            (Pending::Asked(Query::Result(agency, ResultStage::First { wait })), Reply::NotDrawn) => {
                return self.await_draw(agency, wait, connection);
            }
            (Pending::Asked(Query::Status(mut query)), reply) => {
                let Some(status) = query.take(reply, bulk, self.context)? else {
                    return self.ask_query(Query::Status(query));
                };
                event(Level::Debug, "status_request", Outcome::Success, &[("ip", &self.ip)]);
                connection.send(&ServerMessage::Status(&serde_json::to_vec(&status)?));
            }
            (asked, reply) => {
                let subject = match asked {
                    Pending::Write(subject) => subject,
                    Pending::Asked(Query::Result(agency, _)) => Subject::Result(agency.get()),
                    _ => Subject::Opening,
                };
                // A reply of another kind: storage has answered another question.
                let refusal = if let Reply::Refused(refusal) = reply { refusal } else { Refusal::Malformed };
                if let Some(reply) = self.refuse(Rejection::new(subject, refusal.to_string())) {
                    self.pending.push_front(reply);
                }
            }
        }
        Ok(())
    }

    fn session_opened(
        &mut self,
        stored: u64,
        digest: Digest,
        state: AgencyState,
        connection: &mut Connection<'_>,
    ) {
        let (ip, max_payload) = (self.ip, self.context.max_payload);
        let Some(session) = self.mode.session() else { return };
        let digest = session.opened(ip, stored, digest);
        let agency = session.agency;
        connection.send(&ServerMessage::SessionOpened { agency, stored, state, max_payload, digest });
    }

    fn acknowledge(
        &mut self,
        subject: &Subject,
        message: &ServerMessage<'_>,
        connection: &mut Connection<'_>,
    ) {
        self.log(subject, Ok(Outcome::Success));
        if self.mode.replies_to(subject) {
            connection.send(message);
        }
    }

    /// Sends a page of a result, behind a header if it is the first one.
    fn send_page(
        &mut self,
        agency: AgencyId,
        stage: ResultStage,
        total: u64,
        page: &[u8],
        connection: &mut Connection<'_>,
    ) {
        let offset = if let ResultStage::Page { offset } = stage { offset } else { 0 };
        if offset == 0 {
            let Ok(length) = u32::try_from(total) else {
                return self.reject(Rejection::violation("the result is too long for a message"));
            };
            self.log(&Subject::Result(agency.get()), Ok(Outcome::Success));
            connection.send_with(|output| output.extend_from_slice(&header(FrameType::Result, length)));
        }
        connection.send_with(|output| output.extend_from_slice(page));
        let offset = offset + page.len() as u64;
        if offset < total && !page.is_empty() {
            self.defer(Query::Result(agency, ResultStage::Page { offset }));
        }
    }
}
