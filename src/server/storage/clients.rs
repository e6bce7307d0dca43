//! The clients of the storage service. The acceptor announces each of them when it comes and when it is gone.

use std::borrow::Cow;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::{io, mem};

use super::answer::Answer;
use crate::ipc::codec::MAX_HEAD;
use crate::ipc::control::{StorageEnd, ToStorage};
use crate::ipc::messages::{ClientNumber, ClientToken, PartHead, Reply, ReplyHead, Request};
use crate::ipc::storage_end::ReplyWriter;
use crate::ipc::voucher::{Peer, Voucher, VoucherKey};
use crate::logging::{Level, Outcome, event};
use crate::lottery::row::agencies_of;
use crate::lottery::{AgencyId, AgencyList};
use crate::server::access::Access;
use crate::system::fd_passing::Received;

/// How many sessions an agency may have at a time.
const MAX_SESSIONS: usize = 4;

/// All clients. A client that does not read its replies gets no more of them. A client whose messages no correct handler would
/// send is forgotten: its handler then sees end-of-file on its pipe.
#[derive(Debug, Default)]
pub(super) struct Clients {
    known: HashMap<ClientToken, Client>,
    /// The tokens of the clients whose handlers have not ended.
    tokens: HashMap<ClientNumber, ClientToken>,
    /// Clients whose handlers have ended, but whose last requests may be in the queue.
    gone: Vec<ClientToken>,
    /// The clients with a session, by agency. Some may be forgotten already.
    sessions: HashMap<AgencyId, Vec<ClientToken>>,
    /// How many parts of requests have come, from all clients.
    parts: u64,
    longest_request: usize,
    /// The agencies that may come without a certificate. None without TLS.
    plain: Option<AgencyList>,
    /// The key of the keeper's vouchers. None without TLS.
    vouchers: Option<VoucherKey>,
}

#[derive(Debug, Default)]
struct Client {
    number: ClientNumber,
    is_local: bool,
    /// Who it has proven to be.
    proven: Option<Peer>,
    /// None once nobody reads the replies.
    replies: Option<ReplyWriter>,
    /// The value of `Clients::parts` when the client's last request came.
    last_request: u64,
    partial: Option<Partial>,
    /// The answer that waits for the draw.
    awaiting: Option<Answer>,
}

/// A request whose last part has not arrived.
#[derive(Debug)]
struct Partial {
    id: u32,
    request: Request,
    rows: Vec<u8>,
}

impl Clients {
    /// A request's rows may have `longest_request` bytes. With TLS, the agencies in `plain` need no certificate.
    pub(super) fn new(longest_request: usize, plain: Option<AgencyList>) -> Self {
        Self { longest_request, plain, ..Self::default() }
    }

    /// Takes all that the acceptor has announced. Returns whether it has told storage to stop.
    pub(super) fn take_announcements(&mut self, control: &StorageEnd) -> io::Result<bool> {
        let mut buffer = [0; MAX_HEAD];
        loop {
            match control.receive_with_descriptor(&mut buffer)? {
                Received::Packet((ToStorage::VoucherKey, key), _) => {
                    self.vouchers = key.try_into().ok().map(VoucherKey::new);
                }
                Received::Packet((ToStorage::ClientCame { client, is_local }, token), Some(pipe)) => {
                    let token = token.try_into().map_err(io::Error::other)?;
                    self.add(ClientToken::from_bytes(token), client, is_local, pipe);
                }
                Received::Packet((ToStorage::ClientCame { .. }, _), _) => {
                    let error = "out of descriptors: raise the limit (ulimit -n), or lower MAX_CLIENTS";
                    event(Level::Error, "client_came", Outcome::Fail, &[("error", &error)]);
                }
                Received::Packet((ToStorage::ClientGone(client), _), _) => self.stop_replies(client),
                Received::Packet((ToStorage::Stop, _), _) | Received::PeerGone => return Ok(true),
                Received::Empty => return Ok(false),
            }
        }
    }

    fn add(&mut self, token: ClientToken, number: ClientNumber, is_local: bool, pipe: OwnedFd) {
        let replies = Some(ReplyWriter::new(pipe));
        self.known.insert(token, Client { number, is_local, replies, ..Client::default() });
        self.tokens.insert(number, token);
    }

