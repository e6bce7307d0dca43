//! The commands, their flags and their help.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use rustls::pki_types::ServerName;

use crate::config::{AGENCY_SETTINGS, SERVER_SETTINGS, Setting, Settings, host_and_port};
use crate::lottery::bet::{check_text, is_real_date, parse_decimal};
use crate::lottery::{AgencyId, BetError, TextError};
use crate::{certs, compose, demo, sample};

/// The central server of a national lottery, and its agencies.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 100)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Runs the central server: stores the agencies' bets and makes the draw when all agencies have ended
    #[command(after_help = settings_help(&SERVER_SETTINGS) + SERVER_CODES)]
    Server {
        /// Prints each setting, its value and where that came from; starts no server
        #[arg(long)]
        check: bool,
    },
    /// Runs one agency: sends the bets of its file to the server and reports how many of them won
    #[command(after_help = settings_help(&AGENCY_SETTINGS) + AGENCY_CODES)]
    Agency,
    /// Runs a whole contest on this machine: a server, agencies, made-up bets
    #[command(after_help = DEMO_HELP)]
    Demo {
        /// How many agencies take part
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=demo::MAX_AGENCIES))]
        agencies: u16,
        /// How many bets each agency has
        #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
        bets: u64,
        /// The folder for all files, made if it is missing [default: a new temporary folder]
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Writes made-up files of bets: agency-1.csv, agency-2.csv and so on
    #[command(after_help = SAMPLE_HELP)]
    Sample {
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
    },
    /// Asks a running server for its status: the health check, exit code 0 if server and storage answer within 2 seconds
    #[command(after_help = STATUS_HELP)]
    Status {
        #[command(flatten)]
        server: ServerArgs,
        /// Prints the JSON object that the server sent
        #[arg(long, group = "format")]
        json: bool,
        /// Prints the metrics in the text format of Prometheus
        #[arg(long, group = "format")]
        prometheus: bool,
        /// Asks repeatedly, until q, Ctrl-C or a signal: a live view on a terminal, lines elsewhere
        #[arg(long, group = "format")]
        watch: bool,
    },
    /// Serves the metrics of a running server to Prometheus, over HTTP at /metrics
    #[command(after_help = METRICS_HELP)]
    Metrics {
        /// The address at which Prometheus scrapes: HOST:PORT; port 0 takes a free one
        #[arg(long, value_name = "HOST:PORT", value_parser = listen_address)]
        listen: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Sends one bet to the server and reports whether it is stored
    #[command(after_help = BET_HELP)]
    Bet(BetArgs),
    /// Counts the winners again from the bets alone, and checks the files of the contest
    #[command(after_help = WINNERS_HELP.to_owned() + CHECK_HELP)]
    Winners {
        /// The file of all bets [default: that of the configuration]
        #[arg(long)]
        file: Option<PathBuf>,
        /// Lists the winning documents of this agency, in the order in which their bets were stored
        #[arg(long, value_name = "NUMBER", value_parser = agency)]
        agency: Option<AgencyId>,
        /// Counts the winners of this number instead
        #[arg(long)]
        number: Option<u32>,
        /// Lists the winners as CSV: agency,document
        #[arg(long)]
        csv: bool,
        /// Writes the rows of the winners, as they are in the file of bets, to this file; - is standard output
        #[arg(long, value_name = "FILE", conflicts_with = "csv")]
        rows: Option<PathBuf>,
    },
    /// Checks the files of a contest: every row of the bets, and the state file
    #[command(after_help = CHECK_HELP)]
    Check {
        /// The file of all bets [default: that of the configuration]
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Makes the certificates of a contest: an authority, the server's, one for each agency, an operator's
    #[command(after_help = CERTS_HELP)]
    Certs {
        /// How many agencies take part
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        agencies: u16,
        /// The names and addresses by which clients reach the server, separated by commas
        #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = certs::DEFAULT_NAMES, value_parser = server_name)]
        server: Vec<String>,
        /// For how many days the certificates are valid
        #[arg(long, default_value_t = certs::DEFAULT_DAYS, value_parser = clap::value_parser!(u16).range(1..=3650))]
        days: u16,
        /// Revokes the certificate of this agency, and makes another one
        #[arg(long, value_name = "NUMBER", value_parser = agency)]
        revoke: Option<AgencyId>,
        /// The folder, made if it is missing
        #[arg(long, default_value = "certs")]
        dir: PathBuf,
    },
    /// Prints a script with which a shell completes commands and flags
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell that completes commands and flags
        shell: Shell,
    },
    /// Prints the manual page of the program, or of one of its commands
    #[command(after_help = MAN_HELP)]
    Man {
        /// The command of the page [default: the program]
        #[arg(value_parser = PossibleValuesParser::new(COMMANDS.split(' ')))]
        command: Option<String>,
    },
    /// Prints the docker-compose.yaml of a contest
    #[command(after_help = COMPOSE_HELP)]
    Compose {
        /// How many agencies take part; with 0 there is only the server
        #[arg(long, value_parser = clap::value_parser!(u16).range(..=compose::MAX_AGENCIES))]
        agencies: u16,
        /// The folder of the agencies' files, as seen from the compose file
        #[arg(long, default_value = compose::DEFAULT_DATA)]
        data: String,
        /// The folder of `loteria certs`, as seen from the compose file: all connections are TLS
        #[arg(long, value_name = "DIR")]
        certs: Option<String>,
        /// Names the containers `server`, `client1` and so on, as the original did: one contest per machine
        #[arg(long)]
        container_names: bool,
    },
}

