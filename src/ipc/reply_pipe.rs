//! The reply pipe, typed: one per client, from storage to that client's handler.
//!
//! | field | size | |
//! |---|---|---|
//! | length | 2 bytes, little endian | of what follows |
//! | head | see [`super::codec`] | a [`ReplyHead`] |
//! | bulk | the rest | documents or counts |
//!
//! Storage never waits for a handler. It writes without blocking, at most `PIPE_BUF` bytes at a time, which the pipe takes
//! whole or not at all (`pipe(7)`). The handler makes sure that there is room: it has either one long reply outstanding or
//! up to [`MAX_OUTSTANDING`] short ones, which fit into a pipe of one page.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::PIPE_BUF;
use serde::{Deserialize, Serialize};

use super::client::ClientToken;
use super::codec::{MAX_HEAD, decode, encode};
use super::refusal::Refusal;
use crate::lottery::Draw;
use crate::protocol::message::AgencyState;

/// How many short replies a handler may have outstanding.
pub(crate) const MAX_OUTSTANDING: usize = PIPE_BUF / MAX_HEAD / 2;
/// The most bulk bytes of one reply.
pub(crate) const PAGE: usize = PIPE_BUF - 2 * MAX_HEAD;

/// What storage answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To `OpenSession`.
    Opened {
        /// How many bets of the agency are on disk.
        stored: u64,
        /// Whether it may still send bets.
        state: AgencyState,
    },
    /// To `StoreBets` outside of a session: the bets are on disk.
    Stored,
    /// To `StoreBets` of a session: the bets are on disk.
    SessionStored {
        /// How many bets of the agency are on disk.
        stored: u64,
    },
    /// To `EndAgency`: the END is on disk.
    Ended,
    /// To `Result`: the draw has not been made.
    NotDrawn,
    /// To `Result` and `AwaitResult`: a page of the documents follows.
    ResultPage {
        /// The length of all pages, in bytes.
        total: u64,
    },
    /// To `Status`: an [`AgencyCount`] for each agency that fits into the page follows.
    StatusPage {
        /// How many agencies take part.
        agencies: u16,
        /// How many of them have ended.
        ended: u16,
        /// How many bets are on disk.
        bets: u64,
        /// The draw, if it has been made.
        draw: Option<Draw>,
    },
    /// To `Statistics`: a [`Statistics`](super::statistics::Statistics) follows.
    Statistics,
    /// The request was refused and changed nothing.
    Refused(Refusal),
}

/// The head of one reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyHead {
    /// The id of the request.
    pub id: u32,
    /// The answer.
    pub reply: Reply,
}

/// One agency in a `StatusPage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgencyCount {
    /// How many of its bets are on disk.
    pub bets: u64,
    /// Whether it has ended.
    pub ended: bool,
}

/// Makes a pipe: the handler's end and storage's end. Neither blocks.
pub(crate) fn reply_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?)
}

/// Storage's end. It gathers the replies of a group, and writes them at once.
#[derive(Debug)]
pub struct ReplyWriter {
    pipe: OwnedFd,
    waiting: Vec<u8>,
}

/// The pipe is full or closed. The replies that waited are lost, so the pipe is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unwritable;

impl ReplyWriter {
    pub(crate) fn new(pipe: OwnedFd) -> Self {
        Self { pipe, waiting: Vec::new() }
    }

    /// Adds a reply; [`Self::flush`] writes it.
    pub(crate) fn push(&mut self, head: &ReplyHead, bulk: &[u8]) -> Result<(), Unwritable> {
        let mut bytes = [0; 2 * MAX_HEAD];
        let space = bytes.get_mut(2..).unwrap_or_default();
        let head_len = encode(head, space).map_err(|_| Unwritable)?;
        let [low, high] = u16::try_from(head_len + bulk.len()).map_err(|_| Unwritable)?.to_le_bytes();
        if self.waiting.len() + 2 + head_len + bulk.len() > PIPE_BUF {
            self.flush()?;
        }
        self.waiting.extend_from_slice(&[low, high]);
        self.waiting.extend_from_slice(bytes.get(2..2 + head_len).unwrap_or_default());
        self.waiting.extend_from_slice(bulk);
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<(), Unwritable> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let written = loop {
            match nix::unistd::write(&self.pipe, &self.waiting) {
                Err(Errno::EINTR) => {}
                other => break other,
            }
        };
        let whole = written == Ok(self.waiting.len());
        self.waiting.clear();
        if whole { Ok(()) } else { Err(Unwritable) }
    }
}

