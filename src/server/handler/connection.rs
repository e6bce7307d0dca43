//! A client's socket: bytes in, bytes out, how long each has taken. Nothing here waits.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use crate::protocol::frame::{Frame, FrameBuffer, FrameError};
use crate::protocol::message::ServerMessage;

/// Replies that have not been taken by more than this keep the handler from taking more frames.
const MANY_REPLIES: usize = 64 * 1024;

/// The socket and its buffers.
#[derive(Debug)]
pub struct Connection<'a> {
    socket: &'a TcpStream,
    input: FrameBuffer,
    output: Vec<u8>,
    written: usize,
    half_closed: bool,
    reading_since: Instant,
    writing_since: Instant,
}

impl<'a> Connection<'a> {
    /// The connection of that socket.
    ///
    /// # Errors
    /// None that a correct kernel gives.
    pub fn new(socket: &'a TcpStream, max_payload: u32) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let now = Instant::now();
        Ok(Self {
            socket,
            input: FrameBuffer::new(max_payload),
            output: Vec::new(),
            written: 0,
            half_closed: false,
            reading_since: now,
            writing_since: now,
        })
    }

    /// Reads once.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn fill(&mut self) -> io::Result<()> {
        let was_empty = self.input.is_empty();
        match self.socket.read(self.input.space()) {
            Ok(0) => self.half_closed = true,
            Ok(count) => {
                self.input.received(count);
                if was_empty {
                    self.reading_since = Instant::now();
                }
            }
            Err(error) if is_temporary(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether the client sends no more.
    #[must_use]
    pub fn is_half_closed(&self) -> bool {
        self.half_closed
    }

    /// The client sends no more, as the kernel says.
    pub fn see_half_close(&mut self) {
        self.half_closed = true;
    }

    /// It is read again, after it was the server that did not: only from now on the client can be late.
    pub fn read_again(&mut self) {
        self.reading_since = Instant::now();
    }

    /// Since when a frame is begun and not finished, or the client silent; only while it is read.
    #[must_use]
    pub fn reading_since(&self) -> Instant {
        self.reading_since
    }

    /// Since when no reply has been taken, while one waits.
    #[must_use]
    pub fn writing_since(&self) -> Instant {
        self.writing_since
    }

    /// Whether no byte waits to be taken as a frame.
    #[must_use]
    pub fn is_input_empty(&self) -> bool {
        self.input.is_empty()
    }

    /// The type of the frame that comes next, once its first byte has come.
    #[must_use]
    pub fn next_type(&self) -> Option<u8> {
        self.input.first()
    }

    /// Whether a frame has come whole, or a header that is an error.
    #[must_use]
    pub fn has_frame(&self) -> bool {
        self.input.has_frame()
    }

    /// Takes the next frame, if it has come whole.
    ///
    /// # Errors
    /// Its header is one that no frame can have.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let frame = self.input.next_frame();
        // What follows this frame is begun now, as far as the client's pace is concerned.
        if matches!(frame, Ok(Some(_))) {
            self.reading_since = Instant::now();
        }
        frame
    }

    /// Adds a message to what is to be written.
    pub fn send(&mut self, message: &ServerMessage<'_>) {
        self.send_with(|output| message.encode(output));
    }

    /// Adds bytes to what is to be written.
    pub fn send_with(&mut self, add: impl FnOnce(&mut Vec<u8>)) {
        if !self.is_sending() {
            self.writing_since = Instant::now();
        }
        add(&mut self.output);
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.output.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.socket.write(rest) {
                Ok(count) => {
                    self.written += count;
                    self.writing_since = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Whether replies wait to be taken.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.unsent() > 0
    }

    /// Whether more replies wait than should.
    #[must_use]
    pub fn is_backed_up(&self) -> bool {
        self.unsent() >= MANY_REPLIES
    }

    /// How many bytes wait to be taken.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.output.len() - self.written
    }

    /// Says that nothing more will be written.
    pub fn finish_writing(&mut self) {
        // A connection that is broken already needs no end.
        self.socket.shutdown(Shutdown::Write).unwrap_or_default();
    }

    /// Throws some of what the client still sends away. A socket that is closed with bytes unread resets the connection, and
    /// the client could lose our last reply. True once there is nothing more to come.
    ///
    /// Not inlined: its buffer would be in the frame of a caller that hardly ever calls it, and its pages be touched.
    #[inline(never)]
    pub fn discard_input(&mut self) -> bool {
        let mut waste = [0; 16 * 1024];
        match self.socket.read(&mut waste) {
            Ok(count) => count == 0,
            Err(error) => !is_temporary(&error),
        }
    }

    /// Whether bytes came that nobody has read.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        matches!(self.socket.peek(&mut [0]), Ok(1..))
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
