//! The configuration: `config.ini` in the current directory, each key overridden by an environment variable.
//!
//! Each setting stands once, in a table with its default, what is allowed and what it is for; the command line's
//! help is made of the same tables.

mod in_force;

use std::fmt;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use configparser::ini::{Ini, IniDefault};
use thiserror::Error;

pub use in_force::InForce;

use crate::logging::{Format, LOG_FORMAT, Level};
use crate::lottery::AgencyId;
use crate::lottery::agency_id::MAX_AGENCIES;
use crate::lottery::bet::parse_decimal;

/// The file that is read, from the current directory.
pub const CONFIG_FILE: &str = "config.ini";

/// One setting, as people see it.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name, in the file and in the environment.
    pub key: &'static str,
    /// Its value where nothing is said; empty where it must be said, or is off.
    pub default: &'static str,
    /// What values it takes.
    pub allowed: &'static str,
    /// What it is for.
    pub about: &'static str,
}

impl Setting {
    /// The environment variable that overrides it, where those of its section begin with `prefix`. That of the log's form
    /// is the same for all: it has to be known before it is known whose settings count.
    #[must_use]
    pub fn variable(&self, prefix: &str) -> String {
        if self.key == LOG_FORMAT { LOG_FORMAT.to_owned() } else { format!("{prefix}{}", self.key) }
    }
}

const fn setting(
    key: &'static str,
    default: &'static str,
    allowed: &'static str,
    about: &'static str,
) -> Setting {
    Setting { key, default, allowed, about }
}

const LEVEL_NAMES: &str = "DEBUG, INFO, WARNING, ERROR or CRITICAL";

const LOG_FORMAT_SETTING: Setting = setting(
    LOG_FORMAT,
    "text",
    "text or json",
    "the form of the log: lines of text, or a JSON object per line",
);

/// The settings of `loteria server`: section `[DEFAULT]`, and environment variables of the same names.
pub const SERVER_SETTINGS: &[Setting] = &[
    setting(
        "SERVER_IP",
        "0.0.0.0",
        "an IP address, or a host name for all addresses",
        "address to listen on",
    ),
    setting("SERVER_PORT", "12345", "a port from 0 to 65535", "port to listen on; 0 takes a free one"),
    setting(
        "SERVER_LISTEN_BACKLOG",
        "128",
        "a number from 1 to 65535",
        "connections that may wait to be accepted",
    ),
    setting("LOGGING_LEVEL", "INFO", LEVEL_NAMES, "the least level that is logged"),
    LOG_FORMAT_SETTING,
    setting("CLIENTS_AMOUNT", "5", "a number from 1 to 65535", "how many agencies take part: 1 to this"),
    setting(
        "STORAGE_FILEPATH",
        "./bets.csv",
        "a path",
        "the file of all bets; its state file stands beside it",
    ),
    setting("LOTTERY_WINNER_NUMBER", "7574", "a number from 0 to 4294967295", "the number that wins"),
    setting("MAX_CLIENTS", "1024", "a number from 1 to 1000000", "connections served at once; more wait"),
    setting(
        "CLIENT_TIMEOUT",
        "30",
        "seconds above 0, up to 86400, decimals allowed",
        "how long a client may stall",
    ),
    setting("MAX_PAYLOAD", "1048576", "bytes from 1 to 1073741824", "the longest message that is taken"),
    setting(
        "METRICS_ADDRESS",
        "",
        "HOST:PORT, or empty for none",
        "where Prometheus can scrape /metrics; none unless set",
    ),
];

