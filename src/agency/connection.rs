//! A connection to the server: its time limits and its replies.

use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::error::{AgencyError, AttemptError, ConnectionLost};
use crate::logging::{self, Outcome};
use crate::protocol::frame::{Frame, FrameBuffer, FrameType, HEADER_LEN};
use crate::protocol::message::{ClientMessage, NotAnAnswer, ServerMessage};
use crate::protocol::record::{RECORD_SEPARATOR, count_byte};
use crate::tls::client::{Stream, Target, TlsError};

/// The limit for each address of the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The limit for every reply except the one to `AWAIT_RESULT`, and for the server to read what is sent.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// After this time without a reply, the log says that the agency waits for one.
pub(super) const QUIET: Duration = Duration::from_secs(3);

// These notice a network that was cut and a server that lost its power.
const KEEPALIVE_IDLE_S: u32 = 10;
const KEEPALIVE_INTERVAL_S: u32 = 5;
const KEEPALIVE_PROBES: u32 = 3;
const UNACKNOWLEDGED_MS: u32 = 20_000;

/// The longest reply that is kept whole, in bytes. A RESULT is counted while it arrives and may be longer.
const MAX_REPLY: u32 = 64 * 1024;
/// How much of a RESULT is read at once, in bytes.
const RESULT_CHUNK: usize = 16 * 1024;

/// The reasons of an ERROR that are temporary begin with one of these.
const TEMPORARY: [&str; 2] = ["busy", "could not be stored"];

pub(super) struct ServerConnection {
    stream: Stream,
    incoming: FrameBuffer,
    /// Whether the reply is later than [`QUIET`]. The read timeout is then the rest of [`ANSWER_TIMEOUT`].
    is_late: bool,
}

impl ServerConnection {
    /// Connects to the first address of the server that accepts. Over TLS, makes the handshake too.
    pub(super) fn open(server: &Target) -> Result<Self, ConnectionLost> {
        let socket = connect(&server.address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(QUIET))?;
        socket.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        enable_keepalive(&socket).map_err(io::Error::from)?;
        let stream = Stream::new(socket, server.tls.as_ref())?;
        let mut this = Self { stream, incoming: FrameBuffer::new(MAX_REPLY), is_late: false };
        while this.stream.is_handshaking() {
            let received = this.stream.receive().map(|()| 1);
            this.received(received)?;
        }
        Ok(this)
    }

    /// Sends whole frames. After an error the server can't have the last frame whole.
    pub(super) fn send(&mut self, frames: &[u8]) -> Result<(), ConnectionLost> {
        Ok(self.stream.write_all(frames)?)
    }

    pub(super) fn send_message(&mut self, message: &ClientMessage<'_>) -> Result<(), ConnectionLost> {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.send(&frame)
    }

    /// Tells the server that nothing more will be sent.
    pub(super) fn finish_sending(&mut self) -> Result<(), ConnectionLost> {
        Ok(self.stream.finish_sending()?)
    }

    /// Whether a whole reply can be received without waiting.
    pub(super) fn has_reply(&self) -> bool {
        self.incoming.has_frame()
    }

    /// Waits for the first byte of a reply. Returns false if the server closes the connection or sends nothing.
    pub(super) fn replies_within(&mut self, limit: Duration) -> Result<bool, ConnectionLost> {
        self.stream.socket().set_read_timeout(Some(limit))?;
        match self.stream.wait_readable() {
            Ok(replies) => Ok(replies),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the first byte of a reply, for [`QUIET`]. Returns false if the connection broke or the reply is late. A
    /// late reply can still be received.
    pub(super) fn replies_soon(&mut self) -> Result<bool, ConnectionLost> {
        match self.stream.wait_readable() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.expect_late_reply().map(|()| false),
            Err(error) if TlsError::of(&error).is_some() => Err(error.into()),
            result => Ok(result.is_ok_and(|replies| replies)),
        }
    }

    /// Waits for the next reply.
    pub(super) fn receive(&mut self) -> Result<ServerMessage<'_>, AttemptError> {
        while !self.incoming.has_frame() {
            self.receive_more()?;
        }
        let frame = self.incoming.next_frame().map_err(AgencyError::from)?.ok_or(ConnectionLost::Closed)?;
        Ok(ServerMessage::decode(frame).map_err(AgencyError::from)?)
    }

    /// Waits for a `BET_ACK`. `what` names the request for people.
    pub(super) fn receive_ack(&mut self, what: impl Display) -> Result<(), AttemptError> {
        match self.receive()? {
            ServerMessage::BetAck => Ok(()),
            other => Err(unexpected_reply(&other, what)),
        }
    }

