//! `loteria status`: asks a running server how the contest is going. The server's health check, and its live view.

mod ask;
pub(crate) mod metrics;
mod prometheus;
#[cfg(test)]
mod samples;
mod table;
pub mod text;
pub mod watch;

use self::ask::ask_by_name;
pub use self::ask::{DEADLINE, StatusError, ask};
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

/// Asks the server at `HOST:PORT`: what it says, as it is to be printed.
///
/// # Errors
/// No status came in time.
pub fn text_of(address: &str, format: Format) -> Result<Vec<u8>, StatusError> {
    let mut answer = ask_by_name(address)?;
    if format == Format::Json {
        answer.push(b'\n');
        return Ok(answer);
    }
    let status: Status = serde_json::from_slice(&answer)?;
    let text =
        if format == Format::Table { table::table(&status) } else { prometheus::exposition(Some(&status)) };
    Ok(text.into_bytes())
}
