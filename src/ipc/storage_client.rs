//! A handler's end of the request queue and of its reply pipe. Long requests go into the queue in parts. Replies come in the
//! order of the requests. Sending waits for room in the queue until the time that was last given to
//! [`StorageClient::resume`]. The handler waits for [`StorageClient::pipe`] in its loop.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;

use super::codec::{MAX_HEAD, decode, encode};
use super::messages::{ClientToken, PartHead, Reply, ReplyHead, Request};
use super::storage_end::MAX_OUTSTANDING;
use crate::failpoint::kill_point;
use crate::system::mqueue::QueueSender;

/// Both channels of one client.
#[derive(Debug)]
pub struct StorageClient<'a> {
    queue: &'a QueueSender,
    pipe: BorrowedFd<'a>,
    token: ClientToken,
    /// The id of the last request. Ids count up by one, so the number of requests without a reply is `asked - answered`.
    asked: u32,
    /// The id of the last reply.
    answered: u32,
    /// The request whose first part has not been sent.
    request: Option<Request>,
    /// Space for a head, then the bulk bytes. A part is not copied: its head overwrites the bytes before it, which were sent.
    body: Vec<u8>,
    /// How many bulk bytes of a request have been sent whose last part has not.
    sent: usize,
    /// Until when parts wait for room in the queue.
    wait_until: SystemTime,
    /// What has been read from the pipe. Replies before `taken` have been taken.
    replies: Vec<u8>,
    taken: usize,
}

/// The least space for a read from the pipe, in bytes: enough for the replies to a session's frames.
const READ: usize = 512;

/// What a read from the pipe found.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipeState {
    /// Storage may write more.
    Open,
    /// End-of-file: storage has ended, or has dropped this client.
    Closed,
    /// End-of-file: another session has replaced the client's.
    Replaced,
}