/// The settings of `loteria agency`: section `[AGENCY]`, and environment variables with `CLI_` before the name. For
/// `LOG_FORMAT` see [`Setting::variable`].
pub const AGENCY_SETTINGS: &[Setting] = &[
    setting("ID", "", "an agency's number from 1 to 65535", "the agency's number; has to be given"),
    setting("SERVER_ADDRESS", "server:12345", "HOST:PORT", "where the server is"),
    setting(
        "LOOP_PERIOD",
        "5s",
        "a duration above 0 such as 5s, 200ms or 1m30s",
        "how often classic mode asks for the result",
    ),
    setting("LOG_LEVEL", "INFO", LEVEL_NAMES, "the least level that is logged"),
    LOG_FORMAT_SETTING,
    setting("BATCH_MAXAMOUNT", "136", "a number from 1 to 1000000", "the most bets in one message"),
    setting(
        "PROTOCOL",
        "session",
        "session or classic",
        "classic talks to a server that knows only the classic messages",
    ),
    setting(
        "BETS_FILE",
        "./agency-{id}.csv",
        "a path, {id} stands for the agency's number",
        "the bets: first name, last name, document, birthdate, number",
    ),
];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The environment variable of that name.
    Environment(String),
    /// That section of the file.
    File(PathBuf, &'static str),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::File(path, section) => write!(f, "{} [{section}]", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Why the configuration can't be used. One line, whatever it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A value that is not allowed.
    #[error("{key} is {value:?} (from {origin}), but must be {allowed}")]
    Value {
        /// The setting.
        key: String,
        /// What it was set to.
        value: String,
        /// By whom.
        origin: Origin,
        /// What would be allowed.
        allowed: String,
    },
    /// A key in the file that is none of ours.
    #[error("{key} = {value:?} in {origin} is no setting; the settings are {allowed}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// The file.
        origin: Origin,
        /// All that there are.
        allowed: String,
    },
    /// The file can't be read, or is no INI file.
    #[error("{}: {error}; allowed is an INI file, such as [DEFAULT] and below it SERVER_PORT = 12345", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
}

/// Raw values by key: from the environment first, else from the file, else the default.
struct Values {
    prefix: &'static str,
    settings: &'static [Setting],
    found: Vec<(String, Origin)>,
}

impl Values {
    fn load(
        path: &Path,
        section: &'static str,
        prefix: &'static str,
        settings: &'static [Setting],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let file = read_section(path, section, settings)?;
        let values = settings.iter().enumerate().map(|(index, setting)| {
            let name = setting.variable(prefix);
            if let Some(value) = environment(&name) {
                return (value, Origin::Environment(name));
            }
            match file.get(index).cloned().flatten() {
                Some(value) => (value, Origin::File(path.to_owned(), section)),
                None => (setting.default.to_owned(), Origin::Default),
            }
        });
        Ok(Self { prefix, settings, found: values.collect() })
    }

    /// The value of a setting, as `parse` understands it.
    fn get<T>(&self, key: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, ConfigError> {
        let found = self.settings.iter().zip(&self.found).find(|(setting, _)| setting.key == key);
        let (name, allowed, (value, origin)) = match found {
            Some((setting, value)) => (setting.variable(self.prefix), setting.allowed, value.clone()),
            None => (key.to_owned(), "a setting of the table", (String::new(), Origin::Default)),
        };
        parse(&value).ok_or_else(|| ConfigError::Value {
            key: name,
            value,
            origin,
            allowed: allowed.to_owned(),
        })
    }
}

const SERVER_SECTION: &str = "DEFAULT";
const AGENCY_SECTION: &str = "AGENCY";
const AGENCY_PREFIX: &str = "CLI_";

/// The values that a section of the file gives, in the order of the settings. A file that is not there gives none.
fn read_section(
    path: &Path,
    section: &'static str,
    settings: &[Setting],
) -> Result<Vec<Option<String>>, ConfigError> {
    let bad = |error: String| ConfigError::File { path: path.to_owned(), error };
    let mut values = vec![None; settings.len()];
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(values),
        Err(error) => return Err(bad(error.to_string())),
    };
    let mut parser = Ini::new_from_defaults(python_defaults());
    let sections = parser.read(text).map_err(bad)?;
    if sections.contains_key(NO_SECTION) {
        return Err(bad("a key stands before the first [SECTION]".to_owned()));
    }
    let Some(found) = sections.get(&section.to_ascii_lowercase()) else { return Ok(values) };
    for (key, value) in found {
        let value = value.clone().ok_or_else(|| bad(format!("{key:?} has no value")))?;
        let place = settings.iter().position(|setting| setting.key.eq_ignore_ascii_case(key));
        match place.and_then(|place| values.get_mut(place)) {
            Some(slot) => *slot = Some(value),
            None => {
                return Err(ConfigError::UnknownKey {
                    key: key.to_ascii_uppercase(),
                    value,
                    origin: Origin::File(path.to_owned(), section),
                    allowed: settings.iter().map(|setting| setting.key).collect::<Vec<_>>().join(", "),
                });
            }
        }
    }
    Ok(values)
}

/// No section can have this name: brackets end at the last `]`, and names are trimmed.
const NO_SECTION: &str = " before the first section ";

