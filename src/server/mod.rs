//! The server: an acceptor, which forks one handler per connection, and one storage service.

pub mod acceptor;
pub(crate) mod error;
pub mod handler;
pub mod inquiry;
pub mod storage;
pub mod view;

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::error::ServerError;
use crate::config::ServerConfig;
use crate::logging::{Field, Level, Outcome, event, info};

/// Runs the server until a signal ends it. The handled signals must be blocked.
///
/// # Errors
/// Why it could not start, or ended by itself.
pub fn run(config: &ServerConfig) -> Result<(), ServerError> {
    log_config(config);
    let max_clients =
        raise_descriptor_limit(config.max_clients).map_err(ServerError::of("can't read limits"))?;
    warn_of_too_few(max_clients, config.clients_amount);
    acceptor::run(config, max_clients)
}

/// A contest could stand still for ever, and no other line would say why.
fn warn_of_too_few(max_clients: u32, agencies: u16) {
    if max_clients < u32::from(agencies) {
        let reason = format!(
            "there are {agencies} agencies, and sessions that await the draw keep their connections: the others may \
             never get one"
        );
        event(
            Level::Warning,
            "config",
            Outcome::Success,
            &[("max_clients", &max_clients), ("reason", &reason)],
        );
    }
}

fn log_config(config: &ServerConfig) {
    if let Some(host) = &config.ignored_host {
        let reason = "a host name in SERVER_IP means all addresses";
        event(Level::Warning, "config", Outcome::Success, &[("server_ip", host), ("reason", &reason)]);
    }
    let (level, file) = (config.logging_level.name(), config.storage_filepath.display());
    let timeout = config.client_timeout.as_secs_f64();
    let fields: [Field<'_>; 10] = [
        ("port", &config.port),
        ("listen_backlog", &config.listen_backlog),
        ("logging_level", &level),
        ("ip", &config.ip),
        ("clients_amount", &config.clients_amount),
        ("storage_filepath", &file),
        ("lottery_winner_number", &config.winner_number),
        ("max_clients", &config.max_clients),
        ("client_timeout", &timeout),
        ("max_payload", &config.max_payload),
    ];
    info("config", Outcome::Success, &fields);
}

/// Descriptors of the storage service besides one pipe per client, and some to spare.
const OTHER_DESCRIPTORS: u64 = 64;

/// Raises the limit of descriptors to what so many clients need. Returns how many clients can be had.
fn raise_descriptor_limit(max_clients: u32) -> io::Result<u32> {
    let needed = u64::from(max_clients) + OTHER_DESCRIPTORS;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= needed {
        return Ok(max_clients);
    }
    // Only a privileged process may raise the hard limit.
    if setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed)).is_ok() {
        return Ok(max_clients);
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let possible = u32::try_from(hard.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(u32::MAX).max(1);
    let reason = format!("{needed} descriptors are needed, but the limit is {hard} (ulimit -n)");
    event(Level::Warning, "max_clients", Outcome::Fail, &[("max_clients", &possible), ("reason", &reason)]);
    Ok(possible)
}
