//! The command line: the commands, their flags and their exit codes.
//!
//! `server`, `agency`, `bet` and `metrics` report errors in their log. The other commands write them to standard error for people.

mod audit;
mod bet;
mod generated;

use std::fmt::Display;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{AGENCY_SETTINGS, AgencyConfig, Faults, SERVER_SETTINGS, ServerConfig, in_force};
use crate::logging::{self, Level, Outcome};
use crate::system::signal;
use crate::{agency, compose, demo, failpoint, sample, server, status};

/// The exit code for a command line or a configuration with faults.
const USAGE: u8 = 2;
/// The exit code that shells give a program that SIGPIPE ended.
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
    /// Runs the central server: stores the agencies' bets and makes the draw when all agencies have ended
    #[command(after_help = SERVER_SETTINGS.help() + SERVER_CODES)]
    Server(ServerArgs),
    /// Runs one agency: sends the bets of its file to the server and reports how many of them won
    #[command(after_help = AGENCY_SETTINGS.help() + AGENCY_CODES)]
    Agency,
    /// Runs a whole contest on this machine: a server, agencies, made-up bets
    #[command(after_help = DEMO_HELP)]
    Demo(DemoArgs),
    /// Writes made-up files of bets: agency-1.csv, agency-2.csv and so on
    #[command(after_help = SAMPLE_HELP)]
    Sample(SampleArgs),
    /// Asks a running server for its status: the health check, exit code 0 if server and storage answer within 2 seconds
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// Serves the metrics of a running server to Prometheus, over HTTP at /metrics
    #[command(after_help = METRICS_HELP)]
    Metrics(MetricsArgs),
    /// Sends one bet to the server and reports whether it is stored
    #[command(after_help = bet::HELP)]
    Bet(bet::BetArgs),
    /// Counts the winners again from the bets alone, and checks the files of the contest
    #[command(override_usage = audit::WINNERS_USAGE, after_help = audit::winners_help())]
    Winners(audit::WinnersArgs),
    /// Checks the files of a contest: every row of the bets, and the state file
    #[command(override_usage = audit::CHECK_USAGE, after_help = audit::CHECK_HELP)]
    Check(audit::CheckArgs),
    /// Prints a script with which a shell completes commands and flags
    #[command(after_help = generated::COMPLETIONS_HELP)]
    Completions(generated::CompletionsArgs),
    /// Prints the manual page of the program, or of one of its commands
    #[command(after_help = generated::MAN_HELP)]
    Man(generated::ManArgs),
    /// Prints the docker-compose.yaml of a contest
    #[command(after_help = COMPOSE_HELP)]
    Compose(ComposeArgs),
}

const SERVER_CODES: &str = "\n\nExit code 0: SIGTERM, SIGINT, SIGHUP or SIGQUIT ended the server, or --check found no fault. 1: it could \
not start or could not go on; the last lines of the log say why. 2: a fault of the configuration or of the command line.";

const AGENCY_CODES: &str = "\n\nExit code 0: the agency has its result, or SIGTERM, SIGINT, SIGHUP or SIGQUIT ended it. 1: a bad file, a \
refusal, or a batch whose outcome is unknown; the last line of the log says why. 2: a fault of the configuration or of the \
command line.";

const DEMO_HELP: &str = "The demo ignores config.ini and environment variables. It leaves the bets, the agencies' files and \
the log of every process in its folder.";

const SAMPLE_HELP: &str = "The same seed gives the same bytes. Existing files of these names are overwritten.\n\nThe files \
of tests/data are made by\n  \
loteria sample --agencies 5 --bets 9000,6000,3500,1500,0 --dir tests/data";

const STATUS_HELP: &str = "If SERVER_IP means all addresses, the server is asked at 127.0.0.1 (or ::1). What the server \
sends is printed without control characters.\n\n--watch asks twice a second, also while the server is away. It has no \
colours if NO_COLOR is set.\n\nExit code 0: the server answered, or --watch was ended. 1: there was no answer. 2: a fault \
of the command line or of the configuration; with --address the configuration is not read.";

