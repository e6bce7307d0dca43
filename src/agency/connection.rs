//! A connection to the server, with its time limits, and the answers that come over it.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use memchr::memchr_iter;
use nix::sys::socket::{setsockopt, sockopt};

use super::error::{AgencyError, Lost, Trouble};
use crate::protocol::frame::{Frame, FrameBuffer, FrameType, HEADER_LEN};
use crate::protocol::message::{NotAnAnswer, ServerMessage};
use crate::protocol::record::RECORD_SEPARATOR;

/// How long one address may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server may take to read or to answer, unless it is the draw that is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

// A network that was cut, or a server that lost its power, says nothing: it is noticed by these.
const KEEPALIVE_IDLE_S: u32 = 10;
const KEEPALIVE_INTERVAL_S: u32 = 5;
const KEEPALIVE_PROBES: u32 = 3;
const UNACKNOWLEDGED_MS: u32 = 20_000;

/// The longest answer that is kept whole, in bytes. Results are counted as they come, whatever their length.
const MAX_ANSWER: u32 = 64 * 1024;
/// How much of a result is read at once, in bytes.
const RESULT_CHUNK: usize = 16 * 1024;

/// A connection that stands.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    incoming: FrameBuffer,
}

impl Connection {
    /// Connects to `HOST:PORT`, to the first address of it that answers.
    ///
    /// # Errors
    /// None does.
    pub fn open(address: &str) -> Result<Self, Lost> {
        let stream = connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        notice_a_cut(&stream).map_err(io::Error::from)?;
        Ok(Self { stream, incoming: FrameBuffer::new(MAX_ANSWER) })
    }

    /// Sends whole frames.
    ///
    /// # Errors
    /// The connection broke before the system took the last byte: the server can't have the last frame whole.
    pub fn send(&mut self, frames: &[u8]) -> Result<(), Lost> {
        self.stream.write_all(frames).map_err(lost)
    }

    /// Whether an answer is there to be received without waiting.
    #[must_use]
    pub fn has_answer(&self) -> bool {
        self.incoming.has_frame()
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// None came, or it is none that a server gives.
    pub fn receive(&mut self) -> Result<ServerMessage<'_>, Trouble> {
        while !self.incoming.has_frame() {
            self.receive_more()?;
        }
        let frame = self.incoming.next_frame().map_err(AgencyError::from)?.ok_or(Lost::Closed)?;
        Ok(ServerMessage::decode(frame).map_err(AgencyError::from)?)
    }

    fn receive_more(&mut self) -> Result<(), Lost> {
        match self.stream.read(self.incoming.space()) {
            Ok(0) => Err(Lost::Closed),
            Ok(count) => {
                self.incoming.received(count);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(lost(error)),
        }
    }

    /// Lets [`Self::receive_winners`] wait without a limit until its answer begins.
    ///
    /// # Errors
    /// None that a correct kernel gives.
    pub fn wait_for_the_draw(&self) -> Result<(), Lost> {
        Ok(self.stream.set_read_timeout(None)?)
    }

    /// Waits for a result and counts the winners in it; none if the draw has not been made. Nothing else may be
    /// awaited over this connection.
    ///
    /// # Errors
    /// No such answer came, or a refusal.
    pub fn receive_winners(&mut self) -> Result<Option<u64>, Trouble> {
        if !self.incoming.is_empty() {
            return Err(AgencyError::WrongAnswer("what was asked before").into());
        }
        let mut header = [0; HEADER_LEN];
        self.stream.read_exact(&mut header).map_err(lost)?;
        self.stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(lost)?;
        let [kind, len @ ..] = header;
        let len = u32::from_be_bytes(len);
        match FrameType::from_byte(kind) {
            Some(FrameType::Result) => Ok(Some(self.count_winners(len)?)),
            Some(FrameType::InProgress) => Ok(None),
            Some(FrameType::Error) => Err(self.refusal(len)?.into()),
            Some(kind) => Err(AgencyError::from(NotAnAnswer(kind)).into()),
            None => Err(AgencyError::WrongAnswer("a question for the winners").into()),
        }
    }

    /// Counts the documents in the `len` bytes to come.
    fn count_winners(&mut self, len: u32) -> Result<u64, Lost> {
        let mut chunk = [0; RESULT_CHUNK];
        let mut left = len as usize;
        let mut separators = 0;
        while left > 0 {
            let wanted = left.min(RESULT_CHUNK);
            let part = chunk.get_mut(..wanted).unwrap_or_default();
            self.stream.read_exact(part).map_err(lost)?;
            separators += memchr_iter(RECORD_SEPARATOR, part).count() as u64;
            left -= wanted;
        }
        Ok(if len == 0 { 0 } else { separators + 1 })
    }

    fn refusal(&mut self, len: u32) -> Result<AgencyError, Trouble> {
        let mut payload = vec![0; len.min(MAX_ANSWER) as usize];
        self.stream.read_exact(&mut payload).map_err(lost)?;
        let frame = Frame { kind: FrameType::Error, payload: &payload };
        match ServerMessage::decode(frame).map_err(AgencyError::from)? {
            ServerMessage::Error(reason) if is_busy(reason) => Err(Lost::Busy(reason.to_owned()).into()),
            ServerMessage::Error(reason) => Ok(refused("to say who won", reason)),
            _ => Ok(AgencyError::WrongAnswer("a question for the winners")),
        }
    }
}

/// Whether a refusal only says that the server has no room now.
#[must_use]
pub fn is_busy(reason: &str) -> bool {
    reason.starts_with("busy")
}

/// The refusal of something.
#[must_use]
pub fn refused(what: &str, reason: &str) -> AgencyError {
    AgencyError::Refused { what: what.to_owned(), reason: reason.to_owned() }
}

fn connect(address: &str) -> Result<TcpStream, Lost> {
    let mut last = Lost::NoAddress(address.to_owned());
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

fn notice_a_cut(stream: &TcpStream) -> nix::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_S)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL_S)?;
    setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS)
}

fn lost(error: io::Error) -> Lost {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Lost::Closed,
        io::ErrorKind::WouldBlock => Lost::Silent(ANSWER_TIMEOUT.as_secs()),
        _ => Lost::Io(error),
    }
}
