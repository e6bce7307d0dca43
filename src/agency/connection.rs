//! A connection to the server: its time limits and its replies.

use std::fmt::Display;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read, Write as _};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::error::{AgencyError, AttemptError};
use crate::logging::{self, Outcome};
use crate::protocol::frame::{Frame, FrameError, HEADER_LEN, kind};
use crate::protocol::message::{ClientMessage, ServerMessage};
use crate::protocol::record::RECORD_SEPARATOR;
use crate::tls::client::{Stream, Target, TlsError};

/// The limit for each address of the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After this time without a byte of a reply, the log says that the agency waits for it.
pub(super) const QUIET: Duration = Duration::from_secs(3);
/// How often the agency waits for [`QUIET`] before it gives up, except for the reply to `AWAIT_RESULT`.
const MAX_SILENCES: u32 = 20;
/// How long these waits take together. The server may take as long to read what is sent.
const REPLY_TIMEOUT: Duration = Duration::from_secs(QUIET.as_secs() * MAX_SILENCES as u64);

// These notice a network that was cut and a server that lost its power.
const KEEPALIVE_IDLE_S: u32 = 10;
const KEEPALIVE_INTERVAL_S: u32 = 5;
const KEEPALIVE_PROBES: u32 = 3;
const UNACKNOWLEDGED_MS: u32 = 20_000;

/// The longest payload of a reply, in bytes. Only a RESULT may be longer: its winners are counted while it arrives.
const MAX_REPLY: u32 = 64 * 1024;

/// A temporary reason of an ERROR begins with one of these.
const TEMPORARY: [&str; 2] = ["busy", "could not be stored"];

pub(super) struct ServerConnection {
    replies: BufReader<PatientStream>,
    /// The payload of the last reply; kept to reuse its memory.
    payload: Vec<u8>,
}

impl ServerConnection {
    /// Connects to the first address of the server that accepts. Over TLS, makes the handshake too.
    pub(super) fn open(server: &Target) -> io::Result<Self> {
        let socket = connect(&server.address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(QUIET))?;
        socket.set_write_timeout(Some(REPLY_TIMEOUT))?;
        enable_keepalive(&socket)?;
        let mut incoming = PatientStream { stream: Stream::new(socket, server.tls.as_ref())?, silences: 0 };
        while incoming.stream.is_handshaking() {
            incoming.wait(Stream::receive)?;
        }
        Ok(Self { replies: BufReader::new(incoming), payload: Vec::new() })
    }

    fn stream(&mut self) -> &mut Stream {
        &mut self.replies.get_mut().stream
    }

    /// Sends whole frames. After an error the server can't have the last frame whole.
    pub(super) fn send(&mut self, frames: &[u8]) -> io::Result<()> {
        self.stream().write_all(frames)
    }

    pub(super) fn send_message(&mut self, message: &ClientMessage<'_>) -> io::Result<()> {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.send(&frame)
    }

    /// Tells the server that nothing more will be sent.
    pub(super) fn finish_sending(&mut self) -> io::Result<()> {
        self.stream().finish_sending()
    }

    /// Returns whether the next reply has begun to arrive.
    pub(super) fn has_reply(&self) -> bool {
        !self.replies.buffer().is_empty()
    }

    /// Waits until the next reply begins. Returns false if the server closes the connection, or sends nothing within `limit`.
    pub(super) fn replies_within(&mut self, limit: Option<Duration>) -> io::Result<bool> {
        if self.has_reply() {
            return Ok(true);
        }
        self.stream().socket().set_read_timeout(limit)?;
        let replies = self.stream().wait_readable();
        self.stream().socket().set_read_timeout(Some(QUIET))?;
        if replies.as_ref().is_err_and(is_timeout) { Ok(false) } else { replies }
    }

    /// Waits up to [`QUIET`] until the first reply begins. Returns false if the connection broke or the reply is late. A late
    /// reply can still be received.
    pub(super) fn replies_soon(&mut self) -> io::Result<bool> {
        match self.stream().wait_readable() {
            Err(error) if TlsError::of(&error).is_some() => return Err(error),
            Err(error) if is_timeout(&error) => self.replies.get_mut().count_silence(),
            Err(_) => {}
            replies => return replies,
        }
        Ok(false)
    }

