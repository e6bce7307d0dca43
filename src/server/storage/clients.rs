//! The clients of the storage service. The acceptor announces each of them when it comes and when it is gone.

use std::borrow::Cow;
use std::collections::HashMap;
use std::os::fd::OwnedFd;

use super::answer::Answer;
use crate::ipc::messages::{ClientNumber, ClientToken, PartHead, Reply, ReplyHead, Request};
use crate::ipc::storage_end::{ReplyWriter, Unwritable};
use crate::ipc::voucher::{Peer, Voucher, VoucherKey};
use crate::lottery::row::agencies_of;
use crate::lottery::{AgencyId, AgencyList};
use crate::server::access::Access;

/// How many sessions an agency may have at a time.
const MAX_SESSIONS: usize = 4;

/// All clients. A client that does not read its replies gets no more of them. A client whose messages no correct handler would
/// send is forgotten: its handler then sees end-of-file on its pipe.
#[derive(Debug)]
pub(super) struct Clients {
    known: HashMap<ClientToken, Client>,
    /// The clients with a session, by agency.
    sessions: HashMap<AgencyId, Vec<ClientToken>>,
    /// How many parts of requests have come, from all clients.
    parts: u64,
    longest_request: usize,
    /// The agencies that may come without a certificate. None without TLS.
    plain: Option<AgencyList>,
    /// With it the keeper vouches for clients.
    vouchers: Option<VoucherKey>,
}

#[derive(Debug)]
struct Client {
    number: ClientNumber,
    is_local: bool,
    /// Who it has proven to be.
    proven: Option<Peer>,
    /// None once nobody reads the replies.
    replies: Option<ReplyWriter>,
    /// The agency of its session, if it has one.
    session: Option<AgencyId>,
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
    /// A request's rows may have `longest_request` bytes. With TLS, these agencies may come without a certificate.
    pub(super) fn new(longest_request: usize, plain: Option<AgencyList>) -> Self {
        let (known, sessions) = (HashMap::new(), HashMap::new());
        Self { known, sessions, parts: 0, longest_request, plain, vouchers: None }
    }

    pub(super) fn set_voucher_key(&mut self, key: Option<VoucherKey>) {
        self.vouchers = key;
    }

    pub(super) fn add(&mut self, token: ClientToken, number: ClientNumber, is_local: bool, pipe: OwnedFd) {
        let replies = Some(ReplyWriter::new(pipe));
        let client = Client {
            number,
            is_local,
            proven: None,
            replies,
            session: None,
            last_request: 0,
            partial: None,
            awaiting: None,
        };
        self.known.insert(token, client);
    }

    /// Closes the pipe of a client whose handler has ended. Its last requests are still taken. Otherwise each client that comes
    /// and goes while this process waits for the disk would cost a descriptor.
    pub(super) fn stop_replies(&mut self, token: ClientToken) {
        if let Some(client) = self.known.get_mut(&token) {
            client.replies = None;
        }
    }

    pub(super) fn remove(&mut self, token: ClientToken) {
        let Some(Client { session: Some(agency), .. }) = self.known.remove(&token) else { return };
        if let Some(sessions) = self.sessions.get_mut(&agency) {
            sessions.retain(|client| *client != token);
            if sessions.is_empty() {
                self.sessions.remove(&agency);
            }
        }
    }

    pub(super) fn knows(&self, token: ClientToken) -> bool {
        self.known.contains_key(&token)
    }

    /// Takes one part of a request. After the last part, calls `hand_on` with the request's number, the request and its rows.
    pub(super) fn take_part(
        &mut self,
        head: PartHead,
        bytes: &[u8],
        hand_on: impl FnOnce(u32, &Request, &[u8]),
    ) {
        let PartHead { client: token, id, request, last } = head;
        let Some(client) = self.known.get_mut(&token) else { return };
        self.parts += 1;
        client.last_request = self.parts;
        let (request, rows) = match (client.partial.take(), request) {
            // A request of one part is not copied.
            (None, Some(request)) if last => (request, Cow::Borrowed(bytes)),
            (None, Some(request)) => {
                client.partial = Some(Partial { id, request, rows: bytes.to_vec() });
                return;
            }
            (Some(mut partial), None)
                if partial.id == id && partial.rows.len() + bytes.len() <= self.longest_request =>
            {
                partial.rows.extend_from_slice(bytes);
                if !last {
                    client.partial = Some(partial);
                    return;
                }
                (partial.request, Cow::Owned(partial.rows))
            }
            _ => return self.remove(token),
        };
        let Client { is_local, proven, .. } = *client;
        let access = Access { plain: self.plain.as_ref(), is_local, proven };
        match request {
            Request::Prove { peer, voucher } => self.prove(token, id, peer, voucher),
            request if allows(access, &request, &rows) => hand_on(id, &request, &rows),
            _ => self.remove(token),
        }
    }

