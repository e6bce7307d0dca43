//! A connection to the server, with its time limits, and the answers that come over it.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use memchr::memchr_iter;
use nix::sys::socket::{setsockopt, sockopt};

use super::error::{AgencyError, Lost, Trouble};
use crate::logging::{self, Outcome};
use crate::protocol::frame::{Frame, FrameBuffer, FrameType, HEADER_LEN, header};
use crate::protocol::message::{ClientMessage, NotAnAnswer, ServerMessage};
use crate::protocol::record::RECORD_SEPARATOR;

/// How long one address may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server may take to read or to answer, unless it is the draw that is waited for.
pub const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// After this much of it without an answer, the log says that one is waited for.
const QUIET: Duration = Duration::from_secs(3);

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
pub struct ServerConnection {
    stream: TcpStream,
    incoming: FrameBuffer,
}

impl ServerConnection {
    /// Connects to `HOST:PORT`, to the first address of it that answers.
    ///
    /// # Errors
    /// None does.
    pub fn open(address: &str) -> Result<Self, Lost> {
        let stream = connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(QUIET))?;
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

    /// Sends a message.
    ///
    /// # Errors
    /// As of [`Self::send`].
    pub fn send_message(&mut self, message: &ClientMessage<'_>) -> Result<(), Lost> {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.send(&frame)
    }

    /// Whether an answer is there to be received without waiting.
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
        let read = match self.stream.read(self.incoming.space()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.read_late(),
            other => other,
        };
        match read {
            Ok(0) => Err(Lost::Closed),
            Ok(count) => {
                self.incoming.received(count);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(lost(error)),
        }
    }

    /// Reads what has not come while it was quiet, within what is left of the time. A server that is full takes
    /// connections and lets them wait: somebody may ask why nothing happens.
    fn read_late(&mut self) -> io::Result<usize> {
        logging::info("connect", Outcome::InProgress, &[("waited_s", &QUIET.as_secs())]);
        self.stream.set_read_timeout(Some(ANSWER_TIMEOUT.saturating_sub(QUIET)))?;
        let read = self.stream.read(self.incoming.space());
        self.stream.set_read_timeout(Some(QUIET))?;
        read
    }

    /// Waits for a result and counts the winners in it; none if the draw has not been made. It must begin within `limit`,
    /// if there is one. Nothing else may be awaited over this connection.
    ///
    /// # Errors
    /// No such answer came, or a refusal.
    pub fn receive_winners(&mut self, limit: Option<Duration>) -> Result<Option<u64>, Trouble> {
        if !self.incoming.is_empty() {
            return Err(AgencyError::WrongAnswer.into());
        }
        self.stream.set_read_timeout(limit).map_err(lost)?;
        let mut header = [0; HEADER_LEN];
        self.stream.read_exact(&mut header).map_err(lost)?;
        self.stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(lost)?;
        let [kind, len @ ..] = header;
        let len = u32::from_be_bytes(len);
        match FrameType::from_byte(kind) {
            Some(FrameType::Result) => Ok(Some(self.count_winners(len)?)),
            Some(FrameType::InProgress) => Ok(None),
            Some(FrameType::Error) => Err(self.refusal(len)?),
            Some(kind) => Err(AgencyError::from(NotAnAnswer(kind)).into()),
            None => Err(AgencyError::WrongAnswer.into()),
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

    fn refusal(&mut self, len: u32) -> Result<Trouble, Lost> {
        let mut payload = vec![0; len.min(MAX_ANSWER) as usize];
        self.stream.read_exact(&mut payload).map_err(lost)?;
        let answer = ServerMessage::decode(Frame { kind: FrameType::Error, payload: &payload });
        Ok(answer.map_or_else(
            |error| AgencyError::from(error).into(),
            |answer| unwanted(&answer, "to say who won"),
        ))
    }
}

/// What an answer means that is not the one that was hoped for: that there is no room now, that `what` is refused, or
/// nothing.
pub fn unwanted(answer: &ServerMessage<'_>, what: &str) -> Trouble {
    match *answer {
        ServerMessage::Error(reason) if reason.starts_with("busy") => Lost::Busy(reason.to_owned()).into(),
        ServerMessage::Error(reason) => {
            AgencyError::Refused { what: what.to_owned(), reason: reason.to_owned() }.into()
        }
        _ => AgencyError::WrongAnswer.into(),
    }
}

/// Writes the header of the frame that begins at `start` and goes on to the end of `out`.
pub fn finish_frame(kind: FrameType, start: usize, out: &mut [u8]) {
    let Some(frame) = out.get_mut(start..) else { return };
    let len = frame.len().saturating_sub(HEADER_LEN);
    if let Some(place) = frame.first_chunk_mut() {
        *place = header(kind, u32::try_from(len).unwrap_or(u32::MAX));
    }
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