/// The INI dialect of Python's `configparser`, which the original's file is written in: comments only on lines of
/// their own.
fn python_defaults() -> IniDefault {
    let mut defaults = Ini::new().defaults();
    NO_SECTION.clone_into(&mut defaults.default_section);
    defaults.enable_inline_comments = false;
    defaults
}

fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

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
    /// Where the metrics are to be had, `HOST:PORT`, if they are.
    pub metrics_address: Option<String>,
}

impl ServerConfig {
    /// Reads `config.ini` and the environment.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load() -> Result<Self, ConfigError> {
        Self::load_from(Path::new(CONFIG_FILE), environment)
    }

    fn load_from(path: &Path, environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let values = Values::load(path, SERVER_SECTION, "", SERVER_SETTINGS, environment)?;
        let host = values.get("SERVER_IP", |text| {
            let ip = text.parse::<IpAddr>().ok();
            (ip.is_some() || is_host_name(text)).then(|| (ip, text.to_owned()))
        })?;
        Ok(Self {
            ip: host.0.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            ignored_host: if host.0.is_none() { Some(host.1) } else { None },
            port: values.get("SERVER_PORT", number(0, u16::MAX))?,
            listen_backlog: values.get("SERVER_LISTEN_BACKLOG", number(1, u16::MAX))?,
            logging_level: values.get("LOGGING_LEVEL", Level::from_name)?,
            log_format: values.get(LOG_FORMAT, Format::from_name)?,
            clients_amount: values.get("CLIENTS_AMOUNT", number(1, MAX_AGENCIES))?,
            storage_filepath: values.get("STORAGE_FILEPATH", path_of)?,
            winner_number: values.get("LOTTERY_WINNER_NUMBER", number(0, u32::MAX))?,
            max_clients: values.get("MAX_CLIENTS", number(1, 1_000_000))?,
            client_timeout: values.get("CLIENT_TIMEOUT", seconds)?,
            max_payload: values.get("MAX_PAYLOAD", number(1, 1 << 30))?,
            metrics_address: Some(values.get("METRICS_ADDRESS", address_or_empty)?)
                .filter(|address| !address.is_empty()),
        })
    }
}

/// How an agency talks to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// One connection, many batches in flight.
    Session,
    /// One connection per message, as the original.
    Classic,
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
        Self::load_from(Path::new(CONFIG_FILE), environment)
    }

    fn load_from(path: &Path, environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let values = Values::load(path, AGENCY_SECTION, AGENCY_PREFIX, AGENCY_SETTINGS, environment)?;
        let id = values.get("ID", |text| parse_decimal(text.as_bytes()).and_then(AgencyId::new))?;
        Ok(Self {
            id,
            server_address: values.get("SERVER_ADDRESS", host_and_port)?,
            loop_period: values.get("LOOP_PERIOD", go_duration)?,
            log_level: values.get("LOG_LEVEL", Level::from_name)?,
            log_format: values.get(LOG_FORMAT, Format::from_name)?,
            batch_max_amount: values.get("BATCH_MAXAMOUNT", number(1, 1_000_000))?,
            protocol: values.get("PROTOCOL", |text| match text {
                "session" => Some(Protocol::Session),
                "classic" => Some(Protocol::Classic),
                _ => None,
            })?,
            bets_file: values
                .get("BETS_FILE", path_of)?
                .to_string_lossy()
                .replace("{id}", &id.to_string())
                .into(),
        })
    }
}

/// The settings as a text for `--help`, a line each.
#[must_use]
pub fn help_of(settings: &[Setting], section: &str, prefix: &str) -> String {
    let mut text = format!(
        "Settings, from {CONFIG_FILE} in the current directory (section [{section}]), each overridden by the \
         environment variable of its name{}:\n",
        if prefix.is_empty() {
            String::new()
        } else {
            format!(" with {prefix} before it ({LOG_FORMAT} has none)")
        }
    );
    for Setting { key, default, allowed, about } in settings {
        let default = if default.is_empty() { String::new() } else { format!("; {default} unless set") };
        // Writing to a String cannot fail.
        write!(text, "\n  {key}\n          {about} ({allowed}{default})").unwrap_or_default();
    }
    text
}