const SERVER_CODES: &str = "\n\nWith TLS_DIR, SIGHUP makes the server read the certificates again.\n\nExit code 0: SIGTERM, \
SIGINT, SIGHUP or SIGQUIT ended the server, or --check found no fault. 1: it could not start or could not continue; the last \
lines of the log say why. 2: the configuration, the certificates or the command line cannot be used.";

const AGENCY_CODES: &str = "\n\nExit code 0: the agency has its result, or SIGTERM, SIGINT, SIGHUP or SIGQUIT ended it. 1: the \
file is bad, the server refused something, a time limit is over, or it is unknown whether some bets are stored; the last line \
of the log says why. 2: the configuration or the command line has a fault.";

const DEMO_HELP: &str = "The demo ignores config.ini and environment variables. It leaves the bets, the agencies' files and \
the log of every process in its folder.";

const SAMPLE_HELP: &str = "The same seed gives the same bytes. Existing files of these names are overwritten.\n\nThis makes \
the files of tests/data:\n  loteria sample --agencies 5 --bets 9000,6000,3500,1500,0 --dir tests/data";

const STATUS_HELP: &str = "If SERVER_IP means all addresses, the server is asked at 127.0.0.1 (or ::1). What the server \
sends is printed without control characters.\n\n--watch asks twice a second, also while the server is away. It has no \
colours if NO_COLOR is set.\n\nExit code 0: the server answered, or --watch was ended. 1: there was no answer. 2: the command \
line or the configuration has a fault; with --address the configuration is not read.";

const METRICS_HELP: &str = "The server is asked for each scrape. If it does not answer within 2 seconds, loteria_up is 0 and \
the other metrics are missing. The log is on standard error; the environment variable LOG_FORMAT selects text or json.\n\nExit \
code 0: a signal ended it. 1: it could not listen; the last line of the log says why. 2: the command line or the \
configuration has a fault.";

const BET_HELP: &str = "This is for agencies without a file, and for tests. The bet is stored behind the agency's other bets. \
If it is not in the agency's file at that place, `loteria agency` refuses to go on.\n\nA flag overrides its environment \
variable. config.ini is not read. The bet is sent again while the server does not listen, is busy or cannot store it.\n\nExit \
code 0: the bet is on the server's disk. 1: it was refused, or the connection broke before the answer, so the outcome is \
unknown. 2: a value is missing or not allowed.";

/// Which server to ask, and how.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// Where the server is [default: `SERVER_IP` and `SERVER_PORT` of the configuration]
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub(super) address: Option<String>,
    /// A folder with tls.crt, tls.key and ca.crt: the connection is TLS
    #[arg(long, value_name = "DIR", env = "CLI_TLS_DIR")]
    pub(super) tls_dir: Option<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct BetArgs {
    /// The agency that takes the bet, 1 to 65535
    #[arg(long, value_name = "NUMBER", env = "CLI_ID", value_parser = agency)]
    pub(super) agency: AgencyId,
    /// First name
    #[arg(long, value_name = "TEXT", env = "NOMBRE", value_parser = text)]
    pub(super) first_name: String,
    /// Last name
    #[arg(long, value_name = "TEXT", env = "APELLIDO", value_parser = text)]
    pub(super) last_name: String,
    /// Document
    #[arg(long, value_name = "TEXT", env = "DOCUMENTO", value_parser = text)]
    pub(super) document: String,
    /// Birthdate, as YYYY-MM-DD
    #[arg(long, value_name = "DATE", env = "NACIMIENTO", value_parser = date)]
    pub(super) birthdate: String,
    /// The number that is bet on, 0 to 4294967295
    #[arg(long, value_name = "NUMBER", env = "NUMERO", value_parser = number)]
    pub(super) number: u32,
    /// Where the server is
    #[arg(long, value_name = "HOST:PORT", env = "CLI_SERVER_ADDRESS", value_parser = address)]
    #[arg(default_value = "127.0.0.1:12345")]
    pub(super) address: String,
    /// A folder with tls.crt, tls.key and ca.crt: the connection is TLS; {id} stands for the agency's number
    #[arg(long, value_name = "DIR", env = "CLI_TLS_DIR")]
    pub(super) tls_dir: Option<OsString>,
}

