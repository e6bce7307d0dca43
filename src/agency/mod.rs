//! `loteria agency`: sends the bets of a file to the server and waits for the result. `loteria bet` sends one bet.
//!
//! `session` talks to our server, with an `upload` for its bets and a `comparison` of them with those that are stored;
//! `classic` also talks to the original's server. Both send the rows of a `bets_file` over a `connection`. `backoff` repeats
//! what failed, within `time_limits`. `progress` is the bar on a terminal.

mod backoff;
mod bets_file;
mod classic;
mod comparison;
mod connection;
mod error;
mod progress;
mod session;
mod time_limits;
mod upload;

use std::path::Path;
use std::time::Duration;
use std::{io, process};

use backoff::Backoff;
pub(crate) use classic::send_bet;
pub(crate) use error::AgencyError;
use progress::Progress;
use time_limits::TimeLimits;

use crate::config::AgencyConfig;
use crate::logging::{self, Field, Outcome};
use crate::system::signal;
use crate::tls::client::Target;

/// Runs the agency until it knows how many of its bets won.
pub(crate) fn run(config: &AgencyConfig) -> Result<(), AgencyError> {
    let progress = Progress::start();
    logging::tag_lines("agency_id", config.id.get().into());
    end_at_a_signal(progress.end()).map_err(AgencyError::Thread)?;
    log_config(config);
    let server = Target::new(config.server_address.clone(), config.tls_dir.as_deref())?;
    let mut backoff = Backoff::new(&server, &progress, TimeLimits::start(config, progress.end())?);
    let run = if config.is_classic { classic::run } else { session::run };
    let winners = run(config, &mut backoff)?;
    drop(progress);
    logging::info("consulta_ganadores", Outcome::Success, &[("cant_ganadores", &winners)]);
    Ok(())
}

fn log_config(config: &AgencyConfig) {
    let (protocol, level) = (if config.is_classic { "classic" } else { "session" }, config.log_level);
    let tls_dir = config.tls_dir.as_deref().unwrap_or(Path::new("none")).display();
    let bets_file = config.bets_file.display();
    let loop_period = format!("{:?}", config.loop_period);
    let time = |limit: Option<Duration>| limit.map(|limit| format!("{limit:?}"));
    let limits = [
        ("batch_max_bytes", config.batch_max_bytes.map(|bytes| bytes.to_string())),
        ("connect_timeout", time(config.connect_timeout)),
        ("result_timeout", time(config.result_timeout)),
    ];
    let mut fields: Vec<Field<'_>> = vec![
        ("id", &config.id),
        ("server_address", &config.server_address),
        ("protocol", &protocol),
        ("batch_max_amount", &config.batch_max_amount),
        ("bets_file", &bets_file),
        ("tls_dir", &tls_dir),
        ("loop_period", &loop_period),
        ("log_level", &level),
        ("config_file", &config.config_file),
    ];
    fields.extend(limits.iter().filter_map(|(key, value)| Some((*key, value.as_ref()? as _))));
    logging::info("config", Outcome::Success, &fields);
}

/// Lets a termination signal end the process at once. Only the bar needs to be cleaned up: the server keeps what it has
/// acknowledged.
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "the main thread may be in a call that can't be interrupted, such as the look-up of a name"
)]
fn end_at_a_signal(remove_bar: impl Fn() + Send + 'static) -> io::Result<()> {
    logging::spawn("signals", move || {
        let Ok(signal) = signal::wait_for_termination() else { return };
        remove_bar();
        logging::info("shutdown", Outcome::Success, &[("signal", &signal)]);
        process::exit(0);
    })
}
