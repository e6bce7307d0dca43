//! The server: an acceptor, which forks one handler per connection, and one storage service.

pub mod acceptor;
pub mod handler;
pub mod inquiry;
pub mod storage;
pub mod view;

use std::io;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use thiserror::Error;

use crate::config::ServerConfig;
use crate::logging::{Field, Level, Outcome, event, info};

/// Why the server ended other than by being told to.
#[derive(Debug, Error)]
pub enum ServerError {
    /// It can't listen there.
    #[error("can't listen on {address} ({settings}): {error}")]
    Listen {
        /// The address and port.
        address: String,
        /// The settings that say so.
        settings: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// The request queue can't be had.
    #[error("can't make the request queue: {0}{hint}", hint = queue_hint(.0))]
    Queue(io::Error),
    /// The storage service ended of its own accord, and has said why.
    #[error("the storage service gave up")]
    StorageGaveUp,
    /// The storage service died too often.
    #[error("the storage service died {0} times, the last ones within 10 s")]
    StorageDies(u64),
    /// A child was killed, but does not end.
    #[error(
        "{process} (process {pid}) was killed but does not end: it waits in the kernel, as for a disk that does not answer"
    )]
    Stuck {
        /// What it is.
        process: String,
        /// Its number.
        pid: Pid,
    },
    /// Another call that has to work did not.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        error: io::Error,
    },
}

impl ServerError {
    /// Whether the log has the reason already.
    #[must_use]
    pub fn is_logged(&self) -> bool {
        matches!(self, Self::StorageGaveUp)
    }

    /// Of a call that has to work.
    pub(crate) fn of(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::System { what, error }
    }
}

fn queue_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE) => {
            "; this user's bytes in message queues, which are counted over all containers, are used up: raise the limit \
             (ulimit -q), stop another server, or be another user"
        }
        Some(Errno::ENOSYS) => "; this kernel has no POSIX message queues",
        _ => "",
    }
}

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
