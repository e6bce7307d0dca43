//! The conversation with one client: turns its messages into requests to storage, and storage's replies into messages and
//! log lines, in the order of the client's messages. Nothing here waits, except for room in the request queue.
//!
//! A result can be longer than a pipe holds, so it comes in pages. The next page is asked for once the client has taken
//! what came before: a slow reader costs no memory.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::IpAddr;

use super::connection::Connection;
use super::context::{AcceptedClient, HandlerContext};
use super::keeper_gate::Proof;
use super::log_lines::{Session, Subject, log_arrival};
use super::policy::{Action, Rejection, decide};
use super::query::{Query, other_question, take_status};
use crate::ipc::messages::{Refusal, Reply, Request};
use crate::ipc::shared_counters::Counter;
use crate::ipc::storage_client::StorageClient;
use crate::ipc::storage_end::MAX_OUTSTANDING;
use crate::logging::{Level, Outcome, event};
use crate::lottery::{AgencyId, Digest};
use crate::protocol::frame::{header, kind};
use crate::protocol::message::{AgencyState, ClientMessage, ServerMessage};
use crate::server::access::{Access, is_local};
use crate::system::process::schedule_as_batch;

/// A reply that has not been sent.
#[derive(Debug)]
enum Pending {
    Refusal(String),
    /// Storage has been asked something with a short reply.
    Requested(Subject),
    /// Storage will be asked when all earlier replies have been sent.
    Deferred(Query),
    Asked(Query),
}

