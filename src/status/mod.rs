//! `loteria status`: asks a running server how the contest is going. The server's health check, and its live view.

pub mod agencies_view;
mod ask;
pub mod events;
pub mod history;
pub mod lines;
pub mod model;
pub mod prometheus;
#[cfg(test)]
mod samples;
pub mod table;
pub mod text;
pub mod view;
pub mod watch;

use std::io::Write;

pub use self::ask::{DEADLINE, StatusError, ask, ask_by_name};
use crate::protocol::status::Status;

/// How a status is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// The JSON object that the server sent.
    Json,
    /// The text format of Prometheus.
    Prometheus,
}

/// Asks the server at `HOST:PORT` and prints what it says.
///
/// # Errors
/// No status came in time.
pub fn run(address: &str, format: Format, out: &mut impl Write) -> Result<(), StatusError> {
    let answer = ask_by_name(address)?;
    if format == Format::Json {
        out.write_all(&answer)?;
        out.write_all(b"\n")?;
        return Ok(out.flush()?);
    }
    let status: Status = serde_json::from_slice(&answer)?;
    let text = if format == Format::Table { table::table(&status) } else { prometheus::text(&status) };
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
