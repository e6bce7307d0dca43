//! `loteria status`: asks a running server for its status, once or again and again. Also the health check.

mod ask;
pub(crate) mod metrics;
mod prometheus;
#[cfg(test)]
mod samples;
mod table;
pub(crate) mod text;
pub(crate) mod watch;

use crate::tls::client::Target;

pub(crate) use self::ask::{DEADLINE, StatusError, ask};

/// The form in which a status is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    /// The JSON object as the server sent it.
    Json,
    Prometheus,
}

/// Ask a server for its status, in the form in which it is printed. Nothing in it controls a terminal.
pub(crate) fn text_of(server: &Target, format: Format) -> Result<String, StatusError> {
    let json = ask::ask_for_json(server, DEADLINE)?;
    let status = ask::parse(&json)?;
    Ok(match format {
        Format::Table => table::table(&status),
        Format::Json => ask::printable(&json),
        Format::Prometheus => prometheus::exposition(Some(&status)),
    })
}
