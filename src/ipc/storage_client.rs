//! A handler's view of the storage service: requests go out, their replies come back in the same order. Nothing here
//! waits; the handler waits for [`StorageClient::queue`] and [`StorageClient::pipe`] together with all else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::client::ClientToken;
use super::reply_pipe::{MAX_OUTSTANDING, PipeState, ReplyHead, ReplyReader};
use super::request_queue::{Request, RequestSender};
use crate::system::mqueue::QueueSender;

/// The two channels of one client.
#[derive(Debug)]
pub struct StorageClient<'a> {
    requests: RequestSender<'a>,
    replies: ReplyReader<'a>,
    outstanding: usize,
}

impl<'a> StorageClient<'a> {
    /// The view of that client.
    #[must_use]
    pub fn new(client: ClientToken, queue: &'a QueueSender, replies: ReplyReader<'a>) -> Self {
        Self { requests: RequestSender::new(queue, client), replies, outstanding: 0 }
    }

    /// Whether one more request may be made now: the one before has been sent, and the reply will find room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.requests.is_sending() && self.outstanding < MAX_OUTSTANDING
    }

    /// Whether a part of a request waits for room in the queue.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.requests.is_sending()
    }

    /// Where the bulk bytes of the next request are appended.
    pub fn body(&mut self) -> &mut Vec<u8> {
        self.requests.body()
    }

    /// Throws away what was appended for the next request.
    pub fn clear_body(&mut self) {
        self.requests.clear();
    }

    /// Makes a request, with what is in [`Self::body`], and sends of it what the queue takes. Returns its number.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn ask(&mut self, request: Request) -> io::Result<u32> {
        let id = self.requests.begin(request);
        self.outstanding += 1;
        self.requests.send()?;
        Ok(id)
    }

    /// Sends more of a request that waits for room.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&mut self) -> io::Result<()> {
        self.requests.send()
    }

    /// Reads what the storage service has written.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn fill(&mut self) -> io::Result<PipeState> {
        self.replies.fill()
    }

    /// Takes the next reply, and its bulk bytes.
    ///
    /// # Errors
    /// It makes no sense.
    pub fn next_reply(&mut self) -> io::Result<Option<(ReplyHead, &[u8])>> {
        let reply = self.replies.next_reply()?;
        if reply.is_some() {
            self.outstanding = self.outstanding.saturating_sub(1);
        }
        Ok(reply)
    }

    /// To wait for room in the queue.
    #[must_use]
    pub fn queue(&self) -> BorrowedFd<'_> {
        self.requests.as_fd()
    }

    /// To wait for replies, and for the end of the storage service.
    #[must_use]
    pub fn pipe(&self) -> BorrowedFd<'_> {
        self.replies.as_fd()
    }
}
