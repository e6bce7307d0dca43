//! The command line: the commands, their flags, and what becomes of their errors.
//!
//! `server`, `agency` and `bet` write nothing but log lines, so their errors are log lines too. The other commands are for
//! people: what went wrong stands on standard error.

mod audit;
mod bet;
mod generated;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{AGENCY_SETTINGS, AgencyConfig, ConfigError, SERVER_SETTINGS, ServerConfig, in_force};
use crate::logging::{self, Level, Outcome};
use crate::system::signal;
use crate::{agency, compose, demo, failpoint, sample, server, status};

/// The exit code for a configuration or a command line that can't be used.
const USAGE: u8 = 2;
/// The exit code of a program that SIGPIPE ended, as shells tell it.
const NOBODY_READS: u8 = 141;

/// The central server of a national lottery, and its agencies.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the central server: takes the agencies' bets, stores them, and draws when all agencies have ended
    #[command(after_help = SERVER_SETTINGS.help() + SERVER_CODES)]
    Server(ServerArgs),
    /// Runs one agency: brings the bets of its file to the server, and says how many of them won
    #[command(after_help = AGENCY_SETTINGS.help() + AGENCY_CODES)]
    Agency,
    /// Runs a whole contest on this machine: a server, agencies, made-up bets
    #[command(after_help = DEMO_HELP)]
    Demo(DemoArgs),
    /// Writes made-up files of bets: agency-1.csv, agency-2.csv and so on
    #[command(after_help = SAMPLE_HELP)]
    Sample(SampleArgs),
    /// Asks a running server how the contest is going; exits with 0 if server and storage answer within 2 seconds
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// Brings one bet to the server, and says whether it is stored
    #[command(after_help = bet::HELP)]
    Bet(bet::BetArgs),
    /// Counts the winners again from the bets alone, and checks the files of the contest
    #[command(override_usage = audit::WINNERS_USAGE, after_help = audit::winners_help())]
    Winners(audit::WinnersArgs),
    /// Checks the files of a contest: every row of the bets, and the state file
    #[command(override_usage = audit::CHECK_USAGE, after_help = audit::CHECK_HELP)]
    Check(audit::CheckArgs),
    /// Prints a script that has a shell complete the commands and flags
    #[command(after_help = generated::COMPLETIONS_HELP)]
    Completions(generated::CompletionsArgs),
    /// Prints the manual page of the program, or of one of its commands
    #[command(after_help = generated::MAN_HELP)]
    Man(generated::ManArgs),
    /// Prints the docker-compose.yaml of a contest with so many agencies
    #[command(after_help = COMPOSE_HELP)]
    Compose(ComposeArgs),
}

const SERVER_CODES: &str = "\n\nExit code 0: SIGTERM or SIGINT ended it, or --check finds that the configuration can be \
used. 1: it could not start, or could not go on; the last lines of the log say why. 2: configuration or command line.";

const AGENCY_CODES: &str = "\n\nExit code 0: it has its result, or SIGTERM or SIGINT ended it. 1: a bad file, a refusal, \
or a batch of which nobody knows whether it is stored; the last line of the log says why. 2: configuration or command \
line.";

const DEMO_HELP: &str = "The demo takes no settings: neither config.ini nor environment variables change it. It leaves \
the bets, the agencies' files and every process's log in its folder.";

const SAMPLE_HELP: &str = "The same seed gives the same bytes. Files of these names that are there already are \
overwritten. There are no settings and no environment variables.\n\nThe files of tests/data are made by\n  \
loteria sample --agencies 5 --bets 9000,6000,3500,1500,0 --dir tests/data";

const STATUS_HELP: &str = "There are no settings. Exit code 1 if there is no answer. With --watch the server may come and go: it is asked \
on and on, twice a second, and the exit code is 0; colours are left out if NO_COLOR is set.";

#[derive(Debug, Args)]
struct ServerArgs {
    /// Reads the configuration, prints what is in force and where each value came from, and ends
    #[arg(long)]
    check: bool,
}

const COMPOSE_HELP: &str = "The services are `server` and `client1` to `clientN`; each client reads agency-N.csv of the \
folder, and all of them config.ini. The file belongs beside the Dockerfile and config.ini:\n  \
loteria compose --agencies 5 > docker-compose.yaml";

