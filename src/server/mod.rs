//! The server: an acceptor, which forks one handler per connection, one storage service, and with TLS one keeper.

pub(crate) mod acceptor;
mod access;
pub(crate) mod error;
pub(crate) mod handler;
pub(crate) mod keeper;
pub mod storage;

use std::path::{Path, absolute};

use chrono::Utc;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::error::MINIMUM_DESCRIPTORS;
pub(crate) use self::error::ServerError;
use crate::config::ServerConfig;
use crate::logging::{Level, Outcome, event, info};
use crate::system::process;
use crate::tls::folder::FolderError;

/// Runs the server until a signal ends it. The handled signals must be blocked.
pub(crate) fn run(config: &ServerConfig) -> Result<(), ServerError> {
    process::protect_new_files();
    log_config(config);
    let max_clients = raise_descriptor_limit(config.max_clients)?;
    warn_of_too_few(max_clients, config.clients_amount);
    acceptor::run(config, max_clients)
}

/// Checks that a server could use its certificates, if TLS is configured. Returns what the operator should know of them.
///
/// # Errors
/// The file that it could not use, and why.
pub(crate) fn check_certificates(config: &ServerConfig) -> Result<Vec<String>, FolderError> {
    let Some(folder) = &config.tls_dir else { return Ok(Vec::new()) };
    Ok(keeper::check(folder)?.concerns(Utc::now().timestamp()))
}

/// Warns if there are fewer places than agencies: such a contest may never end, and no other line would say why.
fn warn_of_too_few(max_clients: u32, agencies: u16) {
    if max_clients < u32::from(agencies) {
        let reason = format!(
            "there are {agencies} agencies, and a session that awaits the draw keeps its connection: the other agencies \
             may never get one"
        );
        event(
            Level::Warning,
            "max_clients",
            Outcome::Success,
            &[("max_clients", &max_clients), ("reason", &reason)],
        );
    }
}

/// Writes the one `config` line of a start; the original's fields are first.
fn log_config(config: &ServerConfig) {
    let path = &config.storage_filepath;
    let bets = absolute(path).unwrap_or_else(|_| path.clone());
    let tls_dir = config.tls_dir.as_deref().unwrap_or(Path::new("none"));
    info(
        "config",
        Outcome::Success,
        &[
            ("port", &config.port),
            ("listen_backlog", &config.listen_backlog),
            ("logging_level", &config.logging_level),
            ("ip", &config.listen_address().ip()),
            ("clients_amount", &config.clients_amount),
            ("storage_filepath", &bets.display()),
            ("lottery_winner_number", &config.winner_number),
            ("max_clients", &config.max_clients),
            ("client_timeout", &config.client_timeout.as_secs_f64()),
            ("max_payload", &config.max_payload),
            ("tls_dir", &tls_dir.display()),
            ("plain_agencies", &config.plain_agencies),
            ("config_file", &config.config_file),
        ],
    );
    if let Err(host) = &config.host {
        let reason = "SERVER_IP is a host name, so the server listens on all addresses";
        event(Level::Warning, "server_ip", Outcome::Success, &[("host", host), ("reason", &reason)]);
    }
}

/// Descriptors of the storage service besides one pipe per client, and some to spare.
const OTHER_DESCRIPTORS: u64 = 64;

/// Raises the limit of descriptors to what so many clients need. Returns how many clients are possible.
fn raise_descriptor_limit(max_clients: u32) -> Result<u32, ServerError> {
    let needed = u64::from(max_clients) + OTHER_DESCRIPTORS;
    let failed = |error: Errno| ServerError::of("can't read or set the limit of descriptors")(error.into());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    // Only a privileged process may raise the hard limit.
    if soft >= needed || setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed)).is_ok() {
        return Ok(max_clients);
    }
    if hard < MINIMUM_DESCRIPTORS {
        return Err(ServerError::TooFewDescriptors(hard));
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(failed)?;
    let possible = u32::try_from(hard.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(u32::MAX).max(1);
    let reason = format!("{needed} descriptors are needed, but the limit is {hard} (ulimit -n)");
    event(Level::Warning, "max_clients", Outcome::Fail, &[("max_clients", &possible), ("reason", &reason)]);
    Ok(possible)
}
