//! A handler's end of the channels to storage: requests go into the queue, in parts where they are long, and replies come
//! from the pipe in the same order. Nothing here waits: the handler waits for [`StorageClient::queue`] and
//! [`StorageClient::pipe`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::client::ClientToken;
use super::codec::{MAX_HEAD, encode};
use super::reply_pipe::{MAX_OUTSTANDING, PipeState, Reply, ReplyReader};
use super::request_queue::{PartHead, Request};
use crate::failpoint::kill_point;
use crate::system::mqueue::{QueueSender, Queued};

/// Both channels of one client.
#[derive(Debug)]
pub struct StorageClient<'a> {
    queue: &'a QueueSender,
    replies: ReplyReader<'a>,
    token: ClientToken,
    /// The id of the last request. Ids count up by one, so the number of requests without a reply is `asked - answered`.
    asked: u32,
    /// The id of the last reply.
    answered: u32,
    /// The request whose first part has not been sent.
    request: Option<Request>,
    /// Room for a head, then the bulk bytes. A part is sent from where it lies: its head overwrites what was sent before.
    body: Vec<u8>,
    /// How many bulk bytes have been sent.
    sent: usize,
    is_sending: bool,
}

impl<'a> StorageClient<'a> {
    /// Takes the client's token, which the acceptor has put into the pipe.
    pub fn new(queue: &'a QueueSender, pipe: BorrowedFd<'a>) -> io::Result<Self> {
        let mut replies = ReplyReader::new(pipe);
        let token = replies.take_token()?;
        Ok(Self {
            queue,
            replies,
            token,
            asked: 0,
            answered: 0,
            request: None,
            body: Vec::new(),
            sent: 0,
            is_sending: false,
        })
    }

    /// Whether another request may be made: the one before has been sent, and the reply will fit into the pipe.
    pub fn has_room(&self) -> bool {
        !self.is_sending && (self.asked.wrapping_sub(self.answered) as usize) < MAX_OUTSTANDING
    }

    /// Whether a part of a request waits for room in the queue.
    pub fn is_sending(&self) -> bool {
        self.is_sending
    }

    /// Where the bulk bytes of the next request are appended, once the request before has been sent.
    pub fn body(&mut self) -> &mut Vec<u8> {
        if self.body.is_empty() {
            self.body.resize(MAX_HEAD, 0);
        }
        &mut self.body
    }

    /// Discards what was appended to [`Self::body`].
    pub fn clear_body(&mut self) {
        self.body.clear();
    }

    /// Makes a request with the bulk bytes in [`Self::body`], and sends as much of it as the queue takes.
    pub fn ask(&mut self, request: Request) -> io::Result<()> {
        debug_assert!(!self.is_sending, "one request is sent after the other");
        self.asked = self.asked.wrapping_add(1);
        self.request = Some(request);
        self.sent = 0;
        self.is_sending = true;
        self.send()
    }

    /// Sends as many parts of the request as the queue takes.
    pub fn send(&mut self) -> io::Result<()> {
        while self.is_sending {
            let from = MAX_HEAD + self.sent;
            let rest = self.body().len() - from;
            let count = rest.min(self.queue.message_len() - MAX_HEAD);
            let last = count == rest;
            let head = PartHead { client: self.token, id: self.asked, request: self.request.clone(), last };
            let mut bytes = [0; MAX_HEAD];
            let head_len = encode(&head, &mut bytes)?;
            let message = self.body.get_mut(from - head_len..from + count).unwrap_or_default();
            message.iter_mut().zip(bytes).take(head_len).for_each(|(to, byte)| *to = byte);
            if self.queue.send(message)? == Queued::Full {
                return Ok(());
            }
            if !last {
                kill_point!("request_part_sent");
            }
            self.request = None;
            self.sent += count;
            self.is_sending = !last;
        }
        self.body.clear();
        Ok(())
    }

    /// Reads what storage has written.
    pub fn fill(&mut self) -> io::Result<PipeState> {
        self.replies.fill()
    }

