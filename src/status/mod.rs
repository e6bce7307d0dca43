//! `loteria status`: asks a running server for its status, once or again and again. Also the health check.

mod ask;
pub(crate) mod metrics;
mod prometheus;
#[cfg(test)]
mod samples;
mod table;
pub(crate) mod text;
pub(crate) mod watch;

use self::ask::ask_by_name;
pub(crate) use self::ask::{DEADLINE, StatusError, ask};
use crate::protocol::status::Status;

/// The form in which a status is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    /// The JSON object as the server sent it.
    Json,
    Prometheus,
}

/// Ask the server at `HOST:PORT` for its status, in the form in which it is printed.
pub(crate) fn text_of(address: &str, format: Format) -> Result<Vec<u8>, StatusError> {
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
