//! `loteria agency`: sends the bets of a file to the server and waits for the result. `loteria bet` sends one bet.
//!
//! `session` talks to our server, with an `upload` for its bets and a `comparison` of them with those that are stored;
//! `classic` also talks to the original's server. Both send the rows of a `bets_file` over a `connection`. `backoff` repeats
//! what failed. `progress` is the bar on a terminal.

mod backoff;
mod bets_file;
mod classic;
mod comparison;
mod connection;
mod error;
mod progress;
mod session;
mod upload;

use std::path::Path;
use std::{io, process, thread};

pub(crate) use classic::send_bet;
pub(crate) use error::AgencyError;
use progress::Progress;

use crate::config::{AgencyConfig, Protocol};
use crate::logging::{self, Outcome};
use crate::system::signal;
use crate::tls::client::Target;

/// Runs the agency until it knows how many of its bets won.
pub(crate) fn run(config: &AgencyConfig) -> Result<(), AgencyError> {
    let progress = Progress::start();
    end_at_a_signal(progress.end()).map_err(AgencyError::Signals)?;
    logging::tag_lines("agency_id", config.id.get().into());
    log_config(config);
    let server = Target::new(config.server_address.clone(), config.tls_dir.as_deref())?;
    let winners = match config.protocol {
        Protocol::Session => session::run(config, &server, &progress)?,
        Protocol::Classic => classic::run(config, &server, &progress)?,
    };
    drop(progress);
    logging::info("consulta_ganadores", Outcome::Success, &[("cant_ganadores", &winners)]);
    Ok(())
}

fn log_config(config: &AgencyConfig) {
    let tls_dir = config.tls_dir.as_deref().unwrap_or(Path::new("none"));
    let loop_period = format!("{:?}", config.loop_period);
    logging::info(
        "config",
        Outcome::Success,
        &[
            ("id", &config.id),
            ("server_address", &config.server_address),
            ("protocol", &config.protocol.name()),
            ("batch_max_amount", &config.batch_max_amount),
            ("bets_file", &config.bets_file.display()),
            ("tls_dir", &tls_dir.display()),
            ("loop_period", &loop_period),
            ("log_level", &config.log_level.name()),
            ("config_file", &config.config_file),
        ],
    );
}

/// Lets a termination signal end the process at once. Only the bar needs to be cleaned up: the server keeps what it has
/// acknowledged.
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "the main thread may be in a call that can't be interrupted, such as the look-up of a name"
)]
fn end_at_a_signal(remove_bar: impl Fn() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let Ok(signal) = signal::wait_for_termination() else { return };
        remove_bar();
        logging::info("shutdown", Outcome::Success, &[("signal", &signal)]);
        process::exit(0);
    })?;
    Ok(())
}