    /// Takes the reply to the oldest request that has none, and its bulk bytes, if it has been read.
    pub fn next_reply(&mut self) -> io::Result<Option<(Reply, &[u8])>> {
        let Some((head, bulk)) = self.replies.next_reply()? else { return Ok(None) };
        self.answered = self.answered.wrapping_add(1);
        if head.id == self.answered {
            Ok(Some((head.reply, bulk)))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "storage answered out of order"))
        }
    }

    /// Writable while the queue has room.
    pub fn queue(&self) -> BorrowedFd<'a> {
        self.queue.as_fd()
    }

    /// Readable while there are replies; end-of-file once storage has ended.
    pub fn pipe(&self) -> BorrowedFd<'_> {
        self.replies.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::reply_pipe::{ReplyHead, ReplyWriter, reply_pipe};
    use crate::ipc::request_queue::RequestReceiver;
    use crate::lottery::AgencyId;
    use crate::system::mqueue::{self, QueuePair};
    use std::os::fd::OwnedFd;

    const TOKEN: [u8; ClientToken::LEN] = [7; ClientToken::LEN];

    /// The two ends of a pipe that holds a token.
    fn pipe_with_token() -> (OwnedFd, ReplyWriter) {
        let (read_end, write_end) = reply_pipe().unwrap();
        nix::unistd::write(&write_end, &TOKEN).unwrap();
        (read_end, ReplyWriter::new(write_end))
    }

    #[test]
    fn the_heads_of_requests_are_short() {
        let agency = AgencyId::new(u16::MAX).unwrap();
        let client = ClientToken::from_bytes(TOKEN);
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
        let QueuePair { receiver, sender, .. } = mqueue::create("test-parts").unwrap();
        let (pipe, _writer) = pipe_with_token();
        let mut client = StorageClient::new(&sender, pipe.as_fd()).unwrap();
        let mut receiver = RequestReceiver::new(&receiver);
        let rows: Vec<u8> = (0..200_000_u32).map(|index| index.to_le_bytes()[0]).collect();
        client.body().extend_from_slice(&rows);
        client.ask(Request::StoreBets { first: Some(3) }).unwrap();
        let mut got = Vec::new();
        let mut parts = 0;
        loop {
            let is_sending = client.is_sending();
            while let Some((head, bytes)) = receiver.receive().unwrap() {
                assert_eq!((head.client, head.id), (ClientToken::from_bytes(TOKEN), 1));
                assert_eq!(head.request.is_some(), parts == 0);
                got.extend_from_slice(bytes);
                parts += 1;
                assert_eq!(head.last, got.len() == rows.len());
            }
            if !is_sending {
                break;
            }
            client.send().unwrap();
        }
        assert_eq!(got, rows);
        assert_eq!(client.body().len(), MAX_HEAD);
    }

    #[test]
    fn malformed_messages_in_the_queue_are_dropped() {
        let QueuePair { receiver, sender, .. } = mqueue::create("test-malformed").unwrap();
        for garbage in [&[0xff; 100][..], b""] {
            assert_eq!(sender.send(garbage).unwrap(), Queued::Yes);
        }
        let (pipe, _writer) = pipe_with_token();
        StorageClient::new(&sender, pipe.as_fd()).unwrap().ask(Request::Statistics).unwrap();
        let mut receiver = RequestReceiver::new(&receiver);
        let (head, _) = receiver.receive().unwrap().unwrap();
        assert_eq!(head.request, Some(Request::Statistics));
        assert!(receiver.receive().unwrap().is_none());
    }

    #[test]
    fn a_reply_to_another_request_than_the_oldest_is_an_error() {
        let QueuePair { receiver: _receiver, sender, .. } = mqueue::create("test-replies").unwrap();
        let (pipe, mut writer) = pipe_with_token();
        let mut client = StorageClient::new(&sender, pipe.as_fd()).unwrap();
        for _ in 0..3 {
            client.ask(Request::Statistics).unwrap();
        }
        for id in [1, 3] {
            writer.push(&ReplyHead { id, reply: Reply::Statistics }, &[]).unwrap();
        }
        writer.flush().unwrap();
        assert_eq!(client.fill().unwrap(), PipeState::Open);
        assert_eq!(client.next_reply().unwrap(), Some((Reply::Statistics, &[][..])));
        assert!(client.next_reply().is_err());
    }
}
