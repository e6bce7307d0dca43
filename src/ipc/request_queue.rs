//! The request queue, typed: a handler's requests go in, in parts where they are long; the storage service takes the
//! parts out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use serde::{Deserialize, Serialize};

use super::client::ClientToken;
use super::codec::{MAX_HEAD, decode, encode};
use crate::failpoint::kill_point;
use crate::lottery::AgencyId;
use crate::system::mqueue::{MESSAGE_LEN, QueueReceiver, QueueSender};

/// What a handler asks of the storage service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Binds the client to an agency; asks how far that is. Answer: `Opened`.
    OpenSession {
        /// The agency.
        agency: AgencyId,
    },
    /// Stores the rows that follow. Answer: `Stored`, or in a session `SessionStored`.
    StoreBets {
        /// In a session, the index of the first row in the agency's stream of bets.
        first: Option<u64>,
    },
    /// The agency has no more bets. Answer: `Ended`.
    EndAgency {
        /// The agency.
        agency: AgencyId,
    },
    /// The winning documents from that byte on. Answer: `ResultPage`, or `NotDrawn`.
    Result {
        /// Whose.
        agency: AgencyId,
        /// How many bytes of them the handler has already.
        offset: u64,
    },
    /// The winning documents from the first on, once the draw has been made. Answer: `ResultPage`, then.
    AwaitResult {
        /// Whose.
        agency: AgencyId,
    },
    /// How the contest goes. Answer: `StatusPage`.
    Status {
        /// The index of the first agency whose counts are asked for.
        counts_from: u16,
    },
    /// What the storage service counts. Answer: `Statistics`.
    Statistics,
}

/// The head of one message in the request queue. A request that is longer than a message goes in parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartHead {
    /// Who asks.
    pub client: ClientToken,
    /// Numbers the client's requests; the reply repeats it.
    pub id: u32,
    /// The request, in its first part.
    pub request: Option<Request>,
    /// Whether the request is whole with this part.
    pub last: bool,
}

/// A handler's end: sends one request after the other, and never waits.
#[derive(Debug)]
pub struct RequestSender<'a> {
    queue: &'a QueueSender,
    client: ClientToken,
    id: u32,
    request: Option<Request>,
    /// Room for a head, then the bulk bytes: a part is sent from where it lies, with its head written over what was sent
    /// before it.
    body: Vec<u8>,
    sent: usize,
    unfinished: bool,
}

impl<'a> RequestSender<'a> {
    /// The end of that client.
    #[must_use]
    pub fn new(queue: &'a QueueSender, client: ClientToken) -> Self {
        Self { queue, client, id: 0, request: None, body: Vec::new(), sent: 0, unfinished: false }
    }

    /// Where the next request's bulk bytes are appended, once the request before has been sent.
    pub fn body(&mut self) -> &mut Vec<u8> {
        if self.body.is_empty() {
            self.body.resize(MAX_HEAD, 0);
        }
        &mut self.body
    }

    /// Throws away what was appended to [`Self::body`].
    pub fn clear(&mut self) {
        self.body.clear();
    }

    /// Makes a request of what is in [`Self::body`]; returns its number. It is on its way once [`Self::send`] says so;
    /// only then may the next one begin.
    pub fn begin(&mut self, request: Request) -> u32 {
        debug_assert!(!self.unfinished, "one request is sent after the other");
        self.id = self.id.wrapping_add(1);
        self.request = Some(request);
        self.sent = 0;
        self.unfinished = true;
        self.id
    }

    /// Whether a request is begun and not yet sent whole.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.unfinished
    }

    /// Sends as many parts as the queue takes. True once there is nothing left to send.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&mut self) -> io::Result<bool> {
        while self.unfinished {
            let from = MAX_HEAD + self.sent;
            let rest = self.body().len() - from;
            let count = rest.min(MESSAGE_LEN - MAX_HEAD);
            let last = count == rest;
            let head = PartHead { client: self.client, id: self.id, request: self.request.clone(), last };
            let mut bytes = [0; MAX_HEAD];
            let head_len = encode(&head, &mut bytes)?;
            let message = self.body.get_mut(from - head_len..from + count).unwrap_or_default();
            message.iter_mut().zip(bytes).take(head_len).for_each(|(to, byte)| *to = byte);
            if !self.queue.send(message)? {
                return Ok(false);
            }
            if !last {
                kill_point!("request_part_sent");
            }
            self.request = None;
            self.sent += count;
            self.unfinished = !last;
        }
        self.body.clear();
        Ok(true)
    }
}