fn number<T: TryFrom<u32> + PartialOrd>(least: T, most: T) -> impl FnOnce(&str) -> Option<T> {
    move |text| {
        let value = T::try_from(parse_decimal(text.as_bytes())?).ok()?;
        (value >= least && value <= most).then_some(value)
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let value: f64 = text.parse().ok()?;
    let duration = Duration::try_from_secs_f64(value).ok()?;
    (!duration.is_zero() && duration <= Duration::from_hours(24)).then_some(duration)
}

fn path_of(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
}

fn is_host_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    // A number with dots is an address that somebody mistyped.
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.contains(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(allowed)
}

/// An address to listen on, whose port may be 0; or none.
fn address_or_empty(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some(String::new());
    }
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = number(0, u16::MAX)(port)?;
    (!host.is_empty()).then(|| format!("{host}:{port}"))
}

/// The form of the log, for a command that has no other setting: that of the environment, else text.
///
/// # Errors
/// The variable can't be used.
pub fn log_format() -> Result<Format, ConfigError> {
    let Some(value) = environment(LOG_FORMAT) else { return Ok(Format::Text) };
    Format::from_name(&value).ok_or_else(|| ConfigError::Value {
        key: LOG_FORMAT.to_owned(),
        value,
        origin: Origin::Environment(LOG_FORMAT.to_owned()),
        allowed: LOG_FORMAT_SETTING.allowed.to_owned(),
    })
}

/// An address as the settings have it, `HOST:PORT`; none if it is not one.
#[must_use]
pub fn host_and_port(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = number(1, u16::MAX)(port)?;
    (!host.is_empty()).then(|| format!("{host}:{port}"))
}

/// A duration as Go's `time.ParseDuration` reads it, without a sign: decimal numbers, each with a unit.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, unit_on) = rest.split_at_checked(digits)?;
        let letters = unit_on.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit_on.len());
        let (unit, after) = unit_on.split_at_checked(letters)?;
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += value.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    Duration::try_from_secs_f64(total).ok().filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(file: &str, variables: &[(&str, &str)]) -> Result<ServerConfig, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CONFIG_FILE);
        std::fs::write(&path, file).unwrap();
        ServerConfig::load_from(&path, lookup(variables))
    }

    fn lookup<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    fn agency(variables: &[(&str, &str)]) -> Result<AgencyConfig, ConfigError> {
        AgencyConfig::load_from(Path::new("/nowhere/config.ini"), lookup(variables))
    }

    #[test]
    fn a_missing_file_gives_the_defaults() {
        let config = ServerConfig::load_from(Path::new("/nowhere/config.ini"), lookup(&[])).unwrap();
        assert_eq!((config.port, config.clients_amount, config.winner_number), (12345, 5, 7574));
        assert_eq!(config.client_timeout, Duration::from_secs(30));
        assert_eq!(config.ip, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }

    #[test]
    fn the_shipped_file_says_what_the_defaults_say() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join(CONFIG_FILE);
        let defaults = ServerConfig::load_from(Path::new("/nowhere"), lookup(&[])).unwrap();
        assert_eq!(ServerConfig::load_from(&shipped, lookup(&[])).unwrap(), defaults);
        AgencyConfig::load_from(&shipped, lookup(&[("CLI_ID", "1")])).unwrap();
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
            ("METRICS_ADDRESS", "9464"),
            ("METRICS_ADDRESS", ":9464"),
            ("METRICS_ADDRESS", "localhost:99999"),
        ] {
            assert!(server("", &[(key, value)]).is_err(), "{key}={value:?}");
        }
    }

    #[test]
    fn an_unknown_key_or_a_broken_file_is_refused_in_one_line() {
        for file in
            ["[DEFAULT]\nSERVER_PROT = 1\n", "[DEFAULT\n", "SERVER_PORT = 1\n", "[DEFAULT]\nSERVER_PORT\n"]
        {
            let error = server(file, &[]).unwrap_err().to_string();
            assert!(!error.contains('\n') && error.contains("config.ini"), "{error}");
        }
    }

    #[test]
    fn an_agency_needs_only_its_number() {
        let config = agency(&[("CLI_ID", "3")]).unwrap();
        assert_eq!(config.bets_file, Path::new("./agency-3.csv"));
        assert_eq!((config.batch_max_amount, config.protocol), (136, Protocol::Session));
        assert!(agency(&[]).unwrap_err().to_string().contains("CLI_ID"));
    }

    #[test]
    fn durations_are_those_of_go() {
        for (text, millis) in
            [("5s", 5000), ("200ms", 200), ("1m30s", 90_000), ("1.5h", 5_400_000), (".5s", 500)]
        {
            assert_eq!(go_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "5x", "-1s", "0s", "1.2.3s", "5 s"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }
}