const METRICS_HELP: &str = "The server is asked for each scrape. If it does not answer within 2 seconds, loteria_up is 0 and the other \
metrics are missing. The log is on standard error; its form is that of the environment variable LOG_FORMAT.\n\nExit code 0: \
SIGTERM or SIGINT ended it. 1: it could not listen; the last line of the log says why.";

#[derive(Debug, Args)]
struct MetricsArgs {
    /// The address at which Prometheus scrapes: HOST:PORT; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", value_parser = listen_address)]
    listen: String,
    /// Where the server is: HOST:PORT
    #[arg(long, value_name = "HOST:PORT", value_parser = bet::address)]
    address: Option<String>,
}

fn listen_address(text: &str) -> Result<String, &'static str> {
    let parts = text.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    parts.map(|_| text.to_owned()).ok_or("an address must be HOST:PORT")
}

#[derive(Debug, Args)]
struct ServerArgs {
    /// Prints each setting, its value and where that came from, and ends
    #[arg(long)]
    check: bool,
}

const COMPOSE_HELP: &str = "The services are `server` and `client1` to `clientN`. Client N reads agency-N.csv of the \
folder; all read config.ini. With 0 agencies, config.ini says how many the server waits for. The file belongs beside the \
Dockerfile and config.ini:\n  loteria compose --agencies 5 > docker-compose.yaml";

#[derive(Debug, Args)]
struct ComposeArgs {
    /// How many agencies take part; with 0 there is only the server
    #[arg(long, value_parser = clap::value_parser!(u16).range(..=compose::MAX_AGENCIES))]
    agencies: u16,
    /// The folder of the agencies' files, as seen from the compose file
    #[arg(long, default_value = compose::DEFAULT_DATA)]
    data: String,
    /// Names the containers `server`, `client1` and so on, as the original did: one contest per machine
    #[arg(long)]
    container_names: bool,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// How many agencies take part
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=demo::MAX_AGENCIES))]
    agencies: u16,
    /// How many bets each agency has
    #[arg(long, default_value_t = 20_000)]
    bets: u64,
    /// The folder for all files, made if it is missing [default: a new temporary folder]
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct SampleArgs {
    /// How many files
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    agencies: u16,
    /// How many bets: one number for all files, or one for each, separated by commas
    #[arg(long, required = true, value_delimiter = ',')]
    bets: Vec<u64>,
    /// The seed from which the bets are made
    #[arg(long, default_value_t = sample::DEFAULT_SEED)]
    seed: u64,
    /// The folder for the files, made if it is missing
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Where the server is [default: `SERVER_IP` and `SERVER_PORT` of the configuration]
    #[arg(long, value_name = "HOST:PORT", value_parser = bet::address)]
    address: Option<String>,
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
    /// Asks repeatedly, until q, Ctrl-C or a signal: a live view on a terminal, lines elsewhere
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

/// Runs the command of the command line. The handled signals must be blocked.
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
        Command::Status(args) if args.format.watch => watch(args.address),
        Command::Status(args) => interruptible(|| run_status(args.address, args.format.chosen())),
        Command::Metrics(args) => run_metrics(args),
        Command::Bet(args) => interruptible(|| bet::run(&args)),
        Command::Winners(args) => interruptible(|| audit::run_winners(args)),
        Command::Check(args) => interruptible(|| audit::run_check(args)),
        Command::Completions(args) => interruptible(|| print(&generated::completions(&args))),
        Command::Man(args) => interruptible(|| match generated::man(&args) {
            Ok(page) => print(&page),
            Err(error) => fail(&error),
        }),
        Command::Compose(args) => interruptible(|| {
            print(compose::compose_file(args.agencies, &args.data, args.container_names).as_bytes())
        }),
    }
}