impl AsFd for RequestSender<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

/// The storage service's end.
#[derive(Debug)]
pub struct RequestReceiver<'a> {
    queue: &'a QueueReceiver,
    message: Vec<u8>,
}

impl<'a> RequestReceiver<'a> {
    /// The end of that queue.
    #[must_use]
    pub fn new(queue: &'a QueueReceiver) -> Self {
        Self { queue, message: vec![0; MESSAGE_LEN] }
    }

    /// Takes the next part of some request, and its share of the bulk bytes. None where the queue is empty.
    ///
    /// # Errors
    /// What the kernel says. A message that makes no sense is dropped: whoever sent it is no honest handler.
    pub fn receive(&mut self) -> io::Result<Option<(PartHead, &[u8])>> {
        loop {
            let Some(length) = self.queue.receive(&mut self.message)? else { return Ok(None) };
            let message = self.message.get(..length).unwrap_or_default();
            if let Ok((head, bulk)) = decode(message) {
                let bulk = length - bulk.len()..length;
                return Ok(Some((head, self.message.get(bulk).unwrap_or_default())));
            }
        }
    }

    /// How many messages the queue holds now.
    ///
    /// # Errors
    /// None that a correct kernel gives.
    pub fn waiting(&self) -> io::Result<usize> {
        self.queue.waiting()
    }
}

impl AsFd for RequestReceiver<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::mqueue;

    #[test]
    fn the_heads_of_requests_are_short() {
        let agency = AgencyId::new(u16::MAX).unwrap();
        let client = ClientToken::random();
        for request in [
            Request::StoreBets { first: Some(u64::MAX) },
            Request::Result { agency, offset: u64::MAX },
            Request::Status { counts_from: u16::MAX },
        ] {
            let head = PartHead { client, id: u32::MAX, request: Some(request), last: true };
            assert!(encode(&head, &mut [0; 512]).unwrap() <= MAX_HEAD);
        }
    }

    #[test]
    fn a_long_request_goes_in_parts_and_waits_for_room() {
        let (receiver, sender) = mqueue::create().unwrap();
        let client = ClientToken::random();
        let mut sender = RequestSender::new(&sender, client);
        let mut receiver = RequestReceiver::new(&receiver);
        let rows: Vec<u8> = (0..200_000_u32).map(|index| index.to_le_bytes()[0]).collect();
        sender.body().extend_from_slice(&rows);
        let id = sender.begin(Request::StoreBets { first: Some(3) });
        let mut got = Vec::new();
        let mut parts = 0;
        loop {
            let sent = sender.send().unwrap();
            while let Some((head, bytes)) = receiver.receive().unwrap() {
                assert_eq!((head.client, head.id), (client, id));
                assert_eq!(head.request.is_some(), parts == 0);
                got.extend_from_slice(bytes);
                parts += 1;
                assert_eq!(head.last, got.len() == rows.len());
            }
            if sent {
                break;
            }
        }
        assert_eq!(got, rows);
        assert!(!sender.is_sending() && sender.body().len() == MAX_HEAD);
    }

    #[test]
    fn garbage_in_the_queue_is_dropped() {
        let (receiver, sender) = mqueue::create().unwrap();
        sender.send(&[0xff; 100]).unwrap();
        sender.send(b"").unwrap();
        let mut honest = RequestSender::new(&sender, ClientToken::random());
        honest.begin(Request::Status { counts_from: 0 });
        assert!(honest.send().unwrap());
        let mut receiver = RequestReceiver::new(&receiver);
        let (head, _) = receiver.receive().unwrap().unwrap();
        assert_eq!(head.request, Some(Request::Status { counts_from: 0 }));
        assert!(receiver.receive().unwrap().is_none());
    }
}