    /// Closes the pipe of a client whose handler has ended, so that clients that come and go while this process waits for the
    /// disk do not use up its descriptors. The last requests of such a client are still taken.
    fn stop_replies(&mut self, number: ClientNumber) {
        let Some(token) = self.tokens.remove(&number) else { return };
        self.gone.push(token);
        if let Some(client) = self.known.get_mut(&token) {
            client.replies = None;
        }
    }

    /// Returns how many clients have a handler.
    pub(super) fn count(&self) -> usize {
        self.tokens.len()
    }

    /// Returns the clients whose handlers have ended since the last call.
    pub(super) fn take_gone(&mut self) -> Vec<ClientToken> {
        mem::take(&mut self.gone)
    }

    pub(super) fn remove(&mut self, token: ClientToken) {
        self.known.remove(&token);
    }

    pub(super) fn knows(&self, token: ClientToken) -> bool {
        self.known.contains_key(&token)
    }

    /// Takes one part of a request. After the last part, returns the request and its rows.
    pub(super) fn take_part<'m>(
        &mut self,
        head: &PartHead,
        bytes: &'m [u8],
    ) -> Option<(Request, Cow<'m, [u8]>)> {
        let PartHead { client: token, id, request, last } = *head;
        let client = self.known.get_mut(&token)?;
        self.parts += 1;
        client.last_request = self.parts;
        let (request, rows) = match (client.partial.take(), request) {
            // A request of one part is not copied.
            (None, Some(request)) => (request, Cow::Borrowed(bytes)),
            (Some(mut partial), None)
                if partial.id == id && partial.rows.len() + bytes.len() <= self.longest_request =>
            {
                partial.rows.extend_from_slice(bytes);
                (partial.request, Cow::Owned(partial.rows))
            }
            _ => {
                self.remove(token);
                return None;
            }
        };
        if !last {
            client.partial = Some(Partial { id, request, rows: rows.into_owned() });
            return None;
        }
        let Client { is_local, proven, .. } = *client;
        let access = Access { plain: self.plain.as_ref(), is_local, proven };
        match request {
            Request::Prove { peer, voucher } => self.prove(token, id, peer, voucher),
            request if allows(access, &request, &rows) => return Some((request, rows)),
            _ => self.remove(token),
        }
        None
    }

    /// Adds a client to the sessions of an agency. If the agency has four already, the session with the oldest last request is
    /// replaced: its handler tells its client, and storage takes nothing more from it. A session that is sending a request is
    /// replaced only if all are. Call this after the replies of a group, so that each whole request gets its reply.
    pub(super) fn open_session(&mut self, token: ClientToken, agency: AgencyId) {
        if !self.knows(token) {
            return;
        }
        let sessions = self.sessions.entry(agency).or_default();
        sessions.retain(|session| self.known.contains_key(session));
        let is_full = sessions.len() >= MAX_SESSIONS;
        let rank = |client: &Client| (client.partial.is_some(), client.last_request);
        let quietest = sessions.iter().copied().min_by_key(|session| self.known.get(session).map(rank));
        sessions.push(token);
        if let Some(quietest) = quietest.filter(|_| is_full) {
            self.reply(quietest, &ReplyHead { id: 0, reply: Reply::SessionReplaced }, &[]);
            self.flush(quietest);
            self.remove(quietest);
        }
    }

    /// Accepts that a client is a peer if the keeper vouches for it.
    fn prove(&mut self, token: ClientToken, id: u32, peer: Peer, voucher: Voucher) {
        let Some(client) = self.known.get_mut(&token) else { return };
        let verified = self.vouchers.as_ref().is_some_and(|key| key.verify(client.number, peer, voucher));
        if !verified || client.proven.is_some() {
            return self.remove(token);
        }
        client.proven = Some(peer);
        // It is the client's first request, so there is no other reply to wait for.
        self.reply(token, &ReplyHead { id, reply: Reply::Proven }, &[]);
        self.flush(token);
    }

    /// Keeps an answer until the draw. A client that waits twice is forgotten.
    pub(super) fn await_draw(&mut self, answer: Answer) {
        match self.known.get_mut(&answer.client) {
            Some(client) if client.awaiting.is_none() => client.awaiting = Some(answer),
            Some(_) => self.remove(answer.client),
            None => {}
        }
    }

    /// Takes all answers that wait for the draw.
    pub(super) fn take_awaiting(&mut self) -> Vec<Answer> {
        self.known.values_mut().filter_map(|client| client.awaiting.take()).collect()
    }

    /// Adds a reply for a client; [`Self::flush`] writes it.
    pub(super) fn reply(&mut self, token: ClientToken, head: &ReplyHead, bulk: &[u8]) {
        self.write(token, |replies| replies.push(head, bulk));
    }

    pub(super) fn flush(&mut self, token: ClientToken) {
        self.write(token, ReplyWriter::flush);
    }

    fn write(&mut self, token: ClientToken, write: impl FnOnce(&mut ReplyWriter) -> io::Result<()>) {
        let Some(client) = self.known.get_mut(&token) else { return };
        if client.replies.as_mut().is_some_and(|replies| write(replies).is_err()) {
            client.replies = None;
        }
    }
}

