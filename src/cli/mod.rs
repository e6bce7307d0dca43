//! The command line: runs the commands and reports how they end.
//!
//! `server`, `agency`, `bet` and `metrics` log their errors. The other commands print them to standard error for people.
//! `args` has the commands and flags, `exit` the exit codes.

mod args;
mod exit;
mod generated;

use std::ffi::OsString;
use std::io::{self, BufWriter};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;

use self::args::{BetArgs, Cli, Command, ServerArgs};
use self::exit::{CommandResult, USAGE, end_output, explain, fail, log_faults, misuse, print, report};
use crate::audit::{AuditError, Files, Form, Question, check, winners, winners_to_file};
use crate::config::{AgencyConfig, Faults, ServerConfig, check_log_format, in_force, with_id};
use crate::logging::{self, Level, Outcome};
use crate::lottery::{AgencyId, Bet};
use crate::server::ServerError;
use crate::server::storage::Rules;
use crate::status::StatusError;
use crate::system::signal;
use crate::tls::client::Target;
use crate::tls::folder::FolderError;
use crate::{agency, certs, compose, demo, sample, server, status};

/// Runs the command of the command line. `main` must call this first: it blocks the signals.
#[must_use]
pub fn run() -> ExitCode {
    let parse = |()| Cli::try_parse().map_err(|error| explain(&error));
    let result = report(signal::block()).and_then(parse).and_then(|cli| execute(cli.command));
    result.err().unwrap_or(ExitCode::SUCCESS)
}

fn execute(command: Command) -> CommandResult {
    if !takes_signals(&command) {
        report(signal::unblock())?;
    }
    match command {
        Command::Server { check: true } => check_configuration(),
        Command::Server { check: false } => run_server(),
        Command::Agency => run_agency(),
        Command::Demo { agencies, bets, dir } => report(demo::run(agencies, bets, dir)),
        Command::Sample { agencies, bets, seed, dir } => run_sample(agencies, &bets, seed, &dir),
        Command::Status { server, watch: true, .. } => run_watch(server),
        Command::Status { server, json: true, .. } => run_status(server, status::as_json),
        Command::Status { server, prometheus: true, .. } => run_status(server, status::as_metrics),
        Command::Status { server, .. } => run_status(server, status::as_table),
        Command::Metrics { listen, server } => run_metrics(&listen, server),
        Command::Bet(args) => run_bet(&args),
        Command::Winners { file, agency, number, csv, rows } => audit(file, |files, configured| {
            let form = if csv { Form::Csv } else { rows.as_ref().map_or(Form::Report, |_| Form::Rows) };
            let question = Question { agency, number, form, configured };
            match rows.filter(|path| path != "-") {
                Some(path) => winners_to_file(files, &question, &path, &mut io::stderr()),
                None => winners(files, &question, &mut BufWriter::new(io::stdout()), &mut io::stderr()),
            }
        }),
        Command::Check { file } => {
            audit(file, |files, configured| check(files, configured, &mut BufWriter::new(io::stdout())))
        }
        Command::Certs { agencies, server, days, revoke, dir } => {
            let revoke = revoke.map(AgencyId::get);
            print(report(certs::make(&certs::Order { agencies, server, days, revoke, folder: dir }))?)
        }
        Command::Completions { shell } => print(generated::completions(shell)),
        Command::Man { command } => print(report(generated::man(command.as_deref()))?),
        Command::Compose { agencies, data, certs, container_names } => {
            print(compose::compose_file(agencies, &data, certs.as_deref(), container_names))
        }
    }
}

/// Whether the command waits for signals itself. A signal ends any other command at once.
fn takes_signals(command: &Command) -> bool {
    matches!(
        command,
        Command::Server { check: false }
            | Command::Agency
            | Command::Demo { .. }
            | Command::Status { watch: true, .. }
            | Command::Metrics { .. }
    )
}

/// Starts the log and reads the configuration. Meanwhile a signal ends the process: the file may be a pipe that nobody
/// writes to.
fn load<T>(load: fn() -> Result<T, Faults>) -> Result<T, ExitCode> {
    logging::start();
    report(signal::exit_on_termination(load))?.map_err(|faults| log_faults(&faults))
}

