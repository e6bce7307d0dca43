//! `loteria server`.

use thiserror::Error;

use crate::config::ServerConfig;

/// Why the server ended.
#[derive(Debug, Error)]
pub enum ServerError {
    /// There is none yet.
    #[error("the server is not part of this build")]
    Missing,
}

impl ServerError {
    /// Whether the log has it already.
    #[must_use]
    pub fn is_logged(&self) -> bool {
        false
    }
}

/// Runs the server until it is told to end.
///
/// # Errors
/// It could not start, or could not go on.
pub fn run(_config: &ServerConfig) -> Result<(), ServerError> {
    Err(ServerError::Missing)
}