    /// Adds a client to the sessions of an agency. If the agency has four already, the session with the oldest last request is
    /// replaced: its handler tells its client, and storage takes nothing more from it. A session that is sending a request is
    /// replaced only if all are. Call this after the replies of a group, so that each whole request gets its reply.
    pub(super) fn open_session(&mut self, token: ClientToken, agency: AgencyId) {
        let Some(client) = self.known.get_mut(&token) else { return };
        client.session = Some(agency);
        let sessions = self.sessions.entry(agency).or_default();
        let is_full = sessions.len() >= MAX_SESSIONS;
        let rank = |client: &Client| (client.partial.is_some(), client.last_request);
        let quietest = sessions.iter().copied().min_by_key(|other| self.known.get(other).map(rank));
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

    fn write(&mut self, token: ClientToken, write: impl FnOnce(&mut ReplyWriter) -> Result<(), Unwritable>) {
        let Some(client) = self.known.get_mut(&token) else { return };
        if client.replies.as_mut().is_some_and(|replies| write(replies).is_err()) {
            client.replies = None;
        }
    }
}

/// Whether the client may ask this. Its handler has checked the same.
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
        Request::Status { .. } | Request::Statistics => access.check_status().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::storage_end::reply_pipe;

    fn add(clients: &mut Clients) -> (ClientToken, OwnedFd) {
        let token = ClientToken::random();
        let (reader, pipe) = reply_pipe().unwrap();
        clients.add(token, 1, false, pipe);
        (token, reader)
    }

    fn one_client() -> (Clients, ClientToken, OwnedFd) {
        let mut clients = Clients::new(10, None);
        let (token, reader) = add(&mut clients);
        (clients, token, reader)
    }

    fn part(client: ClientToken, id: u32, first: bool, last: bool) -> PartHead {
        PartHead { client, id, request: first.then_some(Request::StoreBets { first: None }), last }
    }

    /// Takes parts of requests. Returns the rows of each request that is complete.
    fn taken(clients: &mut Clients, parts: &[(PartHead, &[u8])]) -> Vec<Vec<u8>> {
        let mut whole = Vec::new();
        for (head, bytes) in parts {
            clients.take_part(head.clone(), bytes, |_, _, rows| whole.push(rows.to_vec()));
        }
        whole
    }

    #[test]
    fn a_client_that_mixes_its_parts_up_or_sends_too_much_is_dropped() {
        for (second, bytes) in [((2, false), &b"x"[..]), ((1, true), b"x"), ((1, false), b"123456789")] {
            let (mut clients, token, read_end) = one_client();
            let (id, first) = second;
            let parts: [(PartHead, &[u8]); 2] =
                [(part(token, 1, true, false), b"ab"), (part(token, id, first, true), bytes)];
            assert_eq!(taken(&mut clients, &parts), Vec::<Vec<u8>>::new());
            assert!(!clients.knows(token));
            assert_eq!(nix::unistd::read(&read_end, &mut [0]), Ok(0), "end-of-file");
        }
    }

    #[test]
    fn what_a_client_sent_before_its_handler_ended_is_taken() {
        for ended_unseen in [false, true] {
            let (mut clients, token, reader) = one_client();
            drop(reader);
            if ended_unseen {
                clients.reply(token, &ReplyHead { id: 0, reply: Reply::Ended }, &[]);
                clients.flush(token);
            } else {
                clients.stop_replies(token);
            }
            assert_eq!(taken(&mut clients, &[(part(token, 1, true, true), b"ab")]), [b"ab".to_vec()]);
        }
    }

    /// Opens six sessions, one after the other, and calls `act` before each. Returns the indices of those that are left.
    fn sessions_left(mut act: impl FnMut(&mut Clients, &[ClientToken])) -> Vec<usize> {
        let agency = AgencyId::new(7).unwrap();
        let mut clients = Clients::new(10, None);
        let mut tokens = Vec::new();
        for _ in 0..6 {
            act(&mut clients, &tokens);
            let (token, _) = add(&mut clients);
            taken(&mut clients, &[(part(token, 1, true, true), b"")]);
            clients.open_session(token, agency);
            tokens.push(token);
        }
        assert_eq!(clients.sessions[&agency].len(), 4);
        let left = (0..6).filter(|index| clients.knows(tokens[*index])).collect();
        for token in tokens {
            clients.remove(token);
        }
        assert!(clients.sessions.is_empty());
        left
    }

    #[test]
    fn a_session_in_the_middle_of_a_request_is_replaced_only_if_all_are() {
        let begin =
            |clients: &mut Clients, token| drop(taken(clients, &[(part(token, 2, true, false), b"x")]));
        let left = sessions_left(|clients, tokens| {
            if let [first] = tokens {
                begin(clients, *first);
            }
        });
        assert_eq!(left, [0, 3, 4, 5]);
        let left = sessions_left(|clients, tokens| {
            if let Some(last) = tokens.last() {
                begin(clients, *last);
            }
        });
        assert_eq!(left, [2, 3, 4, 5]);
    }
}