/// Tells whether the client may ask this. Its handler has checked the same.
fn allows(access: Access<'_>, request: &Request, rows: &[u8]) -> bool {
    match *request {
        Request::OpenSession { agency }
        | Request::EndAgency { agency }
        | Request::Result { agency, .. }
        | Request::AwaitResult { agency } => access.check_agency(agency).is_ok(),
        Request::StoreBets { first: None } if access.plain.is_some() => {
            agencies_of(rows).all(|agency| agency.is_some_and(|agency| access.check_agency(agency).is_ok()))
        }
        // Only a session's rows have an index, and its opening was checked.
        Request::StoreBets { .. } | Request::Prove { .. } => true,
        Request::Status { .. } => access.check_status().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::storage_end::reply_pipe;

    fn add(clients: &mut Clients, number: ClientNumber) -> (ClientToken, OwnedFd) {
        let token = ClientToken::random();
        let (reader, pipe) = reply_pipe().unwrap();
        clients.add(token, number, false, pipe);
        (token, reader)
    }

    fn part(client: ClientToken, id: u32, first: bool, last: bool) -> PartHead {
        PartHead { client, id, request: first.then_some(Request::StoreBets { first: None }), last }
    }

    #[test]
    fn a_client_that_mixes_its_parts_up_or_sends_too_much_is_dropped() {
        for (id, first, bytes) in [(2, false, &b"x"[..]), (1, true, b"x"), (1, false, b"123456789")] {
            let mut clients = Clients::new(10, None);
            let (token, reader) = add(&mut clients, 1);
            assert_eq!(clients.take_part(&part(token, 1, true, false), b"ab"), None);
            assert_eq!(clients.take_part(&part(token, id, first, true), bytes), None);
            assert!(!clients.knows(token));
            assert_eq!(nix::unistd::read(&reader, &mut [0]), Ok(0), "end-of-file");
        }
    }

    #[test]
    fn what_a_client_sent_before_its_handler_ended_is_taken() {
        for ended_unseen in [false, true] {
            let mut clients = Clients::new(10, None);
            let (token, reader) = add(&mut clients, 1);
            drop(reader);
            if ended_unseen {
                clients.reply(token, &ReplyHead { id: 0, reply: Reply::Ended }, &[]);
                clients.flush(token);
            } else {
                clients.stop_replies(1);
                assert_eq!(clients.count(), 0);
            }
            assert!(clients.known[&token].replies.is_none(), "its pipe is closed");
            let (_, rows) = clients.take_part(&part(token, 1, true, true), b"ab").unwrap();
            assert_eq!(*rows, *b"ab");
        }
    }

    #[test]
    fn a_session_in_the_middle_of_a_request_is_replaced_only_if_all_are() {
        let agency = AgencyId::new(7).unwrap();
        // The first session is in the middle of a request, or all are.
        for (busy, left) in [(1, [0, 3, 4, 5]), (6, [2, 3, 4, 5])] {
            let mut clients = Clients::new(10, None);
            let mut tokens = Vec::new();
            for number in 0..6 {
                let (token, _) = add(&mut clients, number);
                clients.take_part(&part(token, 1, true, true), b"");
                clients.open_session(token, agency);
                if number < busy {
                    clients.take_part(&part(token, 2, true, false), b"x");
                }
                tokens.push(token);
            }
            let known = (0..6).filter(|index| clients.knows(tokens[*index]));
            assert!(known.eq(left), "{busy} busy");
        }
    }
}
