//! The configuration: `config.ini` in the current directory, each key overridden by an environment variable.
//!
//! Each setting stands once, as a row of `settings.rs` with its default, what is allowed and what it is for; the help,
//! the errors and `server --check` are made of the same rows.

mod in_force;
mod settings;
mod source;
mod value;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use in_force::in_force;
pub use settings::{AGENCY_SETTINGS, SERVER_SETTINGS, Setting, Settings};
pub use source::{ConfigError, Source};
pub use value::{Protocol, host_and_port};

use crate::logging::{Format, LOG_FORMAT, Level};
use crate::lottery::AgencyId;
use settings::{agency, server};
use source::{Sources, environment};

/// The file that is read, from the current directory.
pub const CONFIG_FILE: &str = "config.ini";

/// What `loteria server` runs with.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// The address to listen on.
    pub ip: IpAddr,
    /// The host name that stood in its place, if one did: it means all addresses.
    pub ignored_host: Option<String>,
    /// The port to listen on; 0 for a free one.
    pub port: u16,
    /// Connections that may wait to be accepted.
    pub listen_backlog: u16,
    /// The least level that is logged.
    pub logging_level: Level,
    /// The form of the log.
    pub log_format: Format,
    /// How many agencies take part.
    pub clients_amount: u16,
    /// The file of all bets.
    pub storage_filepath: PathBuf,
    /// The number that wins.
    pub winner_number: u32,
    /// Handlers alive at once.
    pub max_clients: u32,
    /// How long a client may stall.
    pub client_timeout: Duration,
    /// The longest payload that is taken, in bytes.
    pub max_payload: u32,
}

impl ServerConfig {
    /// Reads `config.ini` and the environment.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load() -> Result<Self, ConfigError> {
        Self::load_from(Path::new(CONFIG_FILE), &environment)
    }

    fn load_from(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let sources = Sources::load(SERVER_SETTINGS, path, environment)?;
        let host = sources.get(&server::SERVER_IP)?;
        Ok(Self {
            ip: host.address(),
            ignored_host: host.name(),
            port: sources.get(&server::SERVER_PORT)?,
            listen_backlog: sources.get(&server::SERVER_LISTEN_BACKLOG)?,
            logging_level: sources.get(&server::LOGGING_LEVEL)?,
            log_format: sources.get(&server::LOG_FORMAT)?,
            clients_amount: sources.get(&server::CLIENTS_AMOUNT)?,
            storage_filepath: sources.get(&server::STORAGE_FILEPATH)?,
            winner_number: sources.get(&server::LOTTERY_WINNER_NUMBER)?,
            max_clients: sources.get(&server::MAX_CLIENTS)?,
            client_timeout: sources.get(&server::CLIENT_TIMEOUT)?,
            max_payload: sources.get(&server::MAX_PAYLOAD)?,
        })
    }
}

/// What `loteria agency` runs with.
#[derive(Debug, Clone, PartialEq)]
pub struct AgencyConfig {
    /// The agency's number.
    pub id: AgencyId,
    /// Where the server is: `HOST:PORT`.
    pub server_address: String,
    /// The time between two requests for the result, in classic mode.
    pub loop_period: Duration,
    /// The least level that is logged.
    pub log_level: Level,
    /// The form of the log.
    pub log_format: Format,
    /// The most bets in one message.
    pub batch_max_amount: usize,
    /// How it talks to the server.
    pub protocol: Protocol,
    /// The file of its bets.
    pub bets_file: PathBuf,
}

impl AgencyConfig {
    /// Reads `config.ini` and the environment.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load() -> Result<Self, ConfigError> {
        Self::load_from(Path::new(CONFIG_FILE), &environment)
    }

    fn load_from(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let sources = Sources::load(AGENCY_SETTINGS, path, environment)?;
        let id = sources.get(&agency::ID)?;
        Ok(Self {
            id,
            server_address: sources.get(&agency::SERVER_ADDRESS)?,
            loop_period: sources.get(&agency::LOOP_PERIOD)?,
            log_level: sources.get(&agency::LOG_LEVEL)?,
            log_format: sources.get(&agency::LOG_FORMAT)?,
            batch_max_amount: sources.get(&agency::BATCH_MAXAMOUNT)?,
            protocol: sources.get(&agency::PROTOCOL)?,
            bets_file: sources
                .get(&agency::BETS_FILE)?
                .to_string_lossy()
                .replace("{id}", &id.to_string())
                .into(),
        })
    }
}

