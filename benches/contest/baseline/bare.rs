//! The shape of the real server and nothing else: a fork for each connection, requests in parts over a POSIX queue, one
//! storage process with group commit, a reply pipe. Its only validation is the number of fields. It has no confinement,
//! supervision, recovery, log or draw.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use loteria::system::process::reap;
use nix::errno::Errno;
use nix::mqueue::{MQ_OFlag, MqAttr, MqdT, mq_open, mq_receive, mq_send, mq_unlink};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::pipe;

use super::fork_child;
use super::wire::{
    AWAIT_RESULT, BET_ACK, END, Frames, MULTIPLE_BETS, OPEN_SESSION, RESULT, RESULT_REQUEST, SESSION_BETS,
    SESSION_STORED, malformed, open_session, push_frame, push_rows, session_records,
};

/// The queue that the kernel allows every user.
const MESSAGES: i64 = 10;
const MESSAGE: usize = 8192;
/// Process, descriptor of its pipe, number of the request, kind of the part.
const HEADER: usize = 13;
/// The most bytes of a group.
const GROUP: usize = 512 * 1024;
/// The most requests of a handler in flight.
const IN_FLIGHT: u32 = 16;

/// More parts follow.
const PART: u8 = 0;
/// The request is whole.
const LAST: u8 = 1;
/// The request is whole, and the only one of the client.
const ONLY: u8 = 2;
/// The client has gone.
const GONE: u8 = 3;

pub fn run(listener: impl FnOnce() -> io::Result<TcpListener>, bets: &Path) -> io::Result<()> {
    let (queue, at_once) = open_queue()?;
    fork_child(|| i32::from(store(&queue, &at_once, bets).is_err()))?;
    let listener = listener()?;
    loop {
        let (socket, _) = listener.accept()?;
        fork_child(|| i32::from(serve(&socket, &queue).is_err()))?;
        while reap()?.is_some() {}
    }
}

/// The queue, opened twice: blocking and non-blocking.
fn open_queue() -> io::Result<(MqdT, MqdT)> {
    let name = format!("/contest-bare-{}", std::process::id());
    #[expect(clippy::cast_possible_wrap, reason = "a small constant")]
    let attributes = MqAttr::new(0, MESSAGES, MESSAGE as i64, 0);
    let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDWR;
    let queue = mq_open(name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR, Some(&attributes))?;
    let at_once = mq_open(name.as_str(), MQ_OFlag::O_RDONLY | MQ_OFlag::O_NONBLOCK, Mode::empty(), None)?;
    mq_unlink(name.as_str())?;
    Ok((queue, at_once))
}

/// The header of a part.
#[derive(Clone, Copy)]
struct Header {
    process: u32,
    pipe: u32,
    request: u32,
    kind: u8,
}

impl Header {
    fn bytes(self) -> [u8; HEADER] {
        let mut bytes = [self.kind; HEADER];
        let words = [self.process, self.pipe, self.request].map(u32::to_le_bytes);
        for (to, from) in bytes.iter_mut().zip(words.as_flattened()) {
            *to = *from;
        }
        bytes
    }

    fn split(message: &[u8]) -> Option<(Self, &[u8])> {
        let (process, rest) = message.split_first_chunk()?;
        let (pipe, rest) = rest.split_first_chunk()?;
        let (request, rest) = rest.split_first_chunk()?;
        let (&kind, rows) = rest.split_first()?;
        let [process, pipe, request] = [process, pipe, request].map(|word| u32::from_le_bytes(*word));
        Some((Self { process, pipe, request, kind }, rows))
    }
}

