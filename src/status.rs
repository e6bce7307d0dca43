//! `loteria status`: asks a running server how the contest is going. The server's health check.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

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
    #[error("{0}")]
    NoSuchFrame(#[from] FrameError),
    /// What answers is no server of this protocol.
    #[error("{0}")]
    NoAnswer(#[from] NotAnAnswer),
    /// The answer is no status.
    #[error("the server's answer is no status: {0}")]
    NoStatus(#[from] serde_json::Error),
}

/// Asks the server at `HOST:PORT` and prints what it says: as a table, or as it came.
///
/// # Errors
/// No status came in time.
pub fn run(address: &str, json: bool, out: &mut impl Write) -> Result<(), StatusError> {
    let answer = ask_by_name(address)?;
    if json {
        out.write_all(&answer)?;
        out.write_all(b"\n")?;
    } else {
        let status: Status = serde_json::from_slice(&answer)?;
        out.write_all(table(&status).as_bytes())?;
    }
    Ok(out.flush()?)
}

/// Looking up a name knows no time limit, so it has a thread of its own, which is left behind when it takes too long.
fn ask_by_name(address: &str) -> Result<Vec<u8>, StatusError> {
    let deadline = Instant::now() + DEADLINE;
    let address = address.to_owned();
    let (sender, receiver) = channel();
    thread::Builder::new().spawn(move || {
        // The receiver is gone only when the process is about to end.
        sender.send(resolve_and_ask(&address, deadline)).ok();
    })?;
    receiver.recv_timeout(DEADLINE).unwrap_or_else(|error| match error {
        RecvTimeoutError::Timeout => Err(StatusError::Late),
        RecvTimeoutError::Disconnected => Err(StatusError::Closed),
    })
}

fn resolve_and_ask(address: &str, deadline: Instant) -> Result<Vec<u8>, StatusError> {
    let mut last = StatusError::NoAddress;
    for candidate in address.to_socket_addrs()? {
        match ask_for_json(candidate, deadline) {
            Ok(answer) => return Ok(answer),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Asks the server at that address, until `deadline`.
///
/// # Errors
/// No status came in time.
pub fn ask(address: SocketAddr, deadline: Instant) -> Result<Status, StatusError> {
    Ok(serde_json::from_slice(&ask_for_json(address, deadline)?)?)
}

fn ask_for_json(address: SocketAddr, deadline: Instant) -> Result<Vec<u8>, StatusError> {
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
        ServerMessage::Status(json) => Ok(json.to_vec()),
        ServerMessage::Error(reason) => Err(StatusError::Refused(reason.to_owned())),
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

/// The status for people.
fn table(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:<18}{value}").ok();
    };
    line("agencies ended", format!("{} of {}", status.ended, status.agencies));
    line("bets stored", status.bets.to_string());
    line("draw", draw_of(status));
    line("connections", format!("{} of {}", status.handlers, status.max_clients));
    line("uptime", format!("{:.1} s", status.uptime_seconds));
    line("storage restarts", status.storage_restarts.to_string());
    line("confinement", status.confinement.to_string());
    text.push_str("\nagency         bets  ended\n");
    for agency in &status.per_agency {
        let ended = if agency.ended { "yes" } else { "no" };
        writeln!(text, "{:>6} {:>12}  {ended}", agency.agency, agency.bets).ok();
    }
    text
}

fn draw_of(status: &Status) -> String {
    match &status.draw {
        Some(draw) => format!("{} won, {}", draw.winning_number, draw.at),
        None if status.drawn => "made".to_owned(),
        None => "not made".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lottery::{AgencyId, Draw};
    use crate::protocol::status::AgencyStatus;
    use crate::system::confinement::{Extent, InForce};

    fn status() -> Status {
        let agency = AgencyId::new(1_u16).unwrap();
        Status {
            agencies: 5,
            ended: 1,
            bets: 1234,
            drawn: false,
            draw: None,
            handlers: 2,
            max_clients: 1024,
            uptime_seconds: 12.345,
            storage_restarts: 0,
            confinement: InForce {
                identity: Extent::Partial,
                limits: Extent::Full,
                landlock: Extent::Full,
                seccomp: Extent::None,
            },
            per_agency: vec![AgencyStatus { agency, bets: 1234, ended: true }],
        }
    }

    #[test]
    fn the_table_says_what_matters() {
        let text = table(&status());
        assert_eq!(
            text,
            "agencies ended    1 of 5\nbets stored       1234\ndraw              not made\n\
             connections       2 of 1024\nuptime            12.3 s\nstorage restarts  0\n\
             confinement       identity partial, limits full, landlock full, seccomp none\n\n\
             agency         bets  ended\n     1         1234  yes\n"
        );
        let draw = Some(Draw { at: "2026-01-01T00:00:00-03:00".into(), agencies: 5, winning_number: 7574 });
        assert!(table(&Status { drawn: true, draw, ..status() }).contains("7574 won, 2026-01-01"));
    }

    #[test]
    fn a_deadline_that_has_passed_leaves_no_time() {
        assert!(matches!(left(Instant::now()), Err(StatusError::Late)));
    }
}