/// Prints an error for people.
#[must_use]
pub fn fail(error: &dyn Display) -> ExitCode {
    // If standard error is closed, nobody reads it.
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

/// Prints a command's output. A reader that has seen enough and closes the pipe is no error.
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

/// Runs a command that signals may end at once.
fn interruptible(command: impl FnOnce() -> ExitCode) -> ExitCode {
    match signal::unblock() {
        Ok(()) => command(),
        Err(error) => fail(&error),
    }
}

/// The address of the server to ask: the one given, else that of the configuration. The error is reported already.
fn server_address(given: Option<String>) -> Result<String, ExitCode> {
    if let Some(address) = given {
        return Ok(address);
    }
    let remedy = "--address HOST:PORT asks a server without the configuration".to_owned();
    let config = ServerConfig::load().map_err(|faults| misuse(faults.lines().chain([remedy.clone()])))?;
    let mut address = config.listen_address();
    if address.port() == 0 {
        return Err(misuse(["SERVER_PORT is 0, which takes any free port".to_owned(), remedy]));
    }
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    Ok(address.to_string())
}

/// Does the same while signals are blocked: the configuration may be a pipe that nobody writes to.
fn server_address_or_end(given: Option<String>) -> Result<String, ExitCode> {
    signal::exit_on_termination(|| server_address(given)).unwrap_or_else(|error| Err(fail(&error)))
}

fn run_status(address: Option<String>, format: status::Format) -> ExitCode {
    let address = match server_address(address) {
        Ok(address) => address,
        Err(code) => return code,
    };
    match status::text_of(&address, format) {
        Ok(text) => print(text.as_bytes()),
        Err(error) => fail(&format_args!("{address}: {error}")),
    }
}

fn watch(address: Option<String>) -> ExitCode {
    failpoint::start();
    match server_address_or_end(address) {
        Ok(address) => report(status::watch::run(&address)),
        Err(code) => code,
    }
}

fn run_sample(args: &SampleArgs) -> ExitCode {
    let result = sample::write(args.agencies, &args.bets, args.seed, &args.dir);
    let wrong_usage = matches!(result, Err(sample::SampleError::Amounts(..)));
    let code = report(result);
    if wrong_usage { ExitCode::from(USAGE) } else { code }
}

/// Reports faults as the server would.
fn check_configuration() -> ExitCode {
    match in_force() {
        Ok(table) => print(table.as_bytes()),
        Err(faults) => {
            logging::start();
            log_faults(&faults)
        }
    }
}

fn run_server() -> ExitCode {
    logging::start();
    failpoint::start();
    let config = match load(ServerConfig::load) {
        Ok(config) => config,
        Err(code) => return code,
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

fn run_metrics(args: MetricsArgs) -> ExitCode {
    logging::start();
    let server = match server_address_or_end(args.address) {
        Ok(address) => address,
        Err(code) => return code,
    };
    match status::metrics::run(&args.listen, server) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let fields: [logging::Field<'_>; 2] = [("listen", &args.listen), ("error", &error)];
            logging::event(Level::Critical, "metrics", Outcome::Fail, &fields);
            ExitCode::FAILURE
        }
    }
}

fn run_agency() -> ExitCode {
    logging::start();
    let config = match load(AgencyConfig::load) {
        Ok(config) => config,
        Err(code) => return code,
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

/// Reads a configuration. Its file may be a pipe that nobody writes to.
fn load<T>(load: impl FnOnce() -> Result<T, Faults>) -> Result<T, ExitCode> {
    match signal::exit_on_termination(load) {
        Ok(loaded) => loaded.map_err(|faults| log_faults(&faults)),
        Err(error) => Err(fail(&error)),
    }
}

/// Reports the faults of a configuration in the log.
fn log_faults(faults: &Faults) -> ExitCode {
    faults.log();
    ExitCode::from(USAGE)
}

/// Reports what is wrong with a configuration or a command line to people.
fn misuse(lines: impl IntoIterator<Item = String>) -> ExitCode {
    for line in lines {
        let _failure = fail(&line);
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