impl<'a> StorageClient<'a> {
    /// Takes the client's token, which the acceptor has put into the pipe.
    pub fn new(queue: &'a QueueSender, pipe: BorrowedFd<'a>) -> io::Result<Self> {
        let mut token = [0; ClientToken::LEN];
        if nix::unistd::read(pipe, &mut token)? < token.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self {
            queue,
            pipe,
            token: ClientToken::from_bytes(token),
            asked: 0,
            answered: 0,
            request: None,
            body: Vec::new(),
            sent: 0,
            wait_until: UNIX_EPOCH,
            replies: Vec::new(),
            taken: 0,
        })
    }

    /// Whether another request may be made: the one before has been sent, and the reply will fit into the pipe.
    pub fn has_room(&self) -> bool {
        !self.is_sending() && (self.asked.wrapping_sub(self.answered) as usize) < MAX_OUTSTANDING
    }

    /// Whether a part of a request waits for room in the queue.
    pub fn is_sending(&self) -> bool {
        self.request.is_some() || self.sent > 0
    }

    /// Where the bulk bytes of the next request are appended, once the request before has been sent.
    pub fn body(&mut self) -> &mut Vec<u8> {
        if self.body.is_empty() {
            self.body.reserve(self.queue.message_len);
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
        debug_assert!(!self.is_sending(), "one request is sent after the other");
        self.asked = self.asked.wrapping_add(1);
        self.request = Some(request);
        self.send()
    }

    /// Sends the rest of a request that waits for room in the queue. This call and all later ones wait until `until` at most.
    pub fn resume(&mut self, until: SystemTime) -> io::Result<()> {
        self.wait_until = until;
        if self.is_sending() { self.send() } else { Ok(()) }
    }

    /// Sends as many parts of the request as the queue takes.
    fn send(&mut self) -> io::Result<()> {
        while self.is_sending() {
            let from = MAX_HEAD + self.sent;
            let rest = self.body().len() - from;
            let count = rest.min(self.queue.message_len - MAX_HEAD);
            let last = count == rest;
            let head = PartHead { client: self.token, id: self.asked, request: self.request, last };
            let mut bytes = [0; MAX_HEAD];
            let head_len = encode(&head, &mut bytes)?;
            let message = self.body.get_mut(from - head_len..from + count).unwrap_or_default();
            message.iter_mut().zip(bytes).take(head_len).for_each(|(to, byte)| *to = byte);
            if !self.queue.send(message, self.wait_until)? {
                return Ok(());
            }
            if !last {
                kill_point("request_part_sent");
            }
            self.request = None;
            self.sent = if last { 0 } else { self.sent + count };
        }
        self.body.clear();
        Ok(())
    }

    /// Reads once from the pipe.
    pub fn fill(&mut self) -> io::Result<PipeState> {
        self.replies.drain(..std::mem::take(&mut self.taken));
        let start = self.replies.len();
        // A long reply makes the buffer grow, and later reads use all of it.
        self.replies.reserve(READ);
        self.replies.resize(self.replies.capacity(), 0);
        let count = nix::unistd::read(self.pipe, self.replies.get_mut(start..).unwrap_or_default());
        self.replies.truncate(start + count.unwrap_or(0));
        match count {
            Ok(0) if self.is_replaced()? => Ok(PipeState::Replaced),
            Ok(0) => Ok(PipeState::Closed),
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(PipeState::Open),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the reply to the oldest request that has none, and its bulk bytes, if it has been read.
    pub fn next_reply(&mut self) -> io::Result<Option<(Reply, &[u8])>> {
        let Some((ReplyHead { id, reply }, bulk)) = self.unread()? else { return Ok(None) };
        if reply == Reply::SessionReplaced {
            return Ok(None);
        }
        self.answered = self.answered.wrapping_add(1);
        if id != self.answered {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "storage answered out of order"));
        }
        self.taken = bulk.end;
        Ok(Some((reply, self.replies.get(bulk).unwrap_or_default())))
    }

    /// Whether the next reply says that another session has replaced this one.
    fn is_replaced(&self) -> io::Result<bool> {
        Ok(self.unread()?.is_some_and(|(head, _)| head.reply == Reply::SessionReplaced))
    }

    /// The next reply that has been read and not taken, and the place of its bulk bytes.
    fn unread(&self) -> io::Result<Option<(ReplyHead, Range<usize>)>> {
        let unread = self.replies.get(self.taken..).unwrap_or_default();
        let Some((length, rest)) = unread.split_first_chunk() else { return Ok(None) };
        let length = usize::from(u16::from_le_bytes(*length));
        let Some(bytes) = rest.get(..length) else { return Ok(None) };
        let (head, bulk) = decode(bytes)?;
        let end = self.taken + 2 + length;
        Ok(Some((head, end - bulk.len()..end)))
    }

    /// Readable while there are replies; end-of-file once storage has ended.
    pub fn pipe(&self) -> BorrowedFd<'a> {
        self.pipe
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::storage_end::{PAGE, ReplyWriter, reply_pipe};
    use crate::system::mqueue;
    use std::os::fd::AsFd as _;

    #[test]
    fn replies_come_in_order_with_their_bulk_and_any_other_order_is_an_error() {
        let sender = mqueue::create("test-replies").unwrap().sender;
        let (pipe, write_end) = reply_pipe().unwrap();
        nix::unistd::write(&write_end, &[7; ClientToken::LEN]).unwrap();
        let mut client = StorageClient::new(&sender, pipe.as_fd()).unwrap();
        let mut writer = ReplyWriter::new(write_end);
        for id in [1, 2, 4] {
            let head = ReplyHead { id, reply: Reply::ResultPage { total: 9 } };
            writer.push(&head, &vec![id.to_le_bytes()[0]; PAGE]).unwrap();
        }
        writer.flush().unwrap();
        let mut next = || loop {
            match client.next_reply() {
                Ok(Some((_, bulk))) => return Some(bulk.to_vec()),
                Ok(None) => assert_eq!(client.fill().unwrap(), PipeState::Open),
                Err(_) => return None,
            }
        };
        assert_eq!(next(), Some(vec![1; PAGE]));
        assert_eq!(next(), Some(vec![2; PAGE]));
        assert_eq!(next(), None);
        drop(writer);
        assert_eq!(client.fill().unwrap(), PipeState::Closed);
    }
}