/// The handler's end. It never waits.
#[derive(Debug)]
pub struct ReplyReader<'a> {
    pipe: BorrowedFd<'a>,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// Enough for the replies to a session's frames, in bytes. A page of a result makes the buffer grow.
const FIRST_CAPACITY: usize = 512;

/// What a read from the pipe found.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipeState {
    /// Storage may write more.
    Open,
    /// End-of-file: storage has ended, or has dropped this client.
    Closed,
}

impl<'a> ReplyReader<'a> {
    pub(crate) fn new(pipe: BorrowedFd<'a>) -> Self {
        Self { pipe, bytes: Vec::new(), start: 0, end: 0 }
    }

    /// Takes the client's token, which the acceptor writes before all replies.
    pub(crate) fn take_token(&mut self) -> io::Result<ClientToken> {
        let mut token = [0; ClientToken::LEN];
        let count = nix::unistd::read(self.pipe, &mut token)?;
        if count == token.len() {
            Ok(ClientToken::from_bytes(token))
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// Reads once.
    pub(crate) fn fill(&mut self) -> io::Result<PipeState> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.bytes.len() {
            self.bytes.resize((self.end * 2).max(FIRST_CAPACITY), 0);
        }
        let count = nix::unistd::read(self.pipe, self.bytes.get_mut(self.end..).unwrap_or_default());
        self.end += count.unwrap_or(0);
        match count {
            Ok(0) => Ok(PipeState::Closed),
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(PipeState::Open),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the next reply that has been read whole, and its bulk bytes.
    pub(crate) fn next_reply(&mut self) -> io::Result<Option<(ReplyHead, &[u8])>> {
        let waiting = self.bytes.get(self.start..self.end).unwrap_or_default();
        let Some((length, rest)) = waiting.split_first_chunk() else { return Ok(None) };
        let Some(reply) = rest.get(..u16::from_le_bytes(*length).into()) else { return Ok(None) };
        self.start += 2 + reply.len();
        Ok(Some(decode(reply)?))
    }
}

impl AsFd for ReplyReader<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heads_of_replies_are_short() {
        for reply in [
            Reply::Opened { stored: u64::MAX, state: AgencyState::Drawn },
            Reply::Refused(Refusal::Gap { first: u64::MAX, stored: u64::MAX }),
            Reply::Refused(Refusal::Disk { errno: i32::MAX }),
            Reply::ResultPage { total: u64::MAX },
        ] {
            assert!(encode(&ReplyHead { id: u32::MAX, reply }, &mut [0; 512]).unwrap() + 2 <= MAX_HEAD);
        }
    }

    #[test]
    fn replies_come_in_order_with_their_bulk() {
        let (read_end, write_end) = reply_pipe().unwrap();
        let mut reader = ReplyReader::new(read_end.as_fd());
        let mut writer = ReplyWriter::new(write_end);
        for id in 0..3 {
            let head = ReplyHead { id, reply: Reply::ResultPage { total: 9 } };
            writer.push(&head, &vec![id.to_le_bytes()[0]; PAGE]).unwrap();
        }
        writer.flush().unwrap();
        let mut next = 0;
        while next < 3 {
            assert_eq!(reader.fill().unwrap(), PipeState::Open);
            while let Some((head, bulk)) = reader.next_reply().unwrap() {
                assert_eq!(head.id, next);
                assert_eq!(bulk, vec![next.to_le_bytes()[0]; PAGE]);
                next += 1;
            }
        }
        drop(writer);
        assert_eq!(reader.fill().unwrap(), PipeState::Closed);
    }

    #[test]
    fn the_most_outstanding_replies_fit_a_pipe_of_one_page() {
        let (_reader, write_end) = reply_pipe().unwrap();
        let smallest = nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096);
        nix::fcntl::fcntl(&write_end, smallest).unwrap();
        let mut writer = ReplyWriter::new(write_end);
        for id in 0..u32::try_from(MAX_OUTSTANDING).unwrap() {
            let reply = Reply::Opened { stored: 1, state: AgencyState::Open };
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
