//! `loteria agency`: reads its file of bets, brings them to the server and waits for the result.
//!
//! [`session`] is how it talks to a server of ours, `classic` to one that knows only the original's messages. Both read
//! the bets from a `bets_file` straight into frames, over a `connection`. On a terminal `progress` shows how far it is.
//! [`single_bet`] is `loteria bet`.

mod bets_file;
mod classic;
mod connection;
mod error;
mod pauses;
mod progress;
pub mod session;
pub mod single_bet;

use std::io;
use std::thread;

pub use error::AgencyError;

use progress::Progress;

use crate::config::{AgencyConfig, Protocol};
use crate::logging::{self, Outcome};
use crate::system::signal;

/// Runs the agency until it knows how many of its bets won.
///
/// # Errors
/// What can't be mended by trying again: a bad file, a refusal.
pub fn run(config: &AgencyConfig) -> Result<(), AgencyError> {
    let progress = Progress::start();
    end_at_a_signal(progress.end()).map_err(AgencyError::Signals)?;
    log_config(config);
    let winners = match config.protocol {
        Protocol::Session => session::run(config, &progress)?,
        Protocol::Classic => classic::run(config, &progress)?,
    };
    drop(progress);
    logging::info("consulta_ganadores", Outcome::Success, &[("cant_ganadores", &winners)]);
    Ok(())
}

fn log_config(config: &AgencyConfig) {
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
            ("loop_period", &loop_period),
            ("log_level", &config.log_level.name()),
            ("config_file", &config.config_file),
        ],
    );
}

/// Lets SIGTERM and SIGINT end the process at once, wherever it waits: looking up a name can't be interrupted, and
/// nothing has to be brought to an end, as the server keeps what it acknowledged and nothing else.
fn end_at_a_signal(take_away: impl Fn() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let Ok(signal) = signal::wait_for_termination() else { return };
        take_away();
        logging::info("shutdown", Outcome::Success, &[("signal", &signal)]);
        end();
    })?;
    Ok(())
}

#[expect(clippy::exit, clippy::disallowed_methods, reason = "main may be in a call that nothing else ends")]
fn end() -> ! {
    std::process::exit(0)
}