/// The storage process.
fn store(queue: &MqdT, at_once: &MqdT, bets: &Path) -> io::Result<()> {
    let mut storage = Storage {
        file: File::options().create(true).append(true).open(bets)?,
        pipes: HashMap::new(),
        group: Vec::with_capacity(2 * GROUP),
        waiting: Vec::new(),
    };
    let mut message = vec![0; MESSAGE];
    loop {
        let length = mq_receive(queue, &mut message, &mut 0)?;
        storage.take(message.get(..length).unwrap_or_default())?;
        while storage.group.len() < GROUP {
            match mq_receive(at_once, &mut message, &mut 0) {
                Ok(length) => storage.take(message.get(..length).unwrap_or_default())?,
                Err(Errno::EAGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        storage.commit()?;
    }
}

struct Storage {
    file: File,
    pipes: HashMap<u32, File>,
    group: Vec<u8>,
    /// The headers of the requests that wait for the sync.
    waiting: Vec<Header>,
}

impl Storage {
    fn take(&mut self, message: &[u8]) -> io::Result<()> {
        let (header, rows) = Header::split(message).ok_or_else(malformed)?;
        if header.kind == GONE {
            self.pipes.remove(&header.process);
            return Ok(());
        }
        self.group.extend_from_slice(rows);
        if header.kind != PART {
            self.waiting.push(header);
        }
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        if !self.group.is_empty() {
            self.file.write_all(&self.group)?;
            self.file.sync_data()?;
            self.group.clear();
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        for header in waiting.drain(..) {
            // The client may have gone.
            self.reply(header).ok();
            if header.kind == ONLY {
                self.pipes.remove(&header.process);
            }
        }
        self.waiting = waiting;
        Ok(())
    }

    fn reply(&mut self, to: Header) -> io::Result<()> {
        let pipe = match self.pipes.entry(to.process) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let path = format!("/proc/{}/fd/{}", to.process, to.pipe);
                new.insert(File::options().write(true).open(path)?)
            }
        };
        pipe.write_all(&to.request.to_le_bytes())
    }
}

/// A handler process.
fn serve(socket: &TcpStream, queue: &MqdT) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let (reader, writer) = pipe()?;
    let mut handler = Handler {
        socket,
        queue,
        replies: File::from(reader),
        header: Header {
            process: std::process::id(),
            pipe: writer.as_raw_fd().unsigned_abs(),
            request: 0,
            kind: GONE,
        },
        _writer: writer,
        message: Vec::with_capacity(MESSAGE),
        rows: Vec::with_capacity(MESSAGE),
        counts: VecDeque::new(),
        stored: 0,
        in_session: false,
        answer: Vec::new(),
    };
    let served = handler.run();
    if handler.in_session {
        handler.send(GONE)?;
    }
    served
}

struct Handler<'a> {
    socket: &'a TcpStream,
    queue: &'a MqdT,
    replies: File,
    /// The header of the last part sent.
    header: Header,
    /// Kept open so that storage can open it through `/proc`.
    _writer: OwnedFd,
    message: Vec<u8>,
    rows: Vec<u8>,
    /// The number of bets of each request in flight.
    counts: VecDeque<u64>,
    stored: u64,
    in_session: bool,
    answer: Vec<u8>,
}

impl Handler<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut frames = Frames::of(self.socket);
        loop {
            if self.is_frame_next(&frames)? {
                let (kind, payload) = frames.next()?;
                self.take(kind, payload)?;
            } else {
                self.take_replies()?;
                if !self.in_session {
                    return Ok(());
                }
            }
        }
    }

    /// Waits for the client or for storage. If both are ready, storage is first.
    fn is_frame_next(&self, frames: &Frames<'_>) -> io::Result<bool> {
        if self.counts.is_empty() {
            return Ok(true);
        }
        if self.counts.len() >= IN_FLIGHT as usize {
            return Ok(false);
        }
        let mut both = [
            PollFd::new(self.replies.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = if frames.has_more() { PollTimeout::ZERO } else { PollTimeout::NONE };
        poll(&mut both, timeout)?;
        Ok(both.first().and_then(PollFd::any) != Some(true))
    }

    fn take(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        self.answer.clear();
        match kind {
            OPEN_SESSION => {
                self.in_session = true;
                open_session(payload, &mut self.answer)?;
            }
            SESSION_BETS => return self.request(session_records(payload)?, LAST),
            MULTIPLE_BETS => return self.request(payload, ONLY),
            END => push_frame(BET_ACK, b"OK", &mut self.answer),
            AWAIT_RESULT | RESULT_REQUEST => push_frame(RESULT, b"", &mut self.answer),
            _ => return Err(malformed()),
        }
        self.socket.write_all(&self.answer)
    }

    fn request(&mut self, records: &[u8], last: u8) -> io::Result<()> {
        let mut rows = std::mem::take(&mut self.rows);
        rows.clear();
        self.counts.push_back(push_rows(records, &mut rows)?);
        self.header.request += 1;
        let mut parts = rows.chunks(MESSAGE - HEADER).peekable();
        while let Some(part) = parts.next() {
            self.header.kind = if parts.peek().is_some() { PART } else { last };
            self.message.clear();
            self.message.extend_from_slice(&self.header.bytes());
            self.message.extend_from_slice(part);
            mq_send(self.queue, &self.message, 0)?;
        }
        self.rows = rows;
        Ok(())
    }

    fn send(&mut self, kind: u8) -> io::Result<()> {
        self.header.kind = kind;
        Ok(mq_send(self.queue, &self.header.bytes(), 0)?)
    }

    fn take_replies(&mut self) -> io::Result<()> {
        let mut replies = [0; 4 * IN_FLIGHT as usize];
        let count = self.replies.read(&mut replies)? / 4;
        self.answer.clear();
        for bets in self.counts.drain(..count.min(self.counts.len())) {
            self.stored += bets;
            if self.in_session {
                push_frame(SESSION_STORED, &self.stored.to_be_bytes(), &mut self.answer);
            } else {
                push_frame(BET_ACK, b"OK", &mut self.answer);
            }
        }
        self.socket.write_all(&self.answer)
    }
}