    /// Waits for the next reply. A refusal is an error, which names the refused request as `what`.
    pub(super) fn receive(&mut self, what: impl Display) -> Result<ServerMessage<'_>, AttemptError> {
        let (kind, len) = self.receive_header()?;
        if len > MAX_REPLY {
            return Err(AgencyError::from(FrameError::TooLong { len, max: MAX_REPLY }).into());
        }
        self.payload.resize(len as usize, 0);
        self.replies.read_exact(&mut self.payload)?;
        match ServerMessage::decode(Frame { kind, payload: &self.payload }).map_err(AgencyError::from)? {
            ServerMessage::Error(reason) if TEMPORARY.iter().any(|start| reason.starts_with(start)) => {
                Err(AttemptError::RefusedForNow(format!("the server says: {reason}")))
            }
            ServerMessage::Error(reason) => {
                Err(AgencyError::Refused { what: what.to_string(), reason: reason.to_owned() }.into())
            }
            message => Ok(message),
        }
    }

    /// Waits for a `BET_ACK`.
    pub(super) fn receive_ack(&mut self, what: impl Display) -> Result<(), AttemptError> {
        match self.receive(what)? {
            ServerMessage::BetAck => Ok(()),
            _ => Err(AgencyError::WrongReply.into()),
        }
    }

    /// Waits for a RESULT and counts its winners. Returns `None` for `IN_PROGRESS`.
    pub(super) fn receive_winners(&mut self) -> Result<Option<u64>, AttemptError> {
        if self.replies.fill_buf()?.first() == Some(&kind::RESULT) {
            return self.count_winners().map(Some);
        }
        match self.receive("to say who won")? {
            ServerMessage::InProgress => Ok(None),
            _ => Err(AgencyError::WrongReply.into()),
        }
    }

    /// Receives a RESULT of any length without keeping it. Returns how many documents it has.
    fn count_winners(&mut self) -> Result<u64, AttemptError> {
        let (_, len) = self.receive_header()?;
        let mut winners = u64::from(len > 0);
        let mut byte = [0];
        for _ in 0..len {
            self.replies.read_exact(&mut byte)?;
            winners += u64::from(byte == [RECORD_SEPARATOR]);
        }
        Ok(winners)
    }

    fn receive_header(&mut self) -> Result<(u8, u32), AttemptError> {
        // A peer that is no lottery server may send fewer bytes than a header has, and wait.
        if let Some(&kind) = self.replies.fill_buf()?.first()
            && !kind::KNOWN.contains(&kind)
        {
            return Err(AgencyError::from(FrameError::UnknownType(kind)).into());
        }
        let mut header = [0; HEADER_LEN];
        self.replies.read_exact(&mut header)?;
        let [kind, len @ ..] = header;
        Ok((kind, u32::from_be_bytes(len)))
    }
}

/// A stream whose reads wait for up to [`REPLY_TIMEOUT`]. Its read timeout is [`QUIET`].
struct PatientStream {
    stream: Stream,
    /// How often the read timeout has passed since the last byte.
    silences: u32,
}

impl PatientStream {
    /// Calls `receive`, which waits for bytes, until it succeeds or fails for good.
    fn wait<T>(&mut self, mut receive: impl FnMut(&mut Stream) -> io::Result<T>) -> io::Result<T> {
        loop {
            match receive(&mut self.stream) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) && self.silences + 1 < MAX_SILENCES => self.count_silence(),
                result => {
                    self.silences = 0;
                    return result;
                }
            }
        }
    }

    /// Logs the first silence. A server whose places are all taken accepts connections but does not answer.
    fn count_silence(&mut self) {
        if self.silences == 0 {
            logging::info("connect", Outcome::InProgress, &[("waited_s", &QUIET.as_secs())]);
        }
        self.silences += 1;
    }
}

impl Read for PatientStream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.wait(|stream| stream.read(bytes))
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::other(format!("{address} has no address"));
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
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

/// Returns whether a read or a write ended because its time limit passed.
fn is_timeout(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}

impl From<io::Error> for AttemptError {
    fn from(error: io::Error) -> Self {
        match (TlsError::of(&error), error.kind()) {
            (Some(TlsError::Final(reason)), _) => AgencyError::Tls(reason.clone()).into(),
            // The handshake was not completed, so nothing of this connection is stored.
            (Some(TlsError::RefusedForNow(reason)), _) => Self::RefusedForNow(reason.clone()),
            (_, ErrorKind::UnexpectedEof) => Self::Lost("the server closed the connection".to_owned()),
            (_, ErrorKind::WouldBlock) => {
                Self::Lost(format!("the server did not answer for {} s", REPLY_TIMEOUT.as_secs()))
            }
            _ => Self::Lost(error.to_string()),
        }
    }
}
