//! `loteria bet` on the command line: the bet's values as flags, or as the original client's environment variables.

use std::process::ExitCode;

use clap::Args;

use super::log_faults;
use crate::agency;
use crate::config::{check_log_format, host_and_port};
use crate::logging;
use crate::lottery::bet::{check_text, is_real_date, parse_decimal};
use crate::lottery::{AgencyId, Bet, BetError, TextError};

/// Where the values come from and what the exit code means.
pub const HELP: &str = "A flag overrides its environment variable. config.ini is not read. It tries again while the server \
does not listen, is busy or cannot store.\n\nExit code 0: the bet is on the server's disk. 1: it was refused, or the \
connection broke before the answer, so the outcome is unknown. 2: a value is missing or not allowed.";

/// The bet and the server.
#[derive(Debug, Args)]
pub struct BetArgs {
    /// The agency that takes the bet, 1 to 65535
    #[arg(long, value_name = "NUMBER", env = "CLI_ID", value_parser = agency)]
    agency: AgencyId,
    /// First name
    #[arg(long, value_name = "TEXT", env = "NOMBRE", value_parser = text)]
    first_name: String,
    /// Last name
    #[arg(long, value_name = "TEXT", env = "APELLIDO", value_parser = text)]
    last_name: String,
    /// Document
    #[arg(long, value_name = "TEXT", env = "DOCUMENTO", value_parser = text)]
    document: String,
    /// Birthdate, as YYYY-MM-DD
    #[arg(long, value_name = "DATE", env = "NACIMIENTO", value_parser = date)]
    birthdate: String,
    /// The number that is bet on, 0 to 4294967295
    #[arg(long, value_name = "NUMBER", env = "NUMERO", value_parser = number)]
    number: u32,
    /// Where the server is: HOST:PORT
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "CLI_SERVER_ADDRESS",
        default_value = "127.0.0.1:12345",
        value_parser = address
    )]
    address: String,
}

/// Sends the bet to the server.
pub fn run(args: &BetArgs) -> ExitCode {
    logging::start();
    if let Err(faults) = check_log_format() {
        return log_faults(&faults);
    }
    let bet = Bet {
        agency: args.agency,
        first_name: &args.first_name,
        last_name: &args.last_name,
        document: &args.document,
        birthdate: &args.birthdate,
        number: args.number,
    };
    match agency::send_bet(&bet, &args.address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// An agency's number.
pub fn agency(text: &str) -> Result<AgencyId, BetError> {
    parse_decimal(text.as_bytes()).and_then(AgencyId::new).ok_or(BetError::Agency)
}

fn number(text: &str) -> Result<u32, BetError> {
    parse_decimal(text.as_bytes()).ok_or(BetError::Number)
}

fn date(text: &str) -> Result<String, BetError> {
    if is_real_date(text.as_bytes()) { Ok(text.to_owned()) } else { Err(BetError::Birthdate) }
}

fn text(text: &str) -> Result<String, TextError> {
    check_text(text).map(|()| text.to_owned())
}

/// Where a server is.
pub fn address(text: &str) -> Result<String, &'static str> {
    host_and_port(text).ok_or("an address must be HOST:PORT")
}