/// Logs the error that ends a command.
fn log_failure(action: &str, fields: &[logging::Field<'_>]) -> ExitCode {
    logging::event(Level::Critical, action, Outcome::Fail, fields);
    ExitCode::FAILURE
}

fn run_server() -> CommandResult {
    let config = load(ServerConfig::load)?;
    logging::set_level(config.logging_level);
    logging::set_format(config.log_format);
    server::run(&config).map_err(|error| match error {
        ServerError::KeeperGaveUp => ExitCode::from(USAGE),
        ServerError::StorageGaveUp => ExitCode::FAILURE,
        error => log_failure("server", &[("error", &error)]),
    })
}

/// Prints the settings in force. Faults are logged, as the server would log them.
fn check_configuration() -> CommandResult {
    let config = ServerConfig::load().map_err(|faults| {
        logging::start();
        log_faults(&faults)
    })?;
    print(in_force())?;
    let concerns = server::check_certificates(&config).map_err(|error| misuse([error]))?;
    let lines: Vec<String> = concerns.iter().map(|concern| format!("warning: {concern}\n")).collect();
    print(lines.concat())
}

fn run_agency() -> CommandResult {
    let config = load(AgencyConfig::load)?;
    logging::set_level(config.log_level);
    logging::set_format(config.log_format);
    agency::run(&config).map_err(|error| {
        error.log();
        ExitCode::FAILURE
    })
}

fn run_bet(args: &BetArgs) -> CommandResult {
    logging::start();
    check_log_format().map_err(|faults| log_faults(&faults))?;
    let bet = Bet {
        agency: args.agency,
        first_name: &args.first_name,
        last_name: &args.last_name,
        document: &args.document,
        birthdate: &args.birthdate,
        number: args.number,
    };
    let folder = args.tls_dir.as_deref().map(|folder| with_id(Path::new(folder), args.agency).into());
    let server = target_at(args.address.clone(), folder)
        .map_err(|error| log_failure("apuesta_enviada", &[("error", &error)]))?;
    agency::send_bet(&bet, &server).map_err(|_logged| ExitCode::FAILURE)
}

fn run_sample(agencies: u16, bets: &[u64], seed: u64, folder: &Path) -> CommandResult {
    sample::write(agencies, bets, seed, folder).map_err(|error| match error {
        sample::SampleError::Amounts(..) => misuse([error]),
        sample::SampleError::Write(..) => fail(&error),
    })
}

fn run_status(server: ServerArgs, ask: fn(&Target) -> Result<String, StatusError>) -> CommandResult {
    let server = target(server)?;
    print(report(ask(&server).map_err(|error| format!("{}: {error}", server.address)))?)
}

fn run_watch(server: ServerArgs) -> CommandResult {
    let server = report(signal::exit_on_termination(|| target(server)))??;
    report(status::watch::run(&server))
}

fn run_metrics(listen: &str, server: ServerArgs) -> CommandResult {
    logging::start();
    let server = report(signal::exit_on_termination(|| target(server)))??;
    status::metrics::run(listen, server)
        .map_err(|error| log_failure("metrics", &[("listen", &listen), ("error", &error)]))
}

/// Returns the server to ask.
fn target(ServerArgs { address, tls_dir }: ServerArgs) -> Result<Target, ExitCode> {
    report(target_at(server_address(address)?, tls_dir))
}

/// Returns the server at this address. An empty `tls_dir`, as of an empty environment variable, means plain TCP.
fn target_at(address: String, tls_dir: Option<OsString>) -> Result<Target, FolderError> {
    let folder = tls_dir.filter(|folder| !folder.is_empty()).map(PathBuf::from);
    Target::new(address, folder.as_deref())
}

/// Returns the address of the server to ask: the given one, else that of the configuration.
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
    if address.ip().is_unspecified() {
        let [v4, v6] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        address.set_ip(if address.is_ipv4() { v4 } else { v6 });
    }
    Ok(address.to_string())
}

/// Opens the file of bets, or that of the configuration, and runs `look`, which returns whether the files have no errors.
fn audit(
    file: Option<PathBuf>,
    look: impl FnOnce(&Files, Rules) -> Result<bool, AuditError>,
) -> CommandResult {
    let config = ServerConfig::load().map_err(|faults| misuse(faults.lines()))?;
    let configured = Rules { clients_amount: config.clients_amount, winner_number: config.winner_number };
    let is_given = file.is_some();
    let path = file.unwrap_or(config.storage_filepath);
    let files = Files::open(&path).map_err(|error| {
        let path = path.display();
        let hint = format!("; the configuration's STORAGE_FILEPATH is {path}, --file names another file");
        fail(&format_args!("{error}{}", if is_given { "" } else { &hint }))
    })?;
    match look(&files, configured) {
        Ok(true) => Ok(()),
        Ok(false) => Err(ExitCode::FAILURE),
        Err(AuditError::Write(error)) => end_output(Err(error)),
        Err(error @ AuditError::NoAgency { .. }) => Err(misuse([error])),
        Err(error) => Err(fail(&error)),
    }
}
