//! A client's socket: it reads and writes bytes, and remembers since when the time limits count. Nothing here waits.

use std::io::{self, Read as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::time::Instant;

use nix::libc;
use nix::sys::socket::{MsgFlags, recv, send};

use super::keeper_gate::Verdict;
use super::tls::TlsSession;
use crate::protocol::frame::{Frame, FrameBuffer, FrameError};
use crate::protocol::message::ServerMessage;

/// While so many bytes wait to be written, no further frame is taken.
const MAX_UNSENT: usize = 64 * 1024;
/// What is sent may wait for what follows. `nix` lacks this flag.
const MORE: MsgFlags = MsgFlags::from_bits_retain(libc::MSG_MORE);

#[derive(Debug)]
pub(super) struct Connection<'a> {
    socket: &'a TcpStream,
    /// TLS, if the client speaks it.
    tls: Option<Box<TlsSession>>,
    pub(super) input: FrameBuffer,
    output: Vec<u8>,
    /// How much of `output` has been written.
    written: usize,
    /// Whether the client sends no more.
    pub(super) is_half_closed: bool,
    /// Why the connection is broken, if it is. Nothing is read or written any more.
    pub(super) broken: Option<String>,
    /// Since when the client has not finished the frame that it began.
    pub(super) reading_since: Instant,
    /// Since when the client has taken none of the bytes that wait.
    pub(super) writing_since: Instant,
}

impl<'a> Connection<'a> {
    /// The socket must not block.
    pub(super) fn new(socket: &'a TcpStream, max_payload: u32) -> Self {
        let now = Instant::now();
        Self {
            socket,
            tls: None,
            input: FrameBuffer::new(max_payload),
            output: Vec::new(),
            written: 0,
            is_half_closed: false,
            broken: None,
            reading_since: now,
            writing_since: now,
        }
    }

    /// The first byte that has come and has not been read.
    pub(super) fn first_unread(&self) -> Option<u8> {
        let mut first = [0];
        let peeked = recv(self.socket.as_raw_fd(), &mut first, MsgFlags::MSG_PEEK);
        matches!(peeked, Ok(1..)).then_some(first[0])
    }

    pub(super) fn start_tls(&mut self, tls: TlsSession) {
        self.tls = Some(Box::new(tls));
    }

    pub(super) fn take_verdict(&mut self) -> Option<Verdict> {
        self.tls.as_mut()?.take_verdict()
    }

    /// Reads once.
    pub(super) fn fill(&mut self) {
        let was_empty = self.input.is_empty();
        let read = match &mut self.tls {
            Some(tls) => tls.read(self.socket, &mut self.input),
            None => self.socket.read(self.input.space()).map(|count| {
                self.input.received(count);
                count > 0
            }),
        };
        match read {
            Ok(is_open) => self.is_half_closed |= !is_open,
            Err(error) if is_temporary(&error) => {}
            Err(error) => self.broken = Some(error.to_string()),
        }
        if was_empty && !self.input.is_empty() {
            self.reading_since = Instant::now();
        }
    }

    pub(super) fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let frame = self.input.next_frame();
        // The time limit of the frame behind this one starts now.
        if matches!(frame, Ok(Some(_))) {
            self.reading_since = Instant::now();
        }
        frame
    }

    /// Adds a message to the bytes that wait to be written.
    pub(super) fn send(&mut self, message: &ServerMessage<'_>) {
        message.encode(self.output());
    }

    /// Where the bytes to write are appended.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        if self.unsent() == 0 {
            self.writing_since = Instant::now();
        }
        &mut self.output
    }

    /// Sends the reason for which the connection is closed at once, as far as the socket takes it.
    pub(super) fn send_last(&mut self, reason: &str) {
        self.send(&ServerMessage::Error(reason));
        self.flush(true);
    }

    /// Writes as much as the socket takes. The end of the connection goes with the `last` bytes, in one segment.
    pub(super) fn flush(&mut self, last: bool) {
        while self.unsent() > 0 {
            match self.write(last) {
                Ok(()) => self.writing_since = Instant::now(),
                Err(error) if is_temporary(&error) => return,
                Err(error) => return self.broken = Some(error.to_string()),
            }
        }
        self.output.clear();
        self.written = 0;
        // TLS has an end of its own.
        if last && self.tls.is_none() {
            self.finish_writing();
        }
    }

    /// Writes once. What is `last` may wait for the end of the connection.
    fn write(&mut self, last: bool) -> io::Result<()> {
        let rest = self.output.get(self.written..).unwrap_or_default();
        let flags = MsgFlags::MSG_NOSIGNAL | if last { MORE } else { MsgFlags::empty() };
        self.written += match &mut self.tls {
            Some(tls) => tls.write(rest, self.socket)?,
            None => send(self.socket.as_raw_fd(), rest, flags)?,
        };
        Ok(())
    }

    /// Whether bytes wait that can still be written.
    pub(super) fn is_sending(&self) -> bool {
        self.broken.is_none() && self.unsent() > 0
    }

    pub(super) fn is_backed_up(&self) -> bool {
        self.unsent() >= MAX_UNSENT
    }

    fn unsent(&self) -> usize {
        let encrypted = self.tls.as_ref().is_some_and(|tls| tls.wants_write());
        self.output.len() - self.written + usize::from(encrypted)
    }

    /// Ends TLS, if the client speaks it. Sends what is left, then an alert, which says why if TLS has failed.
    pub(super) fn finish_tls(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.finish(self.socket);
        }
    }

    /// Tells the client that nothing more will be written.
    pub(super) fn finish_writing(&self) {
        // Fails only if the connection is broken already.
        self.socket.shutdown(Shutdown::Write).unwrap_or_default();
    }

    /// Reads and discards some of what the client still sends. True once nothing more will come.
    ///
    /// Not inlined: the buffer would enlarge the caller's stack frame, and so the memory of every handler.
    #[inline(never)]
    pub(super) fn discard_input(&self) -> bool {
        let mut discarded = [0; 16 * 1024];
        match (&mut &*self.socket).read(&mut discarded) {
            Ok(count) => count == 0,
            Err(error) => !is_temporary(&error),
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl AsFd for Connection<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