    fn receive_more(&mut self) -> Result<(), ConnectionLost> {
        let received = self.stream.read(self.incoming.space());
        self.received(received).map(|count| self.incoming.received(count))
    }

    /// Takes the result of a wait for bytes. Returns how many have come: none after the first wait for a late reply.
    fn received(&mut self, received: io::Result<usize>) -> Result<usize, ConnectionLost> {
        let count = match received {
            Ok(0) => return Err(ConnectionLost::Closed),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock && !self.is_late => {
                return self.expect_late_reply().map(|()| 0);
            }
            Err(error) => return Err(error.into()),
        };
        if self.is_late {
            self.is_late = false;
            self.stream.socket().set_read_timeout(Some(QUIET))?;
        }
        Ok(count)
    }

    /// Logs that the agency waits. A server whose places are all taken accepts connections but does not answer.
    fn expect_late_reply(&mut self) -> Result<(), ConnectionLost> {
        logging::info("connect", Outcome::InProgress, &[("waited_s", &QUIET.as_secs())]);
        self.is_late = true;
        Ok(self.stream.socket().set_read_timeout(Some(ANSWER_TIMEOUT.saturating_sub(QUIET)))?)
    }

    /// Waits for a RESULT and counts its winners; returns `None` for `IN_PROGRESS`. The reply must begin within `limit`.
    /// No other reply may be outstanding.
    pub(super) fn receive_winners(&mut self, limit: Option<Duration>) -> Result<Option<u64>, AttemptError> {
        if !self.incoming.is_empty() {
            return Err(AgencyError::WrongReply.into());
        }
        let [kind, len @ ..] = self.receive_header(limit)?;
        let len = u32::from_be_bytes(len);
        match FrameType::from_byte(kind) {
            Some(FrameType::Result) => Ok(Some(self.count_winners(len)?)),
            Some(FrameType::InProgress) => Ok(None),
            Some(FrameType::Error) => Err(self.receive_refusal(len)?),
            Some(kind) => Err(AgencyError::from(NotAnAnswer(kind)).into()),
            None => Err(AgencyError::WrongReply.into()),
        }
    }

    fn receive_header(&mut self, limit: Option<Duration>) -> Result<[u8; HEADER_LEN], ConnectionLost> {
        let mut header = [0; HEADER_LEN];
        self.stream.socket().set_read_timeout(limit)?;
        self.stream.read_exact(&mut header)?;
        self.stream.socket().set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(header)
    }

    /// Counts the documents in the next `len` bytes.
    fn count_winners(&mut self, len: u32) -> Result<u64, ConnectionLost> {
        let mut chunk = [0; RESULT_CHUNK];
        let mut left = len as usize;
        let mut separators = 0;
        while left > 0 {
            let part = chunk.get_mut(..left.min(RESULT_CHUNK)).unwrap_or_default();
            self.stream.read_exact(part)?;
            separators += count_byte(RECORD_SEPARATOR, part) as u64;
            left -= part.len();
        }
        Ok(if len == 0 { 0 } else { separators + 1 })
    }

    fn receive_refusal(&mut self, len: u32) -> Result<AttemptError, ConnectionLost> {
        let mut payload = vec![0; len.min(MAX_REPLY) as usize];
        self.stream.read_exact(&mut payload)?;
        let reply = ServerMessage::decode(Frame { kind: FrameType::Error, payload: &payload });
        Ok(reply.map_or_else(
            |error| AgencyError::from(error).into(),
            |reply| unexpected_reply(&reply, "to say who won"),
        ))
    }
}

/// Returns what an unexpected reply means. `what` names the request for people.
pub(super) fn unexpected_reply(reply: &ServerMessage<'_>, what: impl Display) -> AttemptError {
    let ServerMessage::Error(reason) = *reply else { return AgencyError::WrongReply.into() };
    if TEMPORARY.iter().any(|start| reason.starts_with(start)) {
        return AttemptError::RefusedForNow(reason.to_owned());
    }
    AgencyError::Refused { what: what.to_string(), reason: reason.to_owned() }.into()
}

fn connect(address: &str) -> Result<TcpStream, ConnectionLost> {
    let mut last = ConnectionLost::NoAddress(address.to_owned());
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

fn enable_keepalive(stream: &TcpStream) -> nix::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_S)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL_S)?;
    setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS)
}

impl From<io::Error> for ConnectionLost {
    fn from(error: io::Error) -> Self {
        if let Some(error) = TlsError::of(&error) {
            return Self::Tls(error.clone());
        }
        match error.kind() {
            ErrorKind::UnexpectedEof => Self::Closed,
            // Only reads and writes that have a time limit give this.
            ErrorKind::WouldBlock => Self::Silent(ANSWER_TIMEOUT.as_secs()),
            _ => Self::Io(error),
        }
    }
}
