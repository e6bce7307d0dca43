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

pub(crate) use self::ask::{DEADLINE, StatusError, as_json, ask};

/// Asks a server for its status, and returns it as a table.
pub(crate) fn as_table(server: &Target) -> Result<String, StatusError> {
    ask(server, DEADLINE).map(|status| table::table(&status))
}

/// Asks a server for its status, and returns it in the text format of Prometheus.
pub(crate) fn as_metrics(server: &Target) -> Result<String, StatusError> {
    ask(server, DEADLINE).map(|status| prometheus::exposition(Some(&status)))
}
