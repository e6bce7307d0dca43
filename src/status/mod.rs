//! `loteria status`: asks a running server how the contest is going. The server's health check, and its live view.

mod ask;
pub mod prometheus;
#[cfg(test)]
mod samples;
mod table;
pub mod text;
pub mod watch;

use self::ask::ask_by_name;
pub use self::ask::{DEADLINE, StatusError, ask};

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

/// Asks the server at `HOST:PORT`: what it says, as it is to be printed. Nothing in it controls a terminal.
///
/// # Errors
/// No status came in time.
pub fn text_of(address: &str, format: Format) -> Result<String, StatusError> {
    let json = ask_by_name(address)?;
    let status = ask::parse(&json)?;
    Ok(match format {
        Format::Table => table::table(&status),
        Format::Json => ask::printable(&json),
        Format::Prometheus => prometheus::text(&status),
    })
}