/// The help of `check` follows it.
const WINNERS_HELP: &str = "The winning number is that of the draw in the state file. Without a draw it is \
LOTTERY_WINNER_NUMBER of the configuration (config.ini, environment). The files are also checked, as by `loteria check`; with \
--csv or --rows, the findings go to standard error. The file of --rows is replaced as a whole, and only if there are no errors.\n\n";

const CHECK_HELP: &str = "Errors are: lines that are not rows (each cause once, with the remedy); an agency that has bets but \
does not take part (at the line of its first bet); a state file (FILE.state) that is damaged or contradicts itself; after the \
draw, a file whose number of bets, bytes or SHA-256 is not that of the draw; an agency with other bets than it ended with. \
Notices are: before the draw, a last row that is not whole; a draw of an older version, which has no seal; what a server will \
do when it starts. Lines are counted from 1. Up to 100 other errors and 100 notices are listed; all are counted.\n\nNo file \
of the contest is locked or written: a server may be running.\n\nExit code 0: there are no errors. 1: there are errors, or a \
file can't be read. 2: the command line or the configuration has a fault. 141: the reader closed the output.";

const CERTS_HELP: &str = "Existing files stay. To renew a certificate, remove its folder and run the same command again. \
Each of server, agency-1 to agency-N and operator is a TLS_DIR, with tls.crt, tls.key and ca.crt. Keep ca.key to yourself: \
with it anyone can be any agency.\n\nOnly you can enter the folder. In it, server, agency-N and operator are readable for \
all users, because a container runs as another user. So if you copy one of them elsewhere, all users of that machine can \
read its key, until you give the copy to the program's user and close it: chmod -R go= agency-3.\n\n--revoke puts the \
certificate on the list server/ca.crl. The server obeys it after SIGHUP or a restart.\n\nExit code 0: all certificates \
exist. 1: a file can't be read or written.";

const COMPLETIONS_HELP: &str = "For bash, in ~/.bashrc:\n  source <(loteria completions bash)\n\nFor zsh, in a folder of \
$fpath:\n  loteria completions zsh > _loteria\n\nFor fish:\n  loteria completions fish > \
~/.config/fish/completions/loteria.fish";

const MAN_HELP: &str = "To read one:\n  loteria man > loteria.1; man ./loteria.1\n\nTo install the page of a command:\n  \
loteria man server > /usr/local/share/man/man1/loteria-server.1";

/// All commands, which clap can't list while it defines the argument of `man`.
const COMMANDS: &str =
    "server agency demo sample status metrics bet winners check certs completions man compose";

const COMPOSE_HELP: &str = "The services are `server` and `client1` to `clientN`. Client N reads agency-N.csv of the \
folder; all read config.ini. With 0 agencies, config.ini says how many the server waits for. The file belongs beside the \
Dockerfile and config.ini:\n  loteria compose --agencies 5 > docker-compose.yaml";

/// Describes the settings of a program.
fn settings_help(settings: &Settings) -> String {
    let Settings { section, prefix, rows } = settings;
    let but = if prefix.is_empty() { "" } else { ", with the prefix CLI_ except for LOG_FORMAT," };
    let rows = rows.iter().map(|Setting { key, default, allowed, about }| {
        let default = if default.is_empty() { String::new() } else { format!("; default: {default}") };
        format!("\n  {key}\n          {about} ({allowed}{default})")
    });
    format!(
        "Settings, from section {section} of config.ini in the current directory. An environment variable of the \
         same name{but} overrides the file:\n{}",
        rows.collect::<String>()
    )
}

fn address(text: &str) -> Result<String, &'static str> {
    host_and_port(text).ok_or("an address must be HOST:PORT")
}

/// An address whose port may be 0.
fn listen_address(text: &str) -> Result<String, &'static str> {
    let parts = text.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    parts.map(|_| text.to_owned()).ok_or("an address must be HOST:PORT")
}

fn server_name(text: &str) -> Result<String, &'static str> {
    let name = ServerName::try_from(text.strip_prefix("*.").unwrap_or(text));
    name.map(|_| text.to_owned()).map_err(|_| "a name must be a host name or an IP address, without a port")
}

fn agency(text: &str) -> Result<AgencyId, BetError> {
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
