//! loteria
use std::process::ExitCode;
fn main() -> ExitCode {
    loteria::system::signal::block().unwrap();
    loteria::logging::start();
    let config = loteria::config::ServerConfig::load().unwrap();
    loteria::logging::set_level(config.logging_level);
    match loteria::server::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_logged() {
                loteria::logging::event(
                    loteria::logging::Level::Critical,
                    "server",
                    loteria::logging::Outcome::Fail,
                    &[("error", &error)],
                );
            }
            ExitCode::FAILURE
        }
    }
}