/// Whether the environment's form of the log can be used, for a command that has no other setting.
///
/// # Errors
/// It can't.
pub fn check_log_format() -> Result<(), ConfigError> {
    Sources::without_file(AGENCY_SETTINGS, &environment).get(&agency::LOG_FORMAT).map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn server(file: impl AsRef<[u8]>, variables: &[(&str, &str)]) -> Result<ServerConfig, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CONFIG_FILE);
        std::fs::write(&path, file).unwrap();
        ServerConfig::load_from(&path, &lookup(variables))
    }

    fn lookup<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    fn agency(variables: &[(&str, &str)]) -> Result<AgencyConfig, ConfigError> {
        AgencyConfig::load_from(Path::new("/nowhere/config.ini"), &lookup(variables))
    }

    #[test]
    fn a_missing_file_gives_the_defaults() {
        let config = ServerConfig::load_from(Path::new("/nowhere/config.ini"), &lookup(&[])).unwrap();
        assert_eq!((config.port, config.clients_amount, config.winner_number), (12345, 5, 7574));
        assert_eq!(config.client_timeout, Duration::from_secs(30));
        assert_eq!(config.ip, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }

    #[test]
    fn the_shipped_file_says_what_the_defaults_say() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join(CONFIG_FILE);
        let defaults = ServerConfig::load_from(Path::new("/nowhere"), &lookup(&[])).unwrap();
        assert_eq!(ServerConfig::load_from(&shipped, &lookup(&[])).unwrap(), defaults);
        AgencyConfig::load_from(&shipped, &lookup(&[("CLI_ID", "1")])).unwrap();
    }

    #[test]
    fn the_originals_file_is_taken_and_its_host_name_means_all_addresses() {
        let config = server(
            "[DEFAULT]\nSERVER_PORT = 12345\nSERVER_IP = server\nSERVER_LISTEN_BACKLOG = 5\nLOGGING_LEVEL = INFO\n",
            &[],
        )
        .unwrap();
        assert_eq!(config.ignored_host.as_deref(), Some("server"));
        assert_eq!((config.ip, config.listen_backlog), (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 5));
    }

    #[test]
    fn the_environment_overrides_the_file_and_keys_ignore_case() {
        let file = "# a comment\n[default]\nserver_port: 1\nClients_Amount = 7\n[other]\nwhatever = 1\n";
        let config = server(file, &[("SERVER_PORT", "2")]).unwrap();
        assert_eq!((config.port, config.clients_amount), (2, 7));
    }

    #[test]
    fn a_bad_value_names_key_value_origin_and_what_is_allowed() {
        let text = server("[DEFAULT]\nSERVER_PORT = 99999\n", &[]).unwrap_err().to_string();
        assert!(text.starts_with("SERVER_PORT is \"99999\" (from /"), "{text}");
        assert!(text.contains("[DEFAULT]") && text.ends_with("a port from 0 to 65535"), "{text}");
        let text = server("", &[("CLIENT_TIMEOUT", "-1")]).unwrap_err().to_string();
        assert!(text.contains("environment variable CLIENT_TIMEOUT"), "{text}");
        for (key, value) in [
            ("SERVER_PORT", ""),
            ("SERVER_PORT", "+1"),
            ("SERVER_IP", "1.2.3"),
            ("SERVER_IP", ""),
            ("SERVER_IP", "a b"),
            ("CLIENTS_AMOUNT", "0"),
            ("CLIENTS_AMOUNT", "65536"),
            ("MAX_CLIENTS", "0"),
            ("CLIENT_TIMEOUT", "nan"),
            ("CLIENT_TIMEOUT", "inf"),
            ("CLIENT_TIMEOUT", "0"),
            ("LOGGING_LEVEL", "LOUD"),
            ("STORAGE_FILEPATH", ""),
            ("MAX_PAYLOAD", "0"),
            ("LOTTERY_WINNER_NUMBER", "4294967296"),
            ("SERVER_LISTEN_BACKLOG", "0"),
        ] {
            assert!(server("", &[(key, value)]).is_err(), "{key}={value:?}");
        }
    }

    #[test]
    fn a_broken_file_is_refused_in_one_line_that_says_where() {
        for (file, place) in [
            (&b"[DEFAULT]\nSERVER_PROT = 1\n"[..], "SERVER_PROT"),
            (b"\n[DEFAULT\n", "line 2"),
            (b"SERVER_PORT = 1\n", "line 1: \"SERVER_PORT = 1\" stands before"),
            (b"[DEFAULT]\n# a comment\nSERVER_PORT\n", "line 3: \"SERVER_PORT\" has no value"),
            (
                b"[DEFAULT]\nSERVER_PORT = 1\n\nserver_port : 2\n",
                "line 4: \"server_port : 2\" gives a key a second time",
            ),
            (b"[DEFAULT]\nSERVER_IP = \xff\n", "line 2: it is not UTF-8"),
        ] {
            let error = server(file, &[]).unwrap_err().to_string();
            assert!(
                !error.contains('\n') && error.contains("config.ini") && error.contains(place),
                "{error}"
            );
        }
    }

    #[test]
    fn a_mark_at_the_files_beginning_is_passed_over() {
        assert_eq!(server("\u{feff}[DEFAULT]\nSERVER_PORT = 1\n", &[]).unwrap().port, 1);
    }

    #[test]
    fn an_agency_needs_only_its_number() {
        let config = agency(&[("CLI_ID", "3")]).unwrap();
        assert_eq!(config.bets_file, Path::new("./agency-3.csv"));
        assert_eq!((config.batch_max_amount, config.protocol), (136, Protocol::Session));
        assert!(agency(&[]).unwrap_err().to_string().contains("CLI_ID"));
    }
}
