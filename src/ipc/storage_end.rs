//! Storage's end of the request queue and of the reply pipes.
//!
//! A reply in a pipe:
//!
//! | field | size | |
//! |---|---|---|
//! | length | 2 bytes, little endian | of what follows |
//! | head | see [`super::codec`] | a [`ReplyHead`] |
//! | bulk | the rest | documents or counts |
//!
//! Storage never waits for a handler. It writes without blocking, at most `PIPE_BUF` bytes at a time, which the pipe takes
//! whole or not at all (`pipe(7)`). The handler makes sure that the pipe has room: it waits for one long reply, or for up to
//! [`MAX_OUTSTANDING`] short ones, which fit into a pipe of one page.

use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::libc::PIPE_BUF;

use super::codec::{BadMessage, MAX_HEAD, decode, encode};
use super::messages::{PartHead, ReplyHead};
use crate::system::mqueue::QueueReceiver;
use crate::system::retry;

/// How many short replies a handler may have outstanding.
pub const MAX_OUTSTANDING: usize = PIPE_BUF / MAX_HEAD / 2;
/// The most bulk bytes of one reply.
pub const PAGE: usize = PIPE_BUF - 2 * MAX_HEAD;

/// A part of a request and its bulk bytes.
type Part<'m> = (PartHead, &'m [u8]);

/// Takes requests from the queue.
#[derive(Debug)]
pub struct RequestReceiver<'a> {
    pub queue: &'a QueueReceiver,
    message: Vec<u8>,
}

impl<'a> RequestReceiver<'a> {
    pub fn new(queue: &'a QueueReceiver) -> Self {
        Self { queue, message: vec![0; queue.message_len] }
    }

    /// Takes the next message. None if the queue is empty. A correct handler sends no bad message.
    pub fn receive(&mut self) -> io::Result<Option<Result<Part<'_>, BadMessage>>> {
        let length = self.queue.receive(&mut self.message)?;
        Ok(length.map(|length| decode(self.message.get(..length).unwrap_or_default())))
    }
}

/// Makes a reply pipe: the handler's end and storage's end. Neither blocks.
pub fn reply_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?)
}

/// Writes replies to one client. It gathers the replies of a group, and writes them at once. An error means that the pipe is
/// full or closed: the gathered replies are lost, so the pipe can't be used any more.
#[derive(Debug)]
pub struct ReplyWriter {
    pipe: OwnedFd,
    waiting: Vec<u8>,
}

impl ReplyWriter {
    pub fn new(pipe: OwnedFd) -> Self {
        Self { pipe, waiting: Vec::new() }
    }

    /// Adds a reply; [`Self::flush`] writes it.
    pub fn push(&mut self, head: &ReplyHead, bulk: &[u8]) -> io::Result<()> {
        let mut bytes = [0; 2 * MAX_HEAD];
        let length = encode(head, &mut bytes)?;
        let head = bytes.get(..length).unwrap_or_default();
        let length = u16::try_from(head.len() + bulk.len()).map_err(io::Error::other)?;
        if self.waiting.len() + 2 + usize::from(length) > PIPE_BUF {
            self.flush()?;
        }
        self.waiting.extend_from_slice(&length.to_le_bytes());
        self.waiting.extend_from_slice(head);
        self.waiting.extend_from_slice(bulk);
        Ok(())
    }

    pub fn flush(&mut self) -> io::Result<()> {
        if !self.waiting.is_empty() {
            let written = retry(|| nix::unistd::write(&self.pipe, &self.waiting))?;
            debug_assert_eq!(written, self.waiting.len(), "so few bytes are written whole or not at all");
            self.waiting.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::messages::Reply;
    use crate::lottery::Digest;
    use crate::protocol::message::AgencyState;

    #[test]
    fn the_most_outstanding_replies_fit_a_pipe_of_one_page() {
        let (_reader, write_end) = reply_pipe().unwrap();
        let smallest = nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096);
        nix::fcntl::fcntl(&write_end, smallest).unwrap();
        let mut writer = ReplyWriter::new(write_end);
        for id in 0..u32::try_from(MAX_OUTSTANDING).unwrap() {
            let reply = Reply::Opened { stored: 1, digest: Digest::default(), state: AgencyState::Open };
            writer.push(&ReplyHead { id, reply }, &[]).unwrap();
            writer.flush().unwrap();
        }
    }

    #[test]
    fn a_full_pipe_is_an_error_and_never_waited_for() {
        let (_reader, write_end) = reply_pipe().unwrap();
        let mut writer = ReplyWriter::new(write_end);
        let head = ReplyHead { id: 0, reply: Reply::Ended };
        let full = (0..10_000).find(|_| writer.push(&head, &[0; PAGE]).is_err());
        assert!(full.is_some());
    }
}