#[derive(Debug)]
pub(super) struct Conversation<'a> {
    pub(super) connection: Connection<'a>,
    pub(super) storage: StorageClient<'a>,
    pub(super) context: &'a HandlerContext<'a>,
    pub(super) ip: IpAddr,
    /// What the client may do.
    access: Access<'a>,
    /// The serial number of the client's certificate, once that is proven.
    certificate_serial: Vec<u8>,
    /// None in a new connection, and in a classic one: that has one message and at most one reply.
    pub(super) session: Option<Session>,
    /// Whether the client's arrival has been logged: with its first message, or at the end.
    is_arrival_logged: bool,
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
    pub(super) fn new(
        client: &'a AcceptedClient,
        storage: StorageClient<'a>,
        context: &'a HandlerContext<'a>,
    ) -> Self {
        let plain = context.config.tls_dir.as_ref().map(|_| &context.config.plain_agencies);
        Self {
            connection: Connection::new(&client.socket, context.config.max_payload),
            storage,
            context,
            ip: client.ip,
            access: Access { plain, is_local: is_local(client.ip), proven: None },
            certificate_serial: Vec::new(),
            session: None,
            is_arrival_logged: false,
            is_routine: false,
            pending: VecDeque::new(),
            closing: None,
            is_replaced: false,
        }
    }

    /// Takes who the client has proven to be, and shows storage the keeper's voucher.
    pub(super) fn prove(&mut self, Proof { peer, voucher, serial }: Proof) -> io::Result<()> {
        self.access.proven = Some(peer);
        self.certificate_serial = serial;
        self.request(Request::Prove { peer, voucher }, Subject::Opening)
    }

    pub(super) fn may_take_frames(&self) -> bool {
        let has_room = self.pending.len() < MAX_OUTSTANDING && self.storage.has_room();
        let has_query = matches!(self.pending.back(), Some(Pending::Deferred(_) | Pending::Asked(_)));
        let is_sent = self.connection.broken.is_none() && !self.connection.is_backed_up();
        self.closing.is_none() && has_room && !has_query && is_sent
    }

    /// Whether there are bytes to write. Those of a result wait until there are many, or it is complete.
    pub(super) fn wants_to_write(&self) -> bool {
        let collects = self.is_paging() && !self.connection.is_backed_up();
        self.connection.is_sending() && !collects
    }

    /// Writes the bytes that wait. With the last ones goes the end of the connection.
    pub(super) fn flush(&mut self) {
        let is_over = self.closing.is_some() && self.is_idle();
        self.connection.flush(is_over);
    }

    /// Whether no reply is pending.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether the client has not sent a whole message yet.
    pub(super) fn lacks_first_frame(&self) -> bool {
        !self.is_arrival_logged && !self.connection.input.has_frame()
    }

    /// Whether the client waits for the draw and for nothing else.
    pub(super) fn is_awaiting_draw(&self) -> bool {
        matches!(self.pending.front(), Some(Pending::Asked(Query::AwaitDraw { .. })))
    }

    /// Whether a result has been sent in part.
    pub(super) fn is_paging(&self) -> bool {
        let first = self.pending.front();
        matches!(first, Some(Pending::Deferred(Query::Page { .. }) | Pending::Asked(Query::Page { .. })))
    }

    /// Whether [`Self::answer`] could now ask for a page that had to wait.
    pub(super) fn can_ask_page(&self) -> bool {
        matches!(self.pending.front(), Some(Pending::Deferred(_))) && !self.connection.is_backed_up()
    }

    /// Ends the session because another one has replaced it. Storage has answered all that it had received, and takes no more.
    pub(super) fn give_way(&mut self) {
        // Within a result the client would take the message for a part of it.
        if !self.is_paging() {
            self.connection.send(&ServerMessage::Error(REPLACED));
        }
        self.pending.clear();
        self.close(REPLACED);
        self.is_replaced = true;
    }

    fn close(&mut self, reason: impl Into<Cow<'static, str>>) {
        self.closing.get_or_insert_with(|| reason.into());
    }

    /// Takes the client's next frame, or refuses bytes that are none. False if no frame has come whole.
    pub(super) fn take_frame(&mut self) -> io::Result<bool> {
        let message = match self.connection.next_frame() {
            Ok(Some(frame)) => ClientMessage::decode(frame),
            Ok(None) => return Ok(false),
            Err(error) => {
                self.reject(Rejection::violation(error));
                return Ok(true);
            }
        };
        let session = self.session.as_ref().map(|session| session.agency);
        let decision = decide(session, message, self.context.agencies, self.access, self.storage.body());
        if session.is_none() {
            self.begin(&decision);
        }
        match decision {
            Ok(Action::OpenSession(agency, version)) => {
                schedule_as_batch();
                self.context.confinement.enter_session()?;
                // Storage answers in order, so the frames behind this one can be taken at once.
                self.session = Some(Session::new(agency, version));
                self.request(Request::OpenSession { agency }, Subject::Opening)?;
            }
            Ok(Action::Write(request, subject)) => self.request(request, subject)?,
            Ok(Action::Query(query)) => self.pending.push_back(Pending::Deferred(query)),
            Err(rejection) => {
                self.storage.clear_body();
                self.reject(rejection);
            }
        }
        Ok(true)
    }

    /// Begins the conversation with what was decided about the first message, which is the only one unless it opens a session.
    fn begin(&mut self, first: &Result<Action, Rejection>) {
        let HandlerContext { shared, counters, agencies, .. } = self.context;
        self.is_routine = match *first {
            Ok(Action::Query(Query::Status(_))) => {
                counters.add(Counter::StatusRequests);
                true
            }
            Ok(Action::Query(Query::Result { agency, .. })) => {
                shared.some_open(*agencies) && counters.polls_again(agency)
            }
            Ok(Action::Write(Request::EndAgency { agency }, _)) => shared.has_ended(agency),
            _ => false,
        };
        self.log_arrival();
        if !matches!(first, Ok(Action::OpenSession(..))) {
            self.close("answered");
        }
    }

    /// Logs once that the client came, and who it has proven to be.
    pub(super) fn log_arrival(&mut self) {
        if !mem::replace(&mut self.is_arrival_logged, true) {
            let proven = self.access.proven.map(|peer| (peer, &*self.certificate_serial));
            log_arrival(self.ip, self.is_routine, proven);
        }
    }

    /// Asks storage for something with a short reply, with the bulk bytes in its body.
    fn request(&mut self, request: Request, subject: Subject) -> io::Result<()> {
        self.storage.ask(request)?;
        self.pending.push_back(Pending::Requested(subject));
        Ok(())
    }

    fn ask(&mut self, query: Query) -> io::Result<()> {
        self.storage.ask(query.request())?;
        self.pending.push_back(Pending::Asked(query));
        Ok(())
    }

    fn reject(&mut self, rejection: Rejection) {
        self.log_arrival();
        self.context.counters.add(rejection.counter);
        let reason = self.refuse(rejection);
        self.pending.extend(reason.map(Pending::Refusal));
    }

    /// Does what follows from a refusal. Returns the reason if the client is told.
    fn refuse(&mut self, Rejection { subject, reason, closes, .. }: Rejection) -> Option<String> {
        self.log(&subject, Err(&reason));
        if closes {
            self.close(reason.clone());
        }
        self.replies_to(&subject).then_some(reason)
    }

    /// Whether the client is told what became of its message. A classic END has no reply.
    fn replies_to(&self, subject: &Subject) -> bool {
        self.session.is_some() || !matches!(subject, Subject::End(_))
    }

    /// Logs what became of a message, or why it was refused.
    fn log(&mut self, subject: &Subject, outcome: Result<Outcome, &str>) {
        let agency = self.session.as_ref().map(|session| session.agency);
        if self.session.as_mut().is_none_or(|session| session.count(subject, outcome)) {
            subject.log(self.ip, agency, self.is_routine, outcome);
        }
    }

    /// Sends the replies that are known, in order.
    pub(super) fn answer(&mut self) -> io::Result<()> {
        while let Some(next) = self.pending.pop_front() {
            match next {
                Pending::Refusal(reason) => self.connection.send(&ServerMessage::Error(&reason)),
                Pending::Deferred(Query::Page { .. }) if self.connection.is_backed_up() => {
                    self.pending.push_front(next);
                    break;
                }
                Pending::Deferred(Query::Result { agency, wait })
                    if self.context.shared.some_open(self.context.agencies) =>
                {
                    self.await_draw(agency, wait)?;
                }
                Pending::Deferred(query) => self.ask(query)?,
                Pending::Requested(_) | Pending::Asked(_) => {
                    let Some((reply, bulk)) = self.storage.next_reply()? else {
                        self.pending.push_front(next);
                        break;
                    };
                    let bulk = bulk.to_vec();
                    self.take_reply(next, reply, &bulk)?;
                }
            }
        }
        Ok(())
    }

    /// The draw has not been made: waits for it, or tells the client.
    fn await_draw(&mut self, agency: AgencyId, wait: bool) -> io::Result<()> {
        if wait {
            return self.ask(Query::AwaitDraw { agency });
        }
        self.log(&Subject::Result(agency.get()), Ok(Outcome::InProgress));
        self.connection.send(&ServerMessage::InProgress);
        Ok(())
    }

    /// Takes storage's reply to what was `asked`.
    fn take_reply(&mut self, asked: Pending, reply: Reply, bulk: &[u8]) -> io::Result<()> {
        match (asked, reply) {
            (Pending::Requested(subject), Reply::Refused(refusal)) => self.send_refusal(subject, refusal),
            (Pending::Requested(Subject::Opening), Reply::Proven) => {}
            (Pending::Requested(Subject::Opening), Reply::Opened { stored, digest, state }) => {
                self.session_opened(stored, digest, state);
            }
            (Pending::Requested(subject), Reply::Stored | Reply::Ended) => {
                self.acknowledge(&subject, &ServerMessage::BetAck);
            }
            (Pending::Requested(subject), Reply::SessionStored { stored, digest }) => {
                let digest = self.session.as_mut().and_then(|session| session.stored(stored, digest));
                self.acknowledge(&subject, &ServerMessage::SessionStored { stored, digest });
            }
            (Pending::Asked(Query::Result { agency, wait }), Reply::NotDrawn) => {
                return self.await_draw(agency, wait);
            }
            (Pending::Asked(Query::Result { agency, .. } | Query::AwaitDraw { agency }), reply) => {
                match reply {
                    Reply::ResultPage { total } => self.send_first_page(agency, total, bulk),
                    Reply::Refused(refusal) => self.send_refusal(Subject::Result(agency.get()), refusal),
                    _ => return Err(other_question()),
                }
            }
            (Pending::Asked(Query::Page { agency, offset }), Reply::ResultPage { total }) => {
                self.send_page(agency, offset, total, bulk);
            }
            (Pending::Asked(Query::Status(mut per_agency)), reply) => {
                let Some(status) = take_status(&mut per_agency, reply, bulk, self.context)? else {
                    return self.ask(Query::Status(per_agency));
                };
                event(Level::Debug, "status_request", Outcome::Success, &[("ip", &self.ip)]);
                self.connection.send(&ServerMessage::Status(&serde_json::to_vec(&status)?));
            }
            _ => return Err(other_question()),
        }
        Ok(())
    }

    fn send_refusal(&mut self, subject: Subject, refusal: Refusal) {
        if let Some(reason) = self.refuse(Rejection::new(subject, refusal)) {
            self.connection.send(&ServerMessage::Error(&reason));
        }
    }

    fn session_opened(&mut self, stored: u64, digest: Digest, state: AgencyState) {
        let Some(session) = &mut self.session else { return };
        let digest = session.opened(self.ip, stored, digest);
        let (agency, max_payload) = (session.agency, self.context.config.max_payload);
        self.connection.send(&ServerMessage::SessionOpened { agency, stored, state, max_payload, digest });
    }

    fn acknowledge(&mut self, subject: &Subject, message: &ServerMessage<'_>) {
        self.log(subject, Ok(Outcome::Success));
        if self.replies_to(subject) {
            self.connection.send(message);
        }
    }

    fn send_first_page(&mut self, agency: AgencyId, total: u64, page: &[u8]) {
        let Ok(length) = u32::try_from(total) else {
            return self.reject(Rejection::violation("the result is too long for a message"));
        };
        self.log(&Subject::Result(agency.get()), Ok(Outcome::Success));
        self.connection.output().extend_from_slice(&header(kind::RESULT, length));
        self.send_page(agency, 0, total, page);
    }

    /// Sends the page of a result that begins at byte `offset`.
    fn send_page(&mut self, agency: AgencyId, offset: u64, total: u64, page: &[u8]) {
        self.connection.output().extend_from_slice(page);
        let offset = offset + page.len() as u64;
        if offset < total && !page.is_empty() {
            self.pending.push_back(Pending::Deferred(Query::Page { agency, offset }));
        }
    }
}
