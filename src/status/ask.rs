//! How a status is asked for, and why there may be none.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use thiserror::Error;

use crate::logging::one_line;
use crate::protocol::frame::{FrameBuffer, FrameError};
use crate::protocol::message::{ClientMessage, NotAnAnswer, ServerMessage};
use crate::protocol::status::Status;

/// How long server and storage may take together to answer.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// The longest answer that is taken, in bytes: that of 65,535 agencies has a quarter of it.
const MAX_ANSWER: u32 = 16 << 20;

/// Why there is no status.
#[derive(Debug, Error)]
pub enum StatusError {
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The name has no address.
    #[error("there is no such address")]
    NoAddress,
    /// It took too long.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Late,
    /// The server closed the connection.
    #[error("the server closed the connection without an answer")]
    Closed,
    /// The server refused.
    #[error("the server refused: {0}")]
    Refused(String),
    /// What answers is no server of this protocol.
    #[error("what answers there is no lottery server: {0}")]
    NoSuchFrame(#[from] FrameError),
    /// What answers is no server of this protocol.
    #[error("what answers there is no lottery server: {0}")]
    NoAnswer(#[from] NotAnAnswer),
    /// The answer is no status.
    #[error("the server's answer is no status: {0}")]
    NoStatus(#[from] serde_json::Error),
}

/// Asks the server at `HOST:PORT`; returns the JSON that it sent. Looking up a name has no time limit, so a thread does it,
/// and is left behind if it takes too long.
///
/// # Errors
/// No status came in time.
pub fn ask_by_name(address: &str) -> Result<String, StatusError> {
    let deadline = Instant::now() + DEADLINE;
    let address = address.to_owned();
    let (sender, receiver) = channel();
    thread::Builder::new().spawn(move || {
        // The receiver is gone only when the process is about to end.
        sender.send(ask_for_json(&address, deadline)).ok();
    })?;
    receiver.recv_timeout(DEADLINE).unwrap_or_else(|error| match error {
        RecvTimeoutError::Timeout => Err(StatusError::Late),
        RecvTimeoutError::Disconnected => Err(StatusError::Closed),
    })
}

/// Asks the server at an address or `HOST:PORT` until `deadline`. Looking up a name may take longer.
///
/// # Errors
/// No status came in time.
pub fn ask(address: impl ToSocketAddrs, deadline: Instant) -> Result<Status, StatusError> {
    parse(&ask_for_json(address, deadline)?)
}

/// Reads a status. The server may be anyone, so its texts are escaped as in a line of the log.
pub(super) fn parse(json: &str) -> Result<Status, StatusError> {
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

/// Valid JSON as a line for a terminal. JSON itself allows no other control characters in a text than these.
pub(super) fn printable(json: &str) -> String {
    let escape =
        |text: String, control: char| text.replace(control, &format!("\\u{:04x}", u32::from(control)));
    ('\u{7f}'..='\u{9f}').fold(json.replace(['\t', '\r', '\n'], " "), escape) + "\n"
}

fn ask_for_json(address: impl ToSocketAddrs, deadline: Instant) -> Result<String, StatusError> {
    let mut last = StatusError::NoAddress;
    for candidate in address.to_socket_addrs()? {
        match ask_at(candidate, deadline) {
            Ok(answer) => return Ok(answer),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ask_at(address: SocketAddr, deadline: Instant) -> Result<String, StatusError> {
    let mut stream = TcpStream::connect_timeout(&address, left(deadline)?).map_err(late)?;
    let mut question = Vec::new();
    ClientMessage::StatusRequest.encode(&mut question);
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(&question).map_err(late)?;
    let mut incoming = FrameBuffer::new(MAX_ANSWER);
    while !incoming.has_frame() {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(incoming.space()).map_err(late)? {
            0 => return Err(StatusError::Closed),
            count => incoming.received(count),
        }
    }
    let frame = incoming.next_frame()?.ok_or(StatusError::Closed)?;
    match ServerMessage::decode(frame)? {
        ServerMessage::Status(json) => Ok(String::from_utf8_lossy(json).into_owned()),
        ServerMessage::Error(reason) => Err(StatusError::Refused(one_line(&reason))),
        _ => Err(NotAnAnswer(frame.kind).into()),
    }
}

/// The time until the deadline; never zero, which would mean no limit.
fn left(deadline: Instant) -> Result<Duration, StatusError> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()).ok_or(StatusError::Late)
}

fn late(error: io::Error) -> StatusError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => StatusError::Late,
        _ => StatusError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_has_passed_leaves_no_time() {
        assert!(matches!(left(Instant::now()), Err(StatusError::Late)));
    }
}