#[derive(Debug, Args)]
struct ComposeArgs {
    /// How many agencies take part
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=compose::MAX_AGENCIES))]
    agencies: u16,
    /// The folder of the agencies' files, as seen from the compose file
    #[arg(long, default_value = compose::DEFAULT_DATA)]
    data: String,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// How many agencies take part
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=demo::MAX_AGENCIES))]
    agencies: u16,
    /// How many bets each of them has
    #[arg(long, default_value_t = 20_000)]
    bets: u64,
    /// The folder for everything; made if it is not there, a fresh temporary one unless given
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct SampleArgs {
    /// How many agencies: a file for each
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    agencies: u16,
    /// How many bets: one number for all agencies, or one for each, separated by commas
    #[arg(long, required = true, value_delimiter = ',')]
    bets: Vec<u64>,
    /// What the bets are made up from
    #[arg(long, default_value_t = sample::DEFAULT_SEED)]
    seed: u64,
    /// The folder for the files; made if it is not there
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Where the server is: HOST:PORT
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:12345", value_parser = bet::address)]
    address: String,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct FormatArgs {
    /// Prints the JSON object that the server sent
    #[arg(long)]
    json: bool,
    /// Prints the metrics in the text format of Prometheus
    #[arg(long)]
    prometheus: bool,
    /// Looks again and again, until q, Ctrl-C or SIGTERM: a live view on a terminal, lines elsewhere
    #[arg(long)]
    watch: bool,
}

impl FormatArgs {
    fn chosen(&self) -> status::Format {
        match self {
            Self { json: true, .. } => status::Format::Json,
            Self { prometheus: true, .. } => status::Format::Prometheus,
            _ => status::Format::Table,
        }
    }
}

/// Does what the command line says. The handled signals must be blocked.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    match cli.command {
        Command::Server(ServerArgs { check: true }) => interruptible(check_configuration),
        Command::Server(ServerArgs { check: false }) => run_server(),
        Command::Agency => run_agency(),
        Command::Demo(args) => report(demo::run(args.agencies, args.bets, args.dir)),
        Command::Sample(args) => interruptible(|| run_sample(&args)),
        Command::Status(args) if args.format.watch => {
            failpoint::start();
            report(status::watch::run(&args.address))
        }
        Command::Status(args) => interruptible(|| run_status(&args)),
        Command::Bet(args) => interruptible(|| bet::run(&args)),
        Command::Winners(args) => interruptible(|| audit::run_winners(args)),
        Command::Check(args) => interruptible(|| audit::run_check(args)),
        Command::Completions(args) => interruptible(|| print(&generated::completions(&args))),
        Command::Man(args) => interruptible(|| match generated::man(&args) {
            Ok(page) => print(&page),
            Err(error) => fail(&error),
        }),
        Command::Compose(args) => {
            interruptible(|| print(compose::compose_file(args.agencies, &args.data).as_bytes()))
        }
    }
}

/// Prints an error for people.
#[must_use]
pub fn fail(error: &dyn Display) -> ExitCode {
    // Where standard error is gone, nobody reads it.
    writeln!(io::stderr(), "loteria: {error}").ok();
    ExitCode::FAILURE
}

fn explain(error: &clap::Error) -> ExitCode {
    match error.print() {
        Ok(()) if error.exit_code() == 0 => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(USAGE),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Prints what a command was for. Somebody who reads only a part of it is no failure worth a word.
fn print(text: &[u8]) -> ExitCode {
    let mut out = io::stdout();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(NOBODY_READS),
        result => report(result.map_err(|error| format!("can't write: {error}"))),
    }
}

fn report<E: Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Runs a command that leaves the signals their default effect.
fn interruptible(command: impl FnOnce() -> ExitCode) -> ExitCode {
    match signal::unblock() {
        Ok(()) => command(),
        Err(error) => fail(&error),
    }
}

fn run_status(args: &StatusArgs) -> ExitCode {
    match status::text_of(&args.address, args.format.chosen()) {
        Ok(text) => print(&text),
        Err(error) => fail(&format_args!("{}: {error}", args.address)),
    }
}

fn run_sample(args: &SampleArgs) -> ExitCode {
    let result = sample::write(args.agencies, &args.bets, args.seed, &args.dir);
    let wrong_usage = matches!(result, Err(sample::SampleError::Amounts { .. }));
    let code = report(result);
    if wrong_usage { ExitCode::from(USAGE) } else { code }
}

/// What is wrong is told as the server would tell it.
fn check_configuration() -> ExitCode {
    match in_force() {
        Ok(table) => print(table.as_bytes()),
        Err(error) => {
            logging::start();
            log_bad_config(&error)
        }
    }
}

fn run_server() -> ExitCode {
    logging::start();
    failpoint::start();
    let config = match ServerConfig::load() {
        Ok(config) => config,
        Err(error) => return log_bad_config(&error),
    };
    logging::set_level(config.logging_level);
    logging::set_format(config.log_format);
    match server::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_logged() {
                logging::event(Level::Critical, "server", Outcome::Fail, &[("error", &error)]);
            }
            ExitCode::FAILURE
        }
    }
}

fn run_agency() -> ExitCode {
    logging::start();
    let config = match AgencyConfig::load() {
        Ok(config) => config,
        Err(error) => return log_bad_config(&error),
    };
    logging::set_level(config.log_level);
    logging::set_format(config.log_format);
    match agency::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.log();
            ExitCode::FAILURE
        }
    }
}

fn log_bad_config(error: &ConfigError) -> ExitCode {
    let log =
        |fields: &[logging::Field<'_>]| logging::event(Level::Critical, "config", Outcome::Fail, fields);
    match error {
        ConfigError::Value { key, value, origin, allowed } => {
            log(&[("key", key), ("value", value), ("origin", origin), ("allowed", allowed)]);
        }
        ConfigError::UnknownKey { key, value, origin, allowed } => log(&[
            ("key", key),
            ("value", value),
            ("origin", origin),
            ("allowed", allowed),
            ("error", &"there is no such setting"),
        ]),
        ConfigError::File { .. } => log(&[("error", error)]),
    }
    ExitCode::from(USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed_and_its_help_names_the_settings() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        let mut help = |name| command.find_subcommand_mut(name).unwrap().render_long_help().to_string();
        assert!(help("server").contains("STORAGE_FILEPATH"));
        assert!(help("agency").contains("CLI_"));
    }
}
