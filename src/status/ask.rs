//! Asks a server for its status.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use thiserror::Error;

use crate::logging::one_line;
use crate::protocol::frame::{FrameBuffer, FrameError, header, kind};
use crate::protocol::message::{NotAReply, ServerMessage};
use crate::protocol::status::Status;
use crate::tls::client::{Stream, Target, TlsError};

/// How long server and storage may take together to answer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(2);
/// The longest answer that is accepted, in bytes. The answer for 65,535 agencies is a quarter of that.
const MAX_ANSWER: u32 = 16 << 20;

/// Why there is no status.
#[derive(Debug, Error)]
pub(crate) enum StatusError {
    #[error("{0}")]
    Io(io::Error),
    #[error("there is no such address")]
    NoAddress,
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Late,
    #[error("the server closed the connection without an answer")]
    Closed,
    #[error("the server refused: {0}")]
    Refused(String),
    #[error("this is not a lottery server: {0}")]
    NoSuchFrame(#[from] FrameError),
    #[error("this is not a lottery server: {0}")]
    NoAnswer(#[from] NotAReply),
    #[error("the server's answer is not a status: {0}")]
    NoStatus(#[from] serde_json::Error),
}

impl From<io::Error> for StatusError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Late,
            _ => Self::Io(error),
        }
    }
}

/// Asks a server. The texts of its answer are escaped as in a line of the log, because the server may be anyone.
pub(crate) fn ask(server: &Target, limit: Duration) -> Result<Status, StatusError> {
    parse(&ask_for_json(server, limit)?)
}

/// Asks a server, and returns the JSON that it sent, as a line that does not control a terminal.
pub(crate) fn as_json(server: &Target) -> Result<String, StatusError> {
    let json = ask_for_json(server, DEADLINE)?;
    parse(&json)?;
    Ok(printable(&json))
}

/// A thread asks, because nothing limits the time in which a name is looked up. After the limit it is left alone.
fn ask_for_json(server: &Target, limit: Duration) -> Result<String, StatusError> {
    let deadline = Instant::now() + limit;
    let server = server.clone();
    let (sender, receiver) = channel();
    let ask = move || {
        // Once the limit has passed, nobody receives.
        sender.send(ask_any(&server, deadline)).ok();
    };
    thread::Builder::new().spawn(ask).map_err(StatusError::Io)?;
    receiver.recv_timeout(limit).unwrap_or(Err(StatusError::Late))
}

fn parse(json: &str) -> Result<Status, StatusError> {
    let mut value = serde_json::from_str(json)?;
    escape_texts(&mut value);
    Ok(serde_json::from_value(value)?)
}

fn escape_texts(value: &mut Value) {
    match value {
        Value::String(text) => *text = one_line(text),
        Value::Array(values) => values.iter_mut().for_each(escape_texts),
        Value::Object(values) => values.values_mut().for_each(escape_texts),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Makes JSON one line that does not control a terminal. A string of JSON may contain the control characters U+007F to
/// U+009F, but no others.
fn printable(json: &str) -> String {
    let escape =
        |text: String, control: char| text.replace(control, &format!("\\u{:04x}", u32::from(control)));
    ('\u{7f}'..='\u{9f}').fold(json.replace(['\t', '\r', '\n'], " "), escape) + "\n"
}

/// Asks at each address of the name, until one answers.
fn ask_any(server: &Target, deadline: Instant) -> Result<String, StatusError> {
    let mut last = StatusError::NoAddress;
    for candidate in server.address.to_socket_addrs()? {
        match ask_at(candidate, server, deadline) {
            Err(StatusError::Io(error)) if TlsError::of(&error).is_some() => {
                return Err(StatusError::Io(error));
            }
            Err(error) => last = error,
            answer => return answer,
        }
    }
    Err(last)
}

fn ask_at(address: SocketAddr, server: &Target, deadline: Instant) -> Result<String, StatusError> {
    let socket = TcpStream::connect_timeout(&address, left(deadline)?)?;
    socket.set_write_timeout(Some(left(deadline)?))?;
    let mut stream = Stream::new(socket, server.tls.as_ref())?;
    while stream.is_handshaking() {
        stream.socket().set_read_timeout(Some(left(deadline)?))?;
        stream.receive()?;
    }
    stream.write_all(&header(kind::STATUS_REQUEST, 0))?;
    let mut incoming = FrameBuffer::new(MAX_ANSWER);
    while !incoming.has_frame() {
        stream.socket().set_read_timeout(Some(left(deadline)?))?;
        match stream.read(incoming.space())? {
            0 => return Err(StatusError::Closed),
            count => incoming.received(count),
        }
    }
    let frame = incoming.next_frame()?.ok_or(StatusError::Closed)?;
    match ServerMessage::decode(frame)? {
        ServerMessage::Status(json) => Ok(String::from_utf8_lossy(json).into_owned()),
        ServerMessage::Error(reason) => Err(StatusError::Refused(one_line(&reason))),
        _ => Err(NotAReply(frame.kind).into()),
    }
}

/// Returns the time until the deadline. It is never zero, which would mean no limit.
fn left(deadline: Instant) -> Result<Duration, StatusError> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()).ok_or(StatusError::Late)
}
